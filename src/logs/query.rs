//! Reads what a container printed earlier (`logs-terminal-tunnel.md` 2.12), newest lines first to be found, so that the
//! size of the log does not matter. Knows neither arguments nor replies of procedures.

use std::collections::VecDeque;

use crate::engine::{ContainerFacts, Engine, EngineError, LogLine, LogRange};

use super::follower::docker_time;
use super::project;

/// Text kept while reading, bytes: more than an answer may have, far less than a device has memory.
const KEPT: usize = 6 << 20;
/// How much further back the next attempt looks.
const STEP: u32 = 8;

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The newest so many of those inside.
    pub lines: u32,
    /// Bounds, both inclusive, nanoseconds since 1970.
    pub since: Option<u64>,
    pub until: Option<u64>,
}

/// Where lines came from; the word on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Docker,
    Compose,
    History,
}

impl Origin {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Docker => "docker",
            Origin::Compose => "compose",
            Origin::History => "history",
        }
    }
}

/// A line that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub timestamp: Option<String>,
    /// Of a compose service: what goes before the line.
    pub prefix: String,
    pub text: String,
    /// For putting lines of several containers in order.
    nanoseconds: u64,
}

impl Found {
    pub(super) fn remembered(text: String) -> Found {
        Found {
            timestamp: None,
            prefix: String::new(),
            text,
            nanoseconds: 0,
        }
    }

    /// As it is shown: the service as `docker compose logs` writes it, then the daemon's timestamp, then the text.
    pub fn shown(self, timestamps: bool) -> String {
        match self.timestamp.filter(|_| timestamps) {
            Some(stamp) => format!("{}{stamp} {}", self.prefix, self.text),
            None if self.prefix.is_empty() => self.text,
            None => format!("{}{}", self.prefix, self.text),
        }
    }
}

/// The newest lines, oldest first.
#[derive(Debug, Default)]
pub(super) struct Newest {
    pub(super) lines: VecDeque<Found>,
    bytes: usize,
    /// Some had no place because of their size.
    pub(super) shortened: bool,
}

