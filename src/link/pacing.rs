//! How long the link waits before it dials again. Pure: fed with what happened, answers a pause.

use std::time::Duration;

use wamp::client::{CloseReason, ConnectError};
use wamp::uri::close;

use super::{Backoff, Timing};

/// The pauses of one link, each kind growing by itself.
#[derive(Debug)]
pub(super) struct Pacing {
    timing: Timing,
    reconnect: Backoff,
    credentials: Backoff,
    evictions: Backoff,
}

impl Pacing {
    pub(super) fn new(timing: &Timing) -> Pacing {
        Pacing {
            reconnect: timing.reconnect.start(),
            credentials: timing.credentials.start(),
            evictions: timing.evictions.start(),
            timing: timing.clone(),
        }
    }

    /// No session came about.
    pub(super) fn after_failure(&mut self, failure: &ConnectError) -> Duration {
        if failure.is_credential_failure() {
            self.credentials.pause()
        } else {
            self.reconnect.pause()
        }
    }

    /// The router let us in, but not into our place.
    pub(super) fn after_unusable(&mut self) -> Duration {
        self.reconnect.pause()
    }

    /// Our credentials are good.
    pub(super) fn admitted(&mut self) {
        self.credentials = self.timing.credentials.start();
    }

    /// The device was moved to another project. A backend that moves it to and fro must not make us run in circles.
    pub(super) fn after_move(&mut self) -> Duration {
        self.reconnect.next_after_drop()
    }

    /// A session ended after `lasted`. Pauses start anew only after sessions that were longer than the longest of
    /// them: twins that evict each other would otherwise see every session of their own last one pause of the other.
    pub(super) fn after_session(&mut self, reason: &CloseReason, lasted: Duration) -> Duration {
        if lasted >= self.timing.stable_session {
            self.reconnect = self.timing.reconnect.start();
        }
        if lasted > self.timing.evictions.cap * 2 {
            self.evictions = self.timing.evictions.start();
        }
        match reason {
            CloseReason::Goodbye(uri) if uri == close::NORMAL => self.evictions.pause(),
            CloseReason::Goodbye(_) | CloseReason::Left | CloseReason::Aborted(_) | CloseReason::Lost(_) => {
                self.reconnect.next_after_drop()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pause: Duration) -> u64 {
        pause.as_secs_f64().round() as u64
    }

    #[test]
    fn twins_that_evict_each_other_do_it_more_and_more_rarely() {
        let evicted = CloseReason::Goodbye(close::NORMAL.to_owned());
        let mut pacing = Pacing::new(&Timing::default());
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            // The other one waits as long as we did.
            last = pacing.after_session(&evicted, last);
        }
        assert!(seconds(last) >= 240, "{last:?}");
        let later = pacing.after_session(&evicted, Duration::from_secs(3600));
        assert!(seconds(later) <= 6, "{later:?}");
    }

    #[test]
    fn a_router_that_goes_away_is_dialled_again_at_once_and_then_more_slowly() {
        let gone = CloseReason::Goodbye("wamp.close.system_shutdown".to_owned());
        let refused = ConnectError::Transport("refused".to_owned());
        let mut pacing = Pacing::new(&Timing::default());
        assert!(pacing.after_session(&gone, Duration::from_secs(600)) < Duration::from_millis(500));
        let pauses: Vec<_> = (0..8).map(|_| pacing.after_failure(&refused)).collect();
        assert!(pauses[0] <= Duration::from_millis(1200), "{pauses:?}");
        assert!((16..=24).contains(&seconds(pauses[7])), "{pauses:?}");
    }

    #[test]
    fn wrong_credentials_are_tried_again_after_minutes_only() {
        let refused = ConnectError::Aborted {
            reason: "wamp.error.authentication_failed".to_owned(),
            message: String::new(),
        };
        let mut pacing = Pacing::new(&Timing::default());
        assert!(seconds(pacing.after_failure(&refused)) >= 48);
        assert!(seconds(pacing.after_failure(&refused)) >= 96);
        pacing.admitted();
        assert!(seconds(pacing.after_failure(&refused)) <= 72);
    }

    #[test]
    fn a_backend_that_moves_the_device_to_and_fro_is_followed_in_growing_pauses() {
        let mut pacing = Pacing::new(&Timing::default());
        let pauses: Vec<_> = (0..6).map(|_| pacing.after_move()).collect();
        assert!(pauses[0] < Duration::from_millis(500), "{pauses:?}");
        assert!(seconds(pauses[5]) >= 12, "{pauses:?}");
    }
}
