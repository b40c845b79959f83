//! Laying out a project: its directory with document and variables, its host ports, its registry logins, and the calls
//! of the command line on it (`app-lifecycle.md` 5.2 to 5.5, 5.8).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::request::RegistryLogin;
use protocol::{AppRequest, PortRule, Stage, naming};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::compose::document::{self, Frame};
use crate::app::compose::ports::{self, Managed};
use crate::app::compose::{Document, directory, env_file, installed, project};
use crate::app::container::COMPOSE_PROJECT;
use crate::app::environment::{self, Environment, Inputs, files};
use crate::app::steps::pull::PROGRESS;
use crate::app::steps::unless_canceled;
use crate::app::worker::{ActionError, Worker, blocking};
use crate::engine::{
    Call, Cli, ContainerFacts, EngineError, PortBinding, registry_host, registry_of, same_image,
};
use crate::journal::Chain;
use crate::logs::Channel;

/// Bound of the silence of a call whose output goes to the app's log. The old generation prints nothing at all while it
/// downloads an image.
const STREAMED: Duration = Duration::from_secs(30 * 60);
/// The same for one that only stops or removes.
const QUIET: Duration = Duration::from_secs(5 * 60);

impl Worker {
    /// Value of `com.docker.compose.project`.
    pub(crate) fn project(&self) -> String {
        naming::compose_project(self.app, &self.app_name)
    }

