//! When an update is looked for, and what becomes of a staged one. Must not know how it is found and staged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::install::Installer;
use super::memory::Memory;
use super::order::{Cause, Ended, Order};
use super::progress::Meter;
use super::{Custody, Newest, Report, Request, UpdateContext, position, remember, state, swap, telling};
use crate::cli::VERSION;
use crate::exit;
use crate::journal::Chain;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Staged,
    /// Until the next one is due.
    Settled,
    /// The bucket was away, it may be there soon.
    Away,
    /// The device is busy with something else.
    Postponed,
}

/// The task that decides when to look for an update.
pub(super) struct Checks {
    pub(super) context: UpdateContext,
    pub(super) memory: Memory,
    pub(super) installer: Arc<Installer>,
    pub(super) newest: Newest,
    /// An update is under way: set by whoever begins one, which only one can.
    pub(super) busy: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
}

impl Checks {
    /// Checks at start, every now and then, and on request.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<Request>, under_test: bool) {
        let automatic = self.context.settings.update && !self.context.settings.offline;
        let serial = self.context.device.current().serial_number.clone();
        let mut first = self
            .context
            .footing
            .setup
            .start_delay
            .mul_f64(position(&serial, VERSION));
        if under_test {
            first += self.context.footing.setup.isolation;
        }
        let mut due = Instant::now() + first;
        let setup = &self.context.footing.setup;
        let mut retries = setup.retry.start();
        loop {
            let request = tokio::select! {
                biased;
                request = inbox.recv() => match request {
                    Some(request) => Some(request),
                    // Nobody can ask any more.
                    None => return,
                },
                () = tokio::time::sleep_until(due), if automatic => None,
            };
            let is_automatic = request.is_none();
            if is_automatic && self.busy.swap(true, Ordering::AcqRel) {
                // Somebody's request is on its way here, and comes first.
                tokio::task::yield_now().await;
                continue;
            }
            let checked = self.check(request).await;
            if checked == Checked::Staged && self.activate().await {
                // What is staged is about to be started; until then an update is in progress.
                return std::future::pending().await;
            }
            self.busy.store(false, Ordering::Release);
            if is_automatic {
                if checked != Checked::Away {
                    retries = setup.retry.start();
                }
                let pause = match checked {
                    Checked::Staged | Checked::Settled => spread(setup.period),
                    Checked::Away => retries.pause(),
                    Checked::Postponed => setup.idle_look,
                };
                due = Instant::now() + pause;
            }
        }
    }

    /// One check from beginning to end.
    async fn check(&self, request: Option<Request>) -> Checked {
        let (order, answer) = match request {
            Some(request) => {
                let order = Order {
                    cause: request.version.map_or(Cause::Asked, Cause::Version),
                    force: request.force,
                    id: request.id,
                };
                (order, Some(request.answer))
            }
            None => (Order::automatic(), None),
        };
        let listener = answer.is_some().then(|| telling::announce(self.context.clone()));
        let mut report = Report::default();
        let named = matches!(order.cause, Cause::Version(_));
        let ended = self.installer.run(order, Meter::new(listener)).await;
        if let Some(offered) = ended.offered() {
            report.latest = offered.to_owned();
            if !named {
                remember(&self.newest, Some(offered.to_owned()));
            }
        }
        let checked = match &ended {
            Ended::Staged { version, size, .. } => {
                tracing::info!(to = version, size, "a new version is staged");
                report.updated = true;
                report.size = *size;
                report.message = format!("version {version} is installed and is started next");
                Checked::Staged
            }
            Ended::Nothing { message, .. } => {
                tracing::debug!(message, "no update");
                report.message.clone_from(message);
                Checked::Settled
            }
            Ended::Postponed { offered } => {
                tracing::info!(to = offered, "the update waits for the end of other work");
                Checked::Postponed
            }
            Ended::Failed { failure, .. } => {
                report.message = Chain(failure).to_string();
                match failure.is_transient() {
                    true => Checked::Away,
                    false => Checked::Settled,
                }
            }
        };
        if let Some(answer) = answer {
            // The caller may have gone.
            let _ = answer.send(report);
        }
        checked
    }

    /// Lets the staged version be started. `false`: somebody else does that.
    async fn activate(&self) -> bool {
        match &self.context.footing.custody {
            Custody::Managed | Custody::Nobody => {
                tracing::info!("the manager script starts the new version");
                return false;
            }
            Custody::Service | Custody::Own { .. } => {}
        }
        tokio::time::sleep(self.context.footing.setup.activation).await;
        match &self.context.footing.custody {
            Custody::Own { watched: false, .. } => {
                exit::start_over(&self.stop, self.context.footing.custody.clone());
            }
            Custody::Service if !self.swap().await => return false,
            _ => exit::restart(&self.stop),
        }
        true
    }

    /// Puts the staged version in the place of this one. Whether it is there.
    async fn swap(&self) -> bool {
        let (agent_dir, memory) = (self.context.settings.agent_dir.clone(), self.memory.clone());
        let swapped = spawn_blocking(move || swap::activate(&agent_dir, &memory)).await;
        let reason = match swapped {
            Ok(Ok(())) => return true,
            Ok(Err(failure)) => Chain(&failure).to_string(),
            Err(panicked) => panicked.to_string(),
        };
        tracing::error!(error = reason, "the new version does not take over");
        let told = self.memory.change(move |state| match state.phase {
            // The next start finds out how far it came.
            state::Phase::Swapping => {}
            _ => state.abandon(&reason),
        });
        if let Err(error) = told.await {
            tracing::warn!(%error, "the failed update cannot be remembered");
        }
        false
    }
}

/// Half of `period` more or less, so that devices that were started together do not stay together.
fn spread(period: Duration) -> Duration {
    period.mul_f64(0.5 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_come_after_half_to_one_and_a_half_of_their_period_and_never_in_step() {
        let period = Duration::from_secs(1000);
        let (mut early, mut late) = (0, 0);
        for _ in 0..1000 {
            let pause = spread(period);
            assert!((500..=1500).contains(&pause.as_secs()), "{pause:?}");
            early += u32::from(pause < Duration::from_secs(750));
            late += u32::from(pause > Duration::from_secs(1250));
        }
        assert!(early > 150 && late > 150, "{early} {late}");
    }
}
