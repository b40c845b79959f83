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

use protocol::{AppRequest, AppState, Stage, naming};
use tokio_util::sync::CancellationToken;

use super::compose::directory;
use super::environment::files;
use super::table::Action;
use super::worker::{ActionError, Worker, blocking};
use crate::engine::{ContainerFacts, ContainerStatus};
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
                    self.retire_container().await?;
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
        self.retire_container().await?;
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
                self.retire_container().await?;
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
        self.retire_container().await?;
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

    /// Removes the container of an app that stays. One that runs may end by itself, and what it said until then is read
    /// before it goes.
    pub(super) async fn retire_container(&self) -> Result<(), ActionError> {
        match self.inspect().await? {
            Some(container) => self.retire(&container).await,
            None => Ok(()),
        }
    }

    async fn retire(&self, container: &ContainerFacts) -> Result<(), ActionError> {
        let engine = &self.shared.context.engine;
        // One that never ran has said nothing.
        if container.status != ContainerStatus::Created {
            engine.stop(&container.id, GRACE).await?;
            self.read_out(None).await?;
        }
        engine.remove(&container.id).await?;
        Ok(())
    }

    pub(super) async fn remove_container(&self) -> Result<(), ActionError> {
        if let Some(container) = self.inspect().await? {
            self.shared.context.engine.remove(&container.id).await?;
        }
        Ok(())
    }

    /// The app has a new name: its containers go, and what it has, its image above all, moves (W45). Containers and images
    /// bear names in lower case: where only the case differs they stay.
    pub(crate) async fn rename(&mut self, request: &AppRequest) -> Result<(), ActionError> {
        let (app, from, to) = (self.app, self.app_name.clone(), request.app_name.clone());
        let same = naming::container(app, &from) == naming::container(app, &to);
        let compose = request.docker_compose.is_some();
        if compose {
            // Where its directory lies is part of a project.
            self.take_down(request, Teardown::Down).await?;
        } else if !same {
            self.retire_container().await?;
            self.take_down_former(Teardown::Down).await?;
        }
        if !same {
            self.rename_image(&to).await?;
        }
        let context = &self.shared.context;
        if !self.shares_its_data().await? {
            let apps_dir = context.settings.apps_dir.clone();
            let archives =
                (app.stage == Stage::Dev).then(|| (self.build_archive(&from), self.build_archive(&to)));
            blocking(move || {
                files::rename(&apps_dir, app, &from, &to)?;
                directory::rename(&apps_dir, app, &from, &to)?;
                match archives {
                    // One that was uploaded for the new name is newer.
                    Some((from, to)) if from.exists() && !to.exists() => std::fs::rename(from, to),
                    Some(_) | None => Ok(()),
                }
            })
            .await?;
        }
        let app_name = request.app_name.as_str();
        context.store.rename_app(app, app_name).await?;
        app_name.clone_into(&mut self.app_name);
        self.mailbox
            .set_status(|status| app_name.clone_into(&mut status.app_name));
        match same {
            _ if compose => self.settle_project(request).await,
            true => Ok(()),
            false => self.settle_by_image().await,
        }
    }

    /// The installed image is the same under the new name, so that nothing has to be fetched or built again.
    async fn rename_image(&self, app_name: &str) -> Result<(), ActionError> {
        let engine = &self.shared.context.engine;
        let (image, repository) = (self.image(), self.image_repository());
        if engine.has_image(&image).await? {
            let tag = &image[repository.len()..];
            let renamed = format!("{}{tag}", self.repository_of(app_name));
            engine.tag(&image, &renamed).await?;
        }
        Ok(engine.remove_repository(&repository, None).await?)
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
