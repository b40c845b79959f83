//! Starting an app's container (`app-lifecycle.md` 3.5 "run", 4).

use std::time::Duration;

use protocol::{AppRequest, AppState, PortRule, Stage};
use tokio_util::sync::CancellationToken;

use super::{Teardown, unless_canceled};
use crate::app::container::{self, Parts};
use crate::app::environment::{self, Environment, Inputs, files};
use crate::app::worker::{ActionError, Worker, blocking};
use crate::engine::{
    Concession, ContainerFacts, ContainerSpec, ContainerStatus, Engine, EngineError, PortBinding,
};
use crate::journal::Chain;

/// Starts with other ports after a host-port conflict, the first one included.
const ATTEMPTS: u32 = 3;
/// Longest wait for a started container to run.
const RUNNING_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at a starting app of which no event tells.
pub(super) const UNTOLD: Duration = Duration::from_secs(2);

impl Worker {
    pub(super) async fn run(
        &mut self,
        request: &AppRequest,
        adopted: bool,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        if !std::mem::take(&mut self.keeps_history) {
            self.clear_history();
        }
        self.line(&format!("Starting {}...", self.app_name));
        self.set(AppState::Starting).await?;
        match self.start(request, adopted, cancel).await {
            Ok(Started::Yes) => self.sync_ports(request, &[]),
            // The intent changed while the image was fetched; the app rests as PRESENT.
            Ok(Started::NotWanted) => return Ok(()),
            Err(error) => {
                // Downloads and cancellations have said so themselves; a daemon that is gone is no failure of the app.
                if !error.is_download() && !error.is_engine_down() && !matches!(error, ActionError::Canceled)
                {
                    self.line(&format!("The app failed to start, reason: {}", Chain(&error)));
                    self.shared.context.logs.follow(self.app, &self.app_name);
                }
                return Err(error);
            }
        }
        self.set(AppState::Running).await?;
        self.line(&match self.app.stage {
            Stage::Prod => format!("Now running app {} ({})", self.app_name, self.version),
            Stage::Dev => format!("Now running app {}", self.app_name),
        });
        self.shared.context.logs.follow(self.app, &self.app_name);
        Ok(())
    }

    pub(super) async fn start(
        &mut self,
        request: &AppRequest,
        adopted: bool,
        cancel: &CancellationToken,
    ) -> Result<Started, ActionError> {
        let engine = self.shared.context.engine.clone();
        let container = self.container();
        if adopted && self.inspect().await?.is_some() {
            self.concede(&engine.start(&container).await?);
            unless_canceled(cancel, self.wait_until_running()).await?;
            return Ok(Started::Yes);
        }
        if self.app.stage == Stage::Dev {
            self.retire_container().await?;
        }
        if self.fetch_missing_image(request, cancel).await?
            && self.mailbox.target() != Some(AppState::Running)
        {
            return Ok(Started::NotWanted);
        }
        // It may hold ports and names that the container needs.
        self.take_down_former(Teardown::Down).await?;
        let _turn = unless_canceled(cancel, async { Ok(self.turn().await) }).await?;
        for attempt in 1.. {
            match unless_canceled(cancel, self.start_once(request)).await {
                Err(ActionError::Engine(EngineError::PortConflict(text)))
                    if attempt < ATTEMPTS && self.shared.ports.replace_conflicting(self.app, &text)? =>
                {
                    // It was created with the port that turned out to be taken.
                    self.remove_container().await?;
                }
                result => {
                    result?;
                    break;
                }
            }
        }
        unless_canceled(cancel, self.wait_until_running()).await?;
        Ok(Started::Yes)
    }

