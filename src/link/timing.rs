//! Every span of time that the link decides with, in one place. The defaults are those of the contract; tests of the
//! link shorten them, because real sockets know no paused clock.

use std::time::Duration;

use super::Backoff;

/// A pause that doubles from `first` to `cap`, jittered.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    pub first: Duration,
    pub cap: Duration,
}

impl Pauses {
    const fn seconds(first: u64, cap: u64) -> Pauses {
        Pauses {
            first: Duration::from_secs(first),
            cap: Duration::from_secs(cap),
        }
    }

    /// The pauses from their beginning.
    pub fn start(self) -> Backoff {
        Backoff::new(self.first, self.cap)
    }
}

/// Intervals, pauses and bounds of the link.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two heartbeats (`session-and-api.md` 4.11).
    pub heartbeat: Duration,
    /// Deadline of every backend call (4.6).
    pub backend_call: Duration,
    /// Lost or unreachable router (R20).
    pub reconnect: Pauses,
    /// Refused credentials: a person has to act (R21).
    pub credentials: Pauses,
    /// Evicted by a newer session of the same identity, so that two twins do not fight (R26).
    pub evictions: Pauses,
    /// Between two attempts while somebody else holds the serial: the router may not have noticed yet that our last
    /// session is gone (4.9).
    pub duplicate: Duration,
    /// A session that lasted this long starts the reconnect pauses anew.
    pub stable_session: Duration,
    /// A procedure was taken over by somebody else: pauses before it is claimed back (`wamp-interop.md` rule 11).
    pub reclaim: Pauses,
    /// What a backend that is away left unanswered on connect is asked again in these pauses.
    pub catch_up: Pauses,
    /// What a backend that is there does not answer usefully is asked again in these.
    pub unwilling: Pauses,
    /// A state report that was not accepted.
    pub report: Pauses,
    /// The requested states are fetched again this often as a safety net.
    pub resync: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_secs(30),
            backend_call: Duration::from_secs(10),
            reconnect: Pauses::seconds(1, 20),
            credentials: Pauses::seconds(60, 600),
            evictions: Pauses::seconds(5, 300),
            duplicate: Duration::from_secs(1),
            stable_session: Duration::from_secs(60),
            reclaim: Pauses::seconds(10, 600),
            catch_up: Pauses::seconds(1, 30),
            unwilling: Pauses::seconds(10, 600),
            report: Pauses::seconds(1, 30),
            resync: Duration::from_secs(30 * 60),
        }
    }
}
