//! What a container printed, with the moments of its lines: `query_app_logs` page by page
//! (`logs-terminal-tunnel.md` 2.12).

use std::time::Duration;

use jiff::Timestamp;
use protocol::moment::Bound;
use serde_json::{Value, json};

use super::text_of;
use crate::exit::Failure;

/// Lines of an answer: as many as a device gives.
pub(super) const PAGE: usize = 5000;

/// A line and when it was printed. One without a timestamp of its own is of the moment of the line before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: Option<Timestamp>,
    pub(super) text: String,
}

/// Lines inside a window, oldest first.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) lines: Vec<Line>,
    /// No line of the window is left out.
    pub(super) whole: bool,
    /// The device knows the moments of its lines. Otherwise these are its newest lines, whatever the window was.
    pub(super) dated: bool,
    /// The device's clock, whole seconds.
    pub(super) now: Option<Timestamp>,
    /// The moment that was asked from.
    pub(super) from: Option<Timestamp>,
    /// The oldest line that is still there, whole seconds.
    pub(super) oldest: Option<Timestamp>,
}

/// The newest lines since a moment (as the device reads it), of at most so many pages of so many lines.
pub(super) async fn read(
    ask: impl AsyncFn(Value) -> Result<Value, Failure>,
    container: &str,
    since: Option<&str>,
    page: usize,
    pages: usize,
) -> Result<Found, Failure> {
    let query = |since: &str, until: Option<String>| {
        json!({
            "containerName": container, "tail": page, "timestamps": true,
            "since": since, "until": until.unwrap_or_default(),
        })
    };
    let since = since.unwrap_or_default();
    let (mut found, mut full) = answered(&ask(query(since, None)).await?, page);
    // "So long ago" is another moment at every page.
    found.from = found
        .now
        .and_then(|now| Some(Bound::parse(since.trim(), now)?.moment()));
    let since = found.from.map_or(since.to_owned(), |from| from.to_string());
    for _ in 1..pages {
        let Some(oldest) = found.lines.first().and_then(|line| line.at).filter(|_| full) else {
            break;
        };
        // Of the oldest moment there may be more: the next page has all of them.
        let Some(later) = found.lines.iter().position(|line| line.at != Some(oldest)) else {
            break;
        };
        let (earlier, more) = answered(&ask(query(&since, Some(oldest.to_string()))).await?, page);
        // Agents that apply the bound to their newest lines find nothing else.
        if earlier.lines.len() <= later {
            full = found
                .oldest
                .is_none_or(|first| first.as_second() < oldest.as_second());
            break;
        }
        found.lines.splice(..later, earlier.lines);
        full = more;
    }
    found.whole = !full && found.dated;
    Ok(found)
}

/// An answer, and whether there may be more lines than it has.
fn answered(answer: &Value, page: usize) -> (Found, bool) {
    let moment = |name: &str| answer.get(name)?.as_str()?.parse().ok();
    let mut found = Found {
        dated: answer.get("source").and_then(Value::as_str) != Some("history"),
        now: moment("device_time"),
        oldest: moment("oldest_available"),
        ..Found::default()
    };
    let none = Vec::new();
    let lines = answer.get("lines").and_then(Value::as_array).unwrap_or(&none);
    for line in lines {
        let mut line = match found.dated {
            true => parsed(&text_of(line)),
            false => Line {
                at: None,
                text: text_of(line),
            },
        };
        line.at = line.at.or_else(|| found.lines.last().and_then(|last| last.at));
        found.lines.push(line);
    }
    let said = |name: &str| answer.get(name).and_then(Value::as_bool);
    // The reference does not say.
    let more = said("has_more").unwrap_or(said("truncated") == Some(true) || lines.len() >= page);
    (found, more)
}

