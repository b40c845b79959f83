//! Reads the agent's own log back for `query_device_logs` (`logs-terminal-tunnel.md` 2.13): from the end of the newest
//! file backwards (weakness L22), whichever agent wrote it. Knows nothing of procedures.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::file::LogPlace;
use crate::os::FileExt as _;

/// Read at once, bytes.
const BLOCK: usize = 64 << 10;
/// Longer lines are cut into pieces of about this size (weakness L23).
const LONGEST: usize = 1 << 20;
/// Most that one query reads, bytes. What is older is not looked at, and the answer says that lines are missing.
const BUDGET: u64 = 64 << 20;
/// Text of an answer, bytes with line ends.
pub const ANSWER: usize = 4 << 20;
/// So many dated lines in a row before the window end the search; a few may only be those of a clock that was wrong.
const OUTSIDE: u32 = 1000;

/// Severity, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
    Panic,
}

impl Severity {
    /// Reads the word of a log line or of a caller; unknown ones mean `info`.
    pub fn of(word: &str) -> Severity {
        match word.trim().to_ascii_lowercase().as_str() {
            "trace" => Severity::Trace,
            "debug" => Severity::Debug,
            "warn" => Severity::Warn,
            "error" => Severity::Error,
            "fatal" => Severity::Fatal,
            "panic" => Severity::Panic,
            _ => Severity::Info,
        }
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Trace => "trace",
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
            Severity::Panic => "panic",
        }
    }
}

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The newest so many.
    pub tail: usize,
    /// Bounds, both inclusive.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// This or worse.
    pub severity: Severity,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Oldest first.
    pub lines: Vec<String>,
    /// Older lines that match were left out.
    pub truncated: bool,
    pub files_scanned: usize,
    /// The first dated line there is.
    pub oldest_available: Option<Timestamp>,
}

/// Searches the log at `place`. Blocks while it reads. Fails only when there is no file at all.
pub fn run(place: &LogPlace, query: &Query) -> io::Result<Answer> {
    let mut files = place.backups().unwrap_or_default();
    files.push(place.file.clone());
    let mut search = Search::new(query);
    let (mut scanned, mut failure) = (0, None);
    let mut oldest = None;
    let mut budget = BUDGET;
    for path in files.iter().rev() {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                // Of several the active one's says most.
                failure.get_or_insert(error);
                continue;
            }
        };
        scanned += 1;
        oldest = Some(path);
        // One that cannot be read any further is done.
        let done = search_backwards(&file, &mut search, &mut budget).unwrap_or(false);
        if done {
            break;
        }
    }
    if let (0, Some(error)) = (scanned, failure) {
        return Err(error);
    }
    search.finish();
    let first = files.iter().find_map(|path| Some((path, File::open(path).ok()?)));
    let oldest_available = match first {
        Some((path, file)) => {
            scanned += usize::from(Some(path) != oldest);
            first_date(&file)
        }
        None => None,
    };
    let Search { found, truncated, .. } = search;
    Ok(Answer {
        lines: found.into(),
        truncated,
        files_scanned: scanned,
        oldest_available,
    })
}

/// `true` when older lines are not wanted any more.
fn search_backwards(file: &File, search: &mut Search<'_>, budget: &mut u64) -> io::Result<bool> {
    let mut end = file.metadata()?.len();
    // The beginning of a line whose end was read already.
    let mut rest: Vec<u8> = Vec::new();
    while end > 0 {
        if *budget == 0 {
            // The line that they belong to is out of reach: they stand for themselves.
            search.take(None, Severity::Info, None);
            search.truncated = true;
            return Ok(true);
        }
        let begin = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; usize::try_from(end - begin).unwrap_or(BLOCK)];
        file.read_exact_at(&mut block, begin)?;
        *budget = budget.saturating_sub(block.len() as u64);
        end = begin;
        block.append(&mut rest);
        let mut stop = block.len();
        while let Some(line_end) = block[..stop].iter().rposition(|&byte| byte == b'\n') {
            if search.line(&block[line_end + 1..stop]) {
                return Ok(true);
            }
            stop = line_end;
        }
        block.truncate(stop);
        rest = block;
        if rest.len() > LONGEST {
            if search.line(&rest) {
                return Ok(true);
            }
            rest.clear();
        }
    }
    Ok(search.line(&rest))
}

