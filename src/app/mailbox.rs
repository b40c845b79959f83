//! What the rest of the agent wants from one app: the latest request and a few flags. A nudge never says what to do,
//! only that there is reason to look; any number of them collapse into one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::{AppRequest, AppState};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::compose::Document;
use super::observe::Look;

/// Reasons to look; all that came since the last look, merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nudge {
    /// Somebody asked: the past does not count and the state is reported even when it is the wanted one.
    pub(crate) asked: bool,
    /// The intent was stored: there are rows again.
    pub(crate) stored: bool,
    /// The backend was reached: what failed for lack of it may be tried again.
    pub(crate) online: bool,
    pub(crate) look: Look,
    /// Docker went away.
    pub(crate) lost: bool,
    /// Report the current state once more.
    pub(crate) report: bool,
    /// Credentials may have changed.
    pub(crate) credential: bool,
}

impl Nudge {
    fn merge(&mut self, other: Nudge) {
        self.asked |= other.asked;
        self.stored |= other.stored;
        self.online |= other.online;
        self.look = self.look.max(other.look);
        self.lost |= other.lost;
        self.report |= other.report;
        self.credential |= other.credential;
    }
}

/// The latest intent for an app.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub(crate) request: Arc<AppRequest>,
    /// Rebuilt from labels: the existing container is the only one who knows environment and ports.
    pub(crate) adopted: bool,
    /// The backend does not know this app any more: nothing is reported about its removal.
    pub(crate) unlisted: bool,
    /// By which the store knows the request.
    pub(crate) number: u64,
    /// The build or publication that it asks for has ended: nothing leads toward its target any more.
    pub(crate) finished: bool,
}

/// What the actor last knew, for those who must not wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Under which containers and directories exist.
    pub(crate) app_name: String,
    /// Installed; empty when none is.
    pub(crate) version: String,
    pub(crate) state: AppState,
    pub(crate) busy: bool,
    /// The rows are gone and nothing is left to do.
    pub(crate) gone: bool,
}

/// The box of one app. Filled by the supervisor, emptied by the app's actor.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    wake: Notify,
    /// Something happened to a container, for an action that waits for that.
    change: Notify,
    /// Somebody asked, for an action that waits for its turn.
    hurry: Notify,
}

#[derive(Debug)]
struct Inner {
    desired: Option<Desired>,
    nudge: Nudge,
    status: Status,
    requested_at: Option<Instant>,
}

impl Mailbox {
    pub(crate) fn new(desired: Option<Desired>, status: Status) -> Mailbox {
        Mailbox {
            inner: Mutex::new(Inner {
                desired,
                nudge: Nudge::default(),
                status,
                requested_at: None,
            }),
            wake: Notify::new(),
            change: Notify::new(),
            hurry: Notify::new(),
        }
    }

    /// Replaces the intent and wakes the actor.
    pub(crate) fn desire(&self, desired: Desired, nudge: Nudge, now: Instant) {
        {
            let mut inner = self.lock();
            inner.desired = Some(desired);
            inner.status.gone = false;
            inner.nudge.merge(nudge);
            if nudge.asked {
                inner.requested_at = Some(now);
                self.hurry.notify_one();
            }
        }
        self.wake.notify_one();
    }

    pub(crate) fn nudge(&self, nudge: Nudge) {
        self.lock().nudge.merge(nudge);
        self.wake.notify_one();
        if nudge.look != Look::No {
            self.change.notify_one();
        }
    }

    /// Waits until something happens to a container of the app, or for so long.
    pub(crate) async fn changed(&self, within: Duration) {
        let _: Result<(), _> = tokio::time::timeout(within, self.change.notified()).await;
    }

    /// Waits until somebody asks for something.
    pub(crate) async fn asked(&self) {
        self.hurry.notified().await;
    }

    /// Waits until there was a nudge since the last [`Mailbox::take`].
    pub(crate) async fn nudged(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn take(&self) -> Nudge {
        std::mem::take(&mut self.lock().nudge)
    }

    /// Takes only what a request says, when an action begins that answers it: that somebody asked, and that it was
    /// stored. The two belong together: rows that the action deletes are not there again afterwards.
    pub(crate) fn take_request(&self) -> Nudge {
        let mut inner = self.lock();
        Nudge {
            asked: std::mem::take(&mut inner.nudge.asked),
            stored: std::mem::take(&mut inner.nudge.stored),
            ..Nudge::default()
        }
    }

    /// Takes only the wish for a report, while an action runs.
    pub(crate) fn take_report(&self) -> bool {
        std::mem::take(&mut self.lock().nudge.report)
    }

    pub(crate) fn desired(&self) -> Option<Desired> {
        self.lock().desired.clone()
    }

    /// An update has come about: for the intent that asked for it, and for one that asks for another update since, this
    /// version and its document are the present ones.
    pub(crate) fn installed(&self, version: &str, release_key: u64, document: Option<&Document>) {
        let mut inner = self.lock();
        if let Some(desired) = &mut inner.desired
            && (desired.request.request_update || desired.request.newest_version == version)
        {
            let request = Arc::make_mut(&mut desired.request);
            version.clone_into(&mut request.present_version);
            request.release_key = release_key;
            if request.docker_compose.is_some() && document.is_some() {
                request.docker_compose = document.cloned();
            }
        }
    }

    /// The build or publication has ended, unless something newer is wanted meanwhile. Returns the number of the request if
    /// it is the latest here; the store may know of a newer one already.
    pub(crate) fn finish(&self, request: &AppRequest) -> Option<u64> {
        let mut inner = self.lock();
        match &mut inner.desired {
            Some(desired)
                if request.target.is_once() && std::ptr::eq(Arc::as_ptr(&desired.request), request) =>
            {
                desired.finished = true;
                Some(desired.number)
            }
            Some(_) | None => None,
        }
    }

    pub(crate) fn target(&self) -> Option<AppState> {
        self.lock().desired.as_ref().map(|desired| desired.request.target)
    }

    pub(crate) fn status(&self) -> Status {
        self.lock().status.clone()
    }

    pub(crate) fn set_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
    }

    /// Nothing is left of the app, unless a request came in the meantime.
    pub(crate) fn try_retire(&self) -> bool {
        let mut inner = self.lock();
        let settled = inner.nudge == Nudge::default()
            && inner.desired.as_ref().is_none_or(|desired| {
                matches!(desired.request.target, AppState::Removed | AppState::Uninstalled)
            });
        inner.status.gone |= settled;
        settled
    }

    /// When somebody last asked for something.
    pub(crate) fn requested_at(&self) -> Option<Instant> {
        self.lock().requested_at
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
