//! Another version of an installed compose app (`app-lifecycle.md` 3.5 "update – compose", weakness W9).
//!
//! The new images are fetched beside the running project, from a document of their own. Then the project is replaced, and
//! only when it has proved that it runs is the new document the installed one (W13). Whatever fails before that, the
//! old version is back and reported with its own release.

use std::time::Duration;

use protocol::{AppRequest, AppState, UpdateStatus};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::teardown::Teardown;
use crate::app::compose::project::{self, Progress};
use crate::app::compose::{Document, directory, document, newest};
use crate::app::steps::unless_canceled;
use crate::app::steps::update::Before;
use crate::app::worker::{ActionError, Worker, blocking};
use crate::journal::Chain;

/// How long a new version has to run before it counts.
const PROVING: Duration = Duration::from_secs(3);

impl Worker {
    pub(super) async fn update_project(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let before = Before::of(self);
        self.set(AppState::Updating).await?;
        let result = self.replace_project(request, cancel).await;
        // Whatever became of it, nobody needs it any more.
        self.drop_next_document().await;
        match result {
            Ok(()) => Ok(()),
            Err(error) => Err(self.go_back(before, request, error).await),
        }
    }

    async fn replace_project(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let cli = self.compose_cli().await?;
        let document = newest(request).ok_or(document::BadDocument::Services)?;
        self.line(&format!(
            "Initialising download for the app: {}...",
            self.app_name
        ));
        self.clear_history();
        let next = self
            .lay_out(request, document, &cli, directory::NEXT_DOCUMENT)
            .await?;
        self.fetch_services(request, document, &cli, &next, &[], cancel)
            .await?;
        self.line(&format!(
            "Succesfully installed the app: {} (Version: {})",
            self.app_name, request.newest_version
        ));
        let outdated = self.document(request).map(document::images).unwrap_or_default();
        let outdated: Vec<String> = outdated.into_values().map(str::to_owned).collect();
        self.take_down(request, Teardown::Down).await?;
        // In memory only: nothing is recorded before the new version has run.
        self.version.clone_from(&request.newest_version);
        if request.new_release_key != 0 {
            self.release_key = request.new_release_key;
        }
        if request.target == AppState::Running {
            self.start_project(request, document, &cli, cancel).await?;
            self.follow_log();
            unless_canceled(cancel, self.prove_project(document)).await?;
        } else {
            self.lay_out(request, document, &cli, directory::DOCUMENT).await?;
        }
        self.outdated_images.extend(outdated);
        self.update_status = UpdateStatus::PendingRemoteConfirmation;
        self.installed(Some(document)).await?;
        // Reports arrive in order: when the next one does, this one has been confirmed.
        self.update_status = UpdateStatus::Completed;
        if request.target == AppState::Running {
            self.pass_through(&[AppState::Starting, AppState::Running])
                .await?;
            self.sync_ports(request, &[]);
            self.say_running();
        }
        Ok(())
    }

    /// Services that end right after their start have not started.
    async fn prove_project(&self, document: &Document) -> Result<(), ActionError> {
        let lasting = document::lasting(document);
        let proven = Instant::now() + PROVING;
        while Instant::now() < proven {
            self.mailbox.changed(proven - Instant::now()).await;
            let found = project::of_services(self.project_containers().await?);
            match project::progress(&found, &lasting) {
                Progress::Up => {}
                Progress::Failed(why) => return Err(ActionError::Container(why)),
                Progress::Waiting => {
                    return Err(ActionError::Container(
                        "a service is started again and again".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    pub(in crate::app::steps) async fn settle_project_as_before(
        &mut self,
        tried: bool,
        state: AppState,
        request: &AppRequest,
    ) -> Result<(), ActionError> {
        if tried {
            self.take_down(request, Teardown::Down).await?;
            return self.settle_project(request).await;
        }
        let found = project::of_services(self.project_containers().await?);
        match project::status(&found) {
            Some(crate::engine::ContainerStatus::Running) => self.set(AppState::Running).await,
            _ if state == AppState::Failed => self.set(AppState::Failed).await,
            _ => self.settle_project(request).await,
        }
    }

    async fn drop_next_document(&self) {
        let removed = match self.project_directory() {
            Ok(directory) => blocking(move || directory::remove(&directory, directory::NEXT_DOCUMENT)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(app = %self.app, error = %Chain(&error), "removing the document of an update");
        }
    }
}