    /// Whether the image had to be fetched. Nothing but the missing image makes a start depend on the network (W7).
    async fn fetch_missing_image(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<bool, ActionError> {
        let image = self.image();
        if self.shared.context.engine.has_image(&image).await? {
            return Ok(false);
        }
        match self.app.stage {
            Stage::Prod => {
                self.pull(request, cancel).await?;
                Ok(true)
            }
            Stage::Dev => {
                self.line(&format!(
                    "The image {image} was not found on the device, try building the app again..."
                ));
                Err(ActionError::Engine(EngineError::NoSuchImage(format!(
                    "image {image} not found"
                ))))
            }
        }
    }

    async fn start_once(&self, request: &AppRequest) -> Result<(), ActionError> {
        let engine = &self.shared.context.engine;
        let existing = self.inspect().await?;
        let bindings = self.bindings(request, existing.as_ref())?;
        let spec = self.spec(request, bindings).await?;
        if let Some(existing) = existing {
            if container::is_current(&existing, &spec) {
                match existing.status {
                    ContainerStatus::Running => return Ok(()),
                    ContainerStatus::Created => {
                        self.concede(&engine.start(&existing.name).await?);
                        return Ok(());
                    }
                    ContainerStatus::Paused
                    | ContainerStatus::Restarting
                    | ContainerStatus::Removing
                    | ContainerStatus::Exited
                    | ContainerStatus::Dead
                    | ContainerStatus::Unknown => {}
                }
            }
            self.retire(&existing).await?;
        }
        self.concede(&engine.create(&spec).await?);
        self.concede(&engine.start(&spec.name).await?);
        Ok(())
    }

    /// Says what the container has to go without.
    fn concede(&self, concessions: &[Concession]) {
        for concession in concessions {
            self.line(&format!("Warning: {} is started {concession}", self.app_name));
        }
    }

    async fn spec(
        &self,
        request: &AppRequest,
        bindings: Vec<PortBinding>,
    ) -> Result<ContainerSpec, ActionError> {
        let shared = &self.shared;
        let credential = shared.credential(request);
        let platform = shared.platform();
        let flock = shared.context.device.current();
        let environment = Environment::new(&Inputs {
            flock: &flock,
            request,
            credential: credential.as_ref(),
            lan_ip: environment::lan_ip(),
            base_url: platform.base_url.as_deref(),
            bindings: &bindings,
        });
        let apps_dir = shared.context.settings.apps_dir.clone();
        let (app, name) = (self.app, self.app_name.clone());
        let data_dir = blocking({
            let apps_dir = apps_dir.clone();
            move || files::prepare(&apps_dir, app, &name)
        })
        .await?;
        self.write_files(environment.for_files()).await?;
        Ok(container::spec(Parts {
            request,
            serial_number: &flock.serial_number,
            image: self.image(),
            version: &self.version,
            release_key: self.release_key,
            env: environment.for_container(),
            bindings,
            shared_dir: &apps_dir.join("shared"),
            data_dir: &data_dir,
            nvidia: Engine::detect_gpu(),
        }))
    }

    /// 4.6. A rule that cannot be read is skipped (W54); equal rules publish once.
    fn bindings(
        &self,
        request: &AppRequest,
        existing: Option<&ContainerFacts>,
    ) -> Result<Vec<PortBinding>, ActionError> {
        let (rules, unreadable) = PortRule::parse_list(request.ports.as_deref().unwrap_or_default());
        for error in unreadable {
            tracing::warn!(app = %self.app, %error, "a port rule is skipped");
        }
        let rules: Vec<PortRule> = rules
            .into_iter()
            .filter(|rule| rule.local_ip.is_empty())
            .collect();
        self.shared.ports.keep_only(self.app, &rules);
        let mut bindings: Vec<PortBinding> = Vec::new();
        for rule in &rules {
            let same = |binding: &&PortBinding| {
                binding.container_port == rule.port && binding.protocol == rule.wire_protocol()
            };
            if bindings.iter().any(|binding| same(&binding)) {
                continue;
            }
            let bound = existing
                .and_then(|facts| facts.bindings.iter().find(same))
                .map(|binding| binding.host_port)
                .filter(|port| *port != 0);
            let host_port = self.shared.ports.choose(self.app, rule, bound)?;
            if self.app.stage == Stage::Dev && host_port != rule.port {
                self.line(&format!(
                    "Port {port} is already in use by another app; port {port} of {} is reachable on host port {host_port} instead.",
                    self.app_name,
                    port = rule.port,
                ));
            }
            bindings.push(PortBinding {
                container_port: rule.port,
                protocol: rule.wire_protocol(),
                host_port,
            });
        }
        Ok(bindings)
    }

    async fn wait_until_running(&self) -> Result<(), ActionError> {
        let container = self.container();
        let watch = async {
            loop {
                let facts = self
                    .inspect()
                    .await?
                    .ok_or_else(|| EngineError::NoSuchContainer(container.clone()))?;
                match facts.status {
                    ContainerStatus::Running => return Ok(()),
                    ContainerStatus::Exited | ContainerStatus::Dead => {
                        return Err(ActionError::Container("the container has exited".to_owned()));
                    }
                    ContainerStatus::Created
                    | ContainerStatus::Paused
                    | ContainerStatus::Restarting
                    | ContainerStatus::Removing
                    | ContainerStatus::Unknown => {}
                }
                if !facts.error.is_empty() {
                    return Err(ActionError::Container(facts.error));
                }
                self.mailbox.changed(UNTOLD).await;
            }
        };
        match tokio::time::timeout(RUNNING_WITHIN, watch).await {
            Ok(result) => result,
            Err(_) => Err(ActionError::Container("waiting for running canceled".to_owned())),
        }
    }
}

pub(super) enum Started {
    Yes,
    NotWanted,
}
