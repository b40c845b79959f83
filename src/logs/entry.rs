//! One log topic: its history, what waits to be published, and whether anybody waits for it.
//!
//! Lines wait while a listener is there or may come back: in memory, beyond that in a spool file while the link is
//! down, beyond that they are counted. Knows neither session nor store; the pipeline tells it the time.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Chunk, Item, MESSAGE, Message};
use super::pipeline::History;
use super::ring::Ring;
use super::spool::{Spool, Spools};
use super::{Container, Source};

/// Output waits so long for company (`logs-terminal-tunnel.md` 2.7).
const FLUSH: Duration = Duration::from_millis(200);
/// A changing history is saved so often: flash wears, and the container's own log holds the rest (L13).
const SAVE: Duration = Duration::from_secs(30);
/// After the link came back, viewers have this long to come back too.
const GRACE: Duration = Duration::from_secs(60);
/// The last listener of a router that stops leaves just before we do: lines wait until that is out of the question.
const PARTING: Duration = Duration::from_secs(2);
/// Output kept in memory while nobody can be told, bytes; what comes then goes to the spool.
const HELD: usize = 256 << 10;

/// Who gets output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// The router said so, or nobody asked it yet.
    Nobody,
    /// The router was asked and has not answered: lines wait.
    Asked,
    Listening,
    /// The listeners have left while the link seems to hold: lines wait for a moment, for those of the next link.
    Parting(Instant),
    /// Somebody listened when the link was lost, here or in an earlier run of the agent: lines wait.
    Held,
    /// The link is back, the listener not yet: lines wait until then.
    Grace(Instant),
}

/// Whether somebody follows containers for this topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Following {
    No,
    Yes,
    /// Asked for again meanwhile: the container may have been started anew.
    Again(Source),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) container: Container,
    pub(super) ring: Ring,
    pub(super) audience: Audience,
    batch: Batch,
    /// Behind the batch: what did not fit while the link was down.
    spool: Option<Spool>,
    /// A message is on its way; the next one waits for it, so that they arrive in order.
    sending: bool,
    /// When what waits is to be published.
    due: Option<Instant>,
    /// When the history is to be saved; `None` when the stored one is the same.
    pub(super) save_at: Option<Instant>,
    pub(super) following: Following,
    /// Cancelled: whoever follows reads what there is and ends.
    pub(super) finish: CancellationToken,
    /// Told when nobody follows any more.
    pub(super) waiting_for_end: Vec<oneshot::Sender<()>>,
    /// The lines that an earlier run stored are not in the ring yet; until then it is not saved.
    pub(super) awaits_stored: bool,
    /// Who asks for the history meanwhile, and until when they wait.
    pub(super) asking: Vec<oneshot::Sender<Option<History>>>,
    pub(super) answer_by: Option<Instant>,
    /// When the history was last cleared, nanoseconds since 1970.
    pub(super) cleared: Option<u64>,
    /// Containers whose lines came here.
    pub(super) sources: BTreeSet<String>,
}

impl Entry {
    pub(super) fn new(container: Container, ring: Ring, audience: Audience) -> Entry {
        Entry {
            container,
            ring,
            audience,
            batch: Batch::default(),
            spool: None,
            sending: false,
            due: None,
            save_at: None,
            following: Following::No,
            finish: CancellationToken::new(),
            waiting_for_end: Vec::new(),
            awaits_stored: false,
            asking: Vec::new(),
            answer_by: None,
            cleared: None,
            sources: BTreeSet::new(),
        }
    }

