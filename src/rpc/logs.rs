//! Procedures about logs: `get_app_log_history`, `query_app_logs`, `query_device_logs`
//! (`logs-terminal-tunnel.md` 2.11 to 2.13). Knows what is asked and answered, not where lines come from.

use jiff::Timestamp;
use protocol::moment::Bound;
use protocol::number;
use serde_json::{Map, Value, json};

use super::{Call, Code, Context, Failure, Reply, one};
use crate::journal::query::{self as journal, ANSWER, Severity, rfc3339};
use crate::logs::{Origin, Window};

/// Most lines of an answer.
const MOST: u64 = 5000;
/// Lines of an answer when nobody says how many.
const OF_APP: u64 = 200;
const OF_DEVICE: u64 = 300;

/// A flat list of lines, oldest first.
pub(super) async fn get_app_log_history(context: Context, call: Call) -> Reply {
    let container = container_name(call.first_dict()?)?;
    let history = context.logs.history_of(container).await;
    one(&history.map_err(|bad| Failure::invalid(bad.to_string()))?)
}

/// The newest lines of a container inside a window.
pub(super) async fn query_app_logs(context: Context, call: Call) -> Reply {
    let query = AppQuery::parse(call.first_dict()?, Timestamp::now())?;
    let fetched = (query.tail + query.offset).min(MOST);
    let window = Window {
        // One more tells whether there are more (L24).
        lines: u32::try_from(fetched + 1).unwrap_or(u32::MAX),
        since: query.since.map(Bound::nanoseconds),
        until: query.until.map(Bound::nanoseconds),
    };
    let answer = context.logs.query(&query.container, &window).await?;
    let mut lines: Vec<String> = answer
        .lines
        .into_iter()
        .map(|line| line.shown(query.timestamps))
        .collect();
    let older = answer.origin != Origin::History && cut(&mut lines, fetched, 0);
    let page = cut(&mut lines, query.tail, query.offset);
    let truncated = fit(&mut lines, ANSWER) || page || answer.shortened;
    let mut reply = json!({
        "returned": lines.len(),
        "lines": lines,
        "source": answer.origin.as_str(),
        "truncated": truncated,
        "has_more": truncated || older,
        "device_time": rfc3339(Timestamp::now()),
    });
    if answer.origin == Origin::Docker
        && let Some(oldest) = answer.oldest_available
        && let Ok(oldest) = Timestamp::from_nanosecond(oldest.into())
    {
        reply["oldest_available"] = rfc3339(oldest).into();
    }
    one(&reply)
}

/// Lines of the agent's own log.
pub(super) async fn query_device_logs(context: Context, call: Call) -> Reply {
    let none = Map::new();
    let members = match call.args.first() {
        None | Some(Value::Null) => &none,
        Some(Value::Object(members)) => members,
        Some(_) => return Err(Failure::invalid("first param should be a dict")),
    };
    let query = device_query(members, Timestamp::now())?;
    let place = context.log;
    if place.file.as_os_str().is_empty() {
        return Err(Failure::unavailable("no agent log path configured"));
    }
    let severity = query.severity;
    // Ends by itself: it reads no more than a bound.
    let answer = tokio::task::spawn_blocking(move || journal::run(&place, &query)).await;
    let answer = answer
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
        .map_err(|error| Failure {
            code: Code::NotFound,
            text: error.to_string(),
        })?;
    let mut reply = json!({
        "returned": answer.lines.len(),
        "lines": answer.lines,
        "truncated": answer.truncated,
        "files_scanned": answer.files_scanned,
        "device_time": rfc3339(Timestamp::now()),
        // What an unknown word was taken for (L23).
        "level": severity.as_str(),
    });
    if let Some(oldest) = answer.oldest_available {
        reply["oldest_available"] = rfc3339(oldest).into();
    }
    one(&reply)
}

/// The arguments of `query_app_logs`.
#[derive(Debug, PartialEq, Eq)]
struct AppQuery {
    container: String,
    tail: u64,
    offset: u64,
    since: Option<Bound>,
    until: Option<Bound>,
    timestamps: bool,
}

impl AppQuery {
    fn parse(members: &Map<String, Value>, now: Timestamp) -> Result<AppQuery, Failure> {
        let container = container_name(members)?;
        if container.trim().is_empty() {
            return Err(Failure::invalid("container name is empty"));
        }
        Ok(AppQuery {
            container: container.strip_prefix('/').unwrap_or(container).to_owned(),
            tail: tail(members, OF_APP)?,
            offset: whole(members, "offset")?.unwrap_or(0).min(MOST),
            since: bound(members, "since", now)?,
            until: bound(members, "until", now)?,
            timestamps: match members.get("timestamps") {
                None | Some(Value::Null) => true,
                Some(Value::Bool(timestamps)) => *timestamps,
                Some(_) => return Err(Failure::invalid("the timestamps param should be a boolean")),
            },
        })
    }
}

fn device_query(members: &Map<String, Value>, now: Timestamp) -> Result<journal::Query, Failure> {
    Ok(journal::Query {
        tail: usize::try_from(tail(members, OF_DEVICE)?).unwrap_or(usize::MAX),
        since: bound(members, "since", now)?.map(Bound::moment),
        until: bound(members, "until", now)?.map(Bound::moment),
        severity: match members.get("level") {
            None | Some(Value::Null) => Severity::Info,
            Some(Value::String(word)) => Severity::of(word),
            Some(_) => return Err(Failure::invalid("the level param should be a string")),
        },
    })
}

