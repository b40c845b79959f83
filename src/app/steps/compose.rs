//! The actions on compose apps (`app-lifecycle.md` 3.5, every "compose"): states and log lines in the contract's order.
//!
//! The command line does the work; what there is, is asked of the daemon. Stopping and removing never depend on a
//! readable document or on the command line alone: what they leave is taken away through the daemon.

mod build;
mod layout;
mod run;
mod teardown;
mod update;

use protocol::{AppRequest, AppState, Stage};
use tokio_util::sync::CancellationToken;

use crate::app::compose::{directory, installed};
use crate::app::table::Action;
use crate::app::worker::{ActionError, Worker, blocking};
use crate::engine::{Cli, EngineError};
use crate::journal::Chain;
pub(in crate::app) use teardown::Teardown;

const UNSUPPORTED: &str = "Docker Compose is not supported for this device";

impl Worker {
    /// One action on a compose app, to its end or until `cancel` fires.
    pub(super) async fn perform_compose(
        &mut self,
        action: Action,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let result = match action {
            Action::Pull => self.pull_project(request, cancel).await,
            Action::Run | Action::RecoverRunning => self.run_project(request, cancel).await,
            Action::Stop => self.stop_project(request).await,
            Action::Remove => self.remove_project(request).await,
            Action::Uninstall => self.uninstall_project(request).await,
            Action::RecoverPresent => self.recover_project(request, cancel).await,
            Action::Update => self.update_project(request, cancel).await,
            Action::Build => self.build_project(request, cancel).await,
            Action::Publish => self.publish_project(request, cancel).await,
            Action::RemoveThenPublish => {
                self.remove_project(request).await?;
                self.publish_project(request, cancel).await
            }
            Action::CancelPull | Action::CancelUpdate => self.cancel_project(request).await,
            // Nothing of it was ever started: it goes without DELETING.
            Action::CancelTransfer | Action::CancelBuild | Action::CancelPush
                if request.target == AppState::Removed =>
            {
                self.remove_project_artefacts(request).await?;
                self.set(AppState::Removed).await
            }
            Action::CancelTransfer | Action::CancelBuild | Action::CancelPush => {
                self.cancel_project(request).await
            }
            // Nothing to do: the actor does not ask for it.
            Action::Report | Action::Undefined | Action::Impossible => Ok(()),
        };
        if matches!(result, Err(ActionError::Canceled)) && self.state == AppState::Downloading {
            self.line("The app download was canceled");
        }
        result
    }

    /// Fetches the images of all services.
    async fn pull_project(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.clear_history();
        self.set(AppState::Downloading).await?;
        let cli = self.compose_cli().await?;
        let document = self.document(request)?;
        let file = self.lay_out(request, document, &cli, directory::DOCUMENT).await?;
        self.take_down(request, Teardown::Stop).await?;
        self.fetch_services(request, document, &cli, &file, &[], cancel)
            .await?;
        self.line("Compose Image Installed successfully");
        self.set(AppState::Present).await
    }

    async fn stop_project(&mut self, request: &AppRequest) -> Result<(), ActionError> {
        self.line(&format!("Received stop signal for {}", self.app_name));
        self.set(AppState::Stopping).await?;
        self.take_down(request, Teardown::Stop).await?;
        self.set(AppState::Present).await?;
        self.line(&format!("Successfully stopped {}", self.app_name));
        Ok(())
    }

    async fn remove_project(&mut self, request: &AppRequest) -> Result<(), ActionError> {
        self.begin_removal().await?;
        self.remove_project_artefacts(request).await?;
        self.set(AppState::Removed).await?;
        self.line(&format!("Successfully removed {}!", self.app_name));
        Ok(())
    }

    /// As of a single container: the data goes before REMOVED is recorded.
    async fn uninstall_project(&mut self, request: &AppRequest) -> Result<(), ActionError> {
        self.begin_removal().await?;
        self.remove_project_artefacts(request).await?;
        if !self.shares_its_data().await? {
            let (app, name) = (self.app, self.app_name.clone());
            let apps_dir = self.shared.context.settings.apps_dir.clone();
            blocking(move || directory::delete(&apps_dir, app, &name)).await?;
        }
        self.delete_data().await?;
        self.pass_through(&[AppState::Removed, AppState::Uninstalled])
            .await?;
        self.line(&format!("Successfully removed {}!", self.app_name));
        Ok(())
    }

    async fn remove_project_artefacts(&self, request: &AppRequest) -> Result<(), ActionError> {
        // Images left from when it was an app of one container.
        self.remove_artefacts().await?;
        self.take_down(request, Teardown::Volumes).await?;
        self.remove_service_images(request).await
    }

    /// FAILED to PRESENT without fetching what is there (W59).
    async fn recover_project(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.take_down(request, Teardown::Stop).await?;
        let missing = self.missing_images(self.document(request)?).await?;
        match (self.app.stage, missing.first()) {
            (_, None) => self.set(AppState::Present).await,
            (Stage::Prod, Some(_)) => self.pull_project(request, cancel).await,
            (Stage::Dev, Some((_, image))) => {
                Err(ActionError::Container(format!("the image {image} is gone")))
            }
        }
    }

    /// A download was abandoned (the running one has ended before this): what it left goes, as on request.
    async fn cancel_project(&mut self, request: &AppRequest) -> Result<(), ActionError> {
        match request.target {
            AppState::Uninstalled => self.uninstall_project(request).await,
            AppState::Removed => self.remove_project(request).await,
            _ => {
                self.take_down(request, Teardown::Stop).await?;
                self.settle_project(request).await
            }
        }
    }

    pub(super) async fn settle_project(&mut self, request: &AppRequest) -> Result<(), ActionError> {
        let state = match self.is_project_installed(request).await? {
            true => AppState::Present,
            false => AppState::Removed,
        };
        self.set(state).await
    }

    /// Everything that a project needs to be started is on the device (8.4).
    pub(crate) async fn is_project_installed(&self, request: &AppRequest) -> Result<bool, ActionError> {
        let directory = self.project_directory()?;
        if !blocking(move || Ok(directory.is_dir())).await? {
            return Ok(false);
        }
        match installed(request, &self.version) {
            Some(document) => Ok(self.missing_images(document).await?.is_empty()),
            None => Ok(false),
        }
    }

    async fn compose_cli(&self) -> Result<Cli, ActionError> {
        match self.shared.context.engine.compose().await {
            Some(cli) => Ok(cli),
            None => {
                self.line(UNSUPPORTED);
                Err(ActionError::Container(UNSUPPORTED.to_owned()))
            }
        }
    }

    /// Says in the app's log why images could not be fetched, and makes a failure of the network of it.
    fn download_failed(&self, error: EngineError) -> ActionError {
        match error {
            EngineError::Canceled => ActionError::Canceled,
            error => {
                self.line(&format!(
                    "Error occured while trying to pull the image: {}",
                    Chain(&error)
                ));
                ActionError::Download(error)
            }
        }
    }
}
