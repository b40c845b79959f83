//! Another version of an installed app (`app-lifecycle.md` 3.5 "update", weakness W9).
//!
//! The new image is fetched while the old version runs on. Then the container is replaced, and only when the new one
//! has proved that it runs is the new version the installed one. Whatever fails before that, the old version is back
//! and reported with its own release, so that the backend still sees the update as open.

use std::time::Duration;

use protocol::{AppRequest, AppState, UpdateStatus};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pull::Purpose;
use super::{Teardown, unless_canceled};
use crate::app::worker::{ActionError, Worker};
use crate::engine::ContainerStatus;
use crate::journal::Chain;

/// How long the container of a new version has to run before it counts.
const PROVING: Duration = Duration::from_secs(3);

/// What an update that does not succeed goes back to.
pub(super) struct Before {
    state: AppState,
    version: String,
    release_key: u64,
}

impl Before {
    pub(super) fn of(worker: &Worker) -> Before {
        Before {
            state: worker.state,
            version: worker.version.clone(),
            release_key: worker.release_key,
        }
    }
}

impl Worker {
    pub(super) async fn update(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let before = Before::of(self);
        self.set(AppState::Updating).await?;
        match self.replace(request, cancel).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.go_back(before, request, error).await),
        }
    }

    async fn replace(&mut self, request: &AppRequest, cancel: &CancellationToken) -> Result<(), ActionError> {
        self.line(&format!(
            "Initialising download for the app: {}...",
            self.app_name
        ));
        self.clear_history();
        let image = format!("{}:{}", self.image_repository(), request.newest_version);
        self.fetch(&image, request, Purpose::Update, cancel).await?;
        self.line(&format!(
            "Succesfully installed the app: {} (Version: {})",
            self.app_name, request.newest_version
        ));
        // In memory only: nothing is recorded before the new version has run.
        self.version.clone_from(&request.newest_version);
        if request.new_release_key != 0 {
            self.release_key = request.new_release_key;
        }
        if request.target == AppState::Running {
            self.start(request, false, cancel).await?;
            self.shared.context.logs.follow(self.app, &self.app_name);
            unless_canceled(cancel, self.prove()).await?;
        } else {
            self.retire_container().await?;
            self.take_down_former(Teardown::Down).await?;
        }
        self.update_status = UpdateStatus::PendingRemoteConfirmation;
        self.installed(None).await?;
        // Reports arrive in order: when the next one does, this one has been confirmed.
        self.update_status = UpdateStatus::Completed;
        if request.target == AppState::Running {
            self.pass_through(&[AppState::Starting, AppState::Running])
                .await?;
            self.sync_ports(request, &[]);
            self.line(&format!("Now running app {} ({})", self.app_name, self.version));
        }
        Ok(())
    }

    /// A program that ends right after its start has not started.
    async fn prove(&self) -> Result<(), ActionError> {
        let proven = Instant::now() + PROVING;
        while Instant::now() < proven {
            self.mailbox.changed(proven - Instant::now()).await;
            match self.inspect().await? {
                Some(facts) if facts.status == ContainerStatus::Running => {}
                Some(facts) => {
                    let code = facts.exit_code;
                    let text = format!("the container has exited with status code {code}");
                    return Err(ActionError::Container(text));
                }
                None => return Err(ActionError::Container("the container is gone".to_owned())),
            }
        }
        Ok(())
    }

    /// Nothing of the new version stays but its images. The actor starts the old one again if it is to run.
    pub(super) async fn go_back(
        &mut self,
        before: Before,
        request: &AppRequest,
        error: ActionError,
    ) -> ActionError {
        if self.version == before.version && self.update_status == UpdateStatus::Completed {
            // Recorded already: what failed came after.
            return error;
        }
        let tried = self.version != before.version;
        self.version = before.version;
        self.release_key = before.release_key;
        if error.is_engine_down() || error.is_engine_silent() {
            // Docker tells what there is when it is back.
            return error;
        }
        if matches!(error, ActionError::Canceled) {
            self.update_status = UpdateStatus::Canceled;
            self.line("The update was canceled");
        } else {
            if tried {
                self.keeps_history = true;
                // Why it failed is in there, and the container goes.
                if let Err(ending) = self.read_out_log().await {
                    return ending;
                }
                self.line(&format!("The app failed to start, reason: {}", Chain(&error)));
            }
            self.line(&format!(
                "The update to version {} failed: {}; version {} stays",
                request.newest_version,
                Chain(&error),
                self.version
            ));
        }
        let settled = match request.docker_compose {
            Some(_) => self.settle_project_as_before(tried, before.state, request).await,
            None => self.settle_as_before(tried, before.state).await,
        };
        if let Err(worse) = settled {
            return worse;
        }
        match error {
            ActionError::Canceled => ActionError::Canceled,
            error => ActionError::NotUpdated(Box::new(error)),
        }
    }

    async fn settle_as_before(&mut self, tried: bool, state: AppState) -> Result<(), ActionError> {
        if tried {
            self.retire_container().await?;
            return self.settle_by_image().await;
        }
        match self.inspect().await? {
            Some(facts) if facts.status == ContainerStatus::Running => self.set(AppState::Running).await,
            _ if state == AppState::Failed => self.set(AppState::Failed).await,
            _ => self.settle_by_image().await,
        }
    }

    /// The images of all versions but the installed one go.
    pub(crate) async fn remove_outdated_images(&mut self) -> Result<(), ActionError> {
        self.remove_outdated_services().await?;
        let engine = &self.shared.context.engine;
        let (repository, image) = (self.image_repository(), self.image());
        Ok(engine.remove_repository(&repository, Some(&image)).await?)
    }
}
