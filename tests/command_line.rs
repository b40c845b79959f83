//! The binary as other programs see it: outputs, exit codes, signals, files (`session-and-api.md` 1.4, 2, 3, 8.3).

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const HINT: &str = "'-config' argument is required. -help for usage\n";
const FIRST_LINE: &str = "Starting... Reagent initialization sequence (OOS: ";
const FLOCK: &str = r#"{"name": "gate", "secret": "hush-hush", "swarm_key": 42, "device_key": 7, "serial_number": "s-1",
 "device_endpoint_url": "ws://127.0.0.1:9/ws"}"#;

/// A machine of its own: all files in one directory, its own instance lock.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine {
            root: tempfile::tempdir().unwrap(),
        };
        fs::write(machine.path("device.flock"), FLOCK).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reagent"));
        command
            .args(words)
            .current_dir(self.root.path())
            .env("REAGENT_LOCK_FILE", self.path("lock"))
            // These agents have nothing to do with the containers of the machine that tests them.
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.path("docker.sock").display()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs to the end.
    async fn output(&self, words: &[&str]) -> Output {
        timeout(DEADLINE, self.command(words).output())
            .await
            .unwrap_or_else(|_| panic!("{words:?} did not end"))
            .unwrap()
    }

    /// The flags of a daemon that stays on this machine, and `more`.
    fn daemon_words<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec![
            "-config",
            "device.flock",
            "-agentDir=agent",
            "-appsDir=apps",
            "-dbFileName=./reagent.db",
            "-logFile=log/reagent.log",
            "-offline",
            "-nmw=false",
            "-update=false",
        ];
        words.extend(more);
        words
    }

    /// A daemon that has begun.
    async fn daemon(&self, more: &[&str]) -> Child {
        started(&mut self.command(&self.daemon_words(more))).await
    }

    /// The daemon's words, run to an end that is a failure: exit code 1 and what stderr says.
    async fn failure(&self) -> String {
        let output = self.output(&self.daemon_words(&[])).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("log/reagent.log")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Starts it and waits for its first line on stdout.
async fn started(command: &mut Command) -> Child {
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let line = timeout(DEADLINE, stdout.lines().next_line())
        .await
        .expect("a first line")
        .unwrap();
    assert!(
        line.as_deref().is_some_and(|line| line.contains(FIRST_LINE)),
        "{line:?}"
    );
    child
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn send(child: &Child, signal: rustix::process::Signal) {
    let number = i32::try_from(child.id().expect("the process runs")).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(number).unwrap(), signal).unwrap();
}

async fn ended(mut child: Child) -> Option<i32> {
    timeout(DEADLINE, child.wait())
        .await
        .expect("the process ends")
        .unwrap()
        .code()
}

#[tokio::test]
async fn version_and_architecture_are_one_line_each() {
    let machine = Machine::new();
    for words in [
        &["-version"][..],
        &["--version"],
        &["-version", "-config", "device.flock"],
    ] {
        let output = machine.output(words).await;
        assert_eq!(
            text(&output.stdout),
            concat!(env!("CARGO_PKG_VERSION"), "\n"),
            "{words:?}"
        );
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(0), ""),
            "{words:?}"
        );
    }
    let output = machine.output(&["-arch"]).await;
    let known = ["amd64", "arm64", "armv7", "armv6", "armv5"];
    assert!(known.contains(&text(&output.stdout).trim_end()), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        fs::read_dir(machine.root.path()).unwrap().count(),
        1,
        "nothing was created"
    );
}

#[tokio::test]
async fn without_a_config_there_is_a_hint_and_success() {
    let machine = Machine::new();
    for words in [&[][..], &["-config="], &["-debug", "false", "-config", "x"]] {
        let output = machine.output(words).await;
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), HINT),
            "{words:?}"
        );
        assert!(text(&output.stderr).ends_with(HINT), "{words:?}");
    }
}

