//! The actions, step by step (`app-lifecycle.md` 3.5): states and log lines in the contract's order. Every step can be
//! repeated after a kill at any point. Local first: no step waits for the cloud unless an image must be fetched.

mod build;
mod compose;
mod pull;
mod remove;
mod run;
mod update;

use std::future::Future;
use std::time::Duration;

use protocol::{AppRequest, AppState, Stage};
use tokio_util::sync::CancellationToken;

use super::environment::files;
use super::table::Action;
use super::worker::{ActionError, Worker, blocking};
pub(super) use compose::Teardown;

/// How long a container may take to stop by itself.
const GRACE: Duration = Duration::from_secs(1);

impl Worker {
    /// Runs one action to its end, or until `cancel` fires.
    pub(crate) async fn perform(
        &mut self,
        action: Action,
        request: &AppRequest,
        adopted: bool,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.adopt_version(request);
        if request.docker_compose.is_some() {
            return self.perform_compose(action, request, cancel).await;
        }
        match action {
            Action::Pull => self.pull(request, cancel).await,
            Action::Run => self.run(request, adopted, cancel).await,
            Action::Stop => self.stop().await,
            Action::Remove => self.remove().await,
            Action::Uninstall => self.uninstall().await,
            Action::RecoverPresent => self.recover_present(request, cancel).await,
            Action::RecoverRunning => {
                if !adopted {
                    self.remove_container().await?;
                }
                self.run(request, adopted, cancel).await
            }
            Action::Update => self.update(request, cancel).await,
            Action::Build => self.build(request, cancel).await,
            Action::Publish => self.publish(request, cancel).await,
            Action::RemoveThenPublish => {
                self.remove().await?;
                self.publish(request, cancel).await
            }
            Action::CancelPull
            | Action::CancelTransfer
            | Action::CancelUpdate
            | Action::CancelBuild
            | Action::CancelPush => self.cancel(request.target).await,
            // Nothing to do: the actor does not ask for it.
            Action::Report | Action::Undefined | Action::Impossible => Ok(()),
        }
    }

    /// The container is always removed, so that the next start sees fresh variables. Gone already is success (W22).
    async fn stop(&mut self) -> Result<(), ActionError> {
        self.line(&format!("Received stop signal for {}", self.app_name));
        self.pass_through(match self.app.stage {
            // Told twice, as by the reference.
            Stage::Prod => &[AppState::Stopping, AppState::Stopping],
            Stage::Dev => &[AppState::Stopping],
        })
        .await?;
        if let Some(container) = self.inspect().await? {
            self.shared.context.engine.stop(&container.id, GRACE).await?;
            self.shared.context.engine.remove(&container.id).await?;
        }
        self.set(AppState::Present).await?;
        self.line(&format!("Successfully stopped {}", self.app_name));
        Ok(())
    }

    /// A download was abandoned (the running one has ended before this). What it left goes, with an older image if
    /// there is one; then on to the target.
    async fn cancel(&mut self, target: AppState) -> Result<(), ActionError> {
        match target {
            AppState::Uninstalled => self.uninstall().await,
            AppState::Removed => {
                self.remove_all().await?;
                self.set(AppState::Removed).await
            }
            _ => {
                self.remove_container().await?;
                self.settle_by_image().await
            }
        }
    }

    /// FAILED to PRESENT without rebuilding or fetching what is there (W59).
    async fn recover_present(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.remove_container().await?;
        if self.has_any_image().await? {
            return self.set(AppState::Present).await;
        }
        match self.app.stage {
            Stage::Prod => self.pull(request, cancel).await,
            Stage::Dev => Err(ActionError::Container(format!(
                "the image {} is gone",
                self.image()
            ))),
        }
    }

    async fn settle_by_image(&mut self) -> Result<(), ActionError> {
        let state = match self.has_any_image().await? {
            true => AppState::Present,
            false => AppState::Removed,
        };
        self.set(state).await
    }

    pub(super) async fn remove_container(&self) -> Result<(), ActionError> {
        if let Some(container) = self.inspect().await? {
            self.shared.context.engine.remove(&container.id).await?;
        }
        Ok(())
    }

    /// The app has a new name: what exists under the old one goes, its data moves (W45).
    pub(crate) async fn rename(&mut self, request: &AppRequest) -> Result<(), ActionError> {
        let app_name = request.app_name.as_str();
        if request.docker_compose.is_some() {
            self.rename_project(request).await?;
        }
        self.remove_container().await?;
        let context = &self.shared.context;
        let repository = self.image_repository();
        context.engine.remove_repository(&repository, None).await?;
        let (app, from, to) = (self.app, self.app_name.clone(), app_name.to_owned());
        let apps_dir = context.settings.apps_dir.clone();
        if !self.shares_its_data().await? {
            blocking(move || files::rename(&apps_dir, app, &from, &to)).await?;
        }
        context.store.rename_app(app, app_name).await?;
        app_name.clone_into(&mut self.app_name);
        self.mailbox
            .set_status(|status| app_name.clone_into(&mut status.app_name));
        match request.docker_compose {
            Some(_) => self.settle_project(request).await,
            None => self.settle_by_image().await,
        }
    }
}

/// Gives up waiting for `work` when `cancel` fires.
async fn unless_canceled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, ActionError>>,
) -> Result<T, ActionError> {
    match cancel.run_until_cancelled(work).await {
        Some(result) => result,
        None => Err(ActionError::Canceled),
    }
}