impl Newest {
    fn push(&mut self, line: Found, most: usize) {
        self.bytes += line.text.len() + 1;
        self.lines.push_back(line);
        while self.lines.len() > most {
            self.drop_oldest();
        }
        while self.bytes > KEPT && self.lines.len() > 1 {
            self.shortened = true;
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.lines.pop_front() {
            self.bytes -= oldest.text.len() + 1;
        }
    }
}

/// What containers an app has: the one of its name, or those of its compose project. Empty when there is none.
pub(super) async fn containers(
    engine: &Engine,
    name: &str,
) -> Result<(Origin, Vec<(ContainerFacts, String)>), EngineError> {
    if let Some(facts) = engine.inspect(name).await? {
        return Ok((Origin::Docker, vec![(facts, String::new())]));
    }
    let project = format!("{name}_compose");
    let services = engine.list_labelled(project::PROJECT, &project).await?;
    let named = services
        .into_iter()
        .filter_map(|facts| project::prefix(&facts).map(|prefix| (facts, prefix)))
        .collect();
    Ok((Origin::Compose, named))
}

/// The newest lines of all `containers` inside the window, in order of time.
pub(super) async fn newest(
    engine: &Engine,
    containers: &[(ContainerFacts, String)],
    window: &Window,
) -> Result<Newest, EngineError> {
    let most = window.lines as usize;
    let mut all = Newest::default();
    for (facts, prefix) in containers {
        let of_one = match newest_of(engine, &facts.id, prefix, window).await {
            // Removed since it was listed.
            Err(EngineError::NoSuchContainer(_)) if containers.len() > 1 => continue,
            of_one => of_one?,
        };
        let mut merged: Vec<Found> = std::mem::take(&mut all.lines).into();
        merged.extend(of_one.lines);
        merged.sort_by_key(|line| line.nanoseconds);
        all.bytes = 0;
        all.shortened |= of_one.shortened;
        for line in merged {
            all.push(line, most);
        }
    }
    Ok(all)
}

/// The daemon takes the newest lines first and looks at an upper bound only then. So with one we look further and
/// further back until there are enough lines inside.
async fn newest_of(engine: &Engine, id: &str, prefix: &str, window: &Window) -> Result<Newest, EngineError> {
    let most = window.lines as usize;
    let mut tail = Some(window.lines);
    loop {
        let begin = match (window.until, tail) {
            (Some(_), Some(_)) => first_moment(engine, id, tail).await?,
            _ => None,
        };
        let in_reach = match (window.until, begin) {
            (Some(until), Some(begin)) => begin <= until,
            _ => true,
        };
        if in_reach {
            let found = read(engine, id, prefix, window, tail).await?;
            let reaches_since = match (window.since, begin) {
                (Some(since), Some(begin)) => begin < since,
                _ => false,
            };
            if window.until.is_none() || tail.is_none() || found.lines.len() >= most || reaches_since {
                return Ok(found);
            }
            // As old as it gets.
            if begin.is_none() || begin == first_moment(engine, id, None).await? {
                return Ok(found);
            }
        }
        // So far that the daemon would be counting lines for ever: then everything.
        tail = tail.and_then(|lines| lines.checked_mul(STEP));
    }
}

async fn read(
    engine: &Engine,
    id: &str,
    prefix: &str,
    window: &Window,
    tail: Option<u32>,
) -> Result<Newest, EngineError> {
    let range = LogRange {
        follow: false,
        tail,
        since: window.since.map(docker_time),
        until: window.until.map(docker_time),
        timestamps: true,
    };
    let mut receiver = engine.log_portions(id, range);
    let mut newest = Newest::default();
    while let Some(portion) = receiver.recv().await {
        for line in portion? {
            let LogLine {
                timestamp,
                nanoseconds,
                text,
            } = line;
            let line = Found {
                nanoseconds: nanoseconds.unwrap_or_default(),
                timestamp,
                prefix: prefix.to_owned(),
                text,
            };
            newest.push(line, window.lines as usize);
        }
    }
    Ok(newest)
}

/// When the oldest of the newest `tail` lines was printed, of all without `tail`.
pub(super) async fn first_moment(
    engine: &Engine,
    id: &str,
    tail: Option<u32>,
) -> Result<Option<u64>, EngineError> {
    let range = LogRange {
        tail,
        timestamps: true,
        ..LogRange::default()
    };
    let mut receiver = engine.log_portions(id, range);
    let Some(portion) = receiver.recv().await else {
        return Ok(None);
    };
    let first = portion?.into_iter().next();
    Ok(first.and_then(|line| line.nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_as_the_engine_or_compose_shows_it() {
        let line = |prefix: &str| Found {
            timestamp: Some("2026-08-04T09:07:00.120000000Z".to_owned()),
            prefix: prefix.to_owned(),
            text: "dial failed".to_owned(),
            nanoseconds: 1,
        };
        assert_eq!(line("").shown(true), "2026-08-04T09:07:00.120000000Z dial failed");
        assert_eq!(line("").shown(false), "dial failed");
        assert_eq!(
            line("web-1  | ").shown(true),
            "web-1  | 2026-08-04T09:07:00.120000000Z dial failed"
        );
        assert_eq!(line("web-1  | ").shown(false), "web-1  | dial failed");
    }

    #[test]
    fn the_newest_lines_stay_within_number_and_size() {
        let mut newest = Newest::default();
        for number in 0..10 {
            newest.push(Found::remembered(number.to_string()), 3);
        }
        assert_eq!(newest.lines.len(), 3);
        assert_eq!(newest.lines[0].text, "7");
        assert!(!newest.shortened);
        for _ in 0..3 {
            newest.push(Found::remembered("x".repeat(KEPT / 2)), 100);
        }
        assert!(newest.shortened && newest.bytes <= KEPT);
    }
}
