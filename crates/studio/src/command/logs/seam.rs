//! Where lines that were asked for and live lines meet. What was asked for has timestamps and is the truth about order
//! and number; live lines have none. So until it is certain where the live lines stand, they only say that there is
//! something to ask for. Knows neither connection nor output.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::REMEMBERED;
use super::dated::{Found, Line};
use super::lines::{BATCH, Heard, continuation, is_gap};

/// Longest time between a line's moment and its live event while nothing is in the way.
const LATE: SignedDuration = SignedDuration::from_secs(2);

/// Looks after which lines that all look alike are taken as they come, rather than have the device asked for ever.
const ENOUGH: u32 = 10;

/// Most lines remembered that were shown before they were found; after that many some may be shown twice, as was said.
const EARLY: usize = 100_000;

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
    /// Live lines that were shown before they were found.
    early: Expected,
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
    pub(super) fn after(found: &Found) -> Seam {
        let mut seam = Seam::default();
        seam.first(found);
        seam
    }

    /// The first look: the device's history was shown, then its newest lines were asked for.
    pub(super) fn begin(history: Vec<String>, found: &Found) -> (Seam, Step) {
        let mut seam = Seam::default();
        let ends = endings(&history, &found.lines);
        let (from, sure) = match ends.last() {
            // Lines that look alike were most likely in both.
            Some(end) => (*end, true),
            None if history.is_empty() => (found.lines.len().saturating_sub(REMEMBERED), true),
            None => (0, found.whole || found.lines.is_empty()),
        };
        seam.first(found);
        let besides = history.into_iter().filter(|line| !seam.known.contains(line));
        seam.told = Some((besides.collect(), Instant::now() + BATCH));
        seam.gap = !sure;
        let step = Step {
            show: texts(&found.lines[from..]),
            unsure: !sure,
            over: None,
        };
        (seam, step)
    }

    /// After an interruption: `shown` are the newest lines that were shown, the last of them so long ago; `found` is
    /// everything since a little longer ago. The history has, besides, what the agent said meanwhile.
    pub(super) fn resume(shown: &[String], ago: Duration, found: &Found, history: &[String]) -> (Seam, Step) {
        let lines = &found.lines;
        // On the device's clock.
        let last = found
            .now
            .and_then(|now| now.checked_sub(SignedDuration::try_from(ago).ok()?).ok());
        let since = |moment: Option<Timestamp>, margin| match (moment, last) {
            (Some(moment), Some(last)) => moment.saturating_add(margin).is_ok_and(|late| late >= last),
            _ => false,
        };
        let mut ends = endings(shown, lines);
        // An app that was started anew says the same again: no line was shown before it was printed.
        ends.retain(|end| match (lines[end - 1].at, last) {
            (Some(at), Some(last)) => last.saturating_add(LATE).is_ok_and(|late| at <= late),
            _ => true,
        });
        let (from, sure) = match ends[..] {
            [end] => (end, true),
            // Nothing that was shown: printed since, or there is a gap.
            [] => {
                let later = lines.first().is_none_or(|line| since(line.at, LATE));
                // The log itself is younger than what was shown: another container.
                let other = match found.oldest {
                    Some(oldest) => since(Some(oldest), SignedDuration::ZERO),
                    None => !lines.is_empty(),
                };
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
        seam.gap = !sure || !found.whole;
        seam.first(found);
        let there: HashSet<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        let said = said_since(shown, history)
            .iter()
            .map(|text| (text.as_str(), !there.contains(text.as_str())));
        let step = Step {
            show: weave(texts(&lines[from..]), said),
            unsure: seam.gap,
            over: None,
        };
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
        let mut early = std::mem::take(&mut self.early);
        let mut live: HashMap<&str, usize> = HashMap::new();
        for line in heard.iter().filter(|line| !line.by_agent) {
            *live.entry(&line.text).or_default() += 1;
        }
        for line in &new {
            if let Some(count) = early.get(&line.text) {
                *live.entry(&line.text).or_default() += count;
            }
        }
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
        let own = self.not_found(heard, |text| count.contains_key(text));
        let fresh = new.iter().filter(|line| !take(&mut early, &line.text));
        let show = weave(fresh.map(|line| line.text.clone()).collect(), own.into_iter());
        self.told = None;
        self.advance(&new);
        Step {
            show,
            unsure: !whole,
            over,
        }
    }

    /// What to show of live lines when the device cannot be asked. What it has of them is not shown once more.
    pub(super) fn ahead(&mut self, heard: &[Heard]) -> Vec<String> {
        let own = self.not_found(heard, |_| false);
        let show: Vec<String> = own
            .into_iter()
            .filter(|(text, own)| *own || is_gap(text))
            .map(|(text, _)| text.to_owned())
            .collect();
        for line in heard
            .iter()
            .filter(|line| !line.by_agent && show.contains(&line.text))
        {
            *self.early.entry(line.text.clone()).or_default() += 1;
        }
        if self.early.len() > EARLY {
            self.early.clear();
        }
        show
    }

    /// Live lines, and which of them are not of the container: its agent's words, or an operation's output. Gaps are
    /// filled here, if they can be.
    fn not_found<'a>(&self, heard: &'a [Heard], found: impl Fn(&str) -> bool) -> Vec<(&'a str, bool)> {
        let told = self.told.as_ref().filter(|(_, until)| Instant::now() < *until);
        let was_told = |text: &str| told.is_some_and(|(lines, _)| lines.contains(text));
        let own = |line: &Heard| {
            let text = line.text.as_str();
            let there = match is_gap(text) {
                true => !self.gap,
                false => self.known.contains(text) || found(text),
            };
            !was_told(text) && (line.by_agent || !there)
        };
        heard.iter().map(|line| (line.text.as_str(), own(line))).collect()
    }

    /// Those behind the newest that was found before. They come in the order of writing, which is not that of their
    /// moments when a clock was set back.
    fn newer(&self, mut lines: Vec<Line>) -> Vec<Line> {
        let Some((moment, count)) = self.newest else {
            return lines;
        };
        let same = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.at == Some(moment));
        match same.take(count).last() {
            Some((place, _)) => drop(lines.drain(..=place)),
            None => lines.retain(|line| line.at >= Some(moment)),
        }
        lines
    }

    /// The first lines that were found. When there are none, there were none up to then.
    fn first(&mut self, found: &Found) {
        self.advance(&found.lines);
        if self.newest.is_none() {
            // The device says whole seconds of its clock.
            let now = found
                .now
                .and_then(|now| now.checked_sub(SignedDuration::from_secs(1)).ok());
            self.newest = now.max(found.from).map(|moment| (moment, 0));
        }
    }

    fn advance(&mut self, lines: &[Line]) {
        for line in lines {
            self.known.insert(line.text.clone());
            self.newest = match (self.newest, line.at) {
                (Some((moment, count)), Some(at)) if at == moment => Some((moment, count + 1)),
                (_, Some(at)) => Some((at, 1)),
                (newest, None) => newest,
            };
        }
    }
}

