use std::fs;
use std::path::PathBuf;

use super::*;

/// A directory with log files, oldest backup first, the active file last.
fn log(files: &[&str]) -> (tempfile::TempDir, LogPlace) {
    let directory = tempfile::tempdir().unwrap();
    let (active, backups) = files.split_last().unwrap();
    for (number, text) in backups.iter().enumerate() {
        let name = format!("reagent-2026-08-0{}T00-00-00.000.log", number + 1);
        fs::write(directory.path().join(name), text).unwrap();
    }
    fs::write(directory.path().join("reagent.log"), active).unwrap();
    fs::write(directory.path().join("reagent-notes.log"), "not a backup").unwrap();
    let place = place(directory.path().join("reagent.log"));
    (directory, place)
}

fn place(file: PathBuf) -> LogPlace {
    LogPlace {
        file,
        backup_prefix: "reagent-".to_owned(),
        extension: ".log".to_owned(),
    }
}

fn line(time: &str, level: &str, message: &str) -> String {
    format!("{{\"level\":\"{level}\",\"time\":\"{time}\",\"caller\":\"x.go:1\",\"message\":\"{message}\"}}\n")
}

fn query() -> Query {
    Query {
        tail: 300,
        since: None,
        until: None,
        severity: Severity::Info,
    }
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

#[test]
fn lines_are_shown_for_people_from_the_level_on() {
    let text = [
        line("2026-08-04T11:04:00+02:00", "debug", "too much"),
        line("2026-08-04T11:04:00+02:00", "info", "connected"),
        "{\"level\":\"error\",\"time\":\"2026-08-04T09:05:00Z\",\"message\":\"failed to pull image\",\"error\":\"unauthorized\",\"stack\":\"…\"}\n"
            .to_owned(),
        "{\"message\":\"bare\"}\n".to_owned(),
        line("2026-08-04T09:06:00Z", "weird", "counts as info"),
    ]
    .concat();
    let (_directory, place) = log(&[&text]);
    let answer = run(&place, &query()).unwrap();
    assert_eq!(
        answer.lines,
        [
            "2026-08-04T09:04:00Z INFO connected",
            "2026-08-04T09:05:00Z ERROR failed to pull image: unauthorized",
            "bare",
            "2026-08-04T09:06:00Z WEIRD counts as info",
        ]
    );
    assert_eq!((answer.truncated, answer.files_scanned), (false, 1));
    assert_eq!(answer.oldest_available, at("2026-08-04T09:04:00Z"));
    let errors = Query {
        severity: Severity::of(" Error "),
        ..query()
    };
    assert_eq!(run(&place, &errors).unwrap().lines.len(), 1);
    let all = Query {
        severity: Severity::Trace,
        ..query()
    };
    assert_eq!(run(&place, &all).unwrap().lines.len(), 5);
}

#[test]
fn what_is_not_a_log_line_goes_with_the_line_before() {
    let text = [
        "begin of file\n".to_owned(),
        line("2026-08-04T09:00:00Z", "error", "panic"),
        "goroutine 1\n\n\tmain.go:5\r\n".to_owned(),
        line("2026-08-04T10:00:00Z", "debug", "later"),
        "of the debug line".to_owned(),
    ]
    .concat();
    let (_directory, place) = log(&[&text]);
    let window = Query {
        since: at("2026-08-04T09:00:00Z"),
        until: at("2026-08-04T09:00:00Z"),
        ..query()
    };
    let entry = ["2026-08-04T09:00:00Z ERROR panic", "goroutine 1", "\tmain.go:5"];
    assert_eq!(
        run(&place, &window).unwrap().lines,
        [&["begin of file"], &entry[..]].concat(),
        "undated lines are in every window"
    );
}

#[test]
fn a_trace_that_is_longer_than_the_answer_has_the_rank_and_time_of_its_line() {
    let trace = |word: &str| -> String { (0..400).map(|frame| format!("{word} {frame}\n")).collect() };
    let text = [
        line("2026-08-04T09:00:00Z", "error", "panic"),
        trace("frame"),
        line("2026-08-04T10:00:00Z", "debug", "dump"),
        trace("byte"),
        line("2026-08-04T11:00:00Z", "info", "later"),
    ]
    .concat();
    let (_directory, place) = log(&[&text]);
    let ask = |tail, severity| {
        let query = Query {
            tail,
            severity,
            ..query()
        };
        run(&place, &query).unwrap()
    };
    let answer = ask(3, Severity::Error);
    assert_eq!(answer.lines, ["frame 397", "frame 398", "frame 399"]);
    assert!(answer.truncated);
    let answer = ask(401, Severity::Error);
    assert_eq!((answer.lines.len(), answer.truncated), (401, false));
    assert_eq!(answer.lines[0], "2026-08-04T09:00:00Z ERROR panic");
    let answer = ask(4, Severity::Info);
    let newest = [
        "frame 397",
        "frame 398",
        "frame 399",
        "2026-08-04T11:00:00Z INFO later",
    ];
    assert_eq!(answer.lines, newest, "the dump is of no interest");
    let window = Query {
        tail: 3,
        since: at("2026-08-04T10:30:00Z"),
        severity: Severity::Trace,
        ..query()
    };
    let answer = run(&place, &window).unwrap();
    assert_eq!(answer.lines, ["2026-08-04T11:00:00Z INFO later"]);
    assert!(!answer.truncated);
}

#[test]
fn a_trace_that_is_larger_than_an_answer_may_be_ends_without_a_hole() {
    let text = [
        line("2026-08-04T09:00:00Z", "error", "panic"),
        format!("{}\n", "x".repeat(1 << 10)).repeat((2 * ANSWER) >> 10),
    ]
    .concat();
    let (_directory, place) = log(&[&text]);
    let errors = Query {
        tail: 1 << 20,
        severity: Severity::Error,
        ..query()
    };
    let answer = run(&place, &errors).unwrap();
    let size: usize = answer.lines.iter().map(|line| line.len() + 1).sum();
    assert!(size <= ANSWER && size > ANSWER - (2 << 10), "{size}");
    assert!(answer.truncated && answer.lines.iter().all(|line| line.starts_with("xx")));
}

#[test]
fn rotated_files_come_first_and_the_newest_lines_stay() {
    let day = |day: u32| -> String {
        (0..10)
            .map(|minute| {
                line(
                    &format!("2026-08-0{day}T09:0{minute}:00Z"),
                    "info",
                    &format!("{day}.{minute}"),
                )
            })
            .collect()
    };
    let (_directory, place) = log(&[&day(1), &day(2), &day(3)]);
    let answer = run(&place, &query()).unwrap();
    assert_eq!((answer.lines.len(), answer.files_scanned), (30, 3));
    assert!(answer.lines.is_sorted());
    assert!(!answer.truncated);
    let few = Query { tail: 12, ..query() };
    let answer = run(&place, &few).unwrap();
    assert_eq!((answer.lines.len(), answer.truncated), (12, true));
    assert!(answer.lines[0].ends_with("2.8") && answer.lines[11].ends_with("3.9"));
    assert_eq!(answer.oldest_available, at("2026-08-01T09:00:00Z"));
    let empty = Query {
        until: at("2026-07-01T00:00:00Z"),
        ..query()
    };
    let answer = run(&place, &empty).unwrap();
    assert!(answer.lines.is_empty() && !answer.truncated);
    assert_eq!(answer.oldest_available, at("2026-08-01T09:00:00Z"));
}

#[test]
fn without_any_file_the_reason_is_the_answer_and_backups_alone_are_enough() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path().join("reagent.log"));
    let error = run(&place, &query()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let backup = directory.path().join("reagent-2026-08-01T00-00-00.000.log");
    fs::write(backup, line("2026-08-01T00:00:00Z", "info", "old")).unwrap();
    assert_eq!(
        run(&place, &query()).unwrap().lines,
        ["2026-08-01T00:00:00Z INFO old"]
    );
}