    /// The document of the installed version.
    pub(super) fn document<'a>(&self, request: &'a AppRequest) -> Result<&'a Document, ActionError> {
        let document = installed(request, &self.version).ok_or(document::BadDocument::Services)?;
        document::services(document)?;
        Ok(document)
    }

    /// Absolute: compose puts it into a label, by which the project is known as ours.
    pub(super) fn project_directory(&self) -> Result<PathBuf, ActionError> {
        let apps_dir = &self.shared.context.settings.apps_dir;
        std::path::absolute(apps_dir)
            .and_then(|apps_dir| directory::of(&apps_dir, self.app, &self.app_name))
            .map_err(ActionError::Files)
    }

    /// The containers of the project. Ones that were not made from an app's directory of this device do not count.
    pub(crate) async fn project_containers(&self) -> Result<Vec<ContainerFacts>, EngineError> {
        let (ours, _) = self.all_of_project().await?;
        Ok(ours)
    }

    /// Whether somebody else has a project of the same name: compose would replace its containers.
    pub(super) async fn is_project_foreign(&self) -> Result<bool, EngineError> {
        let (_, foreign) = self.all_of_project().await?;
        Ok(!foreign.is_empty())
    }

    async fn all_of_project(&self) -> Result<(Vec<ContainerFacts>, Vec<ContainerFacts>), EngineError> {
        let context = &self.shared.context;
        let found = context
            .engine
            .list_labelled(COMPOSE_PROJECT, &self.project())
            .await?;
        let roots = directory::roots(&context.settings.apps_dir);
        Ok(found
            .into_iter()
            .partition(|facts| project::made_beneath(facts, &roots).is_some()))
    }

    /// Writes document and variables, with a host port for every entry that the agent manages. Returns the document's
    /// file.
    pub(super) async fn lay_out(
        &self,
        request: &AppRequest,
        document: &Document,
        cli: &Cli,
        file: &'static str,
    ) -> Result<PathBuf, ActionError> {
        document::services(document)?;
        let entries = self.managed(request, document);
        let existing = project::of_services(self.project_containers().await?);
        if file == directory::DOCUMENT {
            self.shared.ports.keep_only_services(self.app, &entries);
        }
        let mut chosen = BTreeMap::new();
        for entry in &entries {
            let host_port = self.choose_port(request, entry, &existing)?;
            chosen.insert((entry.service.clone(), entry.place), host_port);
        }
        let variables = self.variables(request, &entries, &chosen).await?;
        let env_file = env_file::render(&variables, cli.dialect);
        self.write_project_file(document::ENV_FILE, env_file.into_bytes())
            .await?;
        self.write_document(document, cli, &chosen, file).await
    }

    /// The same for a call that starts nothing: with the ports that are known, and variables only if there are none.
    pub(super) async fn lay_out_for_teardown(
        &self,
        request: &AppRequest,
        document: &Document,
        cli: &Cli,
    ) -> Result<PathBuf, ActionError> {
        document::services(document)?;
        let known = self.managed(request, document).into_iter().filter_map(|entry| {
            let port = self.shared.ports.assigned_to_service(self.app, &entry)?;
            Some(((entry.service, entry.place), port))
        });
        let known = known.collect();
        let variables = self.project_directory()?.join(document::ENV_FILE);
        if !blocking(move || Ok(variables.exists())).await? {
            self.write_project_file(document::ENV_FILE, Vec::new()).await?;
        }
        self.write_document(document, cli, &known, directory::DOCUMENT)
            .await
    }

    /// The entries of the document that get a host port. A rule that cannot be read is skipped (W54).
    fn managed(&self, request: &AppRequest, document: &Document) -> Vec<Managed> {
        ports::managed(document, &self.rules(request))
    }

    fn rules(&self, request: &AppRequest) -> Vec<PortRule> {
        let (rules, unreadable) = PortRule::parse_list(request.ports.as_deref().unwrap_or_default());
        for error in unreadable {
            tracing::warn!(app = %self.app, %error, "a port rule is skipped");
        }
        rules
    }

    fn choose_port(
        &self,
        request: &AppRequest,
        entry: &Managed,
        existing: &[ContainerFacts],
    ) -> Result<u16, ActionError> {
        let wished = entry.rule(&self.rules(request)).map_or(0, |rule| rule.host_port);
        let ports = &self.shared.ports;
        // One that was given once is kept, the replacement of a port that turned out to be taken above all.
        let bound = published(entry, existing).or_else(|| ports.assigned_to_service(self.app, entry));
        let known = bound.is_some();
        let host_port = ports.choose_for_service(self.app, entry, wished, bound)?;
        if self.app.stage == Stage::Dev && !known && host_port != entry.declared() {
            self.line(&format!(
                "Port {} is already in use by another app; port {} of service {} is reachable on host port {host_port} instead.",
                entry.declared(),
                entry.container,
                entry.service,
            ));
        }
        Ok(host_port)
    }

    /// Takes in what the running project publishes and tells the backend where the app's ports are (7.5).
    pub(crate) fn sync_project_ports(&self, request: &AppRequest, existing: &[ContainerFacts]) {
        if let Some(document) = installed(request, &self.version) {
            for entry in self.managed(request, document) {
                if let Some(host_port) = published(&entry, existing) {
                    self.shared.ports.take_in(self.app, &entry, host_port);
                }
            }
        }
        self.sync_ports(request, &[]);
    }

    /// The app's variables in order; mirrored into files on the way.
    async fn variables(
        &self,
        request: &AppRequest,
        entries: &[Managed],
        chosen: &BTreeMap<(String, usize), u16>,
    ) -> Result<Vec<(String, String)>, ActionError> {
        // By service name: of two services that declare the same port the first one's counts.
        let mut bindings: Vec<PortBinding> = Vec::new();
        for entry in entries {
            let same = |binding: &PortBinding| {
                binding.container_port == entry.declared() && binding.protocol == entry.protocol
            };
            if let Some(host_port) = chosen.get(&(entry.service.clone(), entry.place))
                && !bindings.iter().any(same)
            {
                bindings.push(PortBinding {
                    container_port: entry.declared(),
                    protocol: entry.protocol,
                    host_port: *host_port,
                });
            }
        }
        let credential = self.shared.credential(request);
        let platform = self.shared.platform();
        let flock = self.shared.context.device.current();
        let environment = Environment::new(&Inputs {
            flock: &flock,
            request,
            credential: credential.as_ref(),
            lan_ip: environment::lan_ip(),
            base_url: platform.base_url.as_deref(),
            bindings: &bindings,
        });
        let own = request
            .environment
            .iter()
            .filter(|_| self.app.stage == Stage::Prod);
        let names = own
            .chain(&request.environment_template)
            .flatten()
            .map(|(name, _)| name.as_str());
        if let Some(warning) = env_file::refused(names) {
            self.line(&warning);
        }
        let mut mirrored = environment.for_files();
        mirrored.retain(|name, _| env_file::is_usable(name));
        self.write_files(mirrored).await?;
        Ok(environment.entries().to_vec())
    }

    async fn write_document(
        &self,
        document: &Document,
        cli: &Cli,
        ports: &BTreeMap<(String, usize), u16>,
        file: &'static str,
    ) -> Result<PathBuf, ActionError> {
        let directory = self.project_directory()?;
        let apps_dir = std::path::absolute(&self.shared.context.settings.apps_dir);
        let env_dir = apps_dir
            .and_then(|apps_dir| files::data_dir(&apps_dir, self.app, &self.app_name))
            .map_err(ActionError::Files)?
            .join("env");
        let rendered = document::render(
            document,
            &Frame {
                dialect: cli.dialect,
                project: &self.project(),
                env_dir: &env_dir.display().to_string(),
                ports,
                has_file: &|file| directory.join(file).is_file(),
            },
        )?;
        self.write_project_file(file, rendered.to_string().into_bytes())
            .await?;
        Ok(directory.join(file))
    }

    async fn write_project_file(&self, file: &'static str, content: Vec<u8>) -> Result<(), ActionError> {
        let directory = self.project_directory()?;
        blocking(move || directory::write(&directory, file, &content)).await
    }

    /// Services whose image is not on the device, by name (5.8, W33). An image that the command line has yet to put
    /// together cannot be looked for.
    pub(crate) async fn missing_images(
        &self,
        document: &Document,
    ) -> Result<Vec<(String, String)>, EngineError> {
        let wanted = document::images(document);
        let mut missing = Vec::new();
        for (service, image) in wanted {
            if !image.contains('$') && !self.shared.context.engine.has_image(image).await? {
                missing.push((service.to_owned(), image.to_owned()));
            }
        }
        Ok(missing)
    }

    /// Fetches the images of `services`, of all when there are none given, with the output in the app's log.
    pub(super) async fn fetch_services(
        &self,
        request: &AppRequest,
        document: &Document,
        cli: &Cli,
        file: &Path,
        services: &[&str],
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let images: Vec<&str> = document::images(document)
            .into_iter()
            .filter(|(service, _)| services.is_empty() || services.contains(service))
            .map(|(_, image)| image)
            .collect();
        let logins = self.service_logins(request, &images, cancel).await?;
        let arguments = [&["pull"], services].concat();
        self.call_streamed(Channel::App, cli, file, &arguments, &logins, cancel)
            .await
            .map_err(|error| self.download_failed(error))
    }

    /// The logins for the registries of these images, and for no other (W8). The backend is asked only when the platform's
    /// registry is among them (W7).
    pub(super) async fn service_logins(
        &self,
        request: &AppRequest,
        images: &[&str],
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<String, RegistryLogin>, ActionError> {
        let unknown = images.iter().any(|image| image.contains('$'));
        let registries: BTreeSet<&str> = images.iter().map(|image| registry_of(image)).collect();
        let involved = |address: &str| unknown || registries.contains(registry_host(address));
        let mut logins = request.docker_credentials.clone();
        logins.retain(|registry, _| involved(registry));
        let flock = self.shared.context.device.current();
        if involved(&flock.docker_registry_url) {
            match unless_canceled(cancel, self.registry_login(request)).await {
                Ok(login) => {
                    logins.insert(flock.docker_registry_url.clone(), login);
                }
                Err(error) => {
                    if !matches!(error, ActionError::Canceled) {
                        self.line(&Chain(&error).to_string());
                    }
                    return Err(error);
                }
            }
        }
        Ok(logins)
    }

    /// A call whose output goes to a log of the app.
    pub(super) async fn call_streamed(
        &self,
        channel: Channel,
        cli: &Cli,
        file: &Path,
        arguments: &[&str],
        logins: &BTreeMap<String, RegistryLogin>,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let (out, lines) = mpsc::channel(PROGRESS);
        let call = self.call(cli, file, arguments, logins, STREAMED, cancel, out);
        self.tee(channel, call, lines).await
    }

    /// A call whose output is kept only for its error. Not canceled by anybody: it is what a cancel leads to.
    pub(super) async fn call_quietly(
        &self,
        cli: &Cli,
        file: &Path,
        arguments: &[&str],
    ) -> Result<(), EngineError> {
        let never = CancellationToken::new();
        let (unheard, _) = mpsc::channel(1);
        self.call(cli, file, arguments, &BTreeMap::new(), QUIET, &never, unheard)
            .await
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the two callers above are its only ones"
    )]
    async fn call(
        &self,
        cli: &Cli,
        file: &Path,
        arguments: &[&str],
        logins: &BTreeMap<String, RegistryLogin>,
        stall: Duration,
        cancel: &CancellationToken,
        out: mpsc::Sender<String>,
    ) -> Result<(), EngineError> {
        let context = &self.shared.context;
        let private_dir = directory::private(&context.settings.downloads_dir()).join(self.container());
        let call = Call {
            file,
            project: &self.project(),
            arguments,
            logins,
            private_dir: &private_dir,
            owner: &context.device.current().serial_number,
            stall,
        };
        context.engine.run_compose(cli, call, cancel, out).await
    }

    /// Removes the images of the app's services, of every version that is known, but none that another app uses (W21).
    pub(super) async fn remove_service_images(&self, request: &AppRequest) -> Result<(), ActionError> {
        let documents = [&request.docker_compose, &request.new_docker_compose];
        let mut images: BTreeSet<String> = BTreeSet::new();
        for document in documents.into_iter().flatten() {
            images.extend(document::images(document).into_values().map(str::to_owned));
            // What a build without a name of its own is called by the two generations.
            for (service, members) in document::services(document).unwrap_or_default() {
                if members.get("build").is_some_and(|build| !build.is_null())
                    && !members.contains_key("image")
                {
                    images.extend(["-", "_"].map(|joint| format!("{}{joint}{service}", self.project())));
                }
            }
        }
        let used = self.images_of_others().await?;
        let engine = &self.shared.context.engine;
        let flock = self.shared.context.device.current();
        let platform = registry_host(&flock.docker_registry_url);
        for image in images.iter().filter(|image| !image.contains('$')) {
            let repository = naming::repository(image);
            if registry_of(image) == platform
                && !used.iter().any(|used| naming::repository(used) == repository)
            {
                // Every version: those before the last updates, too.
                engine.remove_repository(repository, None).await?;
            } else if !used.iter().any(|used| same_image(used, image)) {
                engine.remove_reference(image).await?;
            }
        }
        Ok(())
    }

    /// The images that the services of other apps have.
    async fn images_of_others(&self) -> Result<Vec<String>, ActionError> {
        let mut used = Vec::new();
        for other in self.shared.context.store.requests().await? {
            let documents = [&other.docker_compose, &other.new_docker_compose];
            for document in documents.into_iter().flatten().filter(|_| other.app != self.app) {
                used.extend(document::images(document).into_values().map(str::to_owned));
            }
        }
        Ok(used)
    }

    /// The images of versions that were updated go, when nothing of the installed one is among them.
    pub(in crate::app) async fn remove_outdated_services(&mut self) -> Result<(), ActionError> {
        let mut outdated = std::mem::take(&mut self.outdated_images);
        if let Some(desired) = self.mailbox.desired()
            && let Some(document) = installed(&desired.request, &self.version)
        {
            let kept: Vec<&str> = document::images(document).into_values().collect();
            outdated.retain(|image| !kept.iter().any(|kept| same_image(kept, image)));
        }
        if outdated.is_empty() {
            return Ok(());
        }
        let used = self.images_of_others().await?;
        for image in outdated.iter().filter(|image| !image.contains('$')) {
            if !used.iter().any(|used| same_image(used, image)) {
                self.shared.context.engine.remove_reference(image).await?;
            }
        }
        Ok(())
    }
}

/// The host port that a project publishes an entry on.
fn published(entry: &Managed, existing: &[ContainerFacts]) -> Option<u16> {
    existing
        .iter()
        .filter(|facts| project::service(facts) == entry.service)
        .flat_map(|facts| &facts.bindings)
        .find(|binding| {
            binding.container_port == entry.container
                && binding.protocol == entry.protocol
                && binding.host_port != 0
        })
        .map(|binding| binding.host_port)
}
