//! What an actor makes of the host while no action runs: corrections, crashes, back-off (`app-lifecycle.md` 8.2, 8.4).

use protocol::{AppState, Stage};
use tokio::time::Instant;

use super::{Actor, LOOK_AGAIN};
use crate::app::observe::{Look, corrected};
use crate::app::retry::{go_duration, ordinal};
use crate::app::worker::ActionError;
use crate::engine::ContainerStatus;
use crate::journal::Chain;
use crate::store::Recorded;

/// What a look at the host found of an app.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Status and exit code of its container.
    pub(super) container: Option<(ContainerStatus, i64)>,
    /// Any image of it is there; asked only without a container.
    pub(super) image: bool,
}

impl Actor {
    /// Compares the state with the host. Only ever called while no action runs (W19).
    pub(super) async fn observe(&mut self, look: Look) {
        self.looked = true;
        self.engine_lost = None;
        let Some(desired) = self.worker.mailbox.desired() else {
            return;
        };
        let nothing_left = self.worker.rows == Recorded::Deleted;
        if desired.request.docker_compose.is_some() || nothing_left || !self.engine_up {
            return;
        }
        if let Err(error) = self.try_observe(look, desired.request.target).await {
            tracing::warn!(app = %self.worker.app, error = %Chain(&error), "looking at the app");
            if error.is_engine_down() || error.is_engine_silent() {
                self.engine_lost = Some(Instant::now() + LOOK_AGAIN);
            }
        }
    }

    async fn try_observe(&mut self, look: Look, target: AppState) -> Result<(), ActionError> {
        let engine = self.worker.shared.context.engine.clone();
        let facts = self.worker.inspect().await?;
        if let (Some(facts), Some(desired)) = (&facts, self.worker.mailbox.desired()) {
            self.worker.sync_ports(&desired.request, &facts.bindings);
        }
        if let Some(facts) = &facts
            && facts.status == ContainerStatus::Paused
            && target == AppState::Running
        {
            engine.unpause(&facts.id).await?;
        }
        let seen = Seen {
            container: facts.as_ref().map(|facts| (facts.status, facts.exit_code)),
            image: facts.is_none() && self.worker.has_any_image().await?,
        };
        self.take_in(look, target, seen).await
    }

    /// Makes what is on the host the app's state.
    pub(super) async fn take_in(
        &mut self,
        look: Look,
        target: AppState,
        seen: Seen,
    ) -> Result<(), ActionError> {
        let before = self.worker.state;
        let status = seen.container.map(|(status, _)| status);
        let found = corrected(before, status, seen.image, look);
        // It ran before we did, or came up without us.
        if found == AppState::Running && (look == Look::Fresh || before != found) {
            let logs = &self.worker.shared.context.logs;
            logs.follow(self.worker.app, &self.worker.app_name);
        }
        if found == before {
            return Ok(());
        }
        self.worker.set(found).await?;
        if look == Look::Fresh || target != AppState::Running {
            return Ok(());
        }
        match (found, seen.container) {
            (AppState::Failed, Some((_, exit_code))) => self.crashed(Some(exit_code)),
            // Somebody took the container away. Nothing runs that should: a crash like any other (W37).
            _ if before == AppState::Running => self.crashed(None),
            _ => {}
        }
        Ok(())
    }

    /// The app ended by itself.
    fn crashed(&mut self, exit_code: Option<i64>) {
        let (app, name) = (self.worker.app, &self.worker.app_name);
        if let Some(code) = exit_code {
            self.worker
                .line(&format!("{name} ({}) exited with status code: {code}", app.stage));
        }
        self.running_since = None;
        match app.stage {
            Stage::Prod => {
                let delay = self.retry.failed(Instant::now());
                self.worker.line(&format!(
                    "Entered a crashloop ({} attempt), retrying in {}",
                    ordinal(self.retry.attempts()),
                    go_duration(delay)
                ));
            }
            // Only reported; the developer starts it again.
            Stage::Dev => self.retry.shut(),
        }
    }
}