#[tokio::test]
async fn flag_errors_are_said_on_stderr_with_code_two() {
    let machine = Machine::new();
    for words in [
        &["-ppTimeout", "-1"][..],
        &["-update=yes"],
        &["-nope"],
        &["-config"],
        &["-dbFileName="],
    ] {
        let output = machine.output(words).await;
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(2), ""),
            "{words:?}"
        );
        assert!(text(&output.stderr).contains("\nUsage of "), "{words:?}");
    }
}

#[tokio::test]
async fn help_is_on_stderr_and_success() {
    let output = Machine::new().output(&["-help"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), ""));
    let usage = format!(
        "Usage of {}:\n  -agentDir string\n    \t",
        env!("CARGO_BIN_EXE_reagent")
    );
    assert!(text(&output.stderr).starts_with(&usage), "{output:?}");
}

#[tokio::test]
async fn a_service_command_without_a_verb_is_a_usage_error() {
    let output = Machine::new().output(&["service"]).await;
    assert_eq!(
        text(&output.stderr),
        "error: one of install, uninstall, start, stop, status is needed\n"
    );
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
}

#[tokio::test]
async fn an_argument_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;

    let machine = Machine::new();
    let argument = std::ffi::OsStr::from_bytes(b"-config=\xff");
    let output = timeout(DEADLINE, machine.command(&[]).arg(argument).output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test]
async fn a_daemon_makes_its_directories_logs_both_ends_and_stops_on_either_signal() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let machine = Machine::new();
        let child = machine.daemon(&["-env=test"]).await;
        send(&child, signal);
        assert_eq!(ended(child).await, Some(0), "{signal:?}");

        for made in ["apps/build", "apps/compose", "apps/shared", "agent/downloads"] {
            assert!(machine.path(made).is_dir(), "{made}");
        }
        let log = machine.log();
        assert_eq!(log[0]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(log[0]["config"], "device.flock");
        let start_up = log[1]["message"].as_str().unwrap();
        assert!(start_up.starts_with(FIRST_LINE), "{start_up}");
        let last = log.last().unwrap()["message"].as_str().unwrap();
        assert!(last.starts_with("reagent ends"), "{last}");
        let contradictions = log.iter().filter(|line| line["flag"] == "test").count();
        assert_eq!(contradictions, 1, "-env is contradicted once");

        assert_eq!(fs::read_to_string(machine.path("device.flock")).unwrap(), FLOCK);
        let everything = fs::read_to_string(machine.path("log/reagent.log")).unwrap();
        assert!(!everything.contains("hush-hush"), "{everything}");
    }
}

#[tokio::test]
async fn words_behind_the_flags_are_ignored_with_a_warning() {
    let machine = Machine::new();
    let mut child = machine.daemon(&["extra", "-config=none"]).await;
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = timeout(DEADLINE, stderr.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        warning,
        "reagent: ignoring everything from \"extra\" on: extra -config=none"
    );
    send(&child, rustix::process::Signal::TERM);
    assert_eq!(ended(child).await, Some(0));
}

#[tokio::test]
async fn pretty_logging_shows_the_lines_of_the_log_on_stdout() {
    let machine = Machine::new();
    let mut child = machine
        .command(&machine.daemon_words(&["-prettyLogging"]))
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        timeout(DEADLINE, stdout.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    let first = next().await;
    assert!(first.contains(" INFO  reagent starts version="), "{first}");
    let second = next().await;
    assert!(second.contains(&format!(" INFO  {FIRST_LINE}")), "{second}");
    send(&child, rustix::process::Signal::TERM);
    assert_eq!(ended(child).await, Some(0));
}

#[tokio::test]
async fn the_log_tells_the_time_of_the_zone_that_tz_names() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("zones/Asia")).unwrap();
    let zone = machine.path("zones/Asia/Kathmandu");
    fs::write(&zone, testkit::zone::file(5 * 60 + 45, "NPT")).unwrap();
    for (name, offset) in [
        ("Asia/Kathmandu", "+05:45"),
        (":Asia/Kathmandu", "+05:45"),
        (zone.to_str().unwrap(), "+05:45"),
        ("EST5", "-05:00"),
        ("", "Z"),
    ] {
        let mut command = machine.command(&machine.daemon_words(&[]));
        let command = command.env("TZ", name).env("TZDIR", machine.path("zones"));
        let child = started(command).await;
        send(&child, rustix::process::Signal::TERM);
        assert_eq!(ended(child).await, Some(0));
        let log = machine.log();
        let time = log.last().unwrap()["time"].as_str().unwrap();
        assert!(time.ends_with(offset), "{name:?}: {time}");
    }
}

