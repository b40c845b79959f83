//! Starting a project (`app-lifecycle.md` 3.5 "run – compose", 5.6).

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{AppRequest, AppState, Stage};
use tokio_util::sync::CancellationToken;

use super::teardown::Teardown;
use crate::app::compose::project::{self, Progress};
use crate::app::compose::{Document, directory, document};
use crate::app::steps::run::UNTOLD;
use crate::app::steps::unless_canceled;
use crate::app::worker::{ActionError, Worker};
use crate::engine::{Cli, EngineError};
use crate::journal::Chain;
use crate::logs::{Channel, Ending};

/// Starts with other ports after a host-port conflict, the first one included.
const ATTEMPTS: u32 = 3;
/// Longest wait for the services to run.
const RUNNING_WITHIN: Duration = Duration::from_secs(30);

impl Worker {
    pub(super) async fn run_project(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        if !std::mem::take(&mut self.keeps_history) {
            self.clear_history();
        }
        let cli = self.compose_cli().await?;
        let document = self.document(request)?;
        let missing = self.missing_images(document).await?;
        let fresh =
            self.app.stage == Stage::Prod && matches!(self.state, AppState::Removed | AppState::Uninstalled);
        if fresh && !missing.is_empty() {
            self.set(AppState::Downloading).await?;
            if !self.install(request, document, &cli, &missing, cancel).await? {
                // The intent changed while the images were fetched.
                return self.set(AppState::Present).await;
            }
            self.say_starting();
            self.set(AppState::Starting).await?;
        } else {
            self.set(AppState::Starting).await?;
            self.say_starting();
        }
        if let Err(error) = self.start_project(request, document, &cli, cancel).await {
            // Downloads and cancellations have said so themselves; a daemon that is gone is no failure of the app.
            if !error.is_download() && !error.is_engine_down() && !matches!(error, ActionError::Canceled) {
                self.line(&format!("The app failed to start, reason: {}", Chain(&error)));
            }
            return Err(error);
        }
        self.sync_ports(request, &[]);
        self.set(AppState::Running).await?;
        self.say_running();
        Ok(())
    }

    /// Fetches what a first start lacks. `false`: the app is not to run any more.
    async fn install(
        &self,
        request: &AppRequest,
        document: &Document,
        cli: &Cli,
        missing: &[(String, String)],
        cancel: &CancellationToken,
    ) -> Result<bool, ActionError> {
        let file = self.lay_out(request, document, cli, directory::DOCUMENT).await?;
        self.take_down(request, Teardown::Stop).await?;
        self.line(&format!("Downloading images for {}...", self.app_name));
        let services: Vec<&str> = missing.iter().map(|(service, _)| service.as_str()).collect();
        self.fetch_services(request, document, cli, &file, &services, cancel)
            .await?;
        Ok(self.mailbox.target() == Some(AppState::Running))
    }

    fn say_starting(&self) {
        self.line(&format!("Starting {}...", self.app_name));
    }

    pub(super) fn say_running(&self) {
        self.line(&format!("Now running app {} ({})", self.app_name, self.version));
        self.follow_log();
    }

    /// The app is one of several containers.
    pub(crate) fn is_compose(&self) -> bool {
        let desired = self.mailbox.desired();
        desired.is_some_and(|desired| desired.request.docker_compose.is_some())
    }

    /// Lets the log of whatever runs for the app be followed.
    pub(crate) fn follow_log(&self) {
        let logs = &self.shared.context.logs;
        match self.is_compose() {
            true => logs.follow_project(self.app, &self.app_name, &self.project()),
            false => logs.follow(self.app, &self.app_name),
        }
    }

    /// Reads the log of whatever runs for the app to its end, before it is removed.
    pub(in crate::app::steps) async fn read_out_log(&self) -> Result<(), ActionError> {
        let project = self.is_compose().then(|| self.project());
        self.read_out(project.as_deref()).await
    }

