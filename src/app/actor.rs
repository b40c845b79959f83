//! One app's actor: looks at (wanted, actual), asks the table, runs one action, looks again (`app-lifecycle.md` 14.8).
//!
//! It never runs two actions at once. A newer intent that makes the running action pointless cancels it; every other
//! one is looked at when the action has ended, whatever its outcome (W10-W12, W30). Must not know: who nudges.

mod observing;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use protocol::{AppId, AppRequest, AppState, Stage};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mailbox::{Desired, Nudge};
use super::observe::Look;
use super::retry::{Gate, Retry, STABLE};
use super::table::{Action, Situation, next};
use super::worker::{ActionError, Worker};
use crate::journal::Chain;
use crate::store::Recorded;

/// How long a canceled action may take to unwind at shutdown; then it is dropped where it is, which is as safe as a
/// power cut.
const UNWIND: Duration = Duration::from_secs(5);
/// A daemon that fell silent is looked for this often; of one that went away the events tell.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The image of the version before an update is kept until the new one has run for this long.
const OUTDATED_KEPT: Duration = Duration::from_secs(60);
/// A daemon that does not say that it is there within this hangs as a whole.
const PING: Duration = Duration::from_secs(5);

/// An app in its own task.
#[derive(Debug)]
pub(crate) struct Actor {
    worker: Worker,
    retry: Retry,
    /// Of the update that is asked for; the installed version does not wait for it.
    update_retry: Retry,
    /// When the images of older versions go, if the app runs then.
    outdated: Option<Instant>,
    /// Somebody waits for a report even if nothing is to be done.
    report_due: bool,
    /// The last failure was one of the network.
    failed_download: bool,
    /// Made by a request a moment ago: there is nothing that a start could have interrupted.
    new: bool,
    /// Docker was looked at since it came up. Set by the look, not by the fact: an action that began between the two
    /// would have its outcome corrected as if it had been interrupted.
    engine_up: bool,
    /// Docker went away or fell silent under the last call: nothing is tried before the next look, which comes with
    /// its return, or at this moment.
    engine_lost: Option<Instant>,
    /// Since when it runs, while earlier failures still count.
    running_since: Option<Instant>,
    /// The situation was looked at since the last nudge, so an undefined cell is not a stale state.
    looked: bool,
    /// An app without rows tells the supervisor that it may go. One message per retirement; waits when full.
    retired: mpsc::Sender<AppId>,
    stop: CancellationToken,
}

/// What to do now.
#[derive(Debug)]
enum Step {
    Act(Action, Desired),
    /// What there is of the app gets its new name.
    Rename(Desired),
    /// The wanted state is there, or nothing can be done: until a nudge or this moment.
    Rest(Option<Instant>),
    Look,
    Report,
    RemoveOutdatedImages,
}

impl Actor {
    pub(crate) fn new(
        worker: Worker,
        new: bool,
        retired: mpsc::Sender<AppId>,
        stop: CancellationToken,
    ) -> Actor {
        Actor {
            new,
            engine_up: worker.shared.is_engine_up(),
            worker,
            retry: Retry::new(),
            update_retry: Retry::new(),
            outdated: None,
            report_due: false,
            failed_download: false,
            engine_lost: None,
            running_since: None,
            looked: false,
            retired,
            stop,
        }
    }