#[test]
fn long_lines_are_cut_and_do_not_end_the_file() {
    let long = "ü".repeat(LONGEST);
    let text = [
        line("2026-08-04T09:00:00Z", "info", "before"),
        format!("{long}\n"),
        line("2026-08-04T09:01:00Z", "info", "after"),
    ]
    .concat();
    let (_directory, place) = log(&[&text]);
    let answer = run(&place, &query()).unwrap();
    assert!(answer.lines.first().unwrap().ends_with("before"));
    assert!(answer.lines.last().unwrap().ends_with("after"));
    let between = &answer.lines[1..answer.lines.len() - 1];
    assert!(between.len() > 1);
    assert!(between.iter().all(|piece| piece.len() <= LONGEST + 2 * BLOCK));
}

#[test]
fn an_answer_has_a_size_and_a_large_log_is_read_from_its_end() {
    let text: String = (0..90_000)
        .map(|number| {
            line(
                "2026-08-04T09:00:00Z",
                "info",
                &format!("{number} {}", "x".repeat(900)),
            )
        })
        .collect();
    assert!(text.len() as u64 > BUDGET);
    let (_directory, place) = log(&[&text]);
    let many = Query {
        tail: 5000,
        ..query()
    };
    let answer = run(&place, &many).unwrap();
    assert!(answer.truncated);
    let size: usize = answer.lines.iter().map(|line| line.len() + 1).sum();
    assert!(size <= ANSWER && size > ANSWER - 1000, "{size}");
    assert!(answer.lines.last().unwrap().contains("INFO 89999 "));
    // Nothing matches: the search ends although the file does not.
    let errors = Query {
        severity: Severity::Error,
        ..query()
    };
    let answer = run(&place, &errors).unwrap();
    assert!(answer.lines.is_empty() && answer.truncated);
}

#[test]
fn where_blocks_end_makes_no_difference() {
    // Lines of lengths that put line ends before, at and behind the ends of blocks.
    for extra in 0..40 {
        let text: String = (0..700)
            .map(|number| {
                line(
                    "2026-08-04T09:00:00Z",
                    "info",
                    &format!("{number:04} {}", "x".repeat(100 + extra)),
                )
            })
            .collect();
        let (_directory, place) = log(&[&text]);
        let all = Query {
            tail: 5000,
            ..query()
        };
        let answer = run(&place, &all).unwrap();
        assert_eq!(answer.lines.len(), 700);
        assert!(answer.lines.is_sorted());
    }
}
