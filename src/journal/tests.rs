use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::*;

fn settings(words: &[&str]) -> Settings {
    let words = ["-config", "x"].iter().chain(words).map(|&word| word.to_owned());
    crate::cli::settings(words).unwrap()
}

fn place(path: &Path) -> LogPlace {
    LogPlace::of(&settings(&[
        "-agentDir=/none",
        "-logFile",
        path.to_str().unwrap(),
    ]))
    .0
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Logs with `words` as flags and gives back what is in the file.
fn logged(words: &[&str], log: impl FnOnce()) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reagent.log");
    let file = LogFile::open(place(&path));
    tracing::subscriber::with_default(subscriber(&settings(words), file), log);
    lines(&path)
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] std::io::Error);

#[test]
fn a_line_has_the_members_that_readers_look_for() {
    let found = logged(&[], || {
        let error = Outer(std::io::Error::other("inner"));
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error, count = 3_u64, share = 0.5, on = true, time = "mine", who = %"a b", "it \"broke\"\n");
    });
    let line = found[0].as_object().unwrap();
    assert_eq!(
        line.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "level", "time", "caller", "message", "error", "count", "share", "on", "time_", "who"
        ]
    );
    assert_eq!(line["level"], "error");
    assert_eq!(line["message"], "it \"broke\"\n");
    assert_eq!(line["error"], "outer: inner");
    assert_eq!(
        (&line["count"], &line["share"], &line["on"]),
        (&json!(3), &json!(0.5), &json!(true))
    );
    assert_eq!((&line["time_"], &line["who"]), (&json!("mine"), &json!("a b")));
    assert!(
        line["caller"].as_str().unwrap().contains("src/journal/tests.rs:"),
        "{line:?}"
    );
    let time = line["time"].as_str().unwrap();
    assert_eq!(time.len(), if time.ends_with('Z') { 20 } else { 25 }, "{time}");
    time.parse::<jiff::Timestamp>().unwrap();
}

#[test]
fn the_offset_is_written_as_the_reference_writes_it() {
    let moment: jiff::Timestamp = "2026-08-14T08:00:00Z".parse().unwrap();
    for (hours, expected) in [(0, "2026-08-14T08:00:00Z"), (2, "2026-08-14T10:00:00+02:00")] {
        let at = moment.to_zoned(TimeZone::fixed(jiff::tz::offset(hours)));
        let line: Value = serde_json::from_slice(&Line::of_loss(2, &at).to_json()).unwrap();
        assert_eq!(line["time"], expected);
        assert_eq!(line["lost"], 2);
    }
}

#[test]
fn the_console_format_is_time_level_message_and_fields() {
    let at: jiff::Zoned = "2026-08-14T10:00:00+02:00[+02:00]".parse().unwrap();
    assert_eq!(
        Line::of_loss(2, &at).to_console(),
        "2026-08-14 10:00:00 WARN  log lines were lost: the log file could not be written lost=2"
    );
}

#[test]
fn the_level_follows_the_flags() {
    let all = || {
        tracing::error!("error");
        tracing::info!("info");
        tracing::debug!("debug");
        tracing::trace!("trace");
        tracing::debug!(target: "wamp::client", "frame");
        tracing::info!(target: "wamp::client", "joined");
        tracing::info!(target: "some_library", "chatter");
        tracing::warn!(target: "some_library", "trouble");
        tracing::info!(target: START_UP, "Connected!");
    };
    let messages = |words: &[&str]| -> Vec<String> {
        logged(words, all)
            .iter()
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        messages(&[]),
        ["error", "info", "debug", "joined", "trouble", "Connected!"]
    );
    assert_eq!(
        messages(&["-debugMessaging"]),
        [
            "error",
            "info",
            "debug",
            "frame",
            "joined",
            "trouble",
            "Connected!"
        ]
    );
    let quiet = ["error", "info", "joined", "trouble", "Connected!"];
    assert_eq!(messages(&["-debug=false"]), quiet);
    assert_eq!(messages(&["-debug=false", "-debugMessaging"]), quiet);
}

#[test]
fn a_new_log_is_private_and_an_old_one_is_continued() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b/reagent.log");
    LogFile::open(place(&path)).append(b"{\"n\":1}\n");
    LogFile::open(place(&path)).append(b"{\"n\":2}\n");
    assert_eq!(lines(&path), [json!({"n": 1}), json!({"n": 2})]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o022, 0);
}