fn container_name(members: &Map<String, Value>) -> Result<&str, Failure> {
    match members.get("containerName") {
        Some(Value::String(name)) => Ok(name),
        _ => Err(Failure::invalid("invalid value for containerName")),
    }
}

fn tail(members: &Map<String, Value>, default: u64) -> Result<u64, Failure> {
    Ok(match whole(members, "tail")? {
        None | Some(0) => default,
        Some(lines) => lines.min(MOST),
    })
}

fn whole(members: &Map<String, Value>, name: &str) -> Result<Option<u64>, Failure> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => number::whole(value).map(Some).ok_or_else(|| {
            Failure::invalid(format!("the {name} param should be a non-negative whole number"))
        }),
    }
}

fn bound(members: &Map<String, Value>, name: &str, now: Timestamp) -> Result<Option<Bound>, Failure> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Bound::parse(text.trim(), now).map(Some).ok_or_else(|| {
            Failure::invalid(format!(
                "invalid {name}: {text:?} is not an RFC3339 time, a Unix timestamp, or a duration"
            ))
        }),
        Some(_) => Err(Failure::invalid(format!("the {name} param should be a string"))),
    }
}

/// Skips the newest `offset` lines and keeps the newest `tail` of the rest. Says whether the latter left out any.
fn cut(lines: &mut Vec<String>, tail: u64, offset: u64) -> bool {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    lines.truncate(lines.len().saturating_sub(count(offset)));
    let surplus = lines.len().saturating_sub(count(tail));
    lines.drain(..surplus);
    surplus > 0
}

/// Leaves out the oldest lines until the rest has no more than `most` bytes, line ends counted. Says whether it had to.
fn fit(lines: &mut Vec<String>, most: usize) -> bool {
    let mut size = 0;
    let fitting = lines
        .iter()
        .rev()
        .take_while(|line| {
            size += line.len() + 1;
            size <= most
        })
        .count();
    let surplus = lines.len() - fitting;
    lines.drain(..surplus);
    surplus > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn parse(value: Value) -> Result<AppQuery, String> {
        AppQuery::parse(&members(value), Timestamp::UNIX_EPOCH).map_err(|failure| failure.text)
    }

    fn numbers(from: u64, to: u64) -> Vec<String> {
        (from..=to).map(|number| number.to_string()).collect()
    }

    #[test]
    fn what_is_not_said_has_a_default_and_what_is_too_much_is_less() {
        let query = parse(json!({"containerName": "prod_1_x"})).unwrap();
        assert_eq!((query.tail, query.offset, query.timestamps), (200, 0, true));
        assert_eq!((query.since, query.until), (None, None));
        for tail in [json!(3), json!(3.0), json!("3")] {
            let query = parse(json!({"containerName": "x", "tail": tail, "offset": tail})).unwrap();
            assert_eq!((query.tail, query.offset), (3, 3));
        }
        let query = parse(json!({"containerName": "x", "tail": 1_000_000, "offset": 1_000_000})).unwrap();
        assert_eq!((query.tail, query.offset), (5000, 5000));
        let query =
            parse(json!({"containerName": "x", "tail": 0, "since": " ", "timestamps": false})).unwrap();
        assert_eq!((query.tail, query.since, query.timestamps), (200, None, false));
        assert_eq!(
            device_query(&Map::new(), Timestamp::UNIX_EPOCH).unwrap().tail,
            300
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_contract() {
        for (arguments, expected) in [
            (json!({}), "invalid value for containerName"),
            (json!({"containerName": 5}), "invalid value for containerName"),
            (json!({"containerName": "  "}), "container name is empty"),
            (
                json!({"containerName": "x", "tail": -5}),
                "the tail param should be a non-negative whole number",
            ),
            (
                json!({"containerName": "x", "tail": "many"}),
                "the tail param should be a non-negative whole number",
            ),
            (
                json!({"containerName": "x", "offset": 1.5}),
                "the offset param should be a non-negative whole number",
            ),
            (
                json!({"containerName": "x", "since": 5}),
                "the since param should be a string",
            ),
            (
                json!({"containerName": "x", "until": true}),
                "the until param should be a string",
            ),
            (
                json!({"containerName": "x", "since": "yesterday"}),
                "invalid since: \"yesterday\" is not an RFC3339 time, a Unix timestamp, or a duration",
            ),
            (
                json!({"containerName": "x", "until": "2026-08-04"}),
                "invalid until: \"2026-08-04\" is not an RFC3339 time, a Unix timestamp, or a duration",
            ),
            (
                json!({"containerName": "x", "timestamps": "yes"}),
                "the timestamps param should be a boolean",
            ),
        ] {
            assert_eq!(parse(arguments.clone()), Err(expected.to_owned()), "{arguments}");
        }
        let failure = device_query(&members(json!({"level": 1})), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(failure.text, "the level param should be a string");
    }

    #[test]
    fn pages_go_back_from_the_newest_line() {
        for (tail, offset, expected, truncated) in [
            (3, 0, numbers(7, 9), true),
            (3, 2, numbers(5, 7), true),
            (20, 2, numbers(0, 7), false),
            (3, 50, Vec::new(), false),
        ] {
            let mut lines = numbers(0, 9);
            assert_eq!(cut(&mut lines, tail, offset), truncated, "{tail} {offset}");
            assert_eq!(lines, expected, "{tail} {offset}");
        }
    }

    #[test]
    fn what_is_too_large_loses_whole_lines_at_the_old_end() {
        let mut lines = ["aaa", "bbb", "ccc"].map(str::to_owned).to_vec();
        assert!(fit(&mut lines, 8));
        assert_eq!(lines, ["bbb", "ccc"]);
        assert!(!fit(&mut lines, 8));
    }
}
