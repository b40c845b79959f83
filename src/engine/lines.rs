//! Splits the byte stream of a container's log (or of any newline-delimited answer) into lines. No I/O.
//!
//! A container with a TTY has a plain stream; without one the daemon wraps what it reads into frames of an 8-byte
//! header (stream, three zeros, big-endian length) and payload. Memory is bounded by one line per stream.

use super::LogLine;

/// Longer lines are cut into pieces of this size, none of it lost (weakness L7).
pub(super) const MAX_LINE: usize = 1 << 20;
/// Longer than any timestamp with its space: what a cut leaves behind so that no timestamp is cut apart.
const SLACK: usize = 64;
/// The daemon hands a longer line on in pieces of this size, each with the line's timestamp in front.
const DAEMON_PIECE: usize = 16 << 10;

/// Bytes in, lines out.
#[derive(Debug)]
pub(super) struct Lines {
    framed: bool,
    header: Vec<u8>,
    /// What is left of the current frame's payload.
    payload: usize,
    /// Which of `partial` the current frame belongs to.
    current: usize,
    /// Unfinished lines: stdout (and plain streams), stderr.
    partial: [Partial; 2],
}

#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Timestamps are to be parsed off.
    stamped: bool,
    /// Timestamp of the line, from when it is known until its last piece went out.
    stamp: Option<(String, u64)>,
}

impl Lines {
    /// Newline-delimited text without frames or timestamps.
    pub(super) fn plain() -> Lines {
        Lines::new(false, false)
    }

    /// A container's log.
    pub(super) fn new(framed: bool, timestamps: bool) -> Lines {
        let partial = || Partial {
            stamped: timestamps,
            ..Partial::default()
        };
        Lines {
            framed,
            header: Vec::with_capacity(8),
            payload: 0,
            current: 0,
            partial: [partial(), partial()],
        }
    }

    /// Takes the next bytes and hands every line that they complete to `emit`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(LogLine)) {
        if !self.framed {
            self.partial[0].feed(bytes, emit);
            return;
        }
        while !bytes.is_empty() {
            if self.payload == 0 {
                let missing = (8 - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..missing]);
                bytes = &bytes[missing..];
                if let [stream, _, _, _, a, b, c, d] = self.header[..] {
                    self.payload = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.current = usize::from(stream == 2);
                    self.header.clear();
                }
                continue;
            }
            let taken = self.payload.min(bytes.len());
            self.partial[self.current].feed(&bytes[..taken], emit);
            self.payload -= taken;
            bytes = &bytes[taken..];
        }
    }

    /// The stream ended: what has no line end yet is a line too.
    pub(super) fn finish(&mut self, emit: &mut impl FnMut(LogLine)) {
        for partial in &mut self.partial {
            if !partial.bytes.is_empty() {
                partial.complete(emit);
            }
        }
    }
}

impl Partial {
    fn feed(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(LogLine)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.bytes.extend_from_slice(&bytes[..end]);
            self.cut(emit);
            self.complete(emit);
            bytes = &bytes[end + 1..];
        }
        self.bytes.extend_from_slice(bytes);
        self.cut(emit);
    }

    /// Sends the pieces of a line that is too long, and keeps the rest.
    fn cut(&mut self, emit: &mut impl FnMut(LogLine)) {
        while self.bytes.len() >= MAX_LINE + SLACK {
            self.parse_stamp();
            if self.bytes.len() < MAX_LINE + SLACK {
                return;
            }
            let mut end = MAX_LINE;
            // Not inside a character: continuation bytes are 10xxxxxx, at most three in a row.
            while end > MAX_LINE - 4 && self.bytes[end] & 0xC0 == 0x80 {
                end -= 1;
            }
            let rest = self.bytes.split_off(end);
            let (timestamp, nanoseconds) = self.stamp.clone().unzip();
            emit(LogLine {
                timestamp,
                nanoseconds,
                text: String::from_utf8_lossy(&self.bytes).into_owned(),
            });
            self.bytes = rest;
        }
    }

    /// Sends what is there as the end of a line.
    fn complete(&mut self, emit: &mut impl FnMut(LogLine)) {
        if self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
        }
        self.parse_stamp();
        let (timestamp, nanoseconds) = self.stamp.take().unzip();
        emit(LogLine {
            timestamp,
            nanoseconds,
            text: String::from_utf8_lossy(&self.bytes).into_owned(),
        });
        self.bytes.clear();
        // A rare giant must not stay allocated for the life of the stream.
        self.bytes.shrink_to(4 * DAEMON_PIECE);
    }

    /// Takes the timestamp off the front, and out of the places where the daemon put the pieces of a long line
    /// together.
    fn parse_stamp(&mut self) {
        if !self.stamped {
            return;
        }
        if self.stamp.is_none() {
            let Some(end) = self.bytes.iter().take(SLACK).position(|&byte| byte == b' ') else {
                return;
            };
            let stamp = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
            let Some(nanoseconds) = nanoseconds(&stamp) else {
                return;
            };
            self.bytes.drain(..=end);
            self.stamp = Some((stamp, nanoseconds));
        }
        if let Some((stamp, _)) = &self.stamp
            && self.bytes.len() >= DAEMON_PIECE
        {
            // To the nanosecond the moment at which the daemon read this very line: never part of its text.
            let stamp = format!("{stamp} ").into_bytes();
            let mut kept = Vec::with_capacity(self.bytes.len());
            let mut rest = &self.bytes[..];
            while let Some(found) = rest.windows(stamp.len()).position(|window| window == stamp) {
                kept.extend_from_slice(&rest[..found]);
                rest = &rest[found + stamp.len()..];
            }
            kept.extend_from_slice(rest);
            self.bytes = kept;
        }
    }
}

