//! The newest lines of one app, for its history. No I/O.

use std::collections::VecDeque;

/// Entries kept (`logs-terminal-tunnel.md` 2.8), agent lines included (L3).
pub(super) const ENTRIES: usize = 100;
/// Text kept, bytes: a hundred lines may be long ones.
const BYTES: usize = 256 << 10;
/// Text kept of one line, bytes, so that no single one takes the place of all others.
const LINE: usize = BYTES / 8;

/// Newest lines, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Some had no place any more, so what is older has none either.
    full: bool,
}

#[derive(Debug)]
struct Entry {
    text: String,
    by_agent: bool,
}

impl Ring {
    /// A line that the container or an operation printed.
    pub(super) fn push_output(&mut self, text: String) {
        self.push(Entry {
            text,
            by_agent: false,
        });
    }

    /// Lines joined by line feeds, of which only the newest are looked at.
    pub(super) fn push_text(&mut self, text: &str) {
        let newest: Vec<&str> = text.rsplit('\n').take(ENTRIES).collect();
        for line in newest.into_iter().rev() {
            self.push_output(line.to_owned());
        }
    }

    /// A line written by the agent itself.
    pub(super) fn push_agent(&mut self, text: String) {
        self.push(Entry { text, by_agent: true });
    }

    fn push(&mut self, mut entry: Entry) {
        if entry.text.len() > LINE {
            entry.text.truncate(entry.text.floor_char_boundary(LINE));
        }
        self.bytes += entry.text.len();
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.text.len();
                self.full = true;
            }
        }
    }

    /// Puts the stored lines of an earlier run of the agent before those of this one. Who wrote them is not stored.
    pub(super) fn restore(&mut self, stored: Vec<String>) {
        if self.full {
            return;
        }
        let newer = std::mem::take(self);
        for line in stored {
            self.push_output(line);
        }
        for entry in newer.entries {
            self.push(entry);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Ring::default();
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.text.clone()).collect()
    }

    /// Whether anything but agent lines is there.
    pub(super) fn has_output(&self) -> bool {
        self.entries.iter().any(|entry| !entry.by_agent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Both limits hold after every line, and what is there are the newest lines, as many as fit.
        #[test]
        fn the_newest_lines_that_fit_are_kept(
            sizes in prop::collection::vec(prop_oneof![9 => 0..200_usize, 1 => 0..(BYTES + 10)], 0..300),
            restored in 0..300_usize,
        ) {
            let lines: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let (stored, newer) = lines.split_at(restored.min(lines.len()));
            let mut ring = Ring::default();
            for line in newer {
                ring.push_output(line.clone());
                prop_assert!(ring.entries.len() <= ENTRIES && ring.bytes <= BYTES);
            }
            ring.restore(stored.to_vec());
            let kept = ring.lines();
            prop_assert_eq!(ring.bytes, kept.iter().map(String::len).sum::<usize>());
            let cut = |line: &String| line[..line.len().min(LINE)].to_owned();
            let newest: Vec<String> = lines[lines.len() - kept.len()..].iter().map(cut).collect();
            prop_assert_eq!(&kept, &newest);
            // One more has no room.
            if let Some(next) = lines.len().checked_sub(kept.len() + 1) {
                prop_assert!(kept.len() == ENTRIES || ring.bytes + cut(&lines[next]).len() > BYTES);
            }
        }
    }

    #[test]
    fn the_oldest_lines_leave_whoever_writes() {
        let mut ring = Ring::default();
        for number in 0..150 {
            if number % 2 == 0 {
                ring.push_output(number.to_string());
            } else {
                ring.push_agent(number.to_string());
            }
        }
        let lines = ring.lines();
        assert_eq!(lines.len(), ENTRIES);
        assert_eq!((lines[0].as_str(), lines[99].as_str()), ("50", "149"));
    }

    #[test]
    fn a_text_is_its_newest_lines() {
        let mut ring = Ring::default();
        ring.push_text("one\n\nthree");
        assert_eq!(ring.lines(), ["one", "", "three"]);
        let many: Vec<String> = (0..250).map(|number| number.to_string()).collect();
        ring.push_text(&many.join("\n"));
        assert_eq!(ring.lines(), many[150..]);
    }

    #[test]
    fn long_lines_push_out_more_than_one_and_none_all_others() {
        let mut ring = Ring::default();
        ring.push_output("short".to_owned());
        for _ in 0..BYTES / LINE {
            ring.push_output("x".repeat(LINE));
        }
        ring.push_output("short".to_owned());
        assert_eq!(ring.lines().len(), BYTES / LINE);
        ring.push_output("ü".repeat(BYTES));
        let lines = ring.lines();
        assert_eq!(lines.len(), BYTES / LINE);
        assert_eq!(lines[lines.len() - 1].len(), LINE);
        assert_eq!(lines[lines.len() - 2], "short");
    }

    #[test]
    fn stored_lines_come_before_newer_ones_and_count_as_output() {
        let mut ring = Ring::default();
        ring.push_agent("new".to_owned());
        assert!(!ring.has_output());
        ring.restore(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(ring.lines(), ["a", "b", "new"]);
        assert!(ring.has_output());
        ring.clear();
        assert!(ring.lines().is_empty() && !ring.has_output());
    }
}
