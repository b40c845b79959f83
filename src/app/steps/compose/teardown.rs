//! Taking a project down (`app-lifecycle.md` 3.5 "stop", "remove"): by the command line, which knows the order of
//! services, and whatever that leaves through the daemon.

use protocol::AppRequest;

use crate::app::compose::installed;
use crate::app::steps::GRACE;
use crate::app::worker::{ActionError, Worker, blocking};
use crate::journal::Chain;

/// How much goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Teardown {
    /// The containers.
    Stop,
    /// Containers and networks.
    Down,
    /// Named volumes, too.
    Volumes,
}

impl Worker {
    /// Takes the project down, and with it the container that is left from when the app was a single one. Nothing there
    /// is success (W22).
    pub(in crate::app) async fn take_down(
        &self,
        request: &AppRequest,
        how: Teardown,
    ) -> Result<(), ActionError> {
        match how {
            Teardown::Stop | Teardown::Down => self.retire_container().await?,
            // Of an app that is removed nobody wants it.
            Teardown::Volumes => self.remove_container().await?,
        }
        let containers = self.project_containers().await?;
        let directory = self.project_directory()?;
        // Volumes outlive their containers, and the directory with the document outlives them all.
        let traces = how != Teardown::Stop && blocking(move || Ok(directory.is_dir())).await?;
        if containers.is_empty() && !traces {
            return Ok(());
        }
        let result = self.take_down_by_cli(request, how).await;
        if let Err(error) = &result {
            let ends = matches!(error, ActionError::Canceled);
            if ends || error.is_engine_down() || error.is_engine_silent() {
                return result;
            }
            tracing::warn!(app = %self.app, error = %Chain(error), "taking a project down by the command line");
        }
        self.take_down_by_engine(how).await
    }

    /// Takes down the project of an app that is a single container now: no document tells the command line how. An app
    /// that never was a project has no directory of one, and the daemon is not asked.
    pub(in crate::app) async fn take_down_former(&self, how: Teardown) -> Result<(), ActionError> {
        let directory = self.project_directory()?;
        match blocking(move || Ok(directory.is_dir())).await? {
            true => self.take_down_by_engine(how).await,
            false => Ok(()),
        }
    }

    async fn take_down_by_engine(&self, how: Teardown) -> Result<(), ActionError> {
        let containers = self.project_containers().await?;
        let engine = &self.shared.context.engine;
        for left in &containers {
            engine.stop(&left.id, GRACE).await?;
        }
        if !containers.is_empty() {
            self.read_out_project(how).await?;
        }
        for left in &containers {
            engine.remove(&left.id).await?;
        }
        if how != Teardown::Stop && !self.is_project_foreign().await? {
            // Without the program, or with a document that it does not take, they would stay for ever.
            engine
                .remove_project_rest(&self.project(), how == Teardown::Volumes)
                .await?;
        }
        Ok(())
    }

    async fn take_down_by_cli(&self, request: &AppRequest, how: Teardown) -> Result<(), ActionError> {
        let Some(cli) = self.shared.context.engine.compose().await else {
            return Ok(());
        };
        if self.is_project_foreign().await? {
            return Err(self.foreign());
        }
        let Some(document) = installed(request, &self.version) else {
            return Ok(());
        };
        let file = self.lay_out_for_teardown(request, document, &cli).await?;
        if how != Teardown::Volumes {
            self.call_quietly(&cli, &file, &["stop"]).await?;
            self.read_out_project(how).await?;
        }
        let arguments: &[&str] = match how {
            Teardown::Stop => &["rm", "-f"],
            Teardown::Down => &["down", "--remove-orphans"],
            Teardown::Volumes => &["down", "-v", "--remove-orphans"],
        };
        Ok(self.call_quietly(&cli, &file, arguments).await?)
    }

    /// What the services said last is in their log, which goes with them. Of an app that is removed nobody wants it.
    async fn read_out_project(&self, how: Teardown) -> Result<(), ActionError> {
        match how {
            Teardown::Stop | Teardown::Down => self.read_out(Some(&self.project())).await,
            Teardown::Volumes => Ok(()),
        }
    }

    pub(super) fn foreign(&self) -> ActionError {
        ActionError::Container(format!(
            "there is a compose project {} already, which was not made by this agent",
            self.project()
        ))
    }
}
