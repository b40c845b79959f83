//! What happens once per connect, in the order of `session-and-api.md` 5.1 step 15: identity, credential key,
//! CONFIGURING, procedures, platform facts, log gates, requested states, reports, CONNECTED.
//!
//! One run at a time: it belongs to its session and is dropped with it (R28). Every step is tried once, so that a
//! backend that is slow, starting or away delays the procedures as little as possible; what it did not answer is asked
//! again until it does. None ends the process (R16).

use protocol::flock::FlockDocument;
use protocol::report::{ArchitectureUpdate, DeviceStatus};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wamp::client::Session;

use super::{LinkContext, Verdict, heartbeat, registrations};
use crate::backend::{BackendError, DeviceMetadata};
use crate::cli::VERSION;
use crate::journal::{Chain, START_UP};
use crate::system::platform::Platform;

/// A step that needs the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Identity,
    CredentialKey,
    Configuring,
    Architecture,
    RequestedStates,
    Connected,
}

impl Step {
    /// What the device does without it.
    fn without(self) -> &'static str {
        match self {
            Step::Identity => "no device metadata; keeping the known identity",
            Step::CredentialKey => "no app credential key; keeping the last one",
            Step::Configuring | Step::Connected => "status not delivered",
            Step::Architecture => "platform facts not delivered",
            Step::RequestedStates => "no requested app states; apps stay as they are",
        }
    }
}

/// What came of a step.
enum Progress {
    Done,
    /// The device itself could not do its part.
    Again,
    /// The device belongs to another project: nothing may go out any more under this session (4.14).
    Moved(DeviceMetadata),
}

/// One configuration run.
struct Run {
    context: LinkContext,
    session: Session,
    /// Steps that are not done yet, in order.
    missing: Vec<Step>,
    /// What is missing was said once.
    said: bool,
}

/// Configures the session once `witnessed` says that its testament was left, then keeps the requested states fresh
/// until the session ends.
pub(super) async fn run(
    context: LinkContext,
    session: Session,
    status: watch::Sender<DeviceStatus>,
    witnessed: CancellationToken,
) -> Verdict {
    witnessed.cancelled().await;
    tracing::info!(target: START_UP, "Running onConnect handler");
    let mut run = Run {
        context,
        session,
        missing: Vec::new(),
        said: false,
    };
    let session = run.session.clone();
    match run.configure(&status).await {
        Ok(keeper) => tokio::select! {
            () = keeper.keep(&session) => Verdict::Done,
            metadata = run.follow() => Verdict::Moved(metadata),
        },
        Err(metadata) => Verdict::Moved(metadata),
    }
}

impl Run {
    /// All steps in order. `Err`: the device was moved.
    async fn configure(
        &mut self,
        status: &watch::Sender<DeviceStatus>,
    ) -> Result<registrations::Keeper, DeviceMetadata> {
        self.attempt(Step::Identity).await?;
        self.attempt(Step::CredentialKey).await?;
        self.attempt(Step::Configuring).await?;
        // The heartbeat repeats it until CONNECTED replaces it.
        self.missing.retain(|step| *step != Step::Configuring);
        let keeper = registrations::establish(&self.context, &self.session).await;
        self.attempt(Step::Architecture).await?;
        self.context.logs.attach(self.session.clone()).await;
        self.attempt(Step::RequestedStates).await?;
        if let Err(failure) = self.context.apps.report_all().await {
            tracing::error!(error = %Chain(&failure), "could not queue the app reports");
        }
        status.send_replace(DeviceStatus::Connected);
        self.attempt(Step::Connected).await?;
        self.said = true;
        tracing::info!(session = self.session.id(), missing = ?self.missing, "connected and configured");
        Ok(keeper)
    }

