//! What waits to be published on one log topic, in order. No I/O, no clock.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::cursor::Cursor;

/// Largest message, bytes, each line counted with its line end (`logs-terminal-tunnel.md` 2.7).
pub(super) const MESSAGE: usize = 256 << 10;
/// Most output that waits, bytes. Beyond it the oldest leaves, is counted and announced (L9). One line that is longer than
/// a message has its place beside that: it may be as long as all this.
pub(super) const BUFFER: usize = 1 << 20;
/// Text of one container or operation that may wait to be published before it is read slower, bytes: a message on its way
/// and more than another one waiting, or else that one waits for company that cannot come.
pub(super) const AHEAD: usize = 3 * MESSAGE;
const _: () = assert!(AHEAD <= BUFFER);
/// Output that waits is put together up to this size, bytes.
const CHUNK: usize = 64 << 10;
/// Agent lines that wait: only a link that does not move makes them that many.
const AGENT_LINES: usize = 200;

/// What is said where nobody can tell how many lines are missing, or whether any is: the daemon rotated away the place in a
/// container's log where reading was to go on.
pub(super) const ROTATED: &str = "… an unknown number of log line(s) dropped (log rotation)";

/// The same, because a container went although its log was not read to the end in time.
pub(super) const UNREAD: &str = "… an unknown number of log line(s) dropped (removed before they were read)";

/// Why lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Cause {
    /// They came faster than they could be published.
    Rate,
    /// Viewers could not be reached for longer than there was room.
    Link,
    /// The router did not want them.
    Refused,
    /// No message may be as large as theirs.
    Size,
}

impl Cause {
    /// The words of the contract's marker, and of those like it.
    fn words(self) -> &'static str {
        match self {
            Cause::Rate => "rate limit",
            Cause::Link => "no connection",
            Cause::Refused => "refused by the router",
            Cause::Size => "too large",
        }
    }
}

/// How far a container's log has been published when a chunk has been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) container: String,
    pub(super) cursor: Cursor,
}

/// One or more lines of output, joined by line feeds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) text: String,
    pub(super) lines: u64,
    /// One for each container that it has lines of.
    pub(super) marks: Vec<Mark>,
    /// Room that whoever reads them has again when it leaves.
    #[serde(skip)]
    pub(super) room: Vec<OwnedSemaphorePermit>,
}

impl Chunk {
    pub(super) fn line(text: String) -> Chunk {
        Chunk {
            text,
            lines: 1,
            ..Chunk::default()
        }
    }

    fn size(&self) -> usize {
        self.text.len() + 1
    }

    /// Takes what comes next into itself, so that short lines cost little more than their text, those of services that
    /// speak in turns as well. Gives it back when both together are too much.
    pub(super) fn absorb(&mut self, next: Chunk) -> Result<(), Chunk> {
        if self.size() + next.size() > CHUNK {
            return Err(next);
        }
        self.text.push('\n');
        self.text.push_str(&next.text);
        self.lines += next.lines;
        for mark in next.marks {
            match self
                .marks
                .iter_mut()
                .find(|mine| mine.container == mark.container)
            {
                Some(mine) => *mine = mark,
                None => self.marks.push(mark),
            }
        }
        for room in next.room {
            let of_same = |mine: &&mut OwnedSemaphorePermit| Arc::ptr_eq(mine.semaphore(), room.semaphore());
            match self.room.iter_mut().find(of_same) {
                Some(mine) => mine.merge(room),
                None => self.room.push(room),
            }
        }
        Ok(())
    }
}

/// Something that waits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Item {
    Output(Chunk),
    /// A line written by the agent.
    Agent(String),
    /// Lines are missing here.
    Gap {
        lines: u64,
        cause: Cause,
    },
    /// An unknown number of lines is missing here: [`ROTATED`].
    Rotated,
}

impl Item {
    /// How many lines it stands for, at least.
    pub(super) fn lines(&self) -> u64 {
        match self {
            Item::Output(chunk) => chunk.lines,
            Item::Agent(_) | Item::Rotated => 1,
            Item::Gap { lines, .. } => *lines,
        }
    }
}

/// One message on a log topic: what it says, and what it was made of, should it have to be sent again.
#[derive(Debug)]
pub(super) enum Message {
    /// Output and gaps.
    Output(Vec<Item>),
    Agent(String),
}

