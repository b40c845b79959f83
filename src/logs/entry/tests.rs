//! One topic, without session and store.

use std::path::Path;

use protocol::{AppId, Stage};

use super::super::batch::Cause;
use super::*;

fn entry(audience: Audience) -> Entry {
    let app = AppId {
        key: 1,
        stage: Stage::Prod,
    };
    Entry::new(Container::new(app, "x"), Ring::default(), audience)
}

fn spools(directory: &Path) -> Spools {
    Spools::in_directory(Some(directory.to_owned()))
}

fn line(number: usize, size: usize) -> Chunk {
    Chunk::line(format!("{number} {}", "x".repeat(size)))
}

/// Publishes all that may be.
fn publish(entry: &mut Entry) -> Vec<String> {
    let mut said = Vec::new();
    while entry.ready(Instant::now()).is_some() {
        match entry.take() {
            Some(Message::Output(items)) => {
                said.extend(Message::text(&items).split('\n').map(str::to_owned));
            }
            Some(Message::Agent(line)) => said.push(format!("[{line}]")),
            None => break,
        }
        entry.sent(None);
    }
    said
}

#[tokio::test(start_paused = true)]
async fn output_waits_for_company_and_agent_lines_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let spools = spools(directory.path());
    let mut entry = entry(Audience::Listening);
    entry.output(line(1, 0), &spools);
    assert_eq!(publish(&mut entry), [""; 0]);
    assert_eq!(
        entry.deadlines(false).min(),
        None,
        "without a link nothing is due"
    );
    tokio::time::advance(FLUSH).await;
    assert_eq!(publish(&mut entry), ["1 "]);
    entry.agent_line("hello".to_owned(), true, &spools);
    assert_eq!(publish(&mut entry), ["[hello]"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_filled_from_memory_and_spool_and_what_is_missing_is_said_behind_them() {
    let directory = tempfile::tempdir().unwrap();
    let spools = spools(directory.path());
    let mut entry = entry(Audience::Listening);
    entry.unlinked();
    for number in 0..200 {
        entry.output(line(number, 60 << 10), &spools);
    }
    assert!(entry.batch.bytes() < HELD + (64 << 10), "memory is bounded");
    assert_eq!(publish(&mut entry), [""; 0]);
    entry.listened();
    // Comes while the old lines are not through.
    entry.output(line(200, 0), &spools);
    let said = publish(&mut entry);
    let numbers: Vec<usize> = said
        .iter()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect();
    let kept = numbers.len();
    assert_eq!(numbers, (0..kept).collect::<Vec<_>>());
    assert!(kept > 100, "{kept}");
    assert_eq!(
        said.last().map(String::as_str),
        Some(format!("… {} log line(s) dropped (no connection)", 201 - kept).as_str())
    );
    assert!(entry.spool.is_none());
    entry.output(line(201, 0), &spools);
    tokio::time::advance(FLUSH).await;
    assert_eq!(publish(&mut entry), ["201 "]);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_come_back_is_waited_for_only_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let spools = spools(directory.path());
    let mut entry = entry(Audience::Listening);
    entry.unlinked();
    entry.output(line(1, 0), &spools);
    entry.not_listened();
    assert_eq!(entry.audience, Audience::Grace(Instant::now() + GRACE));
    entry.not_listened();
    assert!(
        !entry.is_abandoned(Instant::now()),
        "asking again does not end it"
    );
    entry.unlinked();
    entry.not_listened();
    tokio::time::advance(GRACE).await;
    assert!(entry.is_abandoned(Instant::now()));
    entry.agent_line("kept".to_owned(), true, &spools);
    entry.not_listened();
    assert_eq!(entry.audience, Audience::Nobody);
    assert_eq!(publish(&mut entry), ["[kept]"]);
}

#[tokio::test(start_paused = true)]
async fn listeners_who_leave_with_the_router_get_their_lines_and_those_who_just_leave_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let spools = spools(directory.path());
    let mut entry = entry(Audience::Listening);
    entry.output(line(1, 0), &spools);
    // The router says so, then GOODBYE.
    entry.not_listened();
    entry.output(line(2, 0), &spools);
    entry.unlinked();
    entry.listened();
    tokio::time::advance(FLUSH).await;
    assert_eq!(publish(&mut entry), ["1 ", "2 "]);

    entry.output(line(3, 0), &spools);
    entry.not_listened();
    entry.listened();
    entry.output(line(4, 0), &spools);
    tokio::time::advance(FLUSH).await;
    assert_eq!(publish(&mut entry), ["4 "], "another listener");

    entry.not_listened();
    entry.output(line(5, 0), &spools);
    assert_eq!(entry.deadlines(true).min(), Some(Instant::now() + PARTING));
    tokio::time::advance(PARTING).await;
    assert!(entry.is_abandoned(Instant::now()));
    entry.not_listened();
    assert_eq!((entry.audience, entry.batch.bytes()), (Audience::Nobody, 0));
}

#[tokio::test(start_paused = true)]
async fn while_the_router_is_asked_lines_wait_as_without_a_link_and_agent_lines_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let spools = spools(directory.path());
    let mut entry = entry(Audience::Nobody);
    let fill = |entry: &mut Entry| {
        entry.asked();
        for number in 0..200 {
            entry.output(line(number, 60 << 10), &spools);
        }
        assert!(entry.batch.bytes() < HELD + (64 << 10), "memory is bounded");
    };
    fill(&mut entry);
    entry.agent_line("behind them".to_owned(), true, &spools);
    entry.not_listened();
    assert_eq!(entry.audience, Audience::Nobody);
    assert!(entry.spool.is_none() && entry.batch.bytes() == 0);

    entry.asked();
    entry.agent_line("Starting".to_owned(), true, &spools);
    for number in 0..10 {
        entry.output(line(number, 60 << 10), &spools);
    }
    entry.agent_line("Started".to_owned(), true, &spools);
    entry.not_listened();
    assert_eq!(publish(&mut entry), ["[Starting]", "[Started]"]);

    fill(&mut entry);
    entry.listened();
    let said = publish(&mut entry);
    let gap = format!("… {} log line(s) dropped (no connection)", 201 - said.len());
    assert_eq!(said.last(), Some(&gap));
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_said_by_itself_and_later_each_time_that_it_is_refused() {
    let mut entry = entry(Audience::Listening);
    let say_after = |entry: &mut Entry| {
        let now = Instant::now();
        entry.has_lost();
        let at = entry.deadlines(true).min().unwrap();
        entry.has_lost();
        assert_eq!(
            entry.deadlines(true).min(),
            Some(at),
            "more of it changes nothing"
        );
        assert!(!entry.is_to_say_what_is_lost(now) && entry.is_to_say_what_is_lost(at));
        assert_eq!(entry.deadlines(true).min(), None);
        at - now
    };
    assert_eq!(say_after(&mut entry), FIRST_SAYING);
    entry.is_refused();
    assert_eq!(say_after(&mut entry), FIRST_SAYING * 2);
    (0..10).for_each(|_| entry.is_refused());
    assert_eq!(say_after(&mut entry), LATEST_SAYING);
    entry.is_wanted();
    assert_eq!(say_after(&mut entry), FIRST_SAYING);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_back_is_the_next_one_again() {
    let directory = tempfile::tempdir().unwrap();
    let spools = spools(directory.path());
    let mut entry = entry(Audience::Listening);
    entry.output(line(1, MESSAGE), &spools);
    let message = entry.take();
    assert!(message.is_some() && entry.ready(Instant::now()).is_none());
    entry.output(line(2, 0), &spools);
    entry.unlinked();
    entry.sent(message);
    entry.listened();
    let said = publish(&mut entry);
    assert!(said[0].starts_with("1 x") && said[1] == "2 ", "in order");
}

#[tokio::test(start_paused = true)]
async fn for_nobody_only_agent_lines_wait() {
    let directory = tempfile::tempdir().unwrap();
    let spools = spools(directory.path());
    let mut entry = entry(Audience::Nobody);
    entry.output(line(1, 0), &spools);
    let gap = Item::Gap {
        lines: 1,
        cause: Cause::Rate,
    };
    entry.gaps([gap, Item::Rotated], &spools);
    entry.agent_line("no link".to_owned(), false, &spools);
    assert_eq!(publish(&mut entry), [""; 0]);
    entry.asked();
    entry.output(line(2, 0), &spools);
    entry.agent_line("waits its turn".to_owned(), true, &spools);
    entry.not_listened();
    assert_eq!(publish(&mut entry), ["[waits its turn]"]);
}
