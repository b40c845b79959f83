//! How long to wait before trying again: pauses that grow, never two devices in step, never a tight loop.

use std::time::Duration;

use crate::client::ConnectError;

/// Shortest pause, whatever is configured.
const SHORTEST: Duration = Duration::from_millis(10);

/// The pauses between attempts. Each is random within ± 20 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause; it doubles with each failure.
    pub first: Duration,
    /// The longest pause.
    pub cap: Duration,
    /// The pause when the router has refused the session (rule 20): credentials do not become right by asking more
    /// often, and a cluster that starts knows no realms for about a minute.
    pub refused: Duration,
    /// A session that has lasted this long makes the pauses start from the first one again.
    pub stable: Duration,
}

impl Default for Backoff {
    /// 1 s, doubling to 60 s; 60 s after a refusal; stable after 30 s.
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_secs(1),
            cap: Duration::from_secs(60),
            refused: Duration::from_secs(60),
            stable: Duration::from_secs(30),
        }
    }
}

/// Where in a series of failures we are.
#[derive(Debug)]
pub(super) struct Pauses {
    backoff: Backoff,
    step: u32,
}

impl Pauses {
    pub(super) fn new(backoff: Backoff) -> Pauses {
        Pauses { backoff, step: 0 }
    }

    /// The next, longer pause.
    pub(super) fn grow(&mut self) -> Duration {
        let Backoff { first, cap, .. } = self.backoff;
        let pause = first
            .max(SHORTEST)
            .saturating_mul(1 << self.step.min(20))
            .min(cap);
        self.step = self.step.saturating_add(1);
        jittered(pause)
    }

    pub(super) fn restart(&mut self) {
        self.step = 0;
    }

    pub(super) fn after_refusal(&mut self, error: &ConnectError) -> Duration {
        let pause = self.grow();
        match error.is_refusal() {
            true => jittered(self.backoff.refused).max(pause),
            false => pause,
        }
    }

    /// After a session that lasted for `lifetime`.
    pub(super) fn after_session(&mut self, lifetime: Duration) -> Duration {
        if lifetime >= self.backoff.stable {
            self.restart();
        }
        self.grow()
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * fastrand::f64()).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn aborted(reason: &str) -> ConnectError {
        ConnectError::Aborted {
            reason: reason.to_owned(),
            message: String::new(),
        }
    }

    fn about(pause: Duration, base: Duration) -> bool {
        pause >= base.mul_f64(0.799) && pause <= base.mul_f64(1.201)
    }

    proptest! {
        #[test]
        fn pauses_double_up_to_the_cap_within_the_jitter(first in 10_u64..5_000, factor in 1_u32..1_000, steps in 1_usize..80) {
            let first = Duration::from_millis(first);
            let cap = first * factor;
            let mut pauses = Pauses::new(Backoff { first, cap, ..Backoff::default() });
            for step in 0..steps {
                let base = first.saturating_mul(1 << step.min(20)).min(cap);
                let pause = pauses.grow();
                prop_assert!(about(pause, base), "{pause:?} {base:?}");
            }
        }
    }

    #[test]
    fn rule_20_a_refused_session_waits_long_and_a_lost_one_does_not() {
        let backoff = Backoff::default();
        for reason in [
            "wamp.error.not_authorized",
            "wamp.error.authentication_failed",
            "wamp.error.no_such_realm",
            "wamp.error.no_such_procedure",
            "reswarm.error.no_such_device",
        ] {
            let pause = Pauses::new(backoff).after_refusal(&aborted(reason));
            assert!(about(pause, backoff.refused), "{reason}: {pause:?}");
        }
        for other in [
            aborted("wamp.close.system_shutdown"),
            ConnectError::Timeout("connecting"),
            ConnectError::Transport("refused".to_owned()),
        ] {
            let pause = Pauses::new(backoff).after_refusal(&other);
            assert!(about(pause, backoff.first), "{other}: {pause:?}");
        }
    }

    #[test]
    fn only_a_session_that_has_lasted_starts_the_pauses_again() {
        let backoff = Backoff::default();
        let mut pauses = Pauses::new(backoff);
        for doubled in [1, 2, 4, 8] {
            let pause = pauses.after_session(Duration::from_secs(1));
            assert!(about(pause, backoff.first * doubled), "{pause:?}");
        }
        let pause = pauses.after_session(backoff.stable);
        assert!(about(pause, backoff.first), "{pause:?}");
    }

    #[test]
    fn a_zero_pause_is_still_a_pause() {
        let nothing = Backoff {
            first: Duration::ZERO,
            cap: Duration::ZERO,
            refused: Duration::ZERO,
            stable: Duration::ZERO,
        };
        let mut pauses = Pauses::new(nothing);
        assert!(pauses.after_session(Duration::ZERO) >= SHORTEST);
        assert!(pauses.after_refusal(&aborted("wamp.error.no_such_realm")) >= SHORTEST);
    }
}