    /// Runs until `stop` fires.
    pub(crate) async fn run(mut self) {
        let mailbox = Arc::clone(&self.worker.mailbox);
        while !self.stop.is_cancelled() {
            let nudge = mailbox.take();
            self.hear(nudge).await;
            match self.decide(Instant::now()) {
                Step::Act(action, desired) => self.act(action, &desired).await,
                Step::Rename(desired) => self.rename(&desired.request).await,
                Step::Look => self.observe(Look::Change).await,
                Step::Report => self.report_settled().await,
                Step::RemoveOutdatedImages => self.remove_outdated_images().await,
                Step::Rest(until) => {
                    self.retire_if_gone().await;
                    tokio::select! {
                        () = self.stop.cancelled() => {}
                        () = mailbox.nudged() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    async fn hear(&mut self, nudge: Nudge) {
        if nudge.stored {
            self.worker.rows = Recorded::Kept;
        }
        if nudge.asked {
            self.take_up_request();
            self.report_due = true;
        }
        if nudge.online && self.failed_download {
            self.retry.open();
            self.update_retry.open();
        }
        if nudge.asked || nudge.look != Look::No {
            self.looked = false;
            self.engine_lost = None;
        }
        if nudge.lost {
            self.engine_up = false;
        }
        if nudge.look == Look::Fresh {
            self.retry.open();
            self.engine_up = self.worker.shared.is_engine_up();
        }
        if nudge.look != Look::No && !self.new {
            self.observe(nudge.look).await;
        }
        self.new &= nudge.look == Look::No;
        if nudge.report {
            self.worker.shared.port_reports.repeat(self.worker.app);
            self.report().await;
        }
        if nudge.asked || nudge.online || nudge.credential {
            self.refresh_credential().await;
        }
    }

    /// Somebody asked: the past does not count.
    fn take_up_request(&mut self) {
        self.retry.forget();
        self.update_retry.forget();
        if let Some(desired) = self
            .worker
            .mailbox
            .desired()
            .filter(|desired| wanted(desired.request.target))
        {
            self.worker.sync_ports(&desired.request, &[]);
        }
    }

    /// What to do now. While Docker was last seen silent nothing is done but looking for it.
    fn decide(&mut self, now: Instant) -> Step {
        let step = match self.choose(now) {
            Step::Rest(until) => self.rest_until_due(now, until),
            step => step,
        };
        match (step, self.engine_lost) {
            (Step::Rest(_), Some(moment)) if self.engine_up && now >= moment => Step::Look,
            (Step::Rest(until), Some(moment)) if self.engine_up => {
                Step::Rest(Some(until.map_or(moment, |until| until.min(moment))))
            }
            (step, _) => step,
        }
    }

    /// What an app that rests waits for besides.
    fn rest_until_due(&self, now: Instant, until: Option<Instant>) -> Step {
        let running = self.worker.state == AppState::Running && self.engine_up;
        let outdated = self.outdated.filter(|_| running);
        if outdated.is_some_and(|moment| now >= moment) {
            return Step::RemoveOutdatedImages;
        }
        let update = match self.update_retry.gate() {
            Gate::Until(moment) if now < moment => Some(moment),
            Gate::Until(_) | Gate::Open | Gate::Shut => None,
        };
        Step::Rest([until, outdated, update].into_iter().flatten().min())
    }

    /// An update is asked for and may be tried. Until then the installed version is driven to its target (W9). One that was
    /// canceled is not tried before the next request (W63).
    fn is_update_due(&self, now: Instant, request: &AppRequest) -> bool {
        let open = match self.update_retry.gate() {
            Gate::Open => true,
            Gate::Until(moment) => now >= moment,
            Gate::Shut => false,
        };
        open && !request.cancel_transition
            && self.worker.shared.is_online()
            && self.worker.is_update_pending(request)
    }

    fn choose(&mut self, now: Instant) -> Step {
        let Some(desired) = self.worker.mailbox.desired() else {
            return self.rest();
        };
        let request = &desired.request;
        let worker = &self.worker;
        // What is done once is not done again, whatever becomes of the app.
        if desired.finished {
            // Canceled by its own request: what it has come to is looked at.
            let cut_off = matches!(worker.state, AppState::Building | AppState::Publishing);
            return match self.report_due {
                _ if cut_off && !self.looked && self.engine_up => Step::Look,
                true => Step::Report,
                false => Step::Rest(None),
            };
        }
        // The rows went with a report of this very state; another one would bring half of them back.
        if worker.rows == Recorded::Deleted && worker.state == request.target {
            return self.rest();
        }
        if request.app_name != worker.app_name {
            return self.when_open(now, Step::Rename(desired));
        }
        let action = next(Situation {
            stage: worker.app.stage,
            current: worker.state,
            target: request.target,
            update: self.is_update_due(now, request),
        });
        match action {
            Action::Report => return self.settled(now, request.target),
            Action::Undefined if worker.state.is_transient() && !self.looked && self.engine_up => {
                return Step::Look;
            }
            Action::Undefined | Action::Impossible => return self.rest(),
            Action::Build
            | Action::Publish
            | Action::RemoveThenPublish
            | Action::CancelBuild
            | Action::CancelPush
            | Action::Pull
            | Action::Run
            | Action::Stop
            | Action::Remove
            | Action::Uninstall
            | Action::RecoverPresent
            | Action::RecoverRunning
            | Action::Update
            | Action::CancelPull
            | Action::CancelTransfer
            | Action::CancelUpdate => {}
        }
        if self.waits_for_backend(action) {
            return Step::Rest(None);
        }
        self.when_open(now, Step::Act(action, desired))
    }

    /// A step that needs Docker, and has to wait after failures. An update waits for its own alone.
    fn when_open(&self, now: Instant, step: Step) -> Step {
        if !self.engine_up || self.engine_lost.is_some() {
            return Step::Rest(None);
        }
        match self.retry.gate() {
            _ if matches!(step, Step::Act(Action::Update, _)) => step,
            Gate::Until(moment) if now < moment => Step::Rest(Some(moment)),
            Gate::Shut => Step::Rest(None),
            Gate::Open | Gate::Until(_) => step,
        }
    }

    /// A new name does not wait for the next action (W45).
    async fn rename(&mut self, request: &AppRequest) {
        let state = self.worker.state;
        self.worker.mailbox.set_status(|status| status.busy = true);
        let renamed = AssertUnwindSafe(self.worker.rename(request)).catch_unwind();
        let renamed = renamed.await.unwrap_or(Err(ActionError::Panicked));
        self.worker.mailbox.set_status(|status| status.busy = false);
        match renamed {
            Ok(()) => self.report_due &= self.worker.state == state,
            Err(error) if self.has_lost_engine(&error).await => {
                self.engine_lost = Some(Instant::now() + LOOK_AGAIN);
            }
            Err(error) => {
                tracing::warn!(app = %self.worker.app, error = %Chain(&error), "renaming an app");
                self.retry.failed(Instant::now());
            }
        }
    }

    /// Offline, an app that is not on the device would only fail to be fetched (7.7 "invalid offline"), and one that is
    /// built would only fail to be published.
    fn waits_for_backend(&self, action: Action) -> bool {
        if self.worker.shared.is_online() {
            return false;
        }
        match action {
            Action::Publish | Action::RemoveThenPublish => true,
            Action::Pull | Action::Run => {
                self.worker.app.stage == Stage::Prod
                    && matches!(self.worker.state, AppState::Removed | AppState::Uninstalled)
            }
            _ => false,
        }
    }

    fn rest(&mut self) -> Step {
        self.report_due = false;
        Step::Rest(None)
    }

    /// The target is reached: old failures are forgotten after a stable run, or at once when nothing has to run (W15).
    fn settled(&mut self, now: Instant, target: AppState) -> Step {
        // Recording REMOVED once more is what deletes the rows of an app that had nothing to remove (9.5).
        let gone = (self.worker.state, target) == (AppState::Removed, AppState::Removed);
        let leftover = gone && self.worker.rows == Recorded::Kept;
        if self.report_due || leftover {
            return Step::Report;
        }
        if self.worker.state != AppState::Running {
            self.retry.forget();
            return Step::Rest(None);
        }
        match self.running_since.map(|since| since + STABLE) {
            Some(stable) if now < stable => Step::Rest(Some(stable)),
            Some(_) => {
                self.running_since = None;
                self.retry.forget();
                Step::Rest(None)
            }
            None => Step::Rest(None),
        }
    }

    async fn act(&mut self, action: Action, desired: &Desired) {
        let request = &desired.request;
        self.report_due = false;
        self.new = false;
        // Came in since the last look into the mailbox: what the action reports answers it as well.
        let nudge = self.worker.mailbox.take_request();
        if nudge.stored {
            self.worker.rows = Recorded::Kept;
        }
        if nudge.asked {
            self.take_up_request();
        }
        self.worker.mailbox.set_status(|status| status.busy = true);
        let before = self.worker.state;
        let result = self.perform(action, desired).await;
        self.worker.mailbox.set_status(|status| status.busy = false);
        self.failed_download = false;
        match result {
            Ok(()) if action == Action::Update => self.updated(),
            Ok(()) => self.succeeded(before, request),
            Err(ActionError::Canceled) => {}
            Err(error @ ActionError::NotUpdated(_)) => self.stays(&error),
            Err(error) if self.has_lost_engine(&error).await => {
                tracing::warn!(app = %self.worker.app, ?action, error = %Chain(&error), "the app waits for Docker");
                self.worker
                    .line(&format!("{}; waiting for Docker", Chain(&error)));
                self.engine_lost = Some(Instant::now() + LOOK_AGAIN);
            }
            Err(error) => self.failed(action, request, &error).await,
        }
        if self.worker.rows == Recorded::Kept && wanted(request.target) {
            self.worker.refresh_credential(request).await;
        }
        if desired.unlisted && self.worker.state == AppState::Uninstalled {
            self.forget().await;
        }
    }

    async fn perform(&mut self, action: Action, desired: &Desired) -> Result<(), ActionError> {
        let request = &desired.request;
        let mailbox = Arc::clone(&self.worker.mailbox);
        // Made before the first state of the action can be seen (W12).
        let cancel = self.stop.child_token();
        let stop = self.stop.clone();
        let store = self.worker.shared.context.store.clone();
        let snapshot = self.worker.snapshot();
        let work = self.worker.perform(action, request, desired.adopted, &cancel);
        // A bug in one action must not take the app's actor down (W20). On the heap, because it is large and most apps
        // rest most of the time.
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result.unwrap_or(Err(ActionError::Panicked)),
                () = mailbox.nudged() => {
                    let status = mailbox.status();
                    if mailbox.desired().is_some_and(|desired| cancels(action, status.state, &desired.request)) {
                        cancel.cancel();
                    }
                    if mailbox.take_report()
                        && let Err(error) = store.queue_report(snapshot.clone()).await
                    {
                        tracing::warn!(error = %Chain(&error), "queueing a report");
                    }
                }
                () = stop.cancelled() => {
                    return match tokio::time::timeout(UNWIND, &mut work).await {
                        Ok(result) => result.unwrap_or(Err(ActionError::Panicked)),
                        Err(_) => Err(ActionError::Canceled),
                    };
                }
            }
        }
    }

    /// Whether nothing is wrong with the app, only with Docker.
    async fn has_lost_engine(&self, error: &ActionError) -> bool {
        let engine = &self.worker.shared.context.engine;
        error.is_engine_down() || (error.is_engine_silent() && !engine.is_up(PING).await)
    }

    fn updated(&mut self) {
        self.retry.forget();
        self.update_retry.forget();
        self.running_since = None;
        self.outdated = Some(Instant::now() + OUTDATED_KEPT);
    }

    /// The update has failed, the app has not.
    fn stays(&mut self, error: &ActionError) {
        let delay = self.update_retry.failed(Instant::now());
        tracing::warn!(app = %self.worker.app, error = %Chain(error), ?delay, "an update failed");
        self.failed_download = error.is_download();
    }

    async fn remove_outdated_images(&mut self) {
        self.outdated = None;
        if let Err(error) = self.worker.remove_outdated_images().await {
            tracing::warn!(app = %self.worker.app, error = %Chain(&error), "removing the images of older versions");
        }
    }

    fn succeeded(&mut self, before: AppState, request: &AppRequest) {
        let state = self.worker.state;
        if state == AppState::Running && self.retry.attempts() > 0 {
            self.running_since = Some(Instant::now());
            self.retry.open();
        }
        // Nothing was gained: not again at once (W62).
        if state == before && state != request.target {
            self.retry.failed(Instant::now());
        }
    }

    async fn failed(&mut self, action: Action, request: &AppRequest, error: &ActionError) {
        let app = self.worker.app;
        tracing::warn!(%app, ?action, error = %Chain(error), "an action failed");
        self.failed_download = error.is_download();
        if let Err(error) = self.worker.finish(request, &[AppState::Failed]).await {
            tracing::error!(%app, error = %Chain(&error), "recording a failure");
        }
        self.running_since = None;
        if action == Action::Update {
            // It waits for its own failures alone, of whatever kind.
            self.update_retry.failed(Instant::now());
        }
        match app.stage {
            Stage::Prod => drop(self.retry.failed(Instant::now())),
            Stage::Dev => self.retry.shut(),
        }
    }

    /// The no-op of the table: the state is reported once more.
    async fn report_settled(&mut self) {
        self.report_due = false;
        if let Err(error) = self.worker.set(self.worker.state).await {
            tracing::warn!(app = %self.worker.app, error = %Chain(&error), "reporting again");
        }
        if self.worker.state == AppState::Removed && self.worker.mailbox.target() == Some(AppState::Removed) {
            // Whether the store refused or has no request to go by: it is not asked again before the next nudge.
            self.worker.rows = Recorded::Deleted;
        }
    }

    async fn report(&self) {
        let snapshot = self.worker.snapshot();
        if let Err(error) = self.worker.shared.context.store.queue_report(snapshot).await {
            tracing::warn!(app = %self.worker.app, error = %Chain(&error), "queueing a report");
        }
    }

    async fn refresh_credential(&self) {
        if let Some(desired) = self.worker.mailbox.desired()
            && wanted(desired.request.target)
        {
            self.worker.refresh_credential(&desired.request).await;
        }
    }

    /// The backend does not list the app any more and nothing of it is left.
    async fn forget(&mut self) {
        match self.worker.shared.context.store.forget_app(self.worker.app).await {
            Ok(()) => self.worker.rows = Recorded::Deleted,
            Err(error) => tracing::warn!(app = %self.worker.app, error = %Chain(&error), "forgetting an app"),
        }
    }

    /// Without rows and without anything to do the actor offers to go (W31).
    async fn retire_if_gone(&self) {
        if self.worker.rows == Recorded::Deleted && self.worker.mailbox.try_retire() {
            // At shutdown nobody listens any more.
            let _ = self
                .stop
                .run_until_cancelled(self.retired.send(self.worker.app))
                .await;
        }
    }
}

/// Whether a newer request makes the running action pointless. A download toward PRESENT is never wasted: a start that
/// is fetching its image goes on to PRESENT by itself.
fn cancels(action: Action, state: AppState, request: &AppRequest) -> bool {
    let starts = matches!(action, Action::Run | Action::RecoverRunning);
    let fetches = matches!(action, Action::Pull | Action::RecoverPresent);
    let updates = action == Action::Update;
    let builds = matches!(
        action,
        Action::Build | Action::Publish | Action::RemoveThenPublish
    );
    match request.target {
        AppState::Removed | AppState::Uninstalled => starts || fetches || updates || builds,
        _ if builds => request.cancel_transition,
        _ if updates => request.cancel_transition || !request.request_update,
        AppState::Present => starts && state != AppState::Downloading,
        _ => false,
    }
}

/// Whether an app with this target is to stay on the device.
fn wanted(target: AppState) -> bool {
    !matches!(target, AppState::Removed | AppState::Uninstalled)
}

pub(super) async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