#[test]
fn a_full_log_becomes_a_backup_and_two_backups_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reagent.log");
    let place = place(&path);
    for old in [
        "reagent-2020-01-01T00-00-00.000.log",
        "reagent-2021-01-01T00-00-00.000.log",
    ] {
        fs::write(directory.path().join(old), "old").unwrap();
    }
    let strangers = [
        "reagent-notes.log",
        "reagent-2020-01-01T00-00-00.000.log.gz",
        "other-2020-01-01T00-00-00.000.log",
    ];
    for stranger in strangers {
        fs::write(directory.path().join(stranger), "not ours").unwrap();
    }
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();

    let mut log = LogFile::with_limit(place.clone(), 20);
    log.append(b"{\"n\":1}\n");
    log.append(b"{\"n\":2}\n");
    assert_eq!(place.backups().unwrap().len(), 2, "20 bytes hold two lines");
    log.append(b"{\"n\":3}\n");

    assert_eq!(lines(&path), [json!({"n": 3})]);
    assert_eq!(
        fs::metadata(&path).unwrap().mode() & 0o777,
        0o640,
        "the mode is kept"
    );
    let backups = place.backups().unwrap();
    assert_eq!(backups.len(), 2);
    assert_eq!(
        backups[0].file_name().unwrap(),
        "reagent-2021-01-01T00-00-00.000.log"
    );
    assert_eq!(lines(&backups[1]), [json!({"n": 1}), json!({"n": 2})]);
    for stranger in strangers {
        assert!(directory.path().join(stranger).exists(), "{stranger}");
    }
}

#[test]
fn a_line_longer_than_the_cap_is_written_whole_into_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reagent.log");
    let mut log = LogFile::with_limit(place(&path), 4);
    log.append(b"{\"n\":1}\n");
    assert_eq!(lines(&path), [json!({"n": 1})]);
}

#[test]
fn a_log_that_cannot_be_renamed_is_emptied_at_the_cap() {
    let directory = tempfile::tempdir().unwrap();
    // Just short enough for a file, too long for its backup.
    let path = directory.path().join("x".repeat(250));
    let mut log = LogFile::with_limit(place(&path), 20);
    for number in 1..=3 {
        log.append(format!("{{\"n\":{number}}}\n").as_bytes());
    }
    assert_eq!(lines(&path), [json!({"n": 3})]);
    assert!(place(&path).backups().unwrap().is_empty());
}

#[test]
fn a_log_that_somebody_took_away_begins_anew_at_the_cap() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reagent.log");
    let mut log = LogFile::with_limit(place(&path), 10);
    log.append(b"{\"n\":1}\n");
    fs::remove_file(&path).unwrap();
    log.append(b"{\"n\":2}\n");
    assert_eq!(lines(&path), [json!({"n": 2})]);
}

#[test]
fn a_full_disk_loses_lines_and_stops_nobody() {
    // Every write to this device fails with "no space left".
    let mut log = LogFile::open(place(Path::new("/dev/full")));
    log.append(b"{\"n\":1}\n");
    log.append(b"{\"n\":2}\n");
    assert_eq!(log.lost(), 2);
}

#[test]
fn lost_lines_are_counted_in_the_log_when_it_works_again() {
    let directory = tempfile::tempdir().unwrap();
    let parent = directory.path().join("logs");
    fs::write(&parent, "a file in the way").unwrap();
    let path = parent.join("reagent.log");
    let mut log = LogFile::open(place(&path));
    log.append(b"{\"n\":1}\n");
    log.append(b"{\"n\":2}\n");
    assert_eq!(log.lost(), 2);

    fs::remove_file(&parent).unwrap();
    log.forget_failure();
    log.append(b"{\"n\":3}\n");
    let found = lines(&path);
    assert_eq!(
        (&found[0]["level"], &found[0]["lost"]),
        (&json!("warn"), &json!(2))
    );
    assert_eq!(found[1], json!({"n": 3}));
    assert_eq!(log.lost(), 0);
}

#[test]
fn no_log_in_the_agent_directory_has_a_name_that_looks_like_an_agent() {
    let directory = tempfile::tempdir().unwrap();
    let agent_dir = directory.path().to_str().unwrap();
    let of = |file: &str| {
        LogPlace::of(&settings(&[
            "-agentDir",
            agent_dir,
            "-logFile",
            &format!("{agent_dir}/./{file}"),
        ]))
    };

    let (place, renamed) = of("reagent.log");
    assert!(!renamed);
    assert_eq!(place.file.file_name().unwrap(), "reagent.log");
    assert_eq!(
        (place.backup_prefix.as_str(), place.extension.as_str()),
        ("reagent_", ".log")
    );

    let (place, renamed) = of("my-reagent-1.log");
    assert!(renamed);
    assert_eq!(place.file.file_name().unwrap(), "my-reagent_1.log");
    assert_eq!(place.backup_prefix, "my-reagent_1-");

    let mut log = LogFile::with_limit(of("reagent.log").0, 10);
    log.append(b"{\"n\":1}\n");
    log.append(b"{\"n\":2}\n");
    assert_eq!(of("reagent.log").0.backups().unwrap().len(), 1);
    for entry in fs::read_dir(directory.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains("reagent-"), "{name}");
    }
}

#[test]
fn a_log_elsewhere_may_be_called_anything() {
    let (place, renamed) = LogPlace::of(&settings(&[
        "-agentDir=/opt/reagent",
        "-logFile=/var/log/reagent-1.log",
    ]));
    assert!(!renamed);
    assert_eq!(place.file, Path::new("/var/log/reagent-1.log"));
    assert_eq!(place.backup_prefix, "reagent-1-");
}

#[test]
fn a_masked_secret_shows_only_whether_it_is_there() {
    assert_eq!(
        format!("{} {:?}", Masked("hunter2"), Masked("")),
        "(masked) (empty)"
    );
}
