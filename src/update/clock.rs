//! How far the clock of a device can be believed (`update-and-system.md` 9.1 U6). Many have none that runs while they are
//! off: until somebody sets it, it stands before this build was made. Must not know what is dated.

use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};

/// What is signed may be so far ahead of a clock that is set: clocks of publishers and devices differ a little.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// When this build was made, where the build says so (`scripts/build`), and no device's clock stands before that rightly.
static BUILT: LazyLock<Timestamp> = LazyLock::new(|| {
    let built = option_env!("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok());
    let built = built.and_then(|second| Timestamp::from_second(second).ok());
    // 2025-01-01: before the first build of this make.
    let first = Timestamp::from_second(1_735_689_600).unwrap_or_default();
    built.unwrap_or(first).max(first)
});

/// What is signed was dated in the future, by a publisher whose clock was wrong: to remember that would make everything
/// that comes after it look like a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is signed was issued at {0}, in the future: a clock is wrong, here or where it was signed")]
pub(crate) struct Ahead(Timestamp);

/// A clock as it stood at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    time: Timestamp,
    built: Timestamp,
}

impl Clock {
    /// The clock of this machine, now.
    pub(crate) fn read() -> Clock {
        Clock::new(Timestamp::now(), *BUILT)
    }

    /// `time` on a device whose build was made at `built`.
    pub(crate) fn new(time: Timestamp, built: Timestamp) -> Clock {
        Clock { time, built }
    }

    fn is_set(self) -> bool {
        self.time >= self.built
    }

    /// The time. For a clock that was never set: the latest that it is known to be, also from when something signed
    /// that was seen here was issued.
    pub(crate) fn now(self, seen: Option<Timestamp>) -> Timestamp {
        match self.is_set() {
            true => self.time,
            false => seen.map_or(self.built, |seen| seen.max(self.built)),
        }
    }

    /// Whether something can have been issued at `issued`, as far as this clock can tell.
    pub(crate) fn admits(self, issued: Timestamp) -> Result<(), Ahead> {
        match self.is_set() && issued.duration_since(self.time) > AHEAD {
            true => Err(Ahead(issued)),
            false => Ok(()),
        }
    }
}
