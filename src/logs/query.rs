//! Reads what a container printed earlier (`logs-terminal-tunnel.md` 2.12), newest lines first to be found, so that the
//! size of the log does not matter. Knows neither arguments nor replies of procedures.

use std::collections::VecDeque;

use protocol::naming;

use crate::engine::{ContainerFacts, Engine, EngineError, LogLine, LogRange};

use super::follower::{self, docker_time};
use super::project;

/// Text kept while reading, bytes: more than an answer may have, far less than a device has memory.
const KEPT: usize = 6 << 20;
/// How much further back the next look is, at least and at most.
const STEPS: [u32; 2] = [2, 64];
/// Looks for a more recent place, once one is old enough.
const NARROWING: u32 = 4;
/// Lines too many that may as well be read: that takes the daemon some 20 ms. And one in so many that it goes back over,
/// because reading a line takes it so many times as long.
const OVERSHOT: u32 = 5_000;
const READING: u32 = 10;
/// Lines to go further back at first when some were missing.
const SPARE: u32 = 100;
/// Looks at all.
const LOOKS: usize = 40;

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
    let Ok((app, app_name)) = naming::parse_container(name) else {
        return Ok((Origin::Compose, Vec::new()));
    };
    let project = naming::compose_project(app, &app_name);
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
        let merged = merge(std::mem::take(&mut all.lines), of_one.lines);
        all.bytes = 0;
        all.shortened |= of_one.shortened;
        for line in merged {
            all.push(line, most);
        }
    }
    Ok(all)
}

/// Lines of several containers in order of time. Those of each stay in the daemon's order, which is that of writing: the
/// clock may have been set back in between.
fn merge(mut one: VecDeque<Found>, mut other: VecDeque<Found>) -> impl Iterator<Item = Found> {
    std::iter::from_fn(move || match (one.front(), other.front()) {
        (Some(first), Some(second)) if second.nanoseconds < first.nanoseconds => other.pop_front(),
        (Some(_), _) => one.pop_front(),
        (None, _) => other.pop_front(),
    })
}

/// The daemon takes the newest lines first and looks at an upper bound only then. So with one we look for how many lines
/// back the window is.
async fn newest_of(engine: &Engine, id: &str, prefix: &str, window: &Window) -> Result<Newest, EngineError> {
    let Some(until) = window.until else {
        return read(engine, id, prefix, window, Some(window.lines)).await;
    };
    let oldest = first_moment(engine, id, None).await?;
    let mut search = Search::new(window.lines, until, follower::now());
    for _ in 0..LOOKS {
        let tail = search.next;
        let begin = first_moment(engine, id, Some(tail)).await?;
        // As old as it gets, or nothing there.
        let all = begin.is_none() || begin == oldest;
        if search.goes_on(begin.unwrap_or_default()) && !all {
            continue;
        }
        let found = read(engine, id, prefix, window, Some(tail)).await?;
        let missing = window
            .lines
            .saturating_sub(u32::try_from(found.lines.len()).unwrap_or(u32::MAX));
        let reaches_since = window
            .since
            .zip(begin)
            .is_some_and(|(since, begin)| begin < since);
        if all || missing == 0 || reaches_since {
            return Ok(found);
        }
        search.further(missing);
    }
    // A log that grows faster than we can look at it.
    read(engine, id, prefix, window, None).await
}

/// Finds how many lines from the end of a log a moment is, in few looks. For each the daemon goes back over as many lines;
/// reading forward from there takes it ten times as long a line. Assumes that lines come evenly, and goes by steps that
/// are neither too large nor too small where they do not.
#[derive(Debug)]
struct Search {
    lines: u32,
    until: u64,
    /// How many lines back, and their moment: still too new.
    near: (u32, u64),
    /// Old enough.
    far: Option<(u32, u64)>,
    /// How many lines back to look.
    next: u32,
    /// How often to look for a place that is old enough, but not as old.
    narrowing: u32,
    /// Lines to go further back than what was missing: more after every time that it was not enough, because the log
    /// grows between a look and the reading.
    spare: u32,
}

impl Search {
    fn new(lines: u32, until: u64, now: u64) -> Search {
        Search {
            lines,
            until,
            near: (0, now),
            far: None,
            next: lines,
            narrowing: NARROWING,
            spare: SPARE,
        }
    }

    /// Takes the moment of the line that is [`Search::next`] lines back. `false`: it is the place to read from.
    fn goes_on(&mut self, begin: u64) -> bool {
        let here = (self.next, begin);
        let too_new = begin > self.until;
        let before = match too_new {
            true => std::mem::replace(&mut self.near, here),
            false => *self.far.insert(here),
        };
        self.next = match self.far {
            None => {
                let [least, most] = STEPS.map(|step| here.0.saturating_mul(step));
                self.guess(before, here, here).clamp(least, most)
            }
            Some(far) if !too_new && (self.narrowing == 0 || self.is_close(far)) => return false,
            Some((far, _)) if self.narrowing == 0 => far,
            Some(far) => {
                self.narrowing -= 1;
                let most = far.0.saturating_sub(1).max(self.near.0);
                self.guess(self.near, far, self.near).clamp(self.near.0, most)
            }
        };
        true
    }