    /// The same of the containers of `project`, or of the one that the app is. Canceled when the agent ends: what was not
    /// read has to stay for the next one.
    pub(in crate::app::steps) async fn read_out(&self, project: Option<&str>) -> Result<(), ActionError> {
        let logs = &self.shared.context.logs;
        let read = logs.read_out(self.app, &self.app_name, project).await;
        read.map_err(|Ending| ActionError::Canceled)
    }

    /// Starts the services and waits until they run. What did not come up is taken away again.
    pub(super) async fn start_project(
        &self,
        request: &AppRequest,
        document: &Document,
        cli: &Cli,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        if self.is_project_foreign().await? {
            return Err(self.foreign());
        }
        self.take_down(request, Teardown::Stop).await?;
        // Only what is missing makes a start depend on registries (W8).
        let missing = self.missing_images(document).await?;
        let images: Vec<&str> = missing.iter().map(|(_, image)| image.as_str()).collect();
        let logins = match images.is_empty() {
            true => BTreeMap::new(),
            false => self.service_logins(request, &images, cancel).await?,
        };
        // A download takes as long as it takes, and must not hold up what is here.
        let _turn = match images.is_empty() {
            true => unless_canceled(cancel, async { Ok(self.turn().await) }).await?,
            false => None,
        };
        let arguments: &[&str] = match self.app.stage {
            Stage::Prod => &["up", "--remove-orphans", "-d", "--no-build"],
            Stage::Dev => &["up", "--remove-orphans", "-d"],
        };
        for attempt in 1.. {
            let file = self.lay_out(request, document, cli, directory::DOCUMENT).await?;
            let started = self
                .call_streamed(Channel::App, cli, &file, arguments, &logins, cancel)
                .await;
            match started {
                Err(EngineError::PortConflict(text))
                    if attempt < ATTEMPTS && self.shared.ports.replace_conflicting(self.app, &text)? =>
                {
                    self.take_down(request, Teardown::Stop).await?;
                }
                Err(EngineError::Canceled) => return Err(ActionError::Canceled),
                Err(error) => {
                    self.read_out_log().await?;
                    self.say_what_failed().await;
                    self.take_away(request).await;
                    return Err(match images.is_empty() {
                        true => error.into(),
                        false if matches!(error, EngineError::Unreachable(_)) => error.into(),
                        // It may have been one of the images.
                        false => self.download_failed(error),
                    });
                }
                Ok(()) => break,
            }
        }
        let up = unless_canceled(cancel, self.wait_until_up(document)).await;
        if let Err(ActionError::Container(_)) = &up {
            // What the services said themselves; the containers go with it.
            self.read_out_log().await?;
            self.take_away(request).await;
        }
        up
    }

    /// Which services have failed, as far as the daemon knows.
    async fn say_what_failed(&self) {
        match self.project_containers().await {
            Ok(found) => {
                for facts in project::failed(&project::of_services(found)) {
                    self.line(&project::failure(facts));
                }
            }
            Err(error) => {
                tracing::debug!(app = %self.app, error = %Chain(&error), "looking at a failed project");
            }
        }
    }

    /// After a failure: that it failed is what matters.
    async fn take_away(&self, request: &AppRequest) {
        if let Err(error) = self.take_down(request, Teardown::Stop).await {
            tracing::warn!(app = %self.app, error = %Chain(&error), "taking a failed project away");
        }
    }

    async fn wait_until_up(&self, document: &Document) -> Result<(), ActionError> {
        let lasting = document::lasting(document);
        let watch = async {
            loop {
                let found = project::of_services(self.project_containers().await?);
                match project::progress(&found, &lasting) {
                    Progress::Up => return Ok(()),
                    Progress::Failed(why) => return Err(ActionError::Container(why)),
                    Progress::Waiting => self.mailbox.changed(UNTOLD).await,
                }
            }
        };
        match tokio::time::timeout(RUNNING_WITHIN, watch).await {
            Ok(result) => result,
            Err(_) => Err(ActionError::Container("waiting for running canceled".to_owned())),
        }
    }
}
