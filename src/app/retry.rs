//! When an app may be acted on again (`app-lifecycle.md` 7.6, weakness W15): pure, time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// First delay; the n-th attempt waits n² times as long.
const UNIT: Duration = Duration::from_secs(5);
/// Longest delay before jitter.
const CAP: Duration = Duration::from_secs(3600);
/// An app that ran this long is not in a crash loop any more.
pub(crate) const STABLE: Duration = Duration::from_secs(600);

/// Whether actions may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Not before this moment.
    Until(Instant),
    /// Only after somebody asks again: DEV apps are not retried.
    Shut,
}

/// Attempts of one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    attempts: u32,
    gate: Gate,
}

impl Retry {
    pub(crate) fn new() -> Retry {
        Retry {
            attempts: 0,
            gate: Gate::Open,
        }
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate
    }

    /// Failures in a row so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Something failed: the next attempt comes after the returned delay.
    pub(crate) fn failed(&mut self, now: Instant) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let delay = jittered(base(self.attempts), fastrand::f64());
        self.gate = Gate::Until(now + delay);
        delay
    }

    /// Not again before somebody asks.
    pub(crate) fn shut(&mut self) {
        self.gate = Gate::Shut;
    }

    /// The reason to wait is gone (daemon back, image can be fetched again); the count stays.
    pub(crate) fn open(&mut self) {
        self.gate = Gate::Open;
    }

    /// A new request, or a stable run: the past does not count.
    pub(crate) fn forget(&mut self) {
        *self = Retry::new();
    }
}

/// `min(5 s · n², 1 h)`.
fn base(attempt: u32) -> Duration {
    let attempt = attempt.min(100);
    (UNIT * (attempt * attempt)).min(CAP)
}

/// Spreads by ±20 %; `random` is in 0..1.
fn jittered(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(0.8 + 0.4 * random)
}

/// `1st`, `2nd`, `11th`.
pub(crate) fn ordinal(number: u32) -> String {
    let suffix = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

/// Go notation with four decimals of the second: `4.8123s`, `1m20.5s`, `1h0m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let total = duration.as_secs();
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    let fraction = format!("{:04}", duration.subsec_nanos() / 100_000);
    let fraction = fraction.trim_end_matches('0');
    let seconds = match fraction {
        "" => format!("{seconds}s"),
        fraction => format!("{seconds}.{fraction}s"),
    };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_those_of_the_contract() {
        for (attempt, seconds) in [
            (1, 5),
            (2, 20),
            (3, 45),
            (5, 125),
            (10, 500),
            (20, 2000),
            (26, 3380),
            (27, 3600),
            (u32::MAX, 3600),
        ] {
            assert_eq!(base(attempt), Duration::from_secs(seconds), "{attempt}");
        }
        assert_eq!(jittered(UNIT, 0.0), Duration::from_secs(4));
        assert_eq!(jittered(UNIT, 1.0), Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_waits_a_request_and_a_stable_run_forget() {
        let now = Instant::now();
        let mut retry = Retry::new();
        let first = retry.failed(now);
        assert_eq!(retry.gate(), Gate::Until(now + first));
        let second = retry.failed(now);
        assert!(second > first, "{second:?} after {first:?}");
        assert_eq!(retry.attempts(), 2);
        retry.open();
        assert_eq!((retry.gate(), retry.attempts()), (Gate::Open, 2));
        retry.forget();
        assert_eq!(retry, Retry::new());
    }

    #[test]
    fn numbers_and_durations_read_as_in_the_reference() {
        for (number, text) in [
            (1, "1st"),
            (2, "2nd"),
            (3, "3rd"),
            (4, "4th"),
            (11, "11th"),
            (12, "12th"),
            (21, "21st"),
            (113, "113th"),
        ] {
            assert_eq!(ordinal(number), text);
        }
        for (millis, text) in [
            (4_812, "4.812s"),
            (80_500, "1m20.5s"),
            (3_600_000, "1h0m0s"),
            (5_000, "5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