    /// Asks again for what is missing, and for the requested states every now and then. Ends when the device was
    /// moved.
    async fn follow(&mut self) -> DeviceMetadata {
        let timing = self.context.timing.clone();
        let mut confirmation = self.context.apps.confirmation_due();
        let mut absent = timing.catch_up.start();
        let mut unwilling = timing.unwilling.start();
        let mut refresh = Instant::now() + timing.resync;
        let mut retry = None;
        loop {
            if self.missing.is_empty() {
                absent = timing.catch_up.start();
                unwilling = timing.unwilling.start();
            } else if retry.is_none() {
                // A backend that is there and does not answer this one usefully may never do so.
                let pauses = match self.missing.contains(&Step::Connected) {
                    true => &mut absent,
                    false => &mut unwilling,
                };
                retry = Some(Instant::now() + pauses.pause());
            }
            let steps = loop {
                let asked = *confirmation.borrow_and_update();
                let states = asked.map_or(refresh, |asked| asked.min(refresh));
                // Unanswered, the question for the states keeps to the pauses.
                let states = (!self.missing.contains(&Step::RequestedStates)).then_some(states);
                let due = [retry, states].into_iter().flatten().min().unwrap_or(refresh);
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {
                        break match retry.take_if(|retry| *retry <= due) {
                            Some(_) => std::mem::take(&mut self.missing),
                            None => vec![Step::RequestedStates],
                        };
                    }
                    // Another moment is due; without anybody to set one, the session is about to end.
                    changed = confirmation.changed() => {
                        if changed.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                }
            };
            if steps.contains(&Step::RequestedStates) {
                refresh = Instant::now() + timing.resync;
            }
            for step in steps {
                if let Err(metadata) = self.attempt(step).await {
                    return metadata;
                }
            }
        }
    }

    /// Tries a step once. `Err`: the device was moved.
    async fn attempt(&mut self, step: Step) -> Result<(), DeviceMetadata> {
        match self.perform(step).await {
            Ok(Progress::Done) => Ok(()),
            Ok(Progress::Again) => {
                self.missing.push(step);
                Ok(())
            }
            Ok(Progress::Moved(metadata)) => Err(metadata),
            Err(failure) => {
                if self.said {
                    tracing::debug!(error = %Chain(&failure), "{}", step.without());
                } else {
                    tracing::warn!(error = %Chain(&failure), "{}", step.without());
                }
                self.missing.push(step);
                Ok(())
            }
        }
    }

    async fn perform(&self, step: Step) -> Result<Progress, BackendError> {
        let context = &self.context;
        match step {
            Step::Identity => {
                let device_key = context.device.current().device_key;
                let metadata = context.backend.read_device_metadata(device_key).await?;
                if metadata.swarm_key != context.device.current().swarm_key {
                    return Ok(Progress::Moved(metadata));
                }
                take_over(context, metadata).await;
            }
            Step::CredentialKey => {
                let key = context.backend.get_app_cred_key().await?;
                context.apps.set_credential_key(key).await;
            }
            Step::Configuring => heartbeat::send(context, &self.session, DeviceStatus::Configuring).await?,
            Step::Architecture => push_architecture(context).await?,
            Step::RequestedStates => {
                // An unusable answer is an error and changes nothing (R32).
                let device_key = context.device.current().device_key;
                let answer = context.backend.get_requested_app_states(device_key).await?;
                if let Err(failure) = context.apps.sync(answer).await {
                    tracing::error!(error = %Chain(&failure), "could not store the requested app states");
                    return Ok(Progress::Again);
                }
            }
            Step::Connected => heartbeat::send(context, &self.session, DeviceStatus::Connected).await?,
        }
        Ok(Progress::Done)
    }
}

/// Makes the backend's names and project those of this device. With another project the session that they came
/// through must have ended before.
pub(super) async fn take_over(context: &LinkContext, metadata: DeviceMetadata) {
    let DeviceMetadata {
        device_name,
        swarm_name,
        owner_name,
        swarm_key,
    } = metadata;
    let known = context.device.current().swarm_key;
    if swarm_key != known {
        tracing::info!(
            from = known,
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
}

async fn push_architecture(context: &LinkContext) -> Result<(), BackendError> {
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
    context.backend.update_device_architecture(&update).await
}
