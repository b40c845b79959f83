//! One app's hands: its actual state, and the ways to record and report it. The actions are in [`super::steps`].

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use protocol::credentials::{self, AppCredential};
use protocol::report::StateReport;
use protocol::{AppId, AppRequest, AppState, PortRule, Stage, UpdateStatus, naming};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AppContext;
use super::compose::Document;
use super::compose::document::BadDocument;
use super::container::owner;
use super::environment::files;
use super::mailbox::Mailbox;
use super::port_reports::PortReports;
use super::ports::{NoFreePort, Ports};
use crate::backend::BackendError;
use crate::engine::{ContainerFacts, EngineError, PortBinding};
use crate::journal::Chain;
use crate::store::{Recorded, StateChange, StoreError};
use crate::system::platform::build_arch;

/// Apps that are started at once without being asked for by anybody, after a boot above all (W57). Others wait; a request
/// does not.
const STARTS: usize = 4;

/// What all apps of the device share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: AppContext,
    pub(crate) ports: Ports,
    pub(crate) port_reports: PortReports,
    pub(crate) facts: RwLock<PlatformFacts>,
    starts: Arc<Semaphore>,
    /// Whether the daemon answered lately; set by its event stream.
    pub(crate) engine_up: std::sync::atomic::AtomicBool,
    /// Whether the backend was heard of since the start: downloads make no sense before.
    pub(crate) online: std::sync::atomic::AtomicBool,
    /// What the containers and projects of known apps are called, for those who look while apps come and go.
    pub(crate) names: std::sync::Mutex<BTreeSet<String>>,
}

/// What the platform told us after connecting.
#[derive(Clone, Default)]
pub(crate) struct PlatformFacts {
    /// Secret; in memory only.
    pub(crate) credential_key: Option<String>,
    pub(crate) base_url: Option<String>,
}

impl std::fmt::Debug for PlatformFacts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PlatformFacts")
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(context: AppContext, base_url: Option<String>) -> Shared {
        let facts = PlatformFacts {
            credential_key: None,
            base_url,
        };
        Shared {
            context,
            ports: Ports::default(),
            port_reports: PortReports::default(),
            facts: RwLock::new(facts),
            starts: Arc::new(Semaphore::new(STARTS)),
            engine_up: false.into(),
            online: false.into(),
            names: std::sync::Mutex::default(),
        }
    }

    /// Whether a container or project of this name belongs to an app that is known now.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.names
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .contains(name)
    }

    pub(crate) fn platform(&self) -> PlatformFacts {
        self.facts
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn credential(&self, request: &AppRequest) -> Option<AppCredential> {
        let key = self.platform().credential_key?;
        let serial = &self.context.device.current().serial_number;
        credentials::derive(&key, serial, request.app, request.app_cred_epoch)
    }

    pub(crate) fn is_engine_up(&self) -> bool {
        self.engine_up.load(Ordering::Relaxed)
    }

    pub(crate) fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }
}

