//! Log messages as lines, and how live lines, the device's history and what was shown before fit together.
//! Knows neither connection nor output.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use wamp::client::Event;

use super::text_of;

/// The lines that one event carries.
pub(in crate::command) fn lines(event: &Event) -> Vec<String> {
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
pub(super) struct Seam {
    history: Vec<String>,
    /// Live lines so far; only while all of them were in the history.
    repeated: Option<Vec<String>>,
    until: Instant,
}

/// Longest time between a line's place in the history and its live event: the batches' and the way.
const BATCH: Duration = Duration::from_secs(1);

impl Seam {
    pub(super) fn new(history: Vec<String>) -> Seam {
        Seam {
            history,
            repeated: Some(Vec::new()),
            until: Instant::now() + BATCH,
        }
    }

    /// The lines that the history did not have.
    pub(super) fn fresh(&mut self, lines: Vec<String>) -> Vec<String> {
        let Some(mut live) = self.repeated.take().filter(|_| Instant::now() < self.until) else {
            return lines;
        };
        let before = live.len();
        live.extend(lines);
        let repeated = overlap(&self.history, &live).max(before);
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

/// What comes next after what was shown before an interruption, out of the history and the live lines that came before
/// it did: a device sends what it kept for its viewers, and that may begin before the history does.
pub(super) fn resumed(shown: &[String], history: &[String], live: Vec<String>) -> Vec<String> {
    let held = |common: usize| history[..common] == live[live.len() - common..];
    let behind = (1..=history.len().min(live.len()))
        .rev()
        .find(|common| held(*common));
    let within = live.windows(history.len().max(1)).any(|window| window == history);
    let begins_in_history = overlap(history, &live) > 0 && !within;
    let joined = match behind {
        _ if within => live,
        Some(common) if !begins_in_history => [&live[..], &history[common..]].concat(),
        Some(_) | None => {
            let overlap = overlap(history, &live);
            [history, &live[overlap..]].concat()
        }
    };
    let from = continuation(shown, &joined);
    joined[from..].to_vec()
}

/// A line that says how many are missing: shown whatever is looked for.
pub(super) fn is_gap(line: &str) -> bool {
    line.starts_with("… ") && line.contains(" log line(s) dropped (")
}

/// Where the history goes on after what was shown before an interruption: behind the last place that ends like it. One
/// that has nothing in common with it is shown as a whole.
pub(super) fn continuation(shown: &[String], history: &[String]) -> usize {
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
    use serde_json::json;

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
        let mut seam = Seam::new(history.clone());
        assert_eq!(seam.fresh(words("b")), words(""));
        assert_eq!(seam.fresh(words("c")), words(""));
        assert_eq!(seam.fresh(words("d")), words("d"));
        assert_eq!(seam.fresh(words("d")), words("d"));

        let mut seam = Seam::new(history.clone());
        assert_eq!(seam.fresh(words("c d")), words("d"));
        assert_eq!(seam.fresh(words("c")), words("c"));

        // An app that says the same thing again later is heard.
        let mut seam = Seam::new(history.clone());
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

    #[test]
    fn lines_that_a_device_kept_come_before_the_history_and_once() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (shown, history, live, expected) in [
            ("1 2", "2 3 4", "", "3 4"),
            // The history goes as far back as what was kept.
            ("1 2", "2 3 4", "3 4", "3 4"),
            ("1 2", "2 3 4", "3 4 5", "3 4 5"),
            // What was kept begins before it.
            ("1 2", "4 5", "3 4 5 6", "3 4 5 6"),
            ("1 2", "4 5 6", "3 4 5", "3 4 5 6"),
            // Nothing was shown before.
            ("", "1 2", "2 3", "1 2 3"),
            ("", "", "1", "1"),
        ] {
            assert_eq!(
                resumed(&words(shown), &words(history), words(live)),
                words(expected),
                "{shown} | {history} | {live}"
            );
        }
    }

    #[test]
    fn a_gap_is_known_by_its_words() {
        assert!(is_gap("… 5 log line(s) dropped (rate limit)"));
        assert!(is_gap("… 5 log line(s) dropped (no connection)"));
        assert!(!is_gap("… and so on"));
    }
}
