//! `studio logs`: history from the device, then live events (`logs-terminal-tunnel.md` 2.2, 2.11).

use std::collections::VecDeque;
use std::time::Duration;

use protocol::{AppId, Stage};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use wamp::Dict;
use wamp::client::Event;

use super::client::{Client, DEADLINE};
use super::{Out, with_client};
use crate::api::{CallDevice, InstallView, MaybeDevice, uri};
use crate::cli::{Logs, Place};
use crate::exit::{Exit, Failure};

/// Pauses before a lost studio or device is tried again: the first and the longest; they double in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Lines remembered to find out where to go on after an interruption: what a device keeps.
const REMEMBERED: usize = 100;

/// What has been shown.
#[derive(Debug, Default)]
struct Shown {
    /// The first look succeeded: from now on a loss is an interruption.
    begun: bool,
    last: VecDeque<String>,
}

/// How following ends without a failure.
#[derive(Debug)]
enum Ended {
    /// Everything was shown, or nobody reads any more.
    Done,
    Lost,
}

pub(super) async fn run(place: &Place, out: Out, options: Logs) -> Result<(), Failure> {
    let mut shown = Shown::default();
    let mut pause = RETRY.0;
    let mut told = false;
    // Ctrl-C is how following ends: no failure.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let attempt = with_client(place, async |client: &Client| {
            show(client, out, &options, &mut shown, &mut told).await
        });
        let ended = tokio::select! {
            ended = attempt => ended,
            _ = &mut interrupted, if options.follow => return Ok(()),
        };
        match ended {
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::Lost) => pause = RETRY.0,
            Err(failure) if shown.begun && matches!(failure.exit, Exit::Unreachable | Exit::Offline) => {}
            Err(failure) => return Err(failure),
        }
        if !std::mem::replace(&mut told, true) {
            eprintln!("(lost the connection; trying again until Ctrl-C)");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut interrupted => return Ok(()),
        }
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn show(
    client: &Client,
    out: Out,
    options: &Logs,
    shown: &mut Shown,
    interruption: &mut bool,
) -> Result<Ended, Failure> {
    let install = find(client, options).await?;
    // Subscribed first: what comes while the history is fetched is kept, not lost.
    let mut live = match options.follow {
        true => Some(client.session.subscribe(&topic(&install), Dict::new()).await?),
        false => None,
    };
    let history = history(client, &options.device, &container(&install)).await?;
    if std::mem::take(interruption) {
        eprintln!("(connected again)");
    }
    let from = continuation(shown.last.make_contiguous(), &history);
    if !shown.show(out, &history[from..]) {
        return Ok(Ended::Done);
    }
    shown.begun = true;
    let Some(live) = &mut live else {
        return Ok(Ended::Done);
    };
    let mut seam = Seam::new(&history);
    while let Some(event) = live.events.recv().await {
        if event.missed > 0 {
            eprintln!("({} log messages were lost on the way)", event.missed);
        }
        if !shown.show(out, &seam.fresh(lines(&event))) {
            return Ok(Ended::Done);
        }
    }
    if client.session.is_open() {
        return Err(Failure::new(
            Exit::Denied,
            "your account may not read this log any more",
        ));
    }
    Ok(Ended::Lost)
}

impl Shown {
    /// Prints lines and remembers them. `false` when nobody reads any more.
    fn show(&mut self, out: Out, lines: &[String]) -> bool {
        for line in lines {
            if !out.step(&json!({ "line": line }), || format!("{line}\n")) {
                return false;
            }
            if self.last.len() == REMEMBERED {
                self.last.pop_front();
            }
            self.last.push_back(line.clone());
        }
        true
    }
}

fn container(install: &InstallView) -> String {
    protocol::naming::container(
        AppId {
            key: install.app_key.0,
            stage: Stage::Prod,
        },
        &install.app,
    )
}

/// Where the app's log is published.
pub(super) fn topic(install: &InstallView) -> String {
    protocol::uri::logs(&install.serial_number, &container(install))
}

async fn find(client: &Client, options: &Logs) -> Result<InstallView, Failure> {
    let request = MaybeDevice {
        device: Some(options.device.clone()),
    };
    let installs: Vec<InstallView> = client.ask(uri::INSTALL_LIST, &request).await?;
    let named = |install: &InstallView| {
        install.app.eq_ignore_ascii_case(&options.app) || install.app_key.to_string() == options.app
    };
    installs.into_iter().find(named).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!(
                "app {:?} is not installed on device {:?}",
                options.app, options.device
            ),
        )
        .hint(format!("'studio ps {}' shows what is", options.device))
    })
}

async fn history(client: &Client, device: &str, container: &str) -> Result<Vec<String>, Failure> {
    let request = CallDevice {
        device: device.to_owned(),
        procedure: "get_app_log_history".to_owned(),
        args: vec![json!({"containerName": container})],
        kwargs: Map::new(),
        timeout: None,
    };
    let payload = client.send(uri::DEVICE_CALL, &request, DEADLINE).await?;
    let first = payload.first::<Value>().map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("the device's answer is unreadable: {error}"),
        )
    })?;
    Ok(match first {
        Some(Value::Array(lines)) => lines.iter().map(text_of).collect(),
        Some(_) | None => Vec::new(),
    })
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The lines that one event carries.
pub(super) fn lines(event: &Event) -> Vec<String> {
    match event.payload.first::<Value>() {
        Ok(Some(value)) => shown(&value),
        Ok(None) => Vec::new(),
        Err(error) => vec![format!("(unreadable log message: {error})")],
    }
}