impl Message {
    /// The text of an output message: lines joined by line feeds.
    pub(super) fn text(items: &[Item]) -> String {
        let parts = items.iter().map(|item| match item {
            Item::Output(chunk) => std::borrow::Cow::Borrowed(chunk.text.as_str()),
            // Never part of an output message.
            Item::Agent(line) => std::borrow::Cow::Borrowed(line.as_str()),
            Item::Gap { lines, cause } => format!("… {lines} log line(s) dropped ({})", cause.words()).into(),
            Item::Rotated => std::borrow::Cow::Borrowed(ROTATED),
        });
        parts.collect::<Vec<_>>().join("\n")
    }

    /// How many lines it stands for.
    pub(super) fn lines(&self) -> u64 {
        match self {
            Message::Agent(_) => 1,
            Message::Output(items) => items.iter().map(Item::lines).sum(),
        }
    }

    /// What is left to say when it was too large.
    pub(super) fn into_gap(self) -> Message {
        Message::Output(vec![Item::Gap {
            lines: self.lines(),
            cause: Cause::Size,
        }])
    }

    /// How far it gets each container's log.
    pub(super) fn marks(&self) -> Vec<Mark> {
        match self {
            Message::Agent(_) => Vec::new(),
            Message::Output(items) => items
                .iter()
                .flat_map(|item| match item {
                    Item::Output(chunk) => chunk.marks.as_slice(),
                    Item::Agent(_) | Item::Gap { .. } | Item::Rotated => &[],
                })
                .cloned()
                .collect(),
        }
    }
}

/// Lines waiting for their message.
#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: VecDeque<Item>,
    /// Output waiting, bytes.
    bytes: usize,
    agent_lines: usize,
}

impl Batch {
    /// Adds what comes next.
    pub(super) fn push(&mut self, mut item: Item) {
        if let Item::Output(chunk) = item {
            self.bytes += chunk.size();
            item = match self.waiting.back_mut() {
                Some(Item::Output(last)) => match last.absorb(chunk) {
                    Ok(()) => return self.shorten(),
                    Err(chunk) => Item::Output(chunk),
                },
                Some(Item::Agent(_) | Item::Gap { .. } | Item::Rotated) | None => Item::Output(chunk),
            };
        }
        match &item {
            Item::Output(_) => {}
            Item::Agent(_) if self.agent_lines >= AGENT_LINES => {
                return self.push(Item::Gap {
                    lines: 1,
                    cause: Cause::Rate,
                });
            }
            Item::Agent(_) => self.agent_lines += 1,
            Item::Gap { lines: 0, .. } => return,
            Item::Rotated if matches!(self.waiting.back(), Some(Item::Rotated)) => return,
            Item::Rotated => {}
            Item::Gap { lines, cause } => {
                if let Some(Item::Gap {
                    lines: before,
                    cause: same,
                }) = self.waiting.back_mut()
                    && same == cause
                {
                    *before += lines;
                    return;
                }
            }
        }
        self.waiting.push_back(item);
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.bytes > BUFFER && self.bytes > BUFFER + self.longest() {
            self.drop_oldest();
        }
    }

    /// Size of the longest line that waits, if it is longer than a message.
    fn longest(&self) -> usize {
        let sizes = self.waiting.iter().filter_map(|item| match item {
            Item::Output(chunk) if chunk.size() > MESSAGE => Some(chunk.size()),
            Item::Output(_) | Item::Agent(_) | Item::Gap { .. } | Item::Rotated => None,
        });
        sizes.max().unwrap_or_default()
    }

    /// The oldest output makes room and leaves a gap in its place.
    fn drop_oldest(&mut self) {
        let oldest = self
            .waiting
            .iter()
            .position(|item| matches!(item, Item::Output(_)));
        let Some(index) = oldest else { return };
        let Some(Item::Output(chunk)) = self.waiting.remove(index) else {
            return;
        };
        self.bytes -= chunk.size();
        let before = index.checked_sub(1).and_then(|index| self.waiting.get_mut(index));
        match before {
            Some(Item::Gap {
                lines,
                cause: Cause::Rate,
            }) => *lines += chunk.lines,
            Some(_) | None => {
                let gap = Item::Gap {
                    lines: chunk.lines,
                    cause: Cause::Rate,
                };
                self.waiting.insert(index, gap);
            }
        }
    }

    /// Output waiting, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether what comes next needs no listener.
    pub(super) fn begins_with_agent_line(&self) -> bool {
        matches!(self.waiting.front(), Some(Item::Agent(_)))
    }

