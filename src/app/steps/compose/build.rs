//! Compose apps in development: building an uploaded project, publishing what was built (`app-lifecycle.md` 3.5
//! "build – compose", "publish – compose").

use std::path::PathBuf;

use protocol::request::RegistryLogin;
use protocol::{AppRequest, AppState};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::UNSUPPORTED;
use super::teardown::Teardown;
use crate::app::compose::{Document, archive, document};
use crate::app::steps::pull::PROGRESS;
use crate::app::steps::unless_canceled;
use crate::app::worker::{ActionError, Worker, blocking};
use crate::engine::{Cli, Dialect, EngineError, registry_host, registry_of};
use crate::journal::Chain;
use crate::logs::Channel;

impl Worker {
    /// Ends as PRESENT: BUILT only passes by.
    pub(super) async fn build_project(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.build_services(request, Channel::App, cancel).await?;
        self.finish(request, &[AppState::Built, AppState::Present]).await
    }

    pub(super) async fn publish_project(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let channel = Channel::Publication;
        self.line_on(
            channel,
            &format!("Initializing publish process for {}...", self.app_name),
        );
        let (cli, file) = self.build_services(request, channel, cancel).await?;
        self.set(AppState::Built).await?;
        self.line_on(channel, "App build has finished, Starting to publish...");
        self.set(AppState::Publishing).await?;
        let pushed = self.push_services(request, &cli, &file, cancel).await;
        self.end_publication(request, pushed).await
    }

    async fn build_services(
        &mut self,
        request: &AppRequest,
        channel: Channel,
        cancel: &CancellationToken,
    ) -> Result<(Cli, PathBuf), ActionError> {
        self.clear_history();
        self.release_build = channel == Channel::Publication;
        self.line_on(channel, "Starting image build...");
        self.pass_through(&[AppState::Removed, AppState::Building])
            .await?;
        let built = self.build_from_project(request, channel, cancel).await;
        match &built {
            Ok(_) => self.line_on(channel, "Compose Image built successfully"),
            Err(ActionError::Canceled) => self.line_on(channel, "The build stream was canceled"),
            Err(ActionError::Engine(EngineError::NoArchive(reason))) => {
                self.line_on(channel, &format!("Build files for app not found: {reason}"));
            }
            Err(other) => self.line_on(channel, &Chain(other).to_string()),
        }
        built
    }

    async fn build_from_project(
        &self,
        request: &AppRequest,
        channel: Channel,
        cancel: &CancellationToken,
    ) -> Result<(Cli, PathBuf), ActionError> {
        // One that ended by itself would be taken for a failure of what is built now.
        self.take_down(request, Teardown::Stop).await?;
        self.unpack(cancel).await?;
        let engine = &self.shared.context.engine;
        let Some(cli) = engine.compose().await else {
            return Err(ActionError::Container(UNSUPPORTED.to_owned()));
        };
        let document = self.document(request)?;
        // Without the app's variables: what lies here may be copied into an image, and that be published.
        let file = self.lay_out_for_teardown(request, document, &cli).await?;
        let logins = unless_canceled(cancel, async { Ok(self.logins(request).await) }).await?;
        let build: &[&str] = match cli.dialect {
            // It leaves the containers of failed steps behind unless it is told not to (W25).
            Dialect::First => &["build", "--force-rm"],
            Dialect::Second => &["build"],
        };
        self.call_streamed(channel, &cli, &file, build, &logins, cancel)
            .await?;
        let others = document::pulled(document);
        if channel == Channel::App && !others.is_empty() {
            let arguments = [&["pull"], &others[..]].concat();
            let pulled = self
                .call_streamed(channel, &cli, &file, &arguments, &logins, cancel)
                .await;
            match pulled {
                Err(EngineError::Canceled) => return Err(ActionError::Canceled),
                // Without a connection what is here has to do.
                Err(error) if self.has_images_of(document, &others).await? => {
                    tracing::info!(app = %self.app, error = %Chain(&error), "the images of other services are not refreshed");
                }
                Err(error) => return Err(ActionError::Download(error)),
                Ok(()) => {}
            }
        }
        Ok((cli, file))
    }

    async fn has_images_of(&self, document: &Document, services: &[&str]) -> Result<bool, ActionError> {
        let missing = self.missing_images(document).await?;
        Ok(!missing
            .iter()
            .any(|(service, _)| services.contains(&service.as_str())))
    }

    /// Replaces the project's directory by what was uploaded.
    async fn unpack(&self, cancel: &CancellationToken) -> Result<(), ActionError> {
        let uploaded = self.build_archive(&self.app_name);
        let directory = self.project_directory()?;
        let named = uploaded.display().to_string();
        let canceled = cancel.clone();
        // Ends soon after a cancel; the next attempt begins from nothing.
        let unpacked = blocking(move || archive::unpack(&uploaded, &directory, &canceled)).await;
        match unpacked {
            _ if cancel.is_cancelled() => Err(ActionError::Canceled),
            Err(ActionError::Files(error)) => {
                let reason = format!("{named}: {error}");
                Err(ActionError::Engine(EngineError::NoArchive(reason)))
            }
            other => other,
        }
    }

    async fn push_services(
        &self,
        request: &AppRequest,
        cli: &Cli,
        file: &std::path::Path,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let document = self.document(request)?;
        let login = unless_canceled(cancel, self.registry_login(request)).await?;
        for (service, members) in document::services(document)? {
            self.rehost(request, service, members, &login, cancel).await?;
        }
        let mut logins = request.docker_credentials.clone();
        let flock = self.shared.context.device.current();
        logins.insert(flock.docker_registry_url.clone(), login);
        let pushed = self.call_streamed(Channel::Publication, cli, file, &["push"], &logins, cancel);
        pushed.await.map_err(transferred)
    }

    /// An image that only comes from elsewhere gets the name under which the release will look for it.
    async fn rehost(
        &self,
        request: &AppRequest,
        service: &str,
        members: &Document,
        login: &RegistryLogin,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let text = |name: &str| {
            members
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let Some(source) = text("x-source-image") else {
            return Ok(());
        };
        let Some(image) = text("image") else {
            return Err(ActionError::Container(format!(
                "service {service} declares x-source-image but no image"
            )));
        };
        let channel = Channel::Publication;
        self.line_on(
            channel,
            &format!("Re-hosting image {source} of service {service} as {image}..."),
        );
        let of_source = request
            .docker_credentials
            .iter()
            .find(|(registry, _)| registry_host(registry) == registry_of(source))
            .map(|(_, login)| login);
        let engine = &self.shared.context.engine;
        let (progress, records) = mpsc::channel(PROGRESS);
        let pull = engine.pull(source, of_source, progress, cancel);
        self.tee(channel, pull, records).await.map_err(transferred)?;
        engine.tag(source, image).await?;
        let (progress, records) = mpsc::channel(PROGRESS);
        let push = engine.push(image, login, progress, cancel);
        self.tee(channel, push, records).await.map_err(transferred)
    }
}

/// What failed needed the network.
fn transferred(error: EngineError) -> ActionError {
    match error {
        EngineError::Canceled => ActionError::Canceled,
        error => ActionError::Download(error),
    }
}
