//! What waits to be published on one log topic, in order. No I/O, no clock.

use std::collections::VecDeque;

/// Largest message, bytes, each line counted with its line end (`logs-terminal-tunnel.md` 2.7).
pub(super) const MESSAGE: usize = 256 << 10;
/// Most that waits, bytes. Beyond it the oldest output leaves, is counted and announced (L9).
pub(super) const BUFFER: usize = 1 << 20;
/// Agent lines that wait: only a link that does not move makes them that many.
const AGENT_LINES: usize = 200;

/// One message on a log topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Output: lines joined by line feeds. `lines` is their number, for counting them when they get lost.
    Output { text: String, lines: u64 },
    /// A line written by the agent.
    Agent(String),
}

/// Lines waiting for their message.
#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: VecDeque<Item>,
    /// Output waiting, bytes.
    bytes: usize,
    agent_lines: usize,
    /// Lines lost before the first one waiting.
    dropped: u64,
}

#[derive(Debug)]
enum Item {
    Output(String),
    Agent(String),
}

impl Batch {
    /// Adds a line of output.
    pub(super) fn push_output(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.waiting.push_back(Item::Output(line));
        while self.bytes > BUFFER {
            let oldest = self
                .waiting
                .iter()
                .position(|item| matches!(item, Item::Output(_)));
            if let Some(Item::Output(line)) = oldest.and_then(|index| self.waiting.remove(index)) {
                self.bytes -= line.len() + 1;
                self.dropped += 1;
            }
        }
    }

    /// Adds an agent line: keeps its place among the output.
    pub(super) fn push_agent(&mut self, line: String) {
        if self.agent_lines >= AGENT_LINES {
            self.dropped += 1;
            return;
        }
        self.agent_lines += 1;
        self.waiting.push_back(Item::Agent(line));
    }

    /// Counts lines that were lost elsewhere.
    pub(super) fn note_dropped(&mut self, lines: u64) {
        self.dropped += lines;
    }

    /// Output waiting, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }

    /// Forgets everything, the count of lost lines too: nobody listens.
    pub(super) fn clear(&mut self) {
        *self = Batch::default();
    }

    /// The next message.
    pub(super) fn take(&mut self) -> Option<Message> {
        let lost = std::mem::take(&mut self.dropped);
        if lost == 0
            && let Some(Item::Agent(_)) = self.waiting.front()
        {
            let Some(Item::Agent(line)) = self.waiting.pop_front() else {
                return None;
            };
            self.agent_lines -= 1;
            return Some(Message::Agent(line));
        }
        let mut text = String::new();
        let mut lines = lost;
        let mut bytes = 0;
        if lost > 0 {
            // Where the gap is: before what comes next.
            text = format!("… {lost} log line(s) dropped (rate limit)");
        }
        while let Some(Item::Output(line)) = self.waiting.front() {
            let size = line.len() + 1;
            // A line above the limit travels alone.
            if bytes > 0 && bytes + size > MESSAGE {
                break;
            }
            if !text.is_empty() || lines > 0 {
                text.push('\n');
            }
            text.push_str(line);
            lines += 1;
            bytes += size;
            self.bytes -= size;
            self.waiting.pop_front();
        }
        (lines > 0).then_some(Message::Output { text, lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str, lines: u64) -> Option<Message> {
        Some(Message::Output {
            text: text.to_owned(),
            lines,
        })
    }

    fn drain(batch: &mut Batch) -> Vec<Message> {
        std::iter::from_fn(|| batch.take()).collect()
    }

    #[test]
    fn lines_make_one_message_and_nothing_makes_none() {
        let mut batch = Batch::default();
        assert_eq!(batch.take(), None);
        for line in ["a", "", "c"] {
            batch.push_output(line.to_owned());
        }
        assert_eq!(batch.take(), output("a\n\nc", 3));
        assert_eq!(batch.take(), None);
        batch.push_output(String::new());
        batch.push_output("x".to_owned());
        assert_eq!(batch.take(), output("\nx", 2));
        assert_eq!((batch.bytes(), batch.is_empty()), (0, true));
    }

    #[test]
    fn agent_lines_keep_their_place() {
        let mut batch = Batch::default();
        batch.push_agent("Starting".to_owned());
        batch.push_output("one".to_owned());
        batch.push_agent("Stopped".to_owned());
        batch.push_output("two".to_owned());
        assert_eq!(
            drain(&mut batch),
            [
                Message::Agent("Starting".to_owned()),
                output("one", 1).unwrap(),
                Message::Agent("Stopped".to_owned()),
                output("two", 1).unwrap(),
            ]
        );
    }

    #[test]
    fn what_exceeds_a_message_waits_for_the_next_one() {
        let mut batch = Batch::default();
        let line = "x".repeat(100 << 10);
        for _ in 0..4 {
            batch.push_output(line.clone());
        }
        let messages = drain(&mut batch);
        assert_eq!(
            messages,
            [
                output(&format!("{line}\n{line}"), 2).unwrap(),
                output(&format!("{line}\n{line}"), 2).unwrap()
            ]
        );
        batch.push_output("y".repeat(MESSAGE + 5));
        batch.push_output("z".to_owned());
        assert_eq!(drain(&mut batch).len(), 2, "a line above the limit travels alone");
    }

    #[test]
    fn beyond_the_buffer_the_oldest_output_leaves_and_is_counted() {
        let mut batch = Batch::default();
        batch.push_agent("first".to_owned());
        for number in 0..15 {
            batch.push_output(format!("{number} {}", "x".repeat(100 << 10)));
            assert!(batch.bytes() <= BUFFER);
        }
        let messages = drain(&mut batch);
        let Message::Output { text, .. } = &messages[0] else {
            panic!("the gap comes first");
        };
        assert_eq!(text, "… 5 log line(s) dropped (rate limit)");
        assert_eq!(messages[1], Message::Agent("first".to_owned()));
        let Message::Output { text, .. } = &messages[2] else {
            panic!("the output follows");
        };
        assert!(text.starts_with("5 x"));
        let delivered: u64 = messages[2..]
            .iter()
            .map(|message| match message {
                Message::Output { lines, .. } => *lines,
                Message::Agent(_) => 0,
            })
            .sum();
        assert_eq!(delivered, 10, "delivered and announced make all");
    }
}
