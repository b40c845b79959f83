//! Tells the backend every 30 s that the device lives (`session-and-api.md` 4.11, R38, R40, R41).

use std::time::Duration;

use protocol::report::{DeviceStatus, StatusUpdate};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use wamp::client::Session;

use super::{LinkContext, Verdict};
use crate::backend::BackendError;
use crate::journal::Chain;
use crate::update::Health;

/// Bound of the Docker ping whose result goes into the statistics.
const DOCKER_PING: Duration = Duration::from_secs(3);
/// Bound of handing the base URL over.
const HANDED_OVER: Duration = Duration::from_secs(5);
/// Unanswered heartbeats in a row after which the session counts as dead.
const FAILURE_LIMIT: u32 = 2;

/// Beats until the session ends. Says CONFIGURING until the configuration run of this connect is through.
pub(super) async fn run(
    context: LinkContext,
    session: Session,
    status: watch::Receiver<DeviceStatus>,
) -> Verdict {
    let _known = Known(context.procedures.updates.health().clone());
    // A random phase, so that a fleet that reconnects together does not beat together.
    let interval = context.timing.heartbeat;
    let phase = interval.mul_f64(fastrand::f64());
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + phase, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let now = *status.borrow();
        match send(&context, &session, now).await {
            Ok(()) => failures = 0,
            // An answer, even an error, proves that the link works; only silence counts (R25).
            Err(failure) if failure.is_answer() => {
                tracing::warn!(error = %Chain(&failure), "heartbeat was answered with an error");
                failures = 0;
            }
            Err(failure) => {
                failures += 1;
                tracing::warn!(failures, error = %Chain(&failure), "heartbeat was not answered");
            }
        }
        if failures >= FAILURE_LIMIT {
            return Verdict::Dead("two heartbeats without an answer");
        }
    }
}

/// Without a session nothing is known of the backend.
struct Known(Health);

impl Drop for Known {
    fn drop(&mut self) {
        self.0.set_backend_away(false);
    }
}

/// One status update with current statistics; keeps what the reply brings.
pub(super) async fn send(
    context: &LinkContext,
    session: &Session,
    status: DeviceStatus,
) -> Result<(), BackendError> {
    let device = context.device.current();
    let mut stats = context.host.current();
    let docker = context.procedures.engine.is_up(DOCKER_PING).await;
    stats.docker_available = Some(docker);
    let update = StatusUpdate {
        swarm_key: device.swarm_key,
        device_key: device.device_key,
        status,
        wamp_session_id: session.id(),
        tunnel_capable: Some(false),
        stats,
    };
    let health = context.procedures.updates.health();
    let reply = context.backend.update_device_status(&update).await;
    if let Err(failure) = &reply {
        health.set_backend_away(failure.is_absence());
    }
    let reply = reply?;
    health.answered(status, docker);
    if let Some(url) = reply.base_url {
        // Apps that are busy must not stall the heartbeat; the next reply brings it again.
        let learned = tokio::time::timeout(HANDED_OVER, context.apps.set_base_url(url));
        if learned.await.is_err() {
            tracing::warn!("the apps did not take the base URL in time");
        }
    }
    Ok(())
}
