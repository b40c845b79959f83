//! How far a container's log was read or published. No I/O.

use serde::{Deserialize, Serialize};

/// The last line that was handled: several may have the same timestamp, so it is counted among them. A container of the
/// same name but another id has a log of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Empty: whatever container has the name, from this moment on.
    pub(super) container_id: String,
    /// Since 1970.
    pub(super) nanoseconds: u64,
    /// How many lines of this very moment.
    #[serde(default = "one")]
    pub(super) count: u64,
}

/// What databases of earlier versions mean.
fn one() -> u64 {
    1
}

impl Cursor {
    /// Before everything from this moment on, in whatever container.
    pub(super) fn from_moment(nanoseconds: u64) -> Cursor {
        Cursor {
            container_id: String::new(),
            nanoseconds,
            count: 0,
        }
    }

    /// Whether it tells something about the log of this container.
    pub(super) fn is_of(&self, container_id: &str) -> bool {
        self.container_id.is_empty() || self.container_id == container_id
    }

    /// Whether it is not a line's.
    pub(super) fn is_moment(&self) -> bool {
        self.count == 0
    }

    /// Whether the line at `position` is the very last that was handled.
    pub(super) fn is_at(&self, position: Position) -> bool {
        (position.nanoseconds, position.count) == (self.nanoseconds, self.count)
    }

    /// Whether the line at `position` was handled already.
    pub(super) fn covers(&self, position: Position) -> bool {
        (position.nanoseconds, position.count) <= (self.nanoseconds, self.count)
    }
}

/// Where a line stands: its timestamp, and the how-manieth of that timestamp it is (from one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) nanoseconds: u64,
    pub(super) count: u64,
}

/// Counts through the lines of one log, which are read from the first line of some moment on.
#[derive(Debug, Default)]
pub(super) struct Walk(Option<Position>);

impl Walk {
    /// The position of the next line. One without a timestamp belongs to the line before it.
    pub(super) fn next(&mut self, nanoseconds: Option<u64>) -> Option<Position> {
        if let Some(nanoseconds) = nanoseconds {
            let count = match self.0 {
                Some(last) if last.nanoseconds == nanoseconds => last.count + 1,
                Some(_) | None => 1,
            };
            self.0 = Some(Position { nanoseconds, count });
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_of_an_earlier_version_stands_behind_its_line() {
        let cursor: Cursor = serde_json::from_str(r#"{"container_id":"a","nanoseconds":7}"#).unwrap();
        assert!(cursor.is_of("a") && !cursor.is_of("b"));
        let at = |nanoseconds, count| Position { nanoseconds, count };
        assert!(cursor.covers(at(7, 1)) && !cursor.covers(at(7, 2)) && !cursor.covers(at(8, 1)));
        let moment = Cursor::from_moment(7);
        assert!(moment.is_of("b") && !moment.covers(at(7, 1)) && moment.covers(at(6, 9)));
    }

    proptest! {
        /// The daemon gives all lines from a moment on, that moment included.
        #[test]
        fn wherever_reading_stops_it_goes_on_with_the_next_line(
            steps in prop::collection::vec(0_u64..3, 1..40),
            stop in 0_usize..40,
        ) {
            let mut moment = 1_000_000_000;
            let log: Vec<u64> = steps
                .iter()
                .map(|step| {
                    moment += step;
                    moment
                })
                .collect();
            let stop = stop.min(log.len() - 1);
            let mut walk = Walk::default();
            let position = log[..=stop].iter().filter_map(|line| walk.next(Some(*line))).last().unwrap();
            let cursor = Cursor {
                container_id: "a".to_owned(),
                nanoseconds: position.nanoseconds,
                count: position.count,
            };
            let mut walk = Walk::default();
            let rest: Vec<u64> = log
                .iter()
                .copied()
                .filter(|line| *line >= cursor.nanoseconds)
                .filter(|line| !cursor.covers(walk.next(Some(*line)).unwrap()))
                .collect();
            prop_assert_eq!(rest, &log[stop + 1..]);
        }
    }
}