/// Everything that was found, with what the agent said in between, as far as the history goes back.
pub(super) fn since(found: &Found, history: &[String]) -> Vec<String> {
    let there: HashSet<&str> = found.lines.iter().map(|line| line.text.as_str()).collect();
    let first = history.iter().position(|line| there.contains(line.as_str()));
    let said = history[first.unwrap_or(history.len())..]
        .iter()
        .map(|text| (text.as_str(), !there.contains(text.as_str())));
    weave(texts(&found.lines), said)
}

/// What of the history came after what was shown: behind the place that ends like it, all of it if they have nothing in
/// common, and nothing if that cannot be said.
fn said_since<'a>(shown: &[String], history: &'a [String]) -> &'a [String] {
    match continuation(shown, history).0 {
        0 if history.iter().any(|line| shown.contains(line)) => &[],
        from => &history[from..],
    }
}

/// Puts lines of others (`true`) between those that were found: behind the last one that was said before them.
fn weave<'a>(found: Vec<String>, said: impl Iterator<Item = (&'a str, bool)>) -> Vec<String> {
    let mut left = Expected::new();
    for line in &found {
        *left.entry(line.clone()).or_default() += 1;
    }
    let mut rest = found.into_iter();
    let mut woven = Vec::new();
    for (text, other) in said {
        if other {
            woven.push(text.to_owned());
        } else if left.get(text).is_some_and(|count| *count > 0) {
            for line in rest.by_ref() {
                take(&mut left, &line);
                let here = line == text;
                woven.push(line);
                if here {
                    break;
                }
            }
        }
    }
    woven.extend(rest);
    woven
}

/// Takes one of so many. `false` when there is none.
fn take(counts: &mut Expected, text: &str) -> bool {
    match counts.get_mut(text) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        Some(_) | None => false,
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

/// Whether what was found begins before what was shown last ends.
pub(super) fn meets(shown: &[String], found: &Found) -> bool {
    !endings(shown, &found.lines).is_empty()
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
mod tests;
