//! Any bytes as a container's log: plain or in frames, with timestamps or without, in chunks of any size.

#![no_main]

#[allow(dead_code, reason = "the agent uses more of it")]
#[path = "../../../../src/engine/lines.rs"]
mod lines;

/// As the agent has it.
#[derive(Debug, PartialEq, Eq)]
pub struct LogLine {
    pub timestamp: Option<String>,
    pub nanoseconds: Option<u64>,
    pub text: String,
}

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (how, bytes) = input;
    let (framed, stamped) = (how & 1 != 0, how & 2 != 0);
    let size = usize::from(how >> 2) + 1;
    let whole = split(framed, stamped, std::iter::once(bytes));
    let pieces = split(framed, stamped, bytes.chunks(size));
    assert_eq!(
        whole, pieces,
        "where the daemon's answer is cut makes no difference"
    );
    for line in &whole {
        assert!(!line.text.contains('\n'));
        assert_eq!(line.timestamp.is_some(), line.nanoseconds.is_some());
    }
});

fn split<'a>(framed: bool, stamped: bool, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<LogLine> {
    let mut lines = lines::Lines::new(framed, stamped);
    let mut found = Vec::new();
    for chunk in chunks {
        lines.feed(chunk, &mut |line| found.push(line));
    }
    lines.finish(&mut |line| found.push(line));
    found
}
