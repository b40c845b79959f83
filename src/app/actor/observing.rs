//! What an actor makes of the host while no action runs: corrections, crashes, back-off (`app-lifecycle.md` 8.2, 8.4).

use std::collections::{BTreeMap, BTreeSet};

use protocol::{AppRequest, AppState, Stage};
use tokio::time::Instant;

use super::{Actor, LOOK_AGAIN};
use crate::app::compose::project;
use crate::app::observe::{Look, corrected};
use crate::app::retry::{go_duration, ordinal};
use crate::app::steps::Teardown;
use crate::app::worker::ActionError;
use crate::engine::{ContainerFacts, ContainerStatus, Health};
use crate::journal::Chain;
use crate::store::Recorded;

/// What a look at the host found of an app.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Status and exit code of its container.
    pub(super) container: Option<(ContainerStatus, i64)>,
    /// The kernel ended it for want of memory.
    pub(super) out_of_memory: bool,
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
        if nothing_left || !self.engine_up {
            return;
        }
        let looked = match desired.request.docker_compose {
            Some(_) => self.try_observe_project(look, &desired.request).await,
            None => self.try_observe(look, desired.request.target).await,
        };
        if let Err(error) = looked {
            tracing::warn!(app = %self.worker.app, error = %Chain(&error), "looking at the app");
            if error.is_engine_down() || error.is_engine_silent() {
                self.engine_lost = Some(Instant::now() + LOOK_AGAIN);
            }
        }
    }

    async fn try_observe(&mut self, look: Look, target: AppState) -> Result<(), ActionError> {
        if target != AppState::Running {
            // Otherwise it goes when its successor is about to start.
            self.worker.take_down_former(Teardown::Down).await?;
        }
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
        let name = format!("{} ({})", self.worker.app_name, self.worker.app.stage);
        self.tell_health(facts.iter().map(|facts| (name.as_str(), facts)));
        let seen = Seen {
            container: facts.as_ref().map(|facts| (facts.status, facts.exit_code)),
            out_of_memory: facts.as_ref().is_some_and(|facts| facts.oom_killed),
            image: facts.is_none() && self.worker.has_any_image().await?,
        };
        self.take_in(look, target, seen).await
    }

    /// The project counts as one container; what becomes of its services is told in the app's log.
    async fn try_observe_project(&mut self, look: Look, request: &AppRequest) -> Result<(), ActionError> {
        let found = project::of_services(self.worker.project_containers().await?);
        if request.target != AppState::Running {
            // Left from when it was an app of one container.
            self.worker.retire_container().await?;
        }
        self.worker.sync_project_ports(request, &found);
        if request.target == AppState::Running {
            for facts in found
                .iter()
                .filter(|facts| facts.status == ContainerStatus::Paused)
            {
                self.worker.shared.context.engine.unpause(&facts.id).await?;
            }
        }
        let names: Vec<String> = found
            .iter()
            .map(|facts| format!("service {}", project::service(facts)))
            .collect();
        self.tell_health(names.iter().map(String::as_str).zip(&found));
        let failed: BTreeMap<_, _> = project::failed(&found)
            .map(|facts| (facts.id.clone(), facts))
            .collect();
        // Those of an earlier run of the agent or of Docker did not happen now.
        if look != Look::Fresh && request.target == AppState::Running {
            for facts in failed
                .iter()
                .filter(|(id, _)| !self.worker.told_failures.contains(*id))
            {
                self.worker.line(&project::failure(facts.1));
            }
        }
        self.worker.told_failures = failed.into_keys().collect();
        let seen = Seen {
            container: project::status(&found).map(|status| (status, 0)),
            // Told of each service.
            out_of_memory: false,
            image: found.is_empty() && self.worker.is_project_installed(request).await?,
        };
        self.take_in(look, request.target, seen).await
    }

    /// Says when a health check fails and when it is fulfilled again. The state does not follow: the app runs, and only its
    /// author knows what a check is worth.
    fn tell_health<'a>(&mut self, containers: impl Iterator<Item = (&'a str, &'a ContainerFacts)>) {
        let mut unhealthy = BTreeSet::new();
        for (name, facts) in containers {
            let told = self.worker.told_unhealthy.contains(&facts.id);
            match &facts.health {
                Some(Health::Unhealthy(output)) => {
                    if !told {
                        let colon = if output.is_empty() { "" } else { ": " };
                        self.worker.line(&format!("{name} is unhealthy{colon}{output}"));
                    }
                    unhealthy.insert(facts.id.clone());
                }
                Some(Health::Healthy) if told => self.worker.line(&format!("{name} is healthy again")),
                Some(Health::Healthy | Health::Starting) | None => {}
            }
        }
        self.worker.told_unhealthy = unhealthy;
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
            self.worker.follow_log();
        }
        if found == before {
            return Ok(());
        }
        if found == AppState::Running && self.retry.attempts() > 0 {
            // Whoever brought it up: from now on it proves itself (W15).
            self.running_since = Some(Instant::now());
        }
        self.worker.set(found).await?;
        if look == Look::Fresh || target != AppState::Running {
            return Ok(());
        }
        match (found, seen.container) {
            // Its services have been told of one by one.
            (AppState::Failed, Some(_)) if self.worker.is_compose() => self.crashed(None),
            (AppState::Failed, Some((_, exit_code))) => {
                if seen.out_of_memory {
                    let (name, stage) = (&self.worker.app_name, self.worker.app.stage);
                    self.worker.line(&format!("{name} ({stage}) ran out of memory"));
                }
                self.crashed(Some(exit_code));
            }
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
