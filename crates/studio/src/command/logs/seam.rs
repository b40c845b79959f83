//! Where lines that were asked for and live lines meet. What was asked for has timestamps and is the truth about order
//! and number; live lines have none. So until it is certain where the live lines stand, they only say that there is
//! something to ask for. Knows neither connection nor output.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::dated::{Found, Line};
use super::lines::{BATCH, Heard, is_gap};

/// Longest time between a line's moment and its live event while nothing is in the way.
const LATE: SignedDuration = SignedDuration::from_secs(2);

/// Looks after which lines that all look alike are taken as they come, rather than have the device asked for ever.
const ENOUGH: u32 = 10;

/// Lines that are shown but may still come live.
pub(super) type Expected = HashMap<String, usize>;

/// Where the live lines stand is not certain yet.
#[derive(Debug, Default)]
pub(super) struct Seam {
    /// Every text that was found so far.
    known: HashSet<String>,
    /// What the history had besides, and until when that may come again.
    told: Option<(HashSet<String>, Instant)>,
    /// The moment of the newest line that was found, and how many of that moment.
    newest: Option<(Timestamp, usize)>,
    /// Lines were left out between those that were found, so what the agent says of gaps may be of them.
    gap: bool,
    /// Looks that found lines, none of which was like no other.
    alike: u32,
}

/// What to do after one look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) show: Vec<String>,
    /// There may be a gap before these lines, or some of them may have been shown.
    pub(super) unsure: bool,
    /// The live lines go on by themselves, but for these.
    pub(super) over: Option<Expected>,
}

impl Seam {
    /// The first look: these lines are what was shown.
    pub(super) fn after(lines: &[Line]) -> Seam {
        let mut seam = Seam::default();
        seam.advance(lines);
        seam
    }

    /// The first look: the device's history was shown, then its newest lines were asked for.
    pub(super) fn begin(history: Vec<String>, found: Found) -> (Seam, Step) {
        let mut seam = Seam::default();
        let ends = endings(&history, &found.lines);
        // Lines that look alike were most likely in both.
        let from = ends.last().copied().unwrap_or(found.lines.len());
        let show = texts(&found.lines[from..]);
        seam.advance(&found.lines);
        let besides = history.into_iter().filter(|line| !seam.known.contains(line));
        seam.told = Some((besides.collect(), Instant::now() + BATCH));
        let step = Step {
            show,
            ..Step::default()
        };
        (seam, step)
    }

    /// After an interruption: `shown` are the newest lines that were shown, the last of them so long ago; `found` is
    /// everything since a little longer ago.
    pub(super) fn resume(shown: &[String], ago: Duration, found: &Found) -> (Seam, Step) {
        let lines = &found.lines;
        // On the device's clock.
        let last = found
            .now
            .and_then(|now| now.checked_sub(SignedDuration::try_from(ago).ok()?).ok());
        let ends = endings(shown, lines);
        let (from, sure) = match ends[..] {
            [end] => (end, true),
            // Nothing that was shown: printed since, or there is a gap.
            [] => {
                let since = |moment: Option<Timestamp>, margin| match (moment, last) {
                    (Some(moment), Some(last)) => {
                        moment.saturating_add(margin).is_ok_and(|late| late >= last)
                    }
                    _ => false,
                };
                let later = lines.first().is_none_or(|line| since(line.at, LATE));
                // The log itself is younger than what was shown: another container.
                let other = since(found.oldest, SignedDuration::ZERO);
                (0, later && !other)
            }
            // Lines that look alike: the clock decides.
            _ => {
                let by_clock = lines.partition_point(|line| line.at <= last);
                let nearest = ends.iter().min_by_key(|end| end.abs_diff(by_clock));
                (nearest.copied().unwrap_or_default(), false)
            }
        };
        let mut seam = Seam::default();
        seam.known.extend(shown.iter().cloned());
        let step = Step {
            show: texts(&lines[from..]),
            unsure: !sure || !found.whole,
            over: None,
        };
        seam.gap = step.unsure;
        seam.advance(lines);
        (seam, step)
    }

