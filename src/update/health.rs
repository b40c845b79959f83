//! Proof that a version works (`update-and-system.md` 9.3 R2): joined, CONNECTED accepted, a heartbeat answered after
//! it, Docker as reachable as under the version before. Must not know what is done with the proof.

use std::sync::Arc;
use std::time::Duration;

use protocol::report::DeviceStatus;
use tokio::sync::watch;
use tokio::time::Instant;

/// CONNECTED itself, and a heartbeat that repeats it.
const ANSWERS: u32 = 2;

/// What has been seen of this process's health. Cloneable; written by the link, read by updates.
#[derive(Clone, Debug)]
pub struct Health(Arc<watch::Sender<Vitals>>);

/// What the backend has answered so far.
#[derive(Clone, Copy, Debug, Default)]
struct Vitals {
    /// Status updates with CONNECTED that the backend accepted, in all.
    accepted: u32,
    last: Option<Instant>,
    docker: bool,
    /// The router said that nobody is there who could accept anything.
    backend_away: bool,
}

impl Default for Health {
    fn default() -> Health {
        Health(Arc::new(watch::Sender::new(Vitals::default())))
    }
}

impl Health {
    /// The backend accepted a status update that said this about Docker.
    pub(crate) fn answered(&self, status: DeviceStatus, docker: bool) {
        self.set_backend_away(false);
        if status != DeviceStatus::Connected {
            return;
        }
        self.0.send_modify(|vitals| {
            vitals.accepted = vitals.accepted.saturating_add(1);
            vitals.last = Some(Instant::now());
            vitals.docker = docker;
        });
    }

    /// The router said so, or did not.
    pub(crate) fn set_backend_away(&self, away: bool) {
        self.0
            .send_if_modified(|vitals| std::mem::replace(&mut vitals.backend_away, away) != away);
    }

    /// Waits until it is otherwise than `known` whether the backend is away; answers how it is.
    pub(crate) async fn backend_otherwise(&self, known: bool) -> bool {
        let mut vitals = self.0.subscribe();
        let changed = vitals.wait_for(|vitals| vitals.backend_away != known).await;
        // The sender is `self`.
        changed.map_or(known, |vitals| vitals.backend_away)
    }

    /// Whether the backend accepted CONNECTED within the last `span`.
    pub(crate) fn was_connected(&self, span: Duration) -> bool {
        self.0.borrow().last.is_some_and(|last| last.elapsed() <= span)
    }

    /// Waits until the backend accepts CONNECTED once more than `seen` times; answers how often that was.
    pub(crate) async fn connected_again(&self, seen: u32) -> u32 {
        let mut vitals = self.0.subscribe();
        // The sender is `self`.
        let newer = vitals.wait_for(|vitals| vitals.accepted != seen).await;
        newer.map_or(seen, |vitals| vitals.accepted)
    }

    /// Whether Docker was reachable at the last answer.
    pub(crate) fn has_docker(&self) -> bool {
        self.0.borrow().docker
    }

    /// Waits until this process has proven itself.
    pub(crate) async fn proven(&self, needs_docker: bool) {
        let enough = |vitals: &Vitals| vitals.accepted >= ANSWERS && (vitals.docker || !needs_docker);
        // The sender is `self`.
        let _ = self.0.subscribe().wait_for(enough).await;
    }

    /// Waits until the backend has accepted CONNECTED once.
    pub(crate) async fn connected(&self) {
        let _ = self.0.subscribe().wait_for(|vitals| vitals.accepted > 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connected_and_an_answered_heartbeat_are_the_proof_and_docker_when_it_was_there() {
        let health = Health::default();
        let proven = |docker| {
            let health = health.clone();
            async move {
                let bound = Duration::from_secs(1);
                tokio::time::timeout(bound, health.proven(docker)).await.is_ok()
            }
        };
        health.answered(DeviceStatus::Configuring, true);
        health.answered(DeviceStatus::Configuring, true);
        assert!(!proven(false).await);
        health.answered(DeviceStatus::Connected, false);
        assert!(!proven(false).await);
        health.answered(DeviceStatus::Connected, false);
        assert!(proven(false).await);
        assert!(!proven(true).await);
        health.answered(DeviceStatus::Connected, true);
        assert!(proven(true).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_is_away_until_it_answers() {
        let health = Health::default();
        health.set_backend_away(true);
        assert!(health.backend_otherwise(false).await);
        health.answered(DeviceStatus::Configuring, true);
        assert!(!health.backend_otherwise(true).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_long_ago_does_not_count() {
        let health = Health::default();
        let hour = Duration::from_secs(3600);
        assert!(!health.was_connected(hour));
        health.answered(DeviceStatus::Connected, true);
        tokio::time::advance(hour).await;
        assert!(health.was_connected(hour));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!health.was_connected(hour));
    }
}