/// When the first dated line of a file was written.
fn first_date(file: &File) -> Option<Timestamp> {
    let mut block = vec![0; BLOCK];
    let size = file.read_at(&mut block, 0).ok()?;
    block[..size]
        .split(|&byte| byte == b'\n')
        .find_map(|line| Record::parse(line)?.moment())
}

/// The members of a line that count.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Record {
    level: String,
    time: String,
    message: String,
    error: serde_json::Value,
}

impl Record {
    /// `None`: not a line of the log, but of a stack trace or the like.
    fn parse(line: &[u8]) -> Option<Record> {
        let record: Record = serde_json::from_slice(line).ok()?;
        let empty = record.level.is_empty() && record.time.is_empty() && record.message.is_empty();
        (!empty).then_some(record)
    }

    fn moment(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    fn shown(&self) -> String {
        let mut text = String::new();
        if let Some(moment) = self.moment() {
            text = rfc3339(moment);
            text.push(' ');
        }
        if !self.level.is_empty() {
            text.push_str(&self.level.to_uppercase());
            text.push(' ');
        }
        text.push_str(&self.message);
        match &self.error {
            serde_json::Value::Null => {}
            serde_json::Value::String(error) if error.is_empty() => {}
            serde_json::Value::String(error) => {
                text.push_str(": ");
                text.push_str(error);
            }
            other => {
                text.push_str(": ");
                text.push_str(&other.to_string());
            }
        }
        text
    }
}

/// RFC 3339 in UTC with whole seconds.
pub fn rfc3339(moment: Timestamp) -> String {
    moment
        .to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// Takes lines, newest first.
struct Search<'a> {
    query: &'a Query,
    found: VecDeque<String>,
    bytes: usize,
    truncated: bool,
    /// Lines that belong to the one before them, which is still to come. Newest first.
    attached: Vec<String>,
    attached_bytes: usize,
    /// There were more, older ones.
    attached_cut: bool,
    outside: u32,
}

impl<'a> Search<'a> {
    fn new(query: &'a Query) -> Search<'a> {
        Search {
            query,
            found: VecDeque::new(),
            bytes: 0,
            truncated: false,
            attached: Vec::new(),
            attached_bytes: 0,
            attached_cut: false,
            outside: 0,
        }
    }

    /// Takes the line before. `true` when no older one is wanted.
    fn line(&mut self, line: &[u8]) -> bool {
        if line.trim_ascii().is_empty() {
            return false;
        }
        let Some(record) = Record::parse(line) else {
            self.attach(line.strip_suffix(b"\r").unwrap_or(line));
            return false;
        };
        let shown = record.shown();
        self.take(record.moment(), Severity::of(&record.level), Some(shown))
    }

    /// Only what an answer could have: the line that all of them belong to may be far.
    fn attach(&mut self, line: &[u8]) {
        if !self.attached_cut {
            let text = String::from_utf8_lossy(line).into_owned();
            self.attached_bytes += text.len() + 1;
            self.attached_cut = self.attached.len() >= self.query.tail || self.attached_bytes > ANSWER;
            if !self.attached_cut {
                self.attached.push(text);
            }
        }
    }

    fn take(&mut self, moment: Option<Timestamp>, severity: Severity, shown: Option<String>) -> bool {
        let attached = std::mem::take(&mut self.attached);
        let cut = std::mem::take(&mut self.attached_cut);
        self.attached_bytes = 0;
        let early = |moment: Timestamp| self.query.since.is_some_and(|since| moment < since);
        let late = |moment: Timestamp| self.query.until.is_some_and(|until| moment > until);
        if moment.is_some_and(early) {
            self.outside += 1;
            return self.outside >= OUTSIDE;
        }
        if moment.is_some() {
            self.outside = 0;
        }
        if severity < self.query.severity || moment.is_some_and(late) {
            return false;
        }
        if attached.into_iter().any(|line| self.keep(line)) {
            return true;
        }
        if cut {
            self.truncated = true;
            return true;
        }
        shown.is_some_and(|line| self.keep(line))
    }

    fn keep(&mut self, line: String) -> bool {
        self.bytes += line.len() + 1;
        if self.found.len() >= self.query.tail || self.bytes > ANSWER {
            self.truncated = true;
            return true;
        }
        self.found.push_front(line);
        false
    }

    /// There is nothing before.
    fn finish(&mut self) {
        if !self.truncated {
            self.take(None, Severity::Info, None);
        }
    }
}

#[cfg(test)]
mod tests;
