//! Taking an app off the device (`app-lifecycle.md` 3.5 "remove", "uninstall").

use protocol::{AppState, Stage};

use super::Teardown;
use crate::app::compose::directory;
use crate::app::environment::files;
use crate::app::worker::{ActionError, Worker, blocking};
use crate::journal::Chain;

impl Worker {
    pub(super) async fn remove(&mut self) -> Result<(), ActionError> {
        self.begin_removal().await?;
        self.remove_all().await?;
        self.set(AppState::Removed).await?;
        self.line(&format!("Successfully removed {}!", self.app_name));
        Ok(())
    }

    /// Removal and the app's data. The data goes before REMOVED is recorded: that deletes the rows, and a kill right
    /// after it would leave the data behind for ever.
    pub(super) async fn uninstall(&mut self) -> Result<(), ActionError> {
        self.begin_removal().await?;
        self.remove_all().await?;
        self.delete_data().await?;
        self.pass_through(&[AppState::Removed, AppState::Uninstalled])
            .await?;
        self.line(&format!("Successfully removed {}!", self.app_name));
        Ok(())
    }

    pub(super) async fn begin_removal(&mut self) -> Result<(), ActionError> {
        self.clear_history();
        self.line(&format!("Starting removal process for {}...", self.app_name));
        self.set(AppState::Deleting).await
    }

    /// What the app has, and what it left from when it was a compose app.
    pub(super) async fn remove_all(&self) -> Result<(), ActionError> {
        self.remove_artefacts().await?;
        self.take_down_former(Teardown::Volumes).await
    }

    /// Container, images of every version, host ports.
    pub(super) async fn remove_artefacts(&self) -> Result<(), ActionError> {
        self.remove_container().await?;
        let repository = self.image_repository();
        let engine = &self.shared.context.engine;
        engine.remove_repository(&repository, None).await?;
        self.shared.ports.release(self.app);
        self.shared.port_reports.forget(self.app);
        Ok(())
    }

    pub(super) async fn delete_data(&self) -> Result<(), ActionError> {
        if self.shares_its_data().await? {
            tracing::warn!(app = %self.app, "an app of the same name is here; the data stays");
            return Ok(());
        }
        let (app, name) = (self.app, self.app_name.clone());
        let apps_dir = self.shared.context.settings.apps_dir.clone();
        // What is built bears no stage in its name and belongs to the app in development.
        let archive = (app.stage == Stage::Dev).then(|| self.build_archive(&self.app_name));
        let deleted = blocking(move || {
            files::delete(&apps_dir, app, &name)?;
            directory::delete(&apps_dir, app, &name)?;
            match archive.map(std::fs::remove_file) {
                Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                Some(_) | None => Ok(()),
            }
        })
        .await;
        // As in the reference: what cannot be deleted does not keep the app from going.
        if let Err(error) = deleted {
            tracing::warn!(app = %self.app, error = %Chain(&error), "deleting the app's data");
        }
        Ok(())
    }

    /// Directories bear the name of an app and not its key: apps of one name share them.
    pub(super) async fn shares_its_data(&self) -> Result<bool, ActionError> {
        let name = self.app_name.to_lowercase();
        let known = self.shared.context.store.apps().await?;
        Ok(known.iter().any(|other| {
            other.app != self.app
                && other.app.stage == self.app.stage
                && other.app_name.to_lowercase() == name
                && other.state != AppState::Uninstalled
        }))
    }
}