/// The moment that a timestamp of the daemon names, in nanoseconds since 1970.
pub(crate) fn nanoseconds(stamp: &str) -> Option<u64> {
    // The form of Docker is fixed; with a hundred thousand lines per second the general way is felt.
    if let [date @ .., b'Z'] = stamp.as_bytes()
        && date.len() == FIXED.len()
        && date.iter().zip(FIXED).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        })
    {
        let number = |from: usize, to: usize| {
            date[from..to]
                .iter()
                .fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'))
        };
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
        if year >= 1970
            && (1..=12).contains(&month)
            && (1..=28).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60
        {
            // Days since 1970-01-01 of the proleptic Gregorian calendar, years beginning in March.
            let (year, month) = if month > 2 {
                (year, month - 3)
            } else {
                (year - 1, month + 9)
            };
            let leap_days = year / 4 - year / 100 + year / 400;
            let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
            let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
            return seconds.checked_mul(1_000_000_000)?.checked_add(number(20, 29));
        }
    }
    let moment: jiff::Timestamp = stamp.parse().ok()?;
    u64::try_from(moment.as_nanosecond()).ok()
}

/// Docker's form up to the `Z`.
const FIXED: &[u8; 29] = b"0000-00-00T00:00:00.000000000";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: &str = "2026-08-04T09:12:04.000000001Z";

    fn split(mut lines: Lines, chunks: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, &mut |line| out.push((line.timestamp, line.text)));
        }
        lines.finish(&mut |line| out.push((line.timestamp, line.text)));
        out
    }

    fn texts(lines: Lines, chunks: &[&[u8]]) -> Vec<String> {
        split(lines, chunks).into_iter().map(|(_, text)| text).collect()
    }

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], payload].concat()
    }

    #[test]
    fn one_carriage_return_before_the_line_end_is_taken_off() {
        assert_eq!(
            texts(Lines::plain(), &[b"a\r\nb\r\r\n\r\n\nc\rd"]),
            ["a", "b\r", "", "", "c\rd"]
        );
    }

    #[test]
    fn invalid_text_is_replaced() {
        assert_eq!(texts(Lines::plain(), &[b"x\xffy\n"]), ["x\u{fffd}y"]);
    }

    #[test]
    fn frames_of_both_streams_give_whole_lines_even_when_a_length_byte_is_a_line_feed() {
        let stream = [
            frame(1, b"0123456789"),
            frame(2, b"error\n"),
            frame(1, b" end\nnext"),
        ]
        .concat();
        assert_eq!(stream[7], b'\n');
        assert_eq!(
            texts(Lines::new(true, false), &[&stream]),
            ["error", "0123456789 end", "next"]
        );
    }

    #[test]
    fn timestamps_are_parsed_off_and_other_first_words_are_not() {
        let text = format!("{STAMP} hello world\r\nhello world\n{STAMP} \n");
        assert_eq!(
            split(Lines::new(false, true), &[text.as_bytes()]),
            [
                (Some(STAMP.to_owned()), "hello world".to_owned()),
                (None, "hello world".to_owned()),
                (Some(STAMP.to_owned()), String::new()),
            ]
        );
    }

    #[test]
    fn timestamps_inside_a_line_that_the_daemon_handed_on_in_pieces_are_taken_out() {
        let piece = "x".repeat(DAEMON_PIECE);
        let text = format!("{STAMP} {piece}{STAMP} {piece}{STAMP} end\n");
        assert_eq!(
            split(Lines::new(false, true), &[text.as_bytes()]),
            [(Some(STAMP.to_owned()), format!("{piece}{piece}end"))]
        );
    }

    #[test]
    fn a_line_above_the_limit_comes_in_pieces_of_which_none_is_lost_or_cuts_a_character() {
        let long = format!("a{}", "ü".repeat(MAX_LINE + 100));
        let text = format!("{STAMP} {long}\nshort\n");
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(10_000).collect();
        let lines = split(Lines::new(false, true), &chunks);
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|(_, piece)| piece.len() < MAX_LINE + SLACK));
        assert!(
            lines[..3]
                .iter()
                .all(|(stamp, _)| stamp.as_deref() == Some(STAMP))
        );
        let joined: String = lines[..3].iter().map(|(_, piece)| piece.as_str()).collect();
        assert!(joined == long, "the pieces are the line");
        assert_eq!(lines[3].1, "short");
    }

    proptest! {
        #[test]
        fn a_timestamp_is_the_moment_that_it_names(seconds in 0_i64..=9_000_000_000, fraction in 0_i32..1_000_000_000) {
            let moment = jiff::Timestamp::new(seconds, fraction).unwrap();
            let expected = u64::try_from(moment.as_nanosecond()).unwrap();
            prop_assert_eq!(nanoseconds(&format!("{moment:.9}")), Some(expected));
            prop_assert_eq!(nanoseconds(&moment.to_string()), Some(expected));
        }

        #[test]
        fn where_the_stream_is_split_into_chunks_makes_no_difference(
            lines in prop::collection::vec("[a-zäöü \r]{0,20}", 0..20),
            framed: bool,
            sizes in prop::collection::vec(1usize..30, 1..50),
        ) {
            let stream: Vec<u8> = lines
                .iter()
                .flat_map(|line| {
                    let line = format!("{STAMP} {line}\r\n");
                    if framed { frame(1, line.as_bytes()) } else { line.into_bytes() }
                })
                .collect();
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at((*size).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            let expected: Vec<_> = lines.iter().map(|line| (Some(STAMP.to_owned()), line.clone())).collect();
            prop_assert_eq!(split(Lines::new(framed, true), &chunks), expected);
        }
    }
}
