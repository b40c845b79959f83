//! Times as callers write them (`logs-terminal-tunnel.md` 2.12).

use jiff::{SignedDuration, Timestamp};

/// A moment from 1970 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound(Timestamp);

impl Bound {
    /// RFC 3339, else a duration before `now` in Go's notation, else Unix seconds.
    pub fn parse(text: &str, now: Timestamp) -> Option<Bound> {
        let moment = rfc3339(text)
            .or_else(|| ago(text, now))
            .or_else(|| Timestamp::from_second(text.parse().ok()?).ok())?;
        Some(Bound(moment.max(Timestamp::UNIX_EPOCH)))
    }

    /// The moment itself.
    pub fn moment(self) -> Timestamp {
        self.0
    }

    /// Nanoseconds since 1970.
    pub fn nanoseconds(self) -> u64 {
        // Not before 1970, so only a moment after 2554 has no number.
        u64::try_from(self.0.as_nanosecond()).unwrap_or(u64::MAX)
    }
}

/// The parser takes other forms, too; a date alone, above all, is not a moment.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let form = b"0000-00-00T00:00:00";
    let fits = text.is_ascii()
        && text.len() > form.len()
        && text.bytes().zip(form).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == *form,
        });
    text.parse().ok().filter(|_| fits)
}

fn ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text == "0" {
        return Some(now);
    }
    let mut rest = text;
    let mut nanoseconds = 0.0_f64;
    loop {
        let end = rest.find(|byte: char| !byte.is_ascii_digit() && byte != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|byte: char| byte.is_ascii_digit() || byte == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        // The parser would take a lone point for nothing.
        let number: f64 = number.parse().ok()?;
        nanoseconds += number * unit;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    // A float of this size is off by less than a microsecond.
    let span = SignedDuration::try_from_secs_f64(nanoseconds / 1e9).ok()?;
    // Longer ago than there is time.
    Some(now.checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_said_in_three_ways() {
        let now: Timestamp = "2026-08-04T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-08-04T09:00:00Z", "2026-08-04T09:00:00Z"),
            ("2026-08-04T11:00:00.25+02:00", "2026-08-04T09:00:00.25Z"),
            ("30m", "2026-08-04T11:30:00Z"),
            ("-2h", "2026-08-04T10:00:00Z"),
            ("1h30m", "2026-08-04T10:30:00Z"),
            ("1.5h", "2026-08-04T10:30:00Z"),
            ("90s", "2026-08-04T11:58:30Z"),
            ("250ms", "2026-08-04T11:59:59.75Z"),
            ("500000µs", "2026-08-04T11:59:59.5Z"),
            ("0", "2026-08-04T12:00:00Z"),
            ("9000000h", "1970-01-01T00:00:00Z"),
            ("1785852000", "2026-08-04T14:00:00Z"),
            ("-5", "1970-01-01T00:00:00Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(Bound::parse(text, now), Some(Bound(expected)), "{text}");
        }
        for wrong in [
            "yesterday",
            "2026-08-04",
            "2026-08-04 09:00:00Z",
            "2026-08-04T09:00Z",
            "5 m",
            "m",
            ".s",
            "1h30",
            "-",
            "1d",
            "ü",
        ] {
            assert_eq!(Bound::parse(wrong, now), None, "{wrong}");
        }
    }
}
