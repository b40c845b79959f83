//! The one implementation of growing, jittered pauses (R20).

use std::time::Duration;

/// Pauses that double up to a cap, each ± 20 %.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    step: u32,
    free_retry: bool,
}

impl Backoff {
    /// Doubling from `first` to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Backoff {
        Backoff {
            first,
            cap,
            step: 0,
            free_retry: true,
        }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let base = self.first.saturating_mul(1 << self.step.min(20)).min(self.cap);
        self.step = self.step.saturating_add(1);
        base.mul_f64(0.8 + 0.4 * fastrand::f64())
    }

    /// The pause after a session that was up: the first retry is prompt, only jittered so that a fleet spreads out.
    pub fn next_after_drop(&mut self) -> Duration {
        if std::mem::take(&mut self.free_retry) {
            return Duration::from_millis(fastrand::u64(0..500));
        }
        self.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_to_the_cap_within_the_jitter(first in 1_u64..5_000, factor in 1_u64..1_000, steps in 1_usize..80) {
            let first = Duration::from_millis(first);
            let cap = first.saturating_mul(u32::try_from(factor).unwrap());
            let mut backoff = Backoff::new(first, cap);
            for step in 0..steps {
                let base = first.saturating_mul(1 << step.min(20)).min(cap);
                let pause = backoff.pause();
                prop_assert!(pause >= base.mul_f64(0.799) && pause <= base.mul_f64(1.201), "{pause:?} {base:?}");
            }
        }
    }

    #[test]
    fn only_the_first_retry_after_a_drop_is_prompt() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(20));
        assert!(backoff.next_after_drop() < Duration::from_millis(500));
        assert!(backoff.next_after_drop() >= Duration::from_millis(800));
    }
}
