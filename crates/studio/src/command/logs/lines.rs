//! Log messages as lines, and how live lines, a history without timestamps and what was shown before fit together.
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

/// What is to be said before the lines of an event: that messages before it found no place.
pub(in crate::command) fn missed(event: &Event) -> Option<String> {
    (event.missed > 0).then(|| format!("{} log messages were lost on the way", event.missed))
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

/// A live line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) text: String,
    /// Said by the agent, not by the app: not in the container's log.
    pub(super) by_agent: bool,
}

/// The lines of one event, with who said them.
pub(super) fn heard(event: &Event) -> Vec<Heard> {
    let by_agent = !matches!(event.payload.first::<Value>(), Ok(Some(Value::String(_))));
    lines(event)
        .into_iter()
        .map(|text| Heard { text, by_agent })
        .collect()
}

/// Where history and live lines meet on a device that does not know when its lines were printed. It sends lines in
/// batches, so the last of the history may come again a moment after the history did.
pub(super) struct Repeats {
    history: Vec<String>,
    /// Live lines so far, while they look like the end of the history.
    waiting: Vec<String>,
    pub(super) until: Instant,
}

/// Longest time between a line's place in the history and its live event: the batches' and the way.
pub(super) const BATCH: Duration = Duration::from_secs(1);

impl Repeats {
    pub(super) fn new(history: Vec<String>) -> Repeats {
        Repeats {
            history,
            waiting: Vec::new(),
            until: Instant::now() + BATCH,
        }
    }

    /// Whether lines still may come again.
    pub(super) fn is_over(&self) -> bool {
        self.history.is_empty()
    }

    /// The lines that the history did not have, as far as that is clear.
    pub(super) fn fresh(&mut self, lines: Vec<String>) -> Vec<String> {
        self.waiting.extend(lines);
        if Instant::now() >= self.until {
            self.history.clear();
        }
        let repeated = overlap(&self.history, &self.waiting);
        if repeated > self.waiting.len() {
            // The rest of them may follow.
            return Vec::new();
        }
        let fresh = self.waiting.split_off(repeated);
        if repeated > 0 || !fresh.is_empty() {
            self.history.clear();
        }
        self.waiting.clear();
        fresh
    }
}

/// How many lines at the end of the history the live lines begin with, or may yet turn out to. Of several numbers the
/// smallest: when lines look alike, one too many is better than one that nobody sees.
fn overlap(history: &[String], live: &[String]) -> usize {
    (0..history.len())
        .rev()
        .find(|start| {
            let common = live.len().min(history.len() - start);
            history[*start..start + common] == live[..common]
        })
        .map_or(0, |start| history.len() - start)
}

/// A line that says how many are missing: shown whatever is looked for.
pub(super) fn is_gap(line: &str) -> bool {
    line.starts_with("… ") && line.contains(" log line(s) dropped (")
}

/// Where the history goes on after what was shown before an interruption: behind the last place that ends like it; and
/// whether that is certain. One that has nothing in common with it is shown as a whole.
pub(super) fn continuation(shown: &[String], history: &[String]) -> (usize, bool) {
    let mut ends = (1..=history.len()).rev().filter(|end| {
        let common = shown.len().min(*end);
        common > 0 && history[end - common..*end] == shown[shown.len() - common..]
    });
    match (ends.next(), ends.next()) {
        (Some(end), None) => (end, true),
        (Some(end), Some(_)) => (end, false),
        (None, _) => (0, shown.is_empty() || history.is_empty()),
    }
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

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn after_an_interruption_the_history_goes_on_where_it_was_left() {
        for (shown, history, expected) in [
            ("", "a b", (0, true)),
            ("a b", "a b c", (2, true)),
            ("x y a b", "a b c", (2, true)),
            ("a b", "x a b c", (3, true)),
            ("a b", "c d", (0, false)),
            ("a b", "a b", (2, true)),
            ("a b", "", (0, true)),
            ("t t t", "t t t", (3, false)),
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
        let history = words("a b c");
        let mut repeats = Repeats::new(history.clone());
        assert_eq!(repeats.fresh(words("b")), words(""));
        assert_eq!(repeats.fresh(words("c")), words(""));
        assert_eq!(repeats.fresh(words("d")), words("d"));
        assert_eq!(repeats.fresh(words("d")), words("d"));

        let mut repeats = Repeats::new(history.clone());
        assert_eq!(repeats.fresh(words("c d")), words("d"));
        assert_eq!(repeats.fresh(words("c")), words("c"));

        // An app that says the same thing again later is heard.
        let mut repeats = Repeats::new(history.clone());
        tokio::time::advance(BATCH).await;
        assert_eq!(repeats.fresh(words("c")), words("c"));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_look_alike_are_not_swallowed() {
        let mut repeats = Repeats::new(words("t t t t"));
        assert_eq!(repeats.fresh(words("t")), words(""), "the last of the history");
        assert_eq!(repeats.fresh(words("t t")), words("t t"));

        // It is somewhere in the history, but the end of it does not follow.
        let mut repeats = Repeats::new(words("a b c"));
        assert_eq!(repeats.fresh(words("b")), words(""));
        assert_eq!(repeats.fresh(words("d")), words("b d"));
        let mut repeats = Repeats::new(words("a b c"));
        assert_eq!(repeats.fresh(words("b")), words(""));
        tokio::time::advance(BATCH).await;
        assert_eq!(repeats.fresh(words("")), words("b"));
        assert!(repeats.is_over());
    }

    #[test]
    fn lines_that_the_history_ended_with_are_not_shown_twice() {
        for (history, live, expected) in [
            ("a b c", "b c d", 2),
            ("a b", "c", 0),
            ("", "a", 0),
            ("x x", "x x x", 1),
            ("a b a b", "a b", 2),
            ("a b", "a b", 2),
            ("a b c", "b", 2),
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
    fn a_gap_is_known_by_its_words() {
        assert!(is_gap("… 5 log line(s) dropped (rate limit)"));
        assert!(is_gap("… 5 log line(s) dropped (no connection)"));
        assert!(!is_gap("… and so on"));
    }
}