    /// The history is not the stored one any more.
    pub(super) fn changed(&mut self) {
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE);
    }

    /// Whether the history is to be saved, and can be.
    pub(super) fn is_to_be_saved(&self, now: Instant) -> bool {
        !self.awaits_stored && self.save_at.is_some_and(|at| at <= now)
    }

    /// The newest lines; `None` without any.
    pub(super) fn history(&self) -> Option<History> {
        let lines = self.ring.lines();
        (!lines.is_empty()).then(|| (lines, self.ring.has_output()))
    }

    /// Answers who asked for the history, with what is known of it.
    pub(super) fn answer(&mut self) {
        self.answer_by = None;
        for reply in std::mem::take(&mut self.asking) {
            // Nobody waits any more: the caller's deadline passed.
            let _ = reply.send(self.history());
        }
    }

    /// Tells who waited for it that all was read.
    pub(super) fn read_out(&mut self) {
        for waiting in self.waiting_for_end.drain(..) {
            // Its deadline may have passed.
            let _ = waiting.send(());
        }
    }

    /// Whether the listeners have just left.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self.audience, Audience::Parting(_))
    }

    /// Whether output waits for somebody, or is published.
    pub(super) fn keeps_output(&self) -> bool {
        self.audience != Audience::Nobody
    }

    fn waits_for_listeners(&self) -> bool {
        matches!(
            self.audience,
            Audience::Held | Audience::Grace(_) | Audience::Parting(_)
        )
    }

    /// Output that is not in the history yet or is there already.
    pub(super) fn output(&mut self, chunk: Chunk, spools: &Spools) {
        if self.keeps_output() {
            self.wait(Item::Output(chunk), spools);
            let soon = match self.batch.bytes() >= MESSAGE {
                true => Instant::now(),
                false => Instant::now() + FLUSH,
            };
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// A line of the agent's own: published while there is a link, whoever listens.
    pub(super) fn agent_line(&mut self, text: String, live: bool, spools: &Spools) {
        if live || self.keeps_output() {
            self.wait(Item::Agent(text), spools);
            self.due = Some(Instant::now());
        }
    }

    /// Lines that were lost before they came here.
    pub(super) fn gap(&mut self, gap: Item, spools: &Spools) {
        if self.keeps_output() && gap.lines() > 0 {
            self.wait(gap, spools);
        }
    }

    fn wait(&mut self, item: Item, spools: &Spools) {
        if let Some(spool) = &mut self.spool {
            spool.push(item);
        } else if self.waits_for_listeners() && self.batch.bytes() >= HELD {
            self.spool.insert(spools.open()).push(item);
        } else {
            self.batch.push(item);
        }
    }

    /// When this topic wants something to be done, with a link or without.
    pub(super) fn deadline(&self, live: bool) -> Option<Instant> {
        let publish = self.due.filter(|_| live && self.may_publish());
        let grace = match self.audience {
            Audience::Grace(until) | Audience::Parting(until) => Some(until),
            Audience::Nobody | Audience::Asked | Audience::Listening | Audience::Held => None,
        };
        [publish, grace, self.save_at, self.answer_by]
            .into_iter()
            .flatten()
            .min()
    }

    /// Since when a message is ready to be sent.
    pub(super) fn ready(&self, now: Instant) -> Option<Instant> {
        self.due.filter(|due| *due <= now && self.may_publish())
    }

    fn may_publish(&self) -> bool {
        !self.sending && (self.audience == Audience::Listening || self.batch.begins_with_agent_line())
    }

    /// The next message. Until [`Entry::sent`] there is no other.
    pub(super) fn take(&mut self) -> Option<Message> {
        let message = self.batch.take();
        self.refill();
        self.sending = message.is_some();
        // Behind the others, should more wait.
        self.due = (!self.batch.is_empty()).then(Instant::now);
        message
    }

    fn refill(&mut self) {
        while let Some(spool) = &mut self.spool
            && self.batch.bytes() < HELD
        {
            match spool.pop() {
                Some(item) => self.batch.push(item),
                None => self.spool = None,
            }
        }
    }

    /// The message on its way arrived, or comes back: to be sent again, or as the gap that it leaves.
    pub(super) fn sent(&mut self, back: Option<Message>) {
        self.sending = false;
        if let Some(message) = back
            && (self.keeps_output() || matches!(message, Message::Agent(_)))
        {
            self.batch.put_back(message);
            self.due = Some(Instant::now());
        }
    }

    /// The router was asked whether anybody listens.
    pub(super) fn asked(&mut self) {
        if self.audience == Audience::Nobody {
            self.audience = Audience::Asked;
        }
    }

    /// Somebody listens: what waited is due.
    pub(super) fn listened(&mut self) {
        if self.is_parting() {
            // The link holds, so this is somebody else.
            self.drop_output();
        }
        self.audience = Audience::Listening;
        if !self.batch.is_empty() {
            self.due.get_or_insert_with(Instant::now);
        }
    }

    /// Nobody listens, says the router.
    pub(super) fn not_listened(&mut self) {
        match self.audience {
            Audience::Held => self.audience = Audience::Grace(Instant::now() + GRACE),
            Audience::Listening => self.audience = Audience::Parting(Instant::now() + PARTING),
            Audience::Grace(until) | Audience::Parting(until) if Instant::now() < until => {}
            Audience::Grace(_) | Audience::Parting(_) | Audience::Nobody | Audience::Asked => {
                self.audience = Audience::Nobody;
                self.drop_output();
            }
        }
    }

    fn drop_output(&mut self) {
        self.spool = None;
        self.batch.drop_output();
    }

    /// Nobody came back in time.
    pub(super) fn is_abandoned(&self, now: Instant) -> bool {
        matches!(self.audience, Audience::Grace(until) | Audience::Parting(until) if until <= now)
    }

    /// The link is down.
    pub(super) fn unlinked(&mut self) {
        match self.audience {
            // Of those asked for somebody may have been there, or come with the next link.
            Audience::Asked
            | Audience::Listening
            | Audience::Parting(_)
            | Audience::Grace(_)
            | Audience::Held => self.audience = Audience::Held,
            Audience::Nobody => {
                self.batch.clear();
                self.due = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(entry.deadline(false), None, "without a link nothing is due");
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
        assert_eq!(entry.deadline(true), Some(Instant::now() + PARTING));
        tokio::time::advance(PARTING).await;
        assert!(entry.is_abandoned(Instant::now()));
        entry.not_listened();
        assert_eq!((entry.audience, entry.batch.bytes()), (Audience::Nobody, 0));
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
        entry.gap(
            Item::Gap {
                lines: 1,
                cause: Cause::Rate,
            },
            &spools,
        );
        entry.agent_line("no link".to_owned(), false, &spools);
        assert_eq!(publish(&mut entry), [""; 0]);
        entry.asked();
        entry.output(line(2, 0), &spools);
        entry.agent_line("waits its turn".to_owned(), true, &spools);
        entry.not_listened();
        assert_eq!(publish(&mut entry), ["[waits its turn]"]);
    }
}
