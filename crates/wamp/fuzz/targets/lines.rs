//! Any bytes as a container's log: plain or in frames, with timestamps or without, in chunks of any size. What comes out
//! is what a plain reading of all the bytes at once gives.

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
    // Longer lines come in pieces, which the tests beside the code look at.
    if bytes.len() < SHORT {
        assert_eq!(whole, plainly(framed, stamped, bytes));
    }
});

/// From there on the daemon, and then the agent, takes lines apart.
const SHORT: usize = 16 << 10;

/// The same, byte by byte.
fn plainly(framed: bool, stamped: bool, bytes: &[u8]) -> Vec<LogLine> {
    let mut found = Vec::new();
    let mut open = [Vec::new(), Vec::new()];
    for (stream, byte) in payload(framed, bytes) {
        match byte {
            b'\n' => found.push(line(stamped, &std::mem::take(&mut open[stream]))),
            byte => open[stream].push(byte),
        }
    }
    let rest = open.iter().filter(|rest| !rest.is_empty());
    found.extend(rest.map(|rest| line(stamped, rest)));
    found
}

/// Every byte that was printed, with where: 0 for stdout, 1 for stderr.
fn payload(framed: bool, mut bytes: &[u8]) -> Vec<(usize, u8)> {
    if !framed {
        return bytes.iter().map(|byte| (0, *byte)).collect();
    }
    let mut printed = Vec::new();
    while let [kind, _, _, _, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (text, after) = rest.split_at(length.min(rest.len()));
        printed.extend(text.iter().map(|byte| (usize::from(*kind == 2), *byte)));
        bytes = after;
    }
    printed
}

fn line(stamped: bool, bytes: &[u8]) -> LogLine {
    let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned();
    let whole = |text| LogLine {
        timestamp: None,
        nanoseconds: None,
        text,
    };
    let Some((stamp, rest)) = text.split_once(' ').filter(|_| stamped) else {
        return whole(text);
    };
    // Nothing as long is a timestamp of the daemon's.
    let length = bytes.iter().position(|byte| *byte == b' ');
    let moment = stamp.parse::<jiff::Timestamp>().ok();
    let nanoseconds = moment.and_then(|moment| u64::try_from(moment.as_nanosecond()).ok());
    match nanoseconds.filter(|_| length < Some(64)) {
        None => whole(text),
        nanoseconds => LogLine {
            timestamp: Some(stamp.to_owned()),
            nanoseconds,
            text: rest.to_owned(),
        },
    }
}

fn split<'a>(framed: bool, stamped: bool, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<LogLine> {
    let mut lines = lines::Lines::new(framed, stamped);
    let mut found = Vec::new();
    for chunk in chunks {
        lines.feed(chunk, &mut |line| found.push(line));
    }
    lines.finish(&mut |line| found.push(line));
    found
}
