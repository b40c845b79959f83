//! What happens once per connect, in the order of `session-and-api.md` 5.1 step 15: identity, credential key,
//! CONFIGURING, procedures, platform facts, log gates, requested states, reports, CONNECTED.
//!
//! One run at a time: it belongs to its session and is dropped with it (R28). A step that fails is logged and retried
//! or skipped; none ends the process (R16).

use std::time::Duration;

use protocol::flock::FlockDocument;
use protocol::report::{ArchitectureUpdate, DeviceStatus};
use tokio::sync::watch;
use tokio::time::Instant;
use wamp::client::Session;

use super::{Backoff, LinkContext, Verdict, heartbeat, registrations};
use crate::backend::{BackendError, DeviceMetadata};
use crate::cli::VERSION;
use crate::journal::{Chain, START_UP};
use crate::system::platform::Platform;

/// Attempts per step before the run goes on without it; the next connect or the resync below repairs it.
const ATTEMPTS: u32 = 3;
/// Requested states are fetched again this long after a fetch that failed, and this often as a safety net.
const RESYNC_FAILED: Duration = Duration::from_secs(60);
const RESYNC: Duration = Duration::from_secs(30 * 60);

/// Configures the session, then keeps the requested states fresh until the session ends.
pub(super) async fn run(
    context: LinkContext,
    session: Session,
    status: watch::Sender<DeviceStatus>,
) -> Verdict {
    tracing::info!(target: START_UP, "Running onConnect handler");
    if refresh_identity(&context).await {
        return Verdict::Moved;
    }
    match retried(|| context.backend.get_app_cred_key()).await {
        Ok(key) => context.apps.set_credential_key(key).await,
        Err(failure) => {
            tracing::warn!(error = %Chain(&failure), "no app credential key; keeping the last one");
        }
    }
    push_status(&context, &session, DeviceStatus::Configuring).await;
    let keeper = registrations::establish(&context, &session).await;
    push_architecture(&context).await;
    context.logs.attach(session.clone()).await;
    let mut synced = sync(&context).await;
    if let Err(failure) = context.apps.report_all().await {
        tracing::error!(error = %Chain(&failure), "could not queue the app reports");
    }
    status.send_replace(DeviceStatus::Connected);
    push_status(&context, &session, DeviceStatus::Connected).await;
    tracing::info!(session = session.id(), "connected and configured");

    let resync = async {
        let mut confirmation = context.apps.confirmation_due();
        loop {
            let regular = Instant::now() + if synced { RESYNC } else { RESYNC_FAILED };
            let due = confirmation
                .borrow_and_update()
                .map_or(regular, |asked| asked.min(regular));
            tokio::select! {
                () = tokio::time::sleep_until(due) => synced = sync(&context).await,
                // Another moment is due; without anybody to set one, the session is about to end.
                changed = confirmation.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = keeper.keep(&session) => {}
        () = resync => {}
    }
    Verdict::Done
}

/// Names and project from the backend. True when the device was moved to another project (4.14): nothing may go out
/// any more under the old session.
async fn refresh_identity(context: &LinkContext) -> bool {
    let device = context.device.current();
    let metadata = match retried(|| context.backend.read_device_metadata(device.device_key)).await {
        Ok(metadata) => metadata,
        Err(failure) => {
            tracing::warn!(error = %Chain(&failure), "no device metadata; keeping the known identity");
            return false;
        }
    };
    let DeviceMetadata {
        device_name,
        swarm_name,
        owner_name,
        swarm_key,
    } = metadata;
    let moved = swarm_key != device.swarm_key;
    if moved {
        tracing::info!(
            from = device.swarm_key,
            to = swarm_key,
            "the device was moved to another project"
        );
    }
    let change = |document: &mut FlockDocument| {
        if let Some(name) = &device_name {
            document.set_name(name);
        }
        if let Some(name) = &swarm_name {
            document.set_swarm_name(name);
        }
        if let Some(name) = &owner_name {
            document.set_swarm_owner_name(name);
        }
        document.set_swarm_key(swarm_key);
    };
    context.device.update(change).await;
    moved
}

async fn push_status(context: &LinkContext, session: &Session, status: DeviceStatus) {
    if let Err(failure) = retried(|| heartbeat::send(context, session, status)).await {
        tracing::warn!(?status, error = %Chain(&failure), "status not delivered; the heartbeat repeats it");
    }
}

async fn push_architecture(context: &LinkContext) {
    let device = context.device.current();
    let platform = Platform::detect();
    let update = ArchitectureUpdate {
        swarm_key: device.swarm_key,
        device_key: device.device_key,
        architecture: platform.architecture(),
        os: platform.detailed_os,
        arch: platform.arch,
        variant: platform.variant,
        agent_version: VERSION.to_owned(),
    };
    if let Err(failure) = context.backend.update_device_architecture(&update).await {
        tracing::warn!(error = %Chain(&failure), "platform facts not delivered");
    }
}

/// Fetches and applies what the backend wants here. An unusable answer changes nothing (R32).
async fn sync(context: &LinkContext) -> bool {
    let device_key = context.device.current().device_key;
    let answer = match retried(|| context.backend.get_requested_app_states(device_key)).await {
        Ok(answer) => answer,
        Err(failure) => {
            tracing::warn!(error = %Chain(&failure), "no requested app states; apps stay as they are");
            return false;
        }
    };
    match context.apps.sync(answer).await {
        Ok(()) => true,
        Err(failure) => {
            tracing::error!(error = %Chain(&failure), "could not store the requested app states");
            false
        }
    }
}

/// A few attempts while the session lives; the session's end drops the whole run.
async fn retried<T, F, Fut>(mut call: F) -> Result<T, BackendError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, BackendError>>,
{
    let mut backoff = Backoff::link();
    let mut attempt = 1;
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            // An answer that is an error will not get better by asking again at once, except while the backend starts.
            Err(failure) if attempt >= ATTEMPTS || (failure.is_answer() && !failure.is_backend_absent()) => {
                return Err(failure);
            }
            Err(_) => attempt += 1,
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