/// The lines of one message. A clear marker stands for "a new run begins": shown as a rule, nothing is erased.
fn shown(message: &Value) -> Vec<String> {
    match message {
        Value::String(text) => text.split('\n').map(str::to_owned).collect(),
        Value::Object(members) => match (members.get("chunk"), members.get("progress")) {
            (Some(Value::String(chunk)), _) if chunk == "LOGGER_CLEAR" => vec!["--------".to_owned()],
            (Some(Value::String(chunk)), _) => chunk.split('\n').map(str::to_owned).collect(),
            (None, Some(progress)) => {
                let member = |name: &str| members.get(name).map(text_of).unwrap_or_default();
                vec![format!(
                    "{} {} {}",
                    member("id"),
                    member("status"),
                    text_of(progress)
                )]
            }
            (Some(_) | None, _) => vec![message.to_string()],
        },
        other => vec![other.to_string()],
    }
}

/// Where history and live lines meet. A device sends lines in batches, so one that the history has may come again a
/// moment after the history did.
struct Seam<'a> {
    history: &'a [String],
    /// Live lines so far; only while all of them were in the history.
    repeated: Option<Vec<String>>,
    until: Instant,
}

/// Longest time between a line's place in the history and its live event: the batches' and the way.
const BATCH: Duration = Duration::from_secs(1);

impl<'a> Seam<'a> {
    fn new(history: &'a [String]) -> Seam<'a> {
        Seam {
            history,
            repeated: Some(Vec::new()),
            until: Instant::now() + BATCH,
        }
    }

    /// The lines that the history did not have.
    fn fresh(&mut self, lines: Vec<String>) -> Vec<String> {
        let Some(mut live) = self.repeated.take().filter(|_| Instant::now() < self.until) else {
            return lines;
        };
        let before = live.len();
        live.extend(lines);
        let repeated = overlap(self.history, &live).max(before);
        let fresh = live.split_off(repeated);
        self.repeated = fresh.is_empty().then_some(live);
        fresh
    }
}

/// How many of the first live lines the history has: the longest run of it that they begin with, if it lies inside the
/// history or reaches its end.
fn overlap(history: &[String], live: &[String]) -> usize {
    (0..history.len())
        .find_map(|start| {
            let common = live.len().min(history.len() - start);
            (history[start..start + common] == live[..common]).then_some(common)
        })
        .unwrap_or(0)
}

/// Where the history goes on after what was shown before an interruption: behind the last place that ends like it. One
/// that has nothing in common with it is shown as a whole.
fn continuation(shown: &[String], history: &[String]) -> usize {
    (1..=history.len())
        .rev()
        .find(|end| {
            let common = shown.len().min(*end);
            common > 0 && history[end - common..*end] == shown[shown.len() - common..]
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_a_log_message_becomes_lines() {
        for (message, expected) in [
            (json!("one\ntwo"), vec!["one", "two"]),
            (
                json!({"type": "build", "chunk": "Starting myapp..."}),
                vec!["Starting myapp..."],
            ),
            (
                json!({"type": "build", "chunk": "LOGGER_CLEAR"}),
                vec!["--------"],
            ),
            (
                json!({"id": "myapp.tgz", "status": "Transfer Progress:", "progress": "41.667%"}),
                vec!["myapp.tgz Transfer Progress: 41.667%"],
            ),
            (json!({"other": 1}), vec![r#"{"other":1}"#]),
            (json!(5), vec!["5"]),
        ] {
            assert_eq!(shown(&message), expected, "{message}");
        }
    }

    #[test]
    fn after_an_interruption_the_history_goes_on_where_it_was_left() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (shown, history, expected) in [
            ("", "a b", 0),
            ("a b", "a b c", 2),
            ("x y a b", "a b c", 2),
            ("a b", "x a b c", 3),
            ("a b", "c d", 0),
            ("a b", "a b", 2),
            ("a b", "", 0),
        ] {
            assert_eq!(
                continuation(&words(shown), &words(history)),
                expected,
                "{shown} | {history}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_comes_after_the_history_is_not_shown_twice() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let history = words("a b c");
        let mut seam = Seam::new(&history);
        assert_eq!(seam.fresh(words("b")), words(""));
        assert_eq!(seam.fresh(words("c")), words(""));
        assert_eq!(seam.fresh(words("d")), words("d"));
        assert_eq!(seam.fresh(words("d")), words("d"));

        let mut seam = Seam::new(&history);
        assert_eq!(seam.fresh(words("c d")), words("d"));
        assert_eq!(seam.fresh(words("c")), words("c"));

        // An app that says the same thing again later is heard.
        let mut seam = Seam::new(&history);
        tokio::time::advance(BATCH).await;
        assert_eq!(seam.fresh(words("c")), words("c"));
    }

    #[test]
    fn lines_that_the_history_ended_with_are_not_shown_twice() {
        let words = |text: &str| {
            text.split(' ')
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (history, live, expected) in [
            ("a b c", "b c d", 2),
            ("a b", "c", 0),
            ("", "a", 0),
            ("a", "", 0),
            ("x x", "x x x", 2),
            ("a b", "a b", 2),
            ("a b c", "b", 1),
            ("a b c", "b d", 0),
        ] {
            assert_eq!(
                overlap(&words(history), &words(live)),
                expected,
                "{history} | {live}"
            );
        }
    }
}