    /// Since when to ask, in the device's words.
    pub(super) fn since(&self) -> Option<String> {
        self.newest.map(|(moment, _)| moment.to_string())
    }

    /// One look: `heard` came before it was asked for, `found` is what there is since the last one.
    pub(super) fn look(&mut self, heard: &[Heard], found: Found) -> Step {
        let whole = found.whole;
        self.gap |= !whole;
        let new = self.newer(found.lines);
        let mut count: HashMap<&str, usize> = HashMap::new();
        for line in &new {
            *count.entry(&line.text).or_default() += 1;
        }
        let alone = |line: &&Line| count[line.text.as_str()] == 1 && !self.known.contains(&line.text);
        if !new.is_empty() && !new.iter().any(|line| alone(&line)) {
            self.alike += 1;
        }
        let mut live: HashMap<&str, usize> = HashMap::new();
        for line in heard.iter().filter(|line| !line.by_agent) {
            *live.entry(&line.text).or_default() += 1;
        }
        let told = self.told.take().filter(|(_, until)| Instant::now() < *until);
        let was_told = |text: &str| told.as_ref().is_some_and(|(lines, _)| lines.contains(text));
        // Not of the container: its agent's words, or an operation's output. Gaps are filled here, if they can be.
        let mut show: Vec<String> = heard
            .iter()
            .filter(|line| {
                let text = line.text.as_str();
                let found = match is_gap(text) {
                    true => !self.gap,
                    false => self.known.contains(text) || count.contains_key(text),
                };
                !was_told(text) && (line.by_agent || !found)
            })
            .map(|line| line.text.clone())
            .collect();
        // A line that there was only once, and that came: what is behind it is still to come, all others are through.
        let reached = new
            .iter()
            .rposition(|line| alone(&line) && live.get(line.text.as_str()) == Some(&1));
        let behind = match reached {
            Some(place) => Some(&new[place + 1..]),
            // So many that asking does not keep pace, or one more or less of them is the same.
            None if !whole || self.alike >= ENOUGH => Some(&new[..]),
            None => None,
        };
        let over = behind.map(|behind| {
            let mut expected = Expected::new();
            for line in behind {
                match live.get_mut(line.text.as_str()) {
                    Some(heard) if *heard > 0 => *heard -= 1,
                    Some(_) | None => *expected.entry(line.text.clone()).or_default() += 1,
                }
            }
            expected
        });
        show.extend(texts(&new));
        self.advance(&new);
        Step {
            show,
            unsure: !whole,
            over,
        }
    }

    /// Those behind the newest that was found before.
    fn newer(&self, mut lines: Vec<Line>) -> Vec<Line> {
        if let Some((moment, count)) = self.newest {
            let before = lines.partition_point(|line| line.at < Some(moment));
            let same = lines[before..]
                .iter()
                .take_while(|line| line.at == Some(moment))
                .count();
            lines.drain(..before + same.min(count));
        }
        lines
    }

    fn advance(&mut self, lines: &[Line]) {
        for line in lines {
            self.known.insert(line.text.clone());
            self.newest = match (self.newest, line.at) {
                (Some((moment, count)), Some(at)) if at == moment => Some((moment, count + 1)),
                (Some(newest), Some(at)) if at < newest.0 => Some(newest),
                (_, Some(at)) => Some((at, 1)),
                (newest, None) => newest,
            };
        }
    }
}

/// Takes lines that were shown out of live ones. The rest, and whether there was one of them or none but the agent's.
pub(super) fn take_expected(expected: &mut Expected, mut lines: Vec<Heard>) -> (Vec<Heard>, bool) {
    let mut any = lines.iter().all(|line| line.by_agent);
    lines.retain(|line| match expected.get_mut(&line.text) {
        Some(count) if !line.by_agent && *count > 0 => {
            *count -= 1;
            any = true;
            false
        }
        Some(_) | None => true,
    });
    expected.retain(|_, count| *count > 0);
    (lines, any)
}

fn texts(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| line.text.clone()).collect()
}