    /// Whether another look would take longer than reading what is too much.
    fn is_close(&self, far: (u32, u64)) -> bool {
        let surplus = far.0.saturating_sub(self.guess(self.near, far, self.near));
        surplus <= OVERSHOT + far.0 / READING
    }

    /// So many lines of the window are still older.
    fn further(&mut self, missing: u32) {
        self.narrowing = 0;
        self.far = None;
        self.next = self.next.saturating_add(missing).saturating_add(self.spare);
        self.spare = self.spare.saturating_mul(2);
    }

    /// How many lines back the moment should be, counted on from one place at the pace between two, with some to spare.
    fn guess(&self, newer: (u32, u64), older: (u32, u64), from: (u32, u64)) -> u32 {
        let lines = u128::from(older.0.saturating_sub(newer.0));
        let span = u128::from(newer.1.saturating_sub(older.1).max(1));
        let way = u128::from(from.1.saturating_sub(self.until));
        let more = u32::try_from(lines * way * 51 / (span * 50)).unwrap_or(u32::MAX);
        from.0.saturating_add(more).saturating_add(self.lines)
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
    use proptest::prelude::*;

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

    #[test]
    fn a_clock_that_was_set_back_changes_the_order_of_no_containers_lines() {
        let log = |name: &str, moments: &[u64]| -> VecDeque<Found> {
            let line = |(number, moment): (usize, &u64)| Found {
                nanoseconds: *moment,
                ..Found::remembered(format!("{name}{number}"))
            };
            moments.iter().enumerate().map(line).collect()
        };
        let merged = |one, other| -> Vec<String> { merge(one, other).map(|line| line.text).collect() };
        let alone = ["a0", "a1", "a2", "a3"];
        assert_eq!(merged(VecDeque::new(), log("a", &[5, 9, 3, 4])), alone);
        assert_eq!(merged(log("a", &[5, 9, 3, 4]), VecDeque::new()), alone);
        assert_eq!(
            merged(log("a", &[1, 4, 7]), log("b", &[2, 4, 5])),
            ["a0", "b0", "a1", "b1", "b2", "a2"]
        );
        let both = merged(log("a", &[5, 9, 3, 4]), log("b", &[6, 7]));
        let of_a: Vec<&String> = both.iter().filter(|text| text.starts_with('a')).collect();
        assert_eq!(of_a, alone.iter().collect::<Vec<_>>());
    }

    /// Finds the place as `newest_of` does, in a log of these moments. Gives back how many lines are read, and the looks.
    fn find(log: &[u64], lines: u32, until: u64) -> (usize, usize) {
        find_growing(log, lines, until, 0)
    }

    /// The same while the log gets so many lines more after each look.
    fn find_growing(log: &[u64], lines: u32, until: u64, pace: usize) -> (usize, usize) {
        let mut log = log.to_vec();
        let mut search = Search::new(lines, until, *log.last().unwrap());
        for looks in 1..=LOOKS {
            let tail = (search.next as usize).min(log.len());
            let begin = log[log.len() - tail];
            let all = tail == log.len();
            let last = *log.last().unwrap();
            log.extend((0..pace as u64).map(|number| last + number));
            if search.goes_on(begin) && !all {
                continue;
            }
            let tail = if all { log.len() } else { tail };
            let read = &log[log.len() - tail..];
            let found = read.iter().filter(|moment| **moment <= until).count();
            if tail == log.len() || found >= lines as usize {
                return (found, looks);
            }
            search.further(lines - u32::try_from(found).unwrap());
        }
        panic!("not found in {LOOKS} looks");
    }

    #[test]
    fn a_window_far_back_in_an_even_log_is_found_in_a_few_looks() {
        let log: Vec<u64> = (0..6_000_000).map(|number| 1_000_000 + 5 * number).collect();
        for until in [2, 100, 3_000_000, 5_000_000, 5_999_000] {
            let (found, looks) = find(&log, 100, log[until]);
            let most = until + 1;
            assert!(
                (100.min(most)..=most.min(250_000)).contains(&found),
                "{until}: {found} read"
            );
            assert!(looks <= 8, "{until}: {looks} looks");
        }
    }

    #[test]
    fn a_window_that_a_growing_log_moves_away_from_is_found_in_a_few_looks() {
        let log: Vec<u64> = (0..20_000).map(|number| 1_000_000 + 5 * number).collect();
        for (pace, most) in [(1, 4), (5, 4), (500, 8), (5_000, 12)] {
            let (found, looks) = find_growing(&log, 5001, log[14_999], pace);
            assert!(
                found >= 5001 && looks <= most,
                "{pace}: {found} read, {looks} looks"
            );
        }
    }

    proptest! {
        #[test]
        fn a_window_is_found_however_unevenly_lines_came(
            bursts in prop::collection::vec((0_u64..1_000_000, 1_usize..400), 1..60),
            lines in 1_u32..300,
            at in 0.0..1.0_f64,
        ) {
            let mut moment = 1_000_000;
            let mut log = Vec::new();
            for (pause, count) in bursts {
                moment += pause;
                for _ in 0..count {
                    moment += 1;
                    log.push(moment);
                }
            }
            let index = ((log.len() - 1) as f64 * at) as usize;
            let (found, _) = find(&log, lines, log[index]);
            prop_assert!(found >= (lines as usize).min(index + 1));
        }
    }
}