/// Why an action ended early; the text is what people see in the app's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActionError {
    /// A newer intent, or shutdown.
    #[error("canceled")]
    Canceled,
    #[error(transparent)]
    Engine(EngineError),
    /// The image could not be fetched.
    #[error("{0}")]
    Download(EngineError),
    /// No registry user name, so the image could not be fetched.
    #[error("no registry token")]
    Token(#[source] BackendError),
    #[error("no registry token: the backend did not answer within 10s")]
    TokenTimeout,
    #[error(transparent)]
    Ports(#[from] NoFreePort),
    #[error(transparent)]
    Document(#[from] BadDocument),
    #[error("the app's files")]
    Files(#[source] std::io::Error),
    #[error("the state could not be stored")]
    Store(#[from] StoreError),
    /// The container did not do what it should.
    #[error("{0}")]
    Container(String),
    /// An update did not come about; the installed version is what it was.
    #[error("the installed version stays")]
    NotUpdated(#[source] Box<ActionError>),
    #[error("internal error: the action panicked")]
    Panicked,
}

impl From<EngineError> for ActionError {
    fn from(error: EngineError) -> ActionError {
        match error {
            EngineError::Canceled => ActionError::Canceled,
            error => ActionError::Engine(error),
        }
    }
}

impl ActionError {
    /// Docker is gone: nothing is wrong with the app, it is taken up again when the daemon is back.
    pub(crate) fn is_engine_down(&self) -> bool {
        matches!(
            self,
            ActionError::Engine(EngineError::Unreachable(_))
                | ActionError::Download(EngineError::Unreachable(_))
        )
    }

    /// Docker did not answer a call: either it hangs, or what it was asked to do.
    pub(crate) fn is_engine_silent(&self) -> bool {
        matches!(self, ActionError::Engine(EngineError::Timeout(..)))
    }

    /// The network was needed: worth another try as soon as the backend is reached.
    pub(crate) fn is_download(&self) -> bool {
        match self {
            ActionError::Download(_) | ActionError::Token(_) | ActionError::TokenTimeout => true,
            ActionError::NotUpdated(cause) => cause.is_download(),
            _ => false,
        }
    }
}

/// One app as it is, owned by its actor.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) app: AppId,
    /// Under which container, image and directory exist.
    pub(crate) app_name: String,
    pub(crate) state: AppState,
    pub(crate) version: String,
    pub(crate) release_key: u64,
    /// Of the last update since the start of the agent.
    pub(crate) update_status: UpdateStatus,
    /// Whether the last build was for a publication.
    pub(crate) release_build: bool,
    /// The log says why an update failed: the start of the old version leaves it there.
    pub(crate) keeps_history: bool,
    /// Images of services of versions that were updated; best effort, a restart forgets them.
    pub(crate) outdated_images: Vec<String>,
    /// Containers of services whose failure the log tells.
    pub(crate) told_failures: BTreeSet<String>,
    /// Containers whose failing health check the log tells.
    pub(crate) told_unhealthy: BTreeSet<String>,
    /// What the last recorded state did to the rows.
    pub(crate) rows: Recorded,
}

impl Worker {
    /// Records a state and queues its report, in that order of importance; never waits for the network.
    pub(crate) async fn set(&mut self, state: AppState) -> Result<(), ActionError> {
        self.pass_through(&[state]).await
    }

    /// The same for states between which nothing is waited for: one transaction, all of them reported.
    pub(crate) async fn pass_through(&mut self, states: &[AppState]) -> Result<(), ActionError> {
        self.record(states, None, None).await
    }

    /// The same when the build or publication that `request` asks for ends with these states.
    pub(crate) async fn finish(
        &mut self,
        request: &AppRequest,
        states: &[AppState],
    ) -> Result<(), ActionError> {
        let finishes = self.mailbox.finish(request);
        self.record(states, finishes, None).await
    }

    /// PRESENT with the version that an update has brought, and with its document if it has one (W13). Whatever the store
    /// says, it is what runs from now on.
    pub(crate) async fn installed(&mut self, document: Option<&Document>) -> Result<(), ActionError> {
        let recorded = self.record(&[AppState::Present], None, document).await;
        self.mailbox.installed(&self.version, self.release_key, document);
        recorded
    }

    async fn record(
        &mut self,
        states: &[AppState],
        finishes: Option<u64>,
        document: Option<&Document>,
    ) -> Result<(), ActionError> {
        let desired = self.mailbox.desired();
        let silent = desired.as_ref().is_some_and(|desired| desired.unlisted);
        let request = desired.as_ref().map(|desired| &*desired.request);
        let changes = states.iter().map(|state| StateChange {
            app: self.app,
            app_name: self.app_name.clone(),
            state: *state,
            version: self.version.clone(),
            release_key: self.release_key,
            finishes,
            document: document.cloned(),
            report: (!silent).then(|| self.report(request, *state)),
        });
        let changes = changes.collect();
        // In memory first: if the disk refuses, we still know what is true.
        if let Some(state) = states.last() {
            self.state = *state;
            self.mailbox.set_status(|status| {
                status.state = *state;
                status.version.clone_from(&self.version);
            });
        }
        self.rows = self.shared.context.store.set_states(changes).await?;
        for state in states {
            tracing::info!(app = %self.app, name = self.app_name, %state, "app state");
        }
        Ok(())
    }

    /// A report of the state as it is; the store puts in what it has recorded when it is queued.
    pub(crate) fn snapshot(&self) -> StateReport {
        let desired = self.mailbox.desired();
        self.report(desired.as_ref().map(|desired| &*desired.request), self.state)
    }

    fn report(&self, request: Option<&AppRequest>, state: AppState) -> StateReport {
        let flock = self.shared.context.device.current();
        StateReport {
            app_key: self.app.key,
            device_key: flock.device_key,
            swarm_key: flock.swarm_key,
            serial_number: flock.serial_number.clone(),
            stage: self.app.stage,
            state,
            device_to_app_key: 0,
            requestor_account_key: request.map_or(0, |request| request.requestor_account_key),
            release_key: self.release_key,
            request_update: request.is_some_and(|request| request.request_update),
            release_build: self.release_build,
            update_status: self.update_status,
        }
    }

    /// Adopts version and release of the request before an action (7.4). A request for an update may be older than the
    /// update before it: what is installed is known better here.
    pub(crate) fn adopt_version(&mut self, request: &AppRequest) {
        if request.request_update && !self.version.is_empty() {
            return;
        }
        if !request.present_version.is_empty() {
            self.version = request.present_version.clone();
            if request.release_key != 0 {
                self.release_key = request.release_key;
            }
        } else if self.version.is_empty() {
            self.version = request.newest_version.clone();
        }
    }

    /// Whether the request asks for another version than the installed one (3.3, W56).
    pub(crate) fn is_update_pending(&self, request: &AppRequest) -> bool {
        let present = match request.present_version.as_str() {
            "" => &self.version,
            present => present,
        };
        request.request_update
            && self.app.stage == Stage::Prod
            && !request.newest_version.is_empty()
            && ![present, &self.version].contains(&request.newest_version.as_str())
    }

    /// Waits for a place among the starts; held until the app runs. Who asked since the start of the agent needs none.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if self.mailbox.requested_at().is_some() {
            return None;
        }
        tokio::select! {
            // Never closed.
            turn = Arc::clone(&self.shared.starts).acquire_owned() => turn.ok(),
            () = self.mailbox.asked() => None,
        }
    }

    pub(crate) fn container(&self) -> String {
        naming::container(self.app, &self.app_name)
    }

    /// The app's container. One that has the name but was not made for this device does not count: it is never stopped,
    /// removed or taken for the app.
    pub(crate) async fn inspect(&self) -> Result<Option<ContainerFacts>, EngineError> {
        let context = &self.shared.context;
        let found = context.engine.inspect(&self.container()).await?;
        let serial = &context.device.current().serial_number;
        Ok(found.filter(|facts| owner(facts, serial).is_some()))
    }

    /// Registry image without tag.
    pub(crate) fn image_repository(&self) -> String {
        self.repository_of(&self.app_name)
    }

    /// What it is when the app has this name.
    pub(crate) fn repository_of(&self, app_name: &str) -> String {
        let flock = self.shared.context.device.current();
        naming::registry_image(
            &flock.docker_registry_url,
            &flock.docker_main_repository,
            self.app,
            build_arch(),
            app_name,
        )
    }

    /// Exactly the image that will be run (W14).
    pub(crate) fn image(&self) -> String {
        let repository = self.image_repository();
        match self.app.stage {
            Stage::Prod if !self.version.is_empty() => format!("{repository}:{}", self.version),
            Stage::Prod | Stage::Dev => repository,
        }
    }

    /// Whether any image of the app is on the device.
    pub(crate) async fn has_any_image(&self) -> Result<bool, EngineError> {
        let repository = self.image_repository();
        let images = self.shared.context.engine.images().await?;
        Ok(images
            .iter()
            .flat_map(|image| &image.repo_tags)
            .any(|tag| naming::repository(tag) == repository))
    }

    /// A line in the app's log.
    pub(crate) fn line(&self, text: &str) {
        self.shared
            .context
            .logs
            .agent_line(self.app, &self.app_name, text);
    }

    pub(crate) fn clear_history(&self) {
        self.shared.context.logs.clear_history(self.app, &self.app_name);
    }

    /// Writes variables into the app's `env` directory.
    pub(crate) async fn write_files(
        &self,
        variables: std::collections::BTreeMap<String, String>,
    ) -> Result<(), ActionError> {
        let (app, name) = (self.app, self.app_name.clone());
        let apps_dir = self.shared.context.settings.apps_dir.clone();
        blocking(move || files::write(&apps_dir, app, &name, &variables)).await
    }

    /// Takes in what an existing container publishes and tells the backend where the app's ports are (7.5).
    pub(crate) fn sync_ports(&self, request: &AppRequest, existing: &[PortBinding]) {
        let raw = request.ports.as_deref().unwrap_or_default();
        if self.app.stage != Stage::Prod || raw.is_empty() {
            return;
        }
        let located = raw.iter().enumerate().map(|(index, raw)| {
            let Ok(mut rule) = PortRule::parse(index, raw) else {
                return raw.clone();
            };
            let located = match &request.docker_compose {
                _ if !rule.local_ip.is_empty() => None,
                Some(_) => self.shared.ports.locate_service(self.app, &rule),
                None => self.shared.ports.locate(self.app, &rule, existing),
            };
            if let Some(port) = located {
                rule.host_port = port.into();
            }
            serde_json::to_value(rule).unwrap_or_else(|_| raw.clone())
        });
        self.shared.port_reports.tell(self.app, located.collect());
    }

    /// Brings the credential files up to date (4.4); nothing happens while the credential cannot be derived.
    pub(crate) async fn refresh_credential(&self, request: &AppRequest) {
        let Some(credential) = self.shared.credential(request) else {
            return;
        };
        let variables = [
            ("APP_AUTH_ID".to_owned(), credential.auth_id),
            ("APP_AUTH_SECRET".to_owned(), credential.secret),
        ];
        if let Err(error) = self.write_files(variables.into()).await {
            tracing::warn!(app = %self.app, error = %Chain(&error), "writing the credential files");
        }
    }
}

/// Runs file work on a blocking thread; callers await it, so there is never more than one per app.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ActionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(ActionError::Files),
        Err(_) => Err(ActionError::Panicked),
    }
}
