//! Apps in development: building an uploaded archive, publishing what was built (`app-lifecycle.md` 3.5 "build",
//! "publish").
//!
//! Either is done once for each request. A build for a publication writes to the log of the publication.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use protocol::request::RegistryLogin;
use protocol::{AppId, AppRequest, AppState, Stage, naming};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pull::PROGRESS;
use super::unless_canceled;
use crate::app::worker::{ActionError, Worker, blocking};
use crate::engine::{BuildSpec, EngineError, dockerfile_in};
use crate::journal::Chain;
use crate::logs::Channel;
use crate::system::platform::build_arch;

impl Worker {
    /// Ends as PRESENT: BUILT only passes by.
    pub(super) async fn build(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.build_image(request, Channel::App, cancel).await?;
        self.finish(request, &[AppState::Built, AppState::Present]).await
    }

    pub(super) async fn publish(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let channel = Channel::Publication;
        self.line_on(
            channel,
            &format!("Initializing publish process for {}...", self.app_name),
        );
        self.build_image(request, channel, cancel).await?;
        self.set(AppState::Built).await?;
        self.line_on(channel, "App build has finished, Starting to publish...");
        let release = format!("{}:{}", self.release_repository(), request.version);
        let engine = self.shared.context.engine.clone();
        engine.tag(&self.image(), &release).await?;
        self.set(AppState::Publishing).await?;
        let pushed = self.push(&release, request, cancel).await;
        self.end_publication(request, pushed).await
    }

    pub(super) async fn end_publication(
        &mut self,
        request: &AppRequest,
        pushed: Result<(), ActionError>,
    ) -> Result<(), ActionError> {
        let channel = Channel::Publication;
        if let Err(error) = pushed {
            match &error {
                ActionError::Canceled => self.line_on(channel, "The app release was canceled"),
                error => self.line_on(channel, &Chain(error).to_string()),
            }
            return Err(error);
        }
        self.finish(request, &[AppState::Published]).await?;
        self.clear_history_of(channel);
        Ok(())
    }

    async fn push(
        &self,
        release: &str,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let login = unless_canceled(cancel, self.registry_login(request)).await?;
        let engine = &self.shared.context.engine;
        let (progress, records) = mpsc::channel(PROGRESS);
        let push = engine.push(release, &login, progress, cancel);
        self.tee(Channel::Publication, push, records)
            .await
            .map_err(|error| match ActionError::from(error) {
                ActionError::Engine(error) => ActionError::Download(error),
                other => other,
            })
    }

    async fn build_image(
        &mut self,
        request: &AppRequest,
        channel: Channel,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        self.clear_history();
        self.release_build = channel == Channel::Publication;
        self.line_on(channel, "Starting image build...");
        self.pass_through(&[AppState::Removed, AppState::Building])
            .await?;
        // One that ended by itself: it would be taken for a failure of what is built now.
        self.remove_container().await?;
        let built = self.build_from_archive(request, channel, cancel).await;
        let Err(error) = built else {
            self.line_on(channel, "Image built successfully");
            return Ok(());
        };
        match &error {
            ActionError::Canceled => self.line_on(channel, "The build stream was canceled"),
            ActionError::Engine(EngineError::EmptyDockerfile) => self.line_on(
                channel,
                "The Dockerfile cannot be empty, please fill out your Dockerfile",
            ),
            ActionError::Engine(EngineError::NoDockerfile) => self.line_on(
                channel,
                "Could not find a Dockerfile, please create a Dockerfile in the root of your project",
            ),
            ActionError::Engine(EngineError::NoArchive(reason)) => {
                self.line_on(channel, &format!("Build files for app not found: {reason}"));
            }
            other => self.line_on(channel, &Chain(other).to_string()),
        }
        Err(error)
    }

    async fn build_from_archive(
        &self,
        request: &AppRequest,
        channel: Channel,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let engine = &self.shared.context.engine;
        let archive = self.build_archive(&self.app_name);
        let dockerfile = blocking({
            let archive = archive.clone();
            move || dockerfile_in(&archive, build_arch())
        })
        .await
        .map_err(|error| match error {
            ActionError::Files(error) => {
                ActionError::Engine(EngineError::NoArchive(format!("{}: {error}", archive.display())))
            }
            other => other,
        })?;
        let logins = unless_canceled(cancel, async { Ok(self.logins(request).await) }).await?;
        let image = self.image();
        let before = engine.image_id(&image).await?;
        let (progress, records) = mpsc::channel(PROGRESS);
        let spec = BuildSpec {
            archive: &archive,
            dockerfile: &dockerfile,
            tag: &image,
            id: &format!("build_{}_{}", self.app.key, self.app_name),
            logins: &logins,
        };
        let build = engine.build(spec, progress, cancel);
        self.tee(channel, build, records).await?;
        if let Some(before) = before {
            // It has lost its name to the new one, and every build would leave one more of them on the flash.
            if let Err(error) = engine.remove_unnamed_image(&before).await {
                tracing::warn!(app = %self.app, error = %Chain(&error), "removing the image of the build before");
            }
        }
        Ok(())
    }

    /// Every login that a base image may need. Without a connection those of other registries are what there is.
    pub(super) async fn logins(&self, request: &AppRequest) -> BTreeMap<String, RegistryLogin> {
        let mut logins = request.docker_credentials.clone();
        if self.shared.is_online() {
            match self.registry_login(request).await {
                Ok(login) => {
                    let flock = self.shared.context.device.current();
                    logins.insert(flock.docker_registry_url.clone(), login);
                }
                Err(error) => {
                    tracing::info!(app = %self.app, error = %Chain(&error), "building without the registry's login");
                }
            }
        }
        logins
    }

    /// Where `write_data` puts what is to be built.
    pub(super) fn build_archive(&self, app_name: &str) -> PathBuf {
        let settings = &self.shared.context.settings;
        let file = format!("{app_name}.{}", settings.compressed_build_extension);
        settings.apps_dir.join("build").join(file)
    }

    /// Under which name a release is published: that of the PROD app.
    fn release_repository(&self) -> String {
        let flock = self.shared.context.device.current();
        let app = AppId {
            stage: Stage::Prod,
            ..self.app
        };
        naming::registry_image(
            &flock.docker_registry_url,
            &flock.docker_main_repository,
            app,
            build_arch(),
            &self.app_name,
        )
    }

    /// Waits for `work` with its records in a log.
    pub(super) async fn tee(
        &self,
        channel: Channel,
        work: impl Future<Output = Result<(), EngineError>>,
        mut records: mpsc::Receiver<String>,
    ) -> Result<(), EngineError> {
        let logs = &self.shared.context.logs;
        let mut output = logs.operation(channel, self.app, &self.app_name);
        let mut work = std::pin::pin!(work);
        let result = loop {
            tokio::select! {
                biased;
                Some(record) = records.recv() => output.line(record).await,
                result = &mut work => break result,
            }
        };
        while let Ok(record) = records.try_recv() {
            output.line(record).await;
        }
        result
    }

    pub(super) fn line_on(&self, channel: Channel, text: &str) {
        let logs = &self.shared.context.logs;
        logs.agent_line_on(channel, self.app, &self.app_name, text);
    }

    pub(super) fn clear_history_of(&self, channel: Channel) {
        let logs = &self.shared.context.logs;
        logs.clear_history_on(channel, self.app, &self.app_name);
    }
}
