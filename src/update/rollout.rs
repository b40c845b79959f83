//! Signed rollout data beside the version list (`update-and-system.md` 9.4 F2): whether it is this device's turn to take
//! a version by itself. What a person or a studio asks for is not held up. Must not know how files travel.

use jiff::Timestamp;
use serde::Deserialize;

/// The file, as signed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Schedule {
    /// One that was issued before another one seen here is a replay.
    pub issued: Timestamp,
    /// Afterwards it is over, and holds nobody up.
    pub expires: Timestamp,
    rollouts: Vec<Rollout>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Rollout {
    version: String,
    /// An environment, or `all` for those that have no entry of their own.
    channel: String,
    #[serde(flatten)]
    pace: Pace,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pace {
    /// Devices whose place is below so many hundredths.
    Percent(u8),
    /// Everybody in the order of their places, between `start` and so many seconds later.
    Over { start: Timestamp, seconds: u64 },
    /// Nobody.
    Stopped {},
}

/// Whether a device takes a version by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    Later,
    Stopped,
}

impl Schedule {
    /// For the device at `place` (0..1 for this version) in `environment`.
    pub(crate) fn turn(&self, environment: &str, version: &str, place: f64, now: Timestamp) -> Turn {
        if now > self.expires {
            return Turn::Now;
        }
        let entry = |channel: &str| {
            self.rollouts
                .iter()
                .find(|rollout| rollout.version == version && rollout.channel == channel)
        };
        let Some(rollout) = entry(environment).or_else(|| entry("all")) else {
            return Turn::Now;
        };
        let reached = match &rollout.pace {
            Pace::Stopped {} => return Turn::Stopped,
            Pace::Percent(percent) => f64::from(*percent) / 100.0,
            Pace::Over { start, seconds } => {
                let passed = now.duration_since(*start).as_secs_f64();
                passed / (*seconds).max(1) as f64
            }
        };
        if place < reached { Turn::Now } else { Turn::Later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(entries: &str) -> Schedule {
        let text = format!(
            r#"{{"issued": "2026-01-01T00:00:00Z", "expires": "2026-03-01T00:00:00Z", "rollouts": [{entries}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_share_of_the_devices_goes_first() {
        let tenth = schedule(r#"{"version": "1.0.1", "channel": "all", "percent": 10}"#);
        let now = at("2026-01-02T00:00:00Z");
        assert_eq!(tenth.turn("local", "1.0.1", 0.09, now), Turn::Now);
        assert_eq!(tenth.turn("local", "1.0.1", 0.1, now), Turn::Later);
        // Nothing is said of other versions.
        assert_eq!(tenth.turn("local", "1.0.2", 0.99, now), Turn::Now);
        let all = schedule(r#"{"version": "1.0.1", "channel": "all", "percent": 100}"#);
        assert_eq!(all.turn("local", "1.0.1", 0.9999, now), Turn::Now);
    }

    #[test]
    fn the_devices_follow_each_other_over_the_time_that_is_given() {
        let hour = schedule(
            r#"{"version": "1.0.1", "channel": "all", "over": {"start": "2026-01-02T00:00:00Z", "seconds": 3600}}"#,
        );
        for (time, turn) in [
            ("2026-01-01T23:59:59Z", Turn::Later),
            ("2026-01-02T00:29:59Z", Turn::Later),
            ("2026-01-02T00:30:01Z", Turn::Now),
            ("2026-01-09T00:00:00Z", Turn::Now),
        ] {
            assert_eq!(hour.turn("local", "1.0.1", 0.5, at(time)), turn, "{time}");
        }
    }

    #[test]
    fn an_environment_has_its_own_pace_and_else_that_of_all() {
        let both = schedule(
            r#"{"version": "1.0.1", "channel": "all", "stopped": {}},
               {"version": "1.0.1", "channel": "test", "percent": 100}"#,
        );
        let now = at("2026-01-02T00:00:00Z");
        assert_eq!(both.turn("test", "1.0.1", 0.5, now), Turn::Now);
        assert_eq!(both.turn("production", "1.0.1", 0.0, now), Turn::Stopped);
        assert_eq!(
            both.turn("production", "1.0.1", 0.0, at("2026-03-02T00:00:00Z")),
            Turn::Now
        );
    }
}
