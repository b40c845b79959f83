//! When to ping and when to give a silent peer up (`session-and-api.md` 4.7): the same rule for both ends.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Activity;

/// Pings that may be without an answer when the next one is due.
const MAX_UNANSWERED: u32 = 2;

/// The clock of one connection. A peer that is silent is declared dead between two and three intervals after the last
/// byte from it.
#[derive(Debug)]
pub struct Keepalive {
    interval: Option<Interval>,
    activity: Activity,
    unanswered: u32,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a ping.
    Ping,
    /// The peer has been silent for too long.
    Dead,
}

impl Keepalive {
    /// The first ping is due after one `interval`; with a zero interval nothing ever is.
    pub fn new(interval: Duration, activity: Activity) -> Keepalive {
        let interval = (!interval.is_zero()).then(|| {
            let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Keepalive {
            interval,
            activity,
            unanswered: 0,
        }
    }

    /// Waits until something is due. Any byte from the peer answers all pings. May be abandoned and called again.
    pub async fn due(&mut self) -> Due {
        match &mut self.interval {
            Some(interval) => interval.tick().await,
            None => std::future::pending().await,
        };
        if self.activity.take() {
            self.unanswered = 0;
        }
        if self.unanswered >= MAX_UNANSWERED {
            return Due::Dead;
        }
        self.unanswered += 1;
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_dead_when_the_third_ping_is_due() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Duration::from_secs(5), Activity::default());
        assert_eq!(keepalive.due().await, Due::Ping);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert_eq!(keepalive.due().await, Due::Ping);
        assert_eq!(keepalive.due().await, Due::Dead);
        assert_eq!(start.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn any_byte_answers_all_pings() {
        let activity = Activity::default();
        let mut keepalive = Keepalive::new(Duration::from_secs(5), activity.clone());
        for _ in 0..20 {
            assert_eq!(keepalive.due().await, Due::Ping);
            assert_eq!(keepalive.due().await, Due::Ping);
            activity.note();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_zero_interval_never_pings() {
        let mut keepalive = Keepalive::new(Duration::ZERO, Activity::default());
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, keepalive.due()).await.is_err());
    }
}
