use super::*;
use crate::command::logs::dated::tests::at;

/// `second:text` words.
fn dated(text: &str) -> Vec<Line> {
    let line = |word: &str| {
        let (second, text) = word.split_once(':').unwrap();
        Line {
            at: Some(at(second.parse().unwrap())),
            text: text.to_owned(),
        }
    };
    text.split_whitespace().map(line).collect()
}

fn found(text: &str) -> Found {
    Found {
        lines: dated(text),
        whole: true,
        dated: true,
        now: Some(at(1000)),
        oldest: Some(at(0)),
        from: None,
    }
}

/// Words; with a `!` those of the agent.
fn live(text: &str) -> Vec<Heard> {
    let line = |word: &str| Heard {
        text: word.trim_start_matches('!').to_owned(),
        by_agent: word.starts_with('!'),
    };
    text.split_whitespace().map(line).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn expected(text: &str) -> Option<Expected> {
    let mut expected = Expected::new();
    for word in words(text) {
        *expected.entry(word).or_default() += 1;
    }
    Some(expected)
}

#[test]
fn what_a_device_held_comes_once_and_in_order_whenever_its_gate_opens() {
    let shown = words("498 499 500");
    let numbers = (499..=900)
        .map(|number| format!("990:{number} "))
        .collect::<String>();
    let (mut seam, step) = Seam::resume(&shown, Duration::from_secs(10), &found(&numbers), &[]);
    assert_eq!(step.show.len(), 400);
    assert_eq!((step.show[0].as_str(), step.unsure), ("501", false));
    // Its held output, in several messages, the first again from before the interruption.
    for message in ["499 500 501 502", "503 504 505", "899 900"] {
        assert_eq!(seam.look(&live(message), found("")), Step::default(), "{message}");
    }
    let step = seam.look(
        &live("901 902"),
        found("990:900 999:901 999:902 1000:903 1000:904"),
    );
    assert_eq!(step.show, words("901 902 903 904"));
    let mut still = step.over.unwrap();
    assert_eq!(Some(still.clone()), expected("903 904"));
    assert_eq!(take_expected(&mut still, live("!x 903")), (live("!x"), true));
    assert_eq!(take_expected(&mut still, live("904 905")), (live("905"), true));
    assert!(still.is_empty());
}

#[test]
fn lines_that_look_alike_are_counted_by_what_the_device_found() {
    let shown = vec!["tick".to_owned(); 100];
    let ticks = (970..1000)
        .map(|second| format!("{second}:tick "))
        .collect::<String>();
    let (mut seam, step) = Seam::resume(&shown, Duration::from_secs(20), &found(&ticks), &[]);
    // The clock says which of them were shown, and nobody can be sure.
    assert_eq!((step.show.len(), step.unsure), (19, true));
    for second in [1001, 1002] {
        let step = seam.look(&live("tick"), found(&format!("999:tick {second}:tick")));
        assert_eq!((step.show, step.unsure, step.over), (words("tick"), false, None));
    }
    // Held ones are among those.
    let step = seam.look(&live("tick tick tick"), found("1002:tick"));
    assert_eq!(step, Step::default());
    // The first that is like no other ends it.
    let step = seam.look(&live("tick end"), found("1002:tick 1003:tick 1004:end 1004:tick"));
    assert_eq!((step.show, step.over), (words("tick end tick"), expected("")));
}

#[test]
fn a_device_is_not_asked_for_ever_about_lines_that_look_alike() {
    let mut seam = Seam::after(&found("1:tick"));
    for second in 2..=ENOUGH + 1 {
        let step = seam.look(
            &live("tick"),
            found(&format!("{}:tick {second}:tick", second - 1)),
        );
        assert_eq!(step.show, words("tick"));
        let ends = second > ENOUGH;
        assert_eq!(step.over, ends.then(Expected::new), "{second}");
    }
}

#[test]
fn a_gap_is_said_when_nothing_shown_is_found() {
    let shown = words("a b");
    for (ago, lines, oldest, sure) in [
        // Printed since.
        (10, "995:x 996:y", 0, true),
        (10, "", 0, true),
        // Before the last that was shown, and not shown.
        (10, "980:x 996:y", 0, false),
        // Another container.
        (10, "995:x", 995, false),
    ] {
        let found = Found {
            oldest: Some(at(oldest)),
            ..found(lines)
        };
        let (_, step) = Seam::resume(&shown, Duration::from_secs(ago), &found, &[]);
        assert_eq!(step.show.len(), found.lines.len(), "all of them: {lines}");
        assert_eq!(!step.unsure, sure, "{lines}");
    }
    let some = Found {
        whole: false,
        ..found("995:x")
    };
    assert!(
        Seam::resume(&shown, Duration::from_secs(10), &some, &[]).1.unsure,
        "more than is read back"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_says_is_in_no_log_and_shown_once() {
    let history = words("Starting a b");
    let (mut seam, step) = Seam::begin(history.clone(), &found("1:a 2:b 3:c"));
    assert_eq!((step.show, step.unsure), (words("c"), false));
    let step = seam.look(&live("!Starting b c !Stopping pulling"), found("3:c"));
    assert_eq!((step.show, step.over), (words("Stopping pulling"), None));
    let (mut seam, _) = Seam::begin(history, &found("1:a 2:b"));
    tokio::time::advance(BATCH).await;
    assert_eq!(
        seam.look(&live("!Starting"), found("")).show,
        words("Starting"),
        "once more"
    );
}

#[test]
fn services_of_a_project_may_come_in_another_order() {
    let mut seam = Seam::after(&found("1:w1 2:d1"));
    let step = seam.look(&live("d2 w2"), found("2:d1 3:w2 4:d2 5:w3 6:d3"));
    assert_eq!(step.show, words("w2 d2 w3 d3"));
    let mut still = step.over.unwrap();
    assert_eq!(take_expected(&mut still, live("d3 d4")), (live("d4"), true));
    assert_eq!(take_expected(&mut still, live("w3")), (live(""), true));
    assert_eq!(take_expected(&mut still, live("w4")), (live("w4"), false));
}

#[test]
fn what_the_agent_says_of_a_gap_is_shown_unless_the_gap_was_filled() {
    let gap = "… 7 log line(s) dropped (no connection)";
    let heard = [Heard {
        text: gap.to_owned(),
        by_agent: false,
    }];
    for whole in [true, false] {
        let all = Found {
            whole,
            ..found("999:b 999:c")
        };
        let (mut seam, step) = Seam::resume(&words("b"), Duration::from_secs(1), &all, &[]);
        assert_eq!(step.unsure, !whole);
        let shown = seam.look(&heard, found("999:c")).show;
        assert_eq!(shown.contains(&gap.to_owned()), !whole, "{shown:?}");
    }
}

#[test]
fn so_many_lines_that_asking_does_not_keep_pace_end_it() {
    let mut seam = Seam::after(&found("1:t 1:t"));
    let some = Found {
        whole: false,
        ..found("2:t 2:t 2:t")
    };
    let step = seam.look(&live("t"), some);
    assert_eq!(
        (step.show, step.unsure, step.over),
        (words("t t t"), true, expected("t t"))
    );
}

#[test]
fn what_a_quiet_app_printed_long_ago_is_not_shown_again() {
    let (mut seam, step) = Seam::resume(&words("old"), Duration::from_secs(60), &found(""), &[]);
    assert_eq!((step.show, step.unsure), (words(""), false));
    assert_eq!(
        seam.since(),
        Some(at(999).to_string()),
        "up to now there is nothing"
    );
    assert_eq!(seam.look(&[], found("10:old")), Step::default());
    assert_eq!(seam.look(&live("new"), found("1001:new")).show, words("new"));
    let late = Found {
        from: Some(at(1000)),
        ..found("")
    };
    assert_eq!(
        Seam::after(&late).since(),
        Some(at(1000).to_string()),
        "not before it"
    );
}

#[test]
fn an_app_that_was_started_anew_and_says_the_same_again_is_heard() {
    let shown = words("boot ready");
    let anew = Found {
        oldest: Some(at(980)),
        ..found("980:boot 981:ready")
    };
    let (_, step) = Seam::resume(&shown, Duration::from_secs(60), &anew, &[]);
    assert_eq!((step.show, step.unsure), (words("boot ready"), true));
    let (_, step) = Seam::resume(&shown, Duration::from_secs(20), &found("979:boot 980:ready"), &[]);
    assert_eq!((step.show, step.unsure), (words(""), false), "it was shown then");
}

#[test]
fn newest_lines_that_the_history_does_not_reach_are_shown() {
    let part = Found {
        whole: false,
        ..found("7:g 8:h")
    };
    let (_, step) = Seam::begin(words("a b"), &part);
    assert_eq!((step.show, step.unsure), (words("g h"), true));
    let (_, step) = Seam::begin(words("Starting"), &found("7:g 8:h"));
    assert_eq!((step.show, step.unsure), (words("g h"), false), "these are all");
    let (_, step) = Seam::begin(Vec::new(), &part);
    assert_eq!((step.show, step.unsure), (words("g h"), false));
}

#[test]
fn what_the_agent_said_meanwhile_stands_where_it_said_it() {
    let history = words("a b exited started c d");
    let all = found("980:a 981:b 995:c 996:d");
    let (_, step) = Seam::resume(&words("a b"), Duration::from_secs(10), &all, &history);
    assert_eq!((step.show, step.unsure), (words("exited started c d"), false));
    let (_, step) = Seam::resume(&words("x"), Duration::from_secs(10), &found(""), &words("exited"));
    assert_eq!(step.show, words("exited"));
    assert_eq!(since(&all, &words("z b exited c d")), words("a b exited c d"));

    let mut seam = Seam::after(&found("1:a"));
    let step = seam.look(&live("panic !exited"), found("2:panic 3:boot"));
    assert_eq!(step.show, words("panic exited boot"));
}

#[test]
fn live_lines_are_shown_while_the_device_cannot_be_asked_and_not_once_more() {
    let mut seam = Seam::after(&found("1:a"));
    assert_eq!(seam.ahead(&live("a b !exited c")), words("b exited c"));
    let gap = vec!["… 7 log line(s) dropped (no connection)".to_owned()];
    let heard = Heard {
        text: gap[0].clone(),
        by_agent: false,
    };
    assert_eq!(seam.ahead(&[heard]), gap, "nothing fills it now");
    let step = seam.look(&live("d"), found("2:b 3:c 4:d 5:e"));
    assert_eq!((step.show, step.over), (words("d e"), expected("e")));
}

#[test]
fn lines_are_new_by_their_place_also_when_a_clock_was_set_back() {
    let mut seam = Seam::after(&found("5:a 9:b 3:c"));
    let step = seam.look(&live("d"), found("5:a 9:b 3:c 4:d"));
    assert_eq!(step.show, words("d"));
}