    /// Forgets output and gaps: nobody listens. Agent lines need no listener.
    pub(super) fn drop_output(&mut self) {
        self.waiting.retain(|item| matches!(item, Item::Agent(_)));
        self.bytes = 0;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Batch::default();
    }

    /// The next message.
    pub(super) fn take(&mut self) -> Option<Message> {
        if let Some(Item::Agent(_)) = self.waiting.front() {
            let Some(Item::Agent(line)) = self.waiting.pop_front() else {
                return None;
            };
            self.agent_lines -= 1;
            return Some(Message::Agent(line));
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.waiting.front() {
            let size = match item {
                Item::Output(chunk) => chunk.size(),
                Item::Gap { .. } | Item::Rotated => 0,
                Item::Agent(_) => break,
            };
            // A line above the limit travels alone.
            if bytes > 0 && bytes + size > MESSAGE {
                break;
            }
            bytes += size;
            self.bytes -= size;
            items.extend(self.waiting.pop_front());
        }
        (!items.is_empty()).then_some(Message::Output(items))
    }

    /// Takes back a message that was not sent: it is the next one again.
    pub(super) fn put_back(&mut self, message: Message) {
        match message {
            Message::Agent(line) => {
                self.agent_lines += 1;
                self.waiting.push_front(Item::Agent(line));
            }
            Message::Output(items) => {
                for item in items.into_iter().rev() {
                    if let Item::Output(chunk) = &item {
                        self.bytes += chunk.size();
                    }
                    self.waiting.push_front(item);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn output(line: impl Into<String>) -> Item {
        Item::Output(Chunk::line(line.into()))
    }

    fn agent(line: &str) -> Item {
        Item::Agent(line.to_owned())
    }

    /// What is published until nothing waits; agent lines in brackets.
    fn drain(batch: &mut Batch) -> Vec<String> {
        std::iter::from_fn(|| batch.take())
            .map(|message| match message {
                Message::Output(items) => Message::text(&items),
                Message::Agent(line) => format!("[{line}]"),
            })
            .collect()
    }

    #[test]
    fn lines_make_one_message_and_nothing_makes_none() {
        let mut batch = Batch::default();
        assert!(batch.take().is_none());
        for line in ["a", "", "c"] {
            batch.push(output(line));
        }
        assert_eq!(drain(&mut batch), ["a\n\nc"]);
        batch.push(output(""));
        batch.push(output("x"));
        assert_eq!(drain(&mut batch), ["\nx"]);
        assert_eq!((batch.bytes(), batch.is_empty()), (0, true));
    }

    #[test]
    fn agent_lines_keep_their_place() {
        let mut batch = Batch::default();
        for item in [agent("Starting"), output("one"), agent("Stopped"), output("two")] {
            batch.push(item);
        }
        assert_eq!(drain(&mut batch), ["[Starting]", "one", "[Stopped]", "two"]);
    }

    #[test]
    fn what_exceeds_a_message_waits_for_the_next_one() {
        let mut batch = Batch::default();
        let line = "x".repeat(100 << 10);
        for _ in 0..4 {
            batch.push(output(line.clone()));
        }
        let two = format!("{line}\n{line}");
        assert_eq!(drain(&mut batch), [two.clone(), two]);
        batch.push(output("y".repeat(MESSAGE + 5)));
        batch.push(output("z"));
        assert_eq!(drain(&mut batch).len(), 2, "a line above the limit travels alone");
    }

    #[test]
    fn the_longest_line_has_room_whatever_waits_before_it() {
        // As long as the reader lets one become, with the name of a service before it.
        let long = format!("web-1  | {}", "x".repeat(1 << 20));
        let mut batch = Batch::default();
        for line in ["before", &long, "after"] {
            batch.push(output(line));
        }
        assert_eq!(drain(&mut batch), ["before", &long, "after"]);
        for _ in 0..5 {
            batch.push(output(long.clone()));
            assert!(batch.bytes() <= BUFFER + long.len() + 1);
        }
        batch.push(output("after"));
        let gap = "… 4 log line(s) dropped (rate limit)";
        assert_eq!(drain(&mut batch), [&format!("{gap}\n{long}"), "after"]);
    }

    #[test]
    fn beyond_the_buffer_the_oldest_output_leaves_and_is_counted_in_its_place() {
        let mut batch = Batch::default();
        batch.push(agent("first"));
        for number in 0..15 {
            batch.push(output(format!("{number} {}", "x".repeat(100 << 10))));
            assert!(batch.bytes() <= BUFFER);
        }
        let messages = drain(&mut batch);
        assert_eq!(messages[0], "[first]");
        let (gap, rest) = messages[1].split_once('\n').unwrap();
        assert_eq!(gap, "… 5 log line(s) dropped (rate limit)");
        assert!(rest.starts_with("5 x"));
        let delivered: usize = messages[1..].iter().map(|text| text.split('\n').count()).sum();
        assert_eq!(delivered, 10 + 1, "delivered and announced make all");
    }

    #[test]
    fn agent_lines_without_end_are_counted_too() {
        let mut batch = Batch::default();
        for _ in 0..AGENT_LINES + 7 {
            batch.push(agent("again"));
        }
        let messages = drain(&mut batch);
        assert_eq!(messages.len(), AGENT_LINES + 1);
        assert_eq!(messages[AGENT_LINES], "… 7 log line(s) dropped (rate limit)");
    }

    #[test]
    fn what_is_missing_is_said_with_its_cause() {
        let mut batch = Batch::default();
        for item in [output("a"), Item::Rotated, Item::Rotated, output("b")] {
            batch.push(item);
        }
        let message = batch.take().unwrap();
        assert!(message.lines() >= 3);
        let Message::Output(items) = &message else {
            panic!("no agent line")
        };
        assert_eq!(Message::text(items), format!("a\n{ROTATED}\nb"));
        batch.push(output("x\ny"));
        let too_large = batch.take().unwrap().into_gap();
        batch.put_back(too_large);
        batch.push(Item::Gap {
            lines: 2,
            cause: Cause::Refused,
        });
        assert_eq!(
            drain(&mut batch),
            ["… 1 log line(s) dropped (too large)\n… 2 log line(s) dropped (refused by the router)"]
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Output(usize),
        Agent,
        Gap(u64),
        Take,
        TakeAndPutBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop_oneof![0_usize..100, 0_usize..(300 << 10)].prop_map(Step::Output),
            2 => Just(Step::Agent),
            1 => (0_u64..5).prop_map(Step::Gap),
            2 => Just(Step::Take),
            1 => Just(Step::TakeAndPutBack),
        ]
    }

    proptest! {
        #[test]
        fn every_line_is_taken_in_order_or_counted(steps in prop::collection::vec(step(), 0..60)) {
            let mut batch = Batch::default();
            let (mut offered, mut taken, mut missing) = (0_u64, Vec::new(), 0_u64);
            let mut look = |message: Message| match message {
                Message::Agent(line) => taken.push(line.parse::<u64>().unwrap()),
                Message::Output(items) => {
                    for item in items {
                        match item {
                            Item::Output(chunk) => {
                                let before = taken.len();
                                taken.extend(chunk.text.split('\n').map(|line| {
                                    line.split(' ').next().unwrap().parse::<u64>().unwrap()
                                }));
                                assert_eq!((taken.len() - before) as u64, chunk.lines);
                            }
                            Item::Gap { lines, .. } => missing += lines,
                            Item::Agent(_) | Item::Rotated => unreachable!("agent lines travel alone"),
                        }
                    }
                }
            };
            for step in steps {
                match step {
                    Step::Output(size) => {
                        batch.push(output(format!("{offered} {}", "x".repeat(size))));
                        offered += 1;
                    }
                    Step::Agent => {
                        batch.push(agent(&offered.to_string()));
                        offered += 1;
                    }
                    Step::Gap(lines) => {
                        batch.push(Item::Gap { lines, cause: Cause::Link });
                        offered += lines;
                    }
                    Step::Take => {
                        if let Some(message) = batch.take() {
                            if let Message::Output(items) = &message {
                                let outputs = items.iter().filter(|item| matches!(item, Item::Output(_)));
                                prop_assert!(Message::text(items).len() <= MESSAGE + 100 || outputs.count() == 1);
                            }
                            look(message);
                        }
                    }
                    Step::TakeAndPutBack => {
                        if let Some(message) = batch.take() {
                            batch.put_back(message);
                        }
                    }
                }
                prop_assert!(batch.bytes() <= BUFFER + batch.longest());
            }
            while let Some(message) = batch.take() {
                look(message);
            }
            prop_assert!(taken.is_sorted());
            prop_assert_eq!(taken.len() as u64 + missing, offered);
            prop_assert!(batch.is_empty() && batch.bytes() == 0);
        }
    }
}