#[tokio::test]
async fn a_signal_during_the_start_is_not_lost() {
    // No waiting for the first line: the signal may hit any instruction behind the first log line.
    for _ in 0..5 {
        let machine = Machine::new();
        let child = machine.command(&machine.daemon_words(&[])).spawn().unwrap();
        let log = machine.path("log/reagent.log");
        timeout(DEADLINE, async {
            while !log.exists() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the log is opened");
        send(&child, rustix::process::Signal::TERM);
        assert_eq!(ended(child).await, Some(0));
    }
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let machine = Machine::new();
    let first = machine.daemon(&[]).await;
    let said = machine.failure().await;
    assert_eq!(
        said,
        "reagent: another reagent instance is already running on this machine \
         (if it runs as a service, stop it with: systemctl stop reagent)\n"
    );
    let version = machine.output(&["--version"]).await;
    assert_eq!(version.status.code(), Some(0), "the version needs no lock");

    send(&first, rustix::process::Signal::KILL);
    assert_eq!(ended(first).await, None);
    let next = machine.daemon(&[]).await;
    send(&next, rustix::process::Signal::TERM);
    assert_eq!(ended(next).await, Some(0));
}

#[tokio::test]
async fn a_bad_flock_is_refused_and_left_untouched() {
    for bad in [
        "",
        "{\"name\": ",
        "[]",
        "{}",
        &FLOCK.replace("42", "\"x\""),
        &FLOCK.replace("hush-hush", ""),
    ] {
        let machine = Machine::new();
        fs::write(machine.path("device.flock"), bad).unwrap();
        let said = machine.failure().await;
        assert!(
            said.starts_with("reagent: failed to load .flock config file: device.flock is damaged"),
            "{said}"
        );
        assert!(!said.contains("hush-hush"), "{said}");
        assert_eq!(fs::read_to_string(machine.path("device.flock")).unwrap(), bad);
        let log = machine.log();
        let last = log.last().unwrap();
        assert_eq!(
            (&last["level"], &last["message"]),
            (&"error".into(), &"failed to start agent".into())
        );
    }
}

#[tokio::test]
async fn a_missing_flock_is_refused_by_name() {
    let machine = Machine::new();
    fs::remove_file(machine.path("device.flock")).unwrap();
    let said = machine.failure().await;
    assert!(
        said.contains("cannot read device.flock") && said.contains("No such file"),
        "{said}"
    );
    assert!(!machine.path("device.flock").exists());
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_a_failure() {
    let machine = Machine::new();
    fs::write(machine.path("apps"), "in the way").unwrap();
    let said = machine.failure().await;
    assert!(said.contains("cannot create the directory apps"), "{said}");
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_stops_nothing() {
    let machine = Machine::new();
    fs::write(machine.path("log"), "in the way").unwrap();
    let mut child = machine.daemon(&[]).await;
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = timeout(DEADLINE, stderr.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        warning.starts_with("reagent: cannot open the log file log/reagent.log, going on without it"),
        "{warning}"
    );
    send(&child, rustix::process::Signal::TERM);
    assert_eq!(ended(child).await, Some(0));
}