/// `<timestamp> <text>`, of a compose service `<service>-<n>  | <timestamp> <text>`; shown is it without.
fn parsed(line: &str) -> Line {
    let dated = |text: &str| {
        let (stamp, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some((stamp.parse::<Timestamp>().ok()?, rest.to_owned()))
    };
    if let Some((at, text)) = dated(line) {
        return Line { at: Some(at), text };
    }
    if let Some(bar) = line.find("| ")
        && let (prefix, rest) = line.split_at(bar + 2)
        && let Some((at, text)) = dated(rest)
    {
        let text = format!("{prefix}{text}");
        return Line { at: Some(at), text };
    }
    Line {
        at: None,
        text: line.to_owned(),
    }
}

/// "So long ago", for a device with a clock of its own.
pub(super) fn ago(span: Duration) -> String {
    format!("{}s", span.as_secs())
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;

    use super::*;

    pub(in crate::command::logs) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A device that answers as the agent does, of these lines; `old`: as the Go reference does. Its clock begins at
    /// second 1000, and an answer takes a second.
    async fn read_of(
        lines: &[(i64, &str)],
        since: &str,
        pages: usize,
        old: bool,
    ) -> (Vec<String>, bool, i64) {
        let asked = RefCell::new(0);
        let ask = async |query: Value| {
            let now = at(1000 + *asked.borrow());
            *asked.borrow_mut() += 1;
            let bound = |name: &str| Some(Bound::parse(query[name].as_str()?, now)?.moment());
            let tail = usize::try_from(query["tail"].as_u64().unwrap()).unwrap();
            let inside = |(second, _): &&(i64, &str)| {
                bound("since").is_none_or(|since| at(*second) >= since)
                    && bound("until").is_none_or(|until| at(*second) <= until)
            };
            let all: Vec<_> = lines.iter().filter(inside).collect();
            let newest = |lines: Vec<_>| lines[lines.len().saturating_sub(tail)..].to_vec();
            let chosen: Vec<&(i64, &str)> = match old {
                true => newest(lines.iter().collect())
                    .into_iter()
                    .filter(inside)
                    .collect(),
                false => newest(all.clone()),
            };
            let shown: Vec<String> = chosen
                .iter()
                .map(|(second, text)| format!("{} {text}", at(*second)))
                .collect();
            let mut answer = json!({
                "lines": shown, "source": "docker", "truncated": false, "device_time": now.to_string(),
            });
            if !old {
                answer["has_more"] = (all.len() > tail).into();
            }
            Ok(answer)
        };
        let found = read(ask, "prod_1_x", Some(since), 3, pages).await.unwrap();
        let texts = found.lines.into_iter().map(|line| line.text).collect();
        (texts, found.whole, asked.into_inner())
    }

    #[tokio::test]
    async fn more_lines_than_an_answer_has_are_read_back_page_by_page() {
        let lines = [
            (1, "a"),
            (2, "b"),
            (2, "c"),
            (3, "d"),
            (4, "e"),
            (5, "f"),
            (6, "g"),
        ];
        let (texts, whole, _) = read_of(&lines, "2", 10, false).await;
        assert_eq!((texts.join(" ").as_str(), whole), ("b c d e f g", true));
        let (texts, whole, asked) = read_of(&lines, "2", 2, false).await;
        assert_eq!((texts.join(" ").as_str(), whole, asked), ("c d e f g", false, 2));
        let (texts, whole, asked) = read_of(&lines, "5", 10, false).await;
        assert_eq!((texts.join(" ").as_str(), whole, asked), ("f g", true, 1));
        let (texts, whole, _) = read_of(&lines, "2", 10, true).await;
        assert!(!whole, "one page is all that such a device gives: {texts:?}");
        let recent = [(996, "a"), (997, "b"), (998, "c"), (999, "d"), (1000, "e")];
        let (texts, whole, asked) = read_of(&recent, "4s", 10, false).await;
        assert_eq!((texts.join(" ").as_str(), whole, asked), ("a b c d e", true, 2));
        // More of one moment than an answer has.
        let (texts, whole, _) = read_of(&[(1, "a"), (1, "b"), (1, "c"), (1, "d")], "1", 10, false).await;
        assert_eq!((texts.join(" ").as_str(), whole), ("b c d", false));
    }

    #[test]
    fn timestamps_are_told_from_text() {
        for (line, moment, text) in [
            ("1970-01-01T00:00:05Z dial failed", Some(at(5)), "dial failed"),
            ("1970-01-01T00:00:05Z ", Some(at(5)), ""),
            ("web-1  | 1970-01-01T00:00:05Z up", Some(at(5)), "web-1  | up"),
            ("web-1  | up", None, "web-1  | up"),
            ("plain", None, "plain"),
        ] {
            let expected = Line {
                at: moment,
                text: text.to_owned(),
            };
            assert_eq!(parsed(line), expected, "{line}");
        }
    }
}