/// How many of the first lines were shown, when `shown` is what was shown last: every number that fits best. Words of
/// the agent, which are not in its log, do not count.
fn endings(shown: &[String], lines: &[Line]) -> Vec<usize> {
    let there: HashSet<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let shown: Vec<&str> = shown
        .iter()
        .map(String::as_str)
        .filter(|line| there.contains(line))
        .collect();
    let common = |end: usize| {
        let pairs = lines[..end].iter().rev().zip(shown.iter().rev());
        pairs.take_while(|(line, shown)| line.text == **shown).count()
    };
    let fits: Vec<(usize, usize)> = (1..=lines.len())
        .map(|end| (end, common(end)))
        .filter(|(_, common)| *common > 0)
        .collect();
    let complete = |(end, common): &(usize, usize)| *common == shown.len().min(*end);
    let any_complete = fits.iter().any(complete);
    let most = fits.iter().map(|(_, common)| *common).max();
    fits.iter()
        .filter(|fit| match any_complete {
            true => complete(fit),
            false => Some(fit.1) == most,
        })
        .map(|(end, _)| *end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::dated::tests::at;
    use super::*;

    /// `second:text` words.
    fn dated(text: &str) -> Vec<Line> {
        let line = |word: &str| {
            let (second, text) = word.split_once(':').unwrap();
            Line {
                at: Some(at(second.parse().unwrap())),
                text: text.to_owned(),
            }
        };
        text.split_whitespace().map(line).collect()
    }

    fn found(text: &str) -> Found {
        Found {
            lines: dated(text),
            whole: true,
            dated: true,
            now: Some(at(1000)),
            oldest: Some(at(0)),
        }
    }

    /// Words; with a `!` those of the agent.
    fn live(text: &str) -> Vec<Heard> {
        let line = |word: &str| Heard {
            text: word.trim_start_matches('!').to_owned(),
            by_agent: word.starts_with('!'),
        };
        text.split_whitespace().map(line).collect()
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn expected(text: &str) -> Option<Expected> {
        let mut expected = Expected::new();
        for word in words(text) {
            *expected.entry(word).or_default() += 1;
        }
        Some(expected)
    }

    #[test]
    fn what_a_device_held_comes_once_and_in_order_whenever_its_gate_opens() {
        let shown = words("498 499 500");
        let numbers = (499..=900)
            .map(|number| format!("990:{number} "))
            .collect::<String>();
        let (mut seam, step) = Seam::resume(&shown, Duration::from_secs(10), &found(&numbers));
        assert_eq!(step.show.len(), 400);
        assert_eq!((step.show[0].as_str(), step.unsure), ("501", false));
        // Its held output, in several messages, the first again from before the interruption.
        for message in ["499 500 501 502", "503 504 505", "899 900"] {
            assert_eq!(seam.look(&live(message), found("")), Step::default(), "{message}");
        }
        let step = seam.look(
            &live("901 902"),
            found("990:900 999:901 999:902 1000:903 1000:904"),
        );
        assert_eq!(step.show, words("901 902 903 904"));
        let mut still = step.over.unwrap();
        assert_eq!(Some(still.clone()), expected("903 904"));
        assert_eq!(take_expected(&mut still, live("!x 903")), (live("!x"), true));
        assert_eq!(take_expected(&mut still, live("904 905")), (live("905"), true));
        assert!(still.is_empty());
    }

    #[test]
    fn lines_that_look_alike_are_counted_by_what_the_device_found() {
        let shown = vec!["tick".to_owned(); 100];
        let ticks = (970..1000)
            .map(|second| format!("{second}:tick "))
            .collect::<String>();
        let (mut seam, step) = Seam::resume(&shown, Duration::from_secs(20), &found(&ticks));
        // The clock says which of them were shown, and nobody can be sure.
        assert_eq!((step.show.len(), step.unsure), (19, true));
        for second in [1001, 1002] {
            let step = seam.look(&live("tick"), found(&format!("999:tick {second}:tick")));
            assert_eq!((step.show, step.unsure, step.over), (words("tick"), false, None));
        }
        // Held ones are among those.
        let step = seam.look(&live("tick tick tick"), found("1002:tick"));
        assert_eq!(step, Step::default());
        // The first that is like no other ends it.
        let step = seam.look(&live("tick end"), found("1002:tick 1003:tick 1004:end 1004:tick"));
        assert_eq!((step.show, step.over), (words("tick end tick"), expected("")));
    }

    #[test]
    fn a_device_is_not_asked_for_ever_about_lines_that_look_alike() {
        let mut seam = Seam::after(&dated("1:tick"));
        for second in 2..=ENOUGH + 1 {
            let step = seam.look(
                &live("tick"),
                found(&format!("{}:tick {second}:tick", second - 1)),
            );
            assert_eq!(step.show, words("tick"));
            let ends = second > ENOUGH;
            assert_eq!(step.over, ends.then(Expected::new), "{second}");
        }
    }

    #[test]
    fn a_gap_is_said_when_nothing_shown_is_found() {
        let shown = words("a b");
        for (ago, lines, oldest, sure) in [
            // Printed since.
            (10, "995:x 996:y", 0, true),
            (10, "", 0, true),
            // Before the last that was shown, and not shown.
            (10, "980:x 996:y", 0, false),
            // Another container.
            (10, "995:x", 995, false),
        ] {
            let found = Found {
                oldest: Some(at(oldest)),
                ..found(lines)
            };
            let (_, step) = Seam::resume(&shown, Duration::from_secs(ago), &found);
            assert_eq!(step.show.len(), found.lines.len(), "all of them: {lines}");
            assert_eq!(!step.unsure, sure, "{lines}");
        }
        let some = Found {
            whole: false,
            ..found("995:x")
        };
        assert!(
            Seam::resume(&shown, Duration::from_secs(10), &some).1.unsure,
            "more than is read back"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_agent_says_is_in_no_log_and_shown_once() {
        let history = words("Starting a b");
        let (mut seam, step) = Seam::begin(history.clone(), found("1:a 2:b 3:c"));
        assert_eq!((step.show, step.unsure), (words("c"), false));
        let step = seam.look(&live("!Starting b c !Stopping pulling"), found("3:c"));
        assert_eq!((step.show, step.over), (words("Stopping pulling"), None));
        let (mut seam, _) = Seam::begin(history, found("1:a 2:b"));
        tokio::time::advance(BATCH).await;
        assert_eq!(
            seam.look(&live("!Starting"), found("")).show,
            words("Starting"),
            "once more"
        );
    }

    #[test]
    fn services_of_a_project_may_come_in_another_order() {
        let mut seam = Seam::after(&dated("1:w1 2:d1"));
        let step = seam.look(&live("d2 w2"), found("2:d1 3:w2 4:d2 5:w3 6:d3"));
        assert_eq!(step.show, words("w2 d2 w3 d3"));
        let mut still = step.over.unwrap();
        assert_eq!(take_expected(&mut still, live("d3 d4")), (live("d4"), true));
        assert_eq!(take_expected(&mut still, live("w3")), (live(""), true));
        assert_eq!(take_expected(&mut still, live("w4")), (live("w4"), false));
    }

    #[test]
    fn what_the_agent_says_of_a_gap_is_shown_unless_the_gap_was_filled() {
        let gap = "… 7 log line(s) dropped (no connection)";
        let heard = [Heard {
            text: gap.to_owned(),
            by_agent: false,
        }];
        for whole in [true, false] {
            let all = Found {
                whole,
                ..found("999:b 999:c")
            };
            let (mut seam, step) = Seam::resume(&words("b"), Duration::from_secs(1), &all);
            assert_eq!(step.unsure, !whole);
            let shown = seam.look(&heard, found("999:c")).show;
            assert_eq!(shown.contains(&gap.to_owned()), !whole, "{shown:?}");
        }
    }

    #[test]
    fn so_many_lines_that_asking_does_not_keep_pace_end_it() {
        let mut seam = Seam::after(&dated("1:t 1:t"));
        let some = Found {
            whole: false,
            ..found("2:t 2:t 2:t")
        };
        let step = seam.look(&live("t"), some);
        assert_eq!(
            (step.show, step.unsure, step.over),
            (words("t t t"), true, expected("t t"))
        );
    }
}
