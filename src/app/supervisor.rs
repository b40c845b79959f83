//! Owns the map of apps: starts an actor per app, stores what is asked for, turns engine events into nudges, applies
//! the backend's list. One task, so nothing here needs a lock; it never waits for an app or for the network.

mod backend_list;
mod intent;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::{AppId, AppRequest, AppState, Stage, naming};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::backend_list::names_of;
use self::intent::completed;
use super::actor::Actor;
use super::compose::{directory, document};
use super::container;
use super::listing::Confirmation;
use super::mailbox::{Desired, Mailbox, Nudge, Status};
use super::observe::Look;
use super::port_reports;
use super::worker::{Shared, Worker};
use super::{AppContext, RequestError, Sync};
use crate::engine::{Engine, EngineEvent};
use crate::journal::Chain;
use crate::store::{AppRow, FACT_ADOPT, Recorded, StoreError};

/// Between two looks at apps that are not as desired.
const SAFETY: Duration = Duration::from_secs(60);
/// All actors must have ended within this after the stop.
const ENDED_WITHIN: Duration = Duration::from_secs(8);
/// Retired apps waiting to be dropped; actors wait when full.
const RETIRED: usize = 16;
/// The platform's base URL, remembered for starts before the first connect (W65).
const FACT_BASE_URL: &str = "base_url";

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Request(Box<AppRequest>, oneshot::Sender<Result<(), RequestError>>),
    Sync(Sync, oneshot::Sender<Result<(), RequestError>>),
    ReportAll(oneshot::Sender<()>),
    CredentialKey(String),
    BaseUrl(String),
    Known(oneshot::Sender<Vec<(AppId, String)>>),
    ServiceImages(oneshot::Sender<Vec<String>>),
}

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    stop: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    apps: BTreeMap<AppId, Entry>,
    tasks: JoinSet<()>,
    inbox: mpsc::Receiver<Command>,
    retired: (mpsc::Sender<AppId>, mpsc::Receiver<AppId>),
    confirmation: Confirmation,
    confirm: watch::Sender<Option<Instant>>,
    /// The database was made from nothing: what runs here must be taken in before anything may be swept.
    adopt: bool,
    stop: CancellationToken,
}

impl Supervisor {
    /// Reads the store and starts an actor per app.
    pub(crate) async fn load(
        context: AppContext,
        inbox: mpsc::Receiver<Command>,
        confirm: watch::Sender<Option<Instant>>,
        stop: CancellationToken,
    ) -> Result<Supervisor, StoreError> {
        let store = context.store.clone();
        end_what_was_left_behind(&context).await;
        let base_url = store.fact(FACT_BASE_URL).await?.filter(|url| !url.is_empty());
        let adopt = store
            .fact(FACT_ADOPT)
            .await?
            .is_some_and(|fact| fact == "pending");
        let adopted: BTreeSet<AppId> = store.adopted().await?.into_iter().collect();
        let unfinished: BTreeMap<AppId, u64> = store.unfinished().await?.into_iter().collect();
        let mut requests: BTreeMap<AppId, AppRequest> = store
            .requests()
            .await?
            .into_iter()
            .map(|request| (request.app, request))
            .collect();
        let mut supervisor = Supervisor {
            shared: Arc::new(Shared::new(context, base_url)),
            apps: BTreeMap::new(),
            tasks: JoinSet::new(),
            inbox,
            retired: mpsc::channel(RETIRED),
            confirmation: Confirmation::default(),
            confirm,
            adopt,
            stop,
        };
        for row in store.apps().await? {
            let desired = requests.remove(&row.app).map(|request| Desired {
                adopted: adopted.contains(&request.app),
                finished: request.target.is_once() && !unfinished.contains_key(&request.app),
                number: unfinished.get(&request.app).copied().unwrap_or_default(),
                request: Arc::new(request),
                unlisted: false,
            });
            supervisor.start(row, desired, false);
        }
        Ok(supervisor)
    }

    pub(crate) async fn run(mut self) {
        let mut events = self.shared.context.engine.events();
        self.tasks
            .spawn(port_reports::run(Arc::clone(&self.shared), self.stop.clone()));
        let mut safety = tokio::time::interval_at(Instant::now() + SAFETY, SAFETY);
        safety.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = round::next();
        let mut was_down = true;
        let transfers = self.shared.context.transfers.clone();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                // `None`: every handle is gone; the apps go on until the stop.
                Some(command) = self.inbox.recv() => self.command(command).await,
                Some(event) = events.recv() => self.event(event, &mut was_down).await,
                app = transfers.failed() => self.upload_failed(app),
                Some(app) = self.retired.1.recv() => self.retire(app),
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(error = %Chain(&error), "a task of the apps died");
                    }
                }
                _ = safety.tick() => self.check(),
                () = tokio::time::sleep_until(round) => {
                    round = round::next();
                    self.look_round();
                }
            }
        }
        let ended = tokio::time::timeout(ENDED_WITHIN, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            // As safe as a power cut: the next start looks at everything.
            self.tasks.shutdown().await;
        }
    }

    fn start(&mut self, row: AppRow, desired: Option<Desired>, new: bool) -> Arc<Mailbox> {
        self.lock_names().extend(names_of(row.app, &row.app_name));
        let mailbox = Arc::new(Mailbox::new(
            desired,
            Status {
                app_name: row.app_name.clone(),
                version: row.version.clone(),
                state: row.state,
                busy: false,
                gone: false,
            },
        ));
        let stop = self.stop.child_token();
        let worker = Worker {
            update_status: protocol::UpdateStatus::None,
            release_build: false,
            keeps_history: false,
            outdated_images: Vec::new(),
            told_unhealthy: BTreeSet::new(),
            told_failures: BTreeSet::new(),
            shared: Arc::clone(&self.shared),
            mailbox: Arc::clone(&mailbox),
            app: row.app,
            app_name: row.app_name,
            state: row.state,
            version: row.version,
            release_key: row.release_key,
            rows: Recorded::Kept,
        };
        self.tasks
            .spawn(Actor::new(worker, new, self.retired.0.clone(), stop.clone()).run());
        let entry = Entry {
            mailbox: Arc::clone(&mailbox),
            stop,
        };
        self.apps.insert(row.app, entry);
        mailbox
    }

    fn retire(&mut self, app: AppId) {
        if self
            .apps
            .get(&app)
            .is_some_and(|entry| entry.mailbox.status().gone)
        {
            self.drop_app(app);
        }
    }

    fn drop_app(&mut self, app: AppId) {
        if let Some(entry) = self.apps.remove(&app) {
            entry.stop.cancel();
            let names = names_of(app, &entry.mailbox.status().app_name);
            self.lock_names().retain(|name| !names.contains(name));
        }
    }

    fn lock_names(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.shared
            .names
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn command(&mut self, command: Command) {
        // A caller that went away does not need its answer.
        match command {
            Command::Request(request, reply) => drop(reply.send(self.request(*request).await)),
            Command::Sync(answer, reply) => drop(reply.send(self.sync(answer).await)),
            Command::ReportAll(reply) => {
                // The backend is there, even if it could not tell what it wants: what was asked for before goes on.
                self.shared.online.store(true, Ordering::Relaxed);
                self.nudge_all(Nudge {
                    look: Look::Change,
                    online: true,
                    report: true,
                    ..Nudge::default()
                });
                let _ = reply.send(());
            }
            Command::CredentialKey(key) => {
                self.change_platform(|facts| facts.credential_key = Some(key).filter(|key| !key.is_empty()));
            }
            // Every heartbeat brings it; only another one is news.
            Command::BaseUrl(url) if self.knows_base_url(&url) => {}
            Command::BaseUrl(url) => {
                let store = &self.shared.context.store;
                if let Err(error) = store.set_fact(FACT_BASE_URL, &url).await {
                    tracing::warn!(error = %Chain(&error), "remembering the base URL");
                }
                self.change_platform(|facts| facts.base_url = Some(url).filter(|url| !url.is_empty()));
            }
            Command::Known(reply) => {
                let known = self
                    .apps
                    .iter()
                    .map(|(app, entry)| (*app, entry.mailbox.status().app_name));
                drop(reply.send(known.collect()));
            }
            Command::ServiceImages(reply) => drop(reply.send(self.service_images())),
        }
    }

    fn service_images(&self) -> Vec<String> {
        let mut images = Vec::new();
        for desired in self.apps.values().filter_map(|entry| entry.mailbox.desired()) {
            let documents = [
                &desired.request.docker_compose,
                &desired.request.new_docker_compose,
            ];
            for document in documents.into_iter().flatten() {
                images.extend(document::images(document).into_values().map(str::to_owned));
            }
        }
        images
    }

    fn knows_base_url(&self, url: &str) -> bool {
        let facts = self
            .shared
            .facts
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        facts.base_url.as_deref().unwrap_or_default() == url
    }

    fn change_platform(&self, change: impl FnOnce(&mut super::worker::PlatformFacts)) {
        {
            let mut facts = self
                .shared
                .facts
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            change(&mut facts);
        }
        self.nudge_all(Nudge {
            credential: true,
            ..Nudge::default()
        });
    }

    async fn request(&mut self, request: AppRequest) -> Result<(), RequestError> {
        // A request came in, so there is a way out.
        self.shared.online.store(true, Ordering::Relaxed);
        let nudge = Nudge {
            asked: true,
            ..Nudge::default()
        };
        self.cancel_upload(&request).await;
        Ok(self.accept(request, nudge).await?)
    }

    /// What was being uploaded for an app will not come: what is here is what it has (7.10).
    fn upload_failed(&self, app: AppId) {
        if let Some(entry) = self.apps.get(&app)
            && entry.mailbox.status().state == AppState::Transfering
        {
            entry.mailbox.nudge(Nudge {
                look: Look::Change,
                ..Nudge::default()
            });
        }
    }

    /// An upload for an app that is to be something else already is given up (7.2 step 4, 3.4).
    async fn cancel_upload(&self, request: &AppRequest) {
        use AppState::{Built, Failed, Present, Removed, Transfering, Uninstalled};
        let state = self
            .apps
            .get(&request.app)
            .map(|entry| entry.mailbox.status().state);
        let given_up = match state.or(request.current).unwrap_or(Removed) {
            Transfering => matches!(request.target, Present | Removed | Uninstalled),
            Uninstalled | Removed | Present | Failed => matches!(request.target, Present | Built),
            _ => false,
        };
        if given_up && request.app.stage == Stage::Dev {
            let container = naming::container(request.app, &request.app_name);
            self.shared.context.transfers.cancel(&container).await;
        }
    }

    fn desired(&self, app: AppId) -> Option<Desired> {
        self.apps.get(&app)?.mailbox.desired()
    }

    /// Stores an intent and hands it to the app's actor.
    async fn accept(&mut self, request: AppRequest, nudge: Nudge) -> Result<(), StoreError> {
        let app = request.app;
        let before = self.desired(app);
        let status = self.apps.get(&app).map(|entry| entry.mailbox.status());
        // A project is no container, nor is a container a project: what is there of the app has to be found out anew.
        let another_kind = before.as_ref().is_some_and(|before| {
            before.request.docker_compose.is_some() != request.docker_compose.is_some()
        });
        let request = match (before, &status) {
            (Some(before), Some(status)) => completed(request, &before.request, &status.version),
            _ => request,
        };
        let state = status.map(|status| status.state);
        let seed = state.or(request.current).unwrap_or(AppState::Removed);
        let store = &self.shared.context.store;
        let number = store.commit_request(request.clone(), seed).await?;
        let mailbox = match self.apps.get(&app) {
            Some(entry) => Arc::clone(&entry.mailbox),
            None => self.start(
                AppRow {
                    app,
                    app_name: request.app_name.clone(),
                    version: request.present_version.clone(),
                    release_key: request.release_key,
                    state: seed,
                },
                None,
                // The backend says of an app unknown here that it runs: that is believed only after a look.
                seed != AppState::Running,
            ),
        };
        self.lock_names().extend(names_of(app, &request.app_name));
        let cancels_only = request.cancel_transition && request.target.is_once();
        let unseen = state.is_none() && seed == AppState::Running;
        let desired = Desired {
            request: Arc::new(request),
            adopted: false,
            unlisted: false,
            number,
            // It only ends what is going on.
            finished: cancels_only,
        };
        let nudge = Nudge {
            stored: true,
            look: if unseen || another_kind {
                Look::Fresh
            } else {
                nudge.look
            },
            ..nudge
        };
        mailbox.desire(desired, nudge, Instant::now());
        Ok(())
    }

    async fn event(&mut self, event: EngineEvent, was_down: &mut bool) {
        match event {
            EngineEvent::Container { name, project } => {
                if let Some(entry) = self.app_of(&name, project.as_deref()) {
                    entry.mailbox.nudge(Nudge {
                        look: Look::Change,
                        ..Nudge::default()
                    });
                }
            }
            EngineEvent::Resync => {
                if self.adopt
                    && let Err(error) = self.adopt_containers().await
                {
                    tracing::warn!(error, "taking in the containers that are here");
                }
                self.shared.engine_up.store(true, Ordering::Relaxed);
                let look = if *was_down { Look::Fresh } else { Look::Change };
                *was_down = false;
                self.nudge_all(Nudge {
                    look,
                    ..Nudge::default()
                });
            }
            EngineEvent::Down => {
                *was_down = true;
                self.shared.engine_up.store(false, Ordering::Relaxed);
                self.nudge_all(Nudge {
                    lost: true,
                    ..Nudge::default()
                });
            }
        }
    }

    /// The app that a container belongs to: by its name or, in a compose project, by the project's (W32).
    fn app_of(&self, name: &str, project: Option<&str>) -> Option<&Entry> {
        let mine = |app: AppId, entry: &Entry| {
            let app_name = entry.mailbox.status().app_name;
            match project {
                Some(project) => naming::compose_project(app, &app_name) == project,
                None => naming::container(app, &app_name) == name,
            }
        };
        if project.is_some() {
            let found = self.apps.iter().find(|(app, entry)| mine(**app, entry));
            return found.map(|(_, entry)| entry);
        }
        let (app, _) = naming::parse_container(name).ok()?;
        self.apps.get(&app).filter(|entry| mine(app, entry))
    }

    /// A database made from nothing learns from the containers which apps are here; none of them is touched.
    async fn adopt_containers(&mut self) -> Result<(), String> {
        let engine = &self.shared.context.engine;
        let (key, value) = container::REAL;
        let found = engine
            .list_labelled(key, value)
            .await
            .map_err(|error| error.to_string())?;
        self.quarantine_projects()
            .await
            .map_err(|error| error.to_string())?;
        let store = self.shared.context.store.clone();
        let serial = &self.shared.context.device.current().serial_number;
        for (request, state) in found.iter().filter_map(|facts| container::adopted(facts, serial)) {
            let app = request.app;
            if self.apps.contains_key(&app) {
                continue;
            }
            tracing::warn!(%app, name = request.app_name, %state, "an app is taken in from its container");
            store
                .adopt(request.clone(), state)
                .await
                .map_err(|error| error.to_string())?;
            let row = AppRow {
                app,
                app_name: request.app_name.clone(),
                version: request.present_version.clone(),
                release_key: request.release_key,
                state,
            };
            let desired = Desired {
                request: Arc::new(request),
                adopted: true,
                unlisted: false,
                number: 0,
                finished: false,
            };
            self.start(row, Some(desired), false);
        }
        store
            .set_fact(FACT_ADOPT, "done")
            .await
            .map_err(|error| error.to_string())?;
        self.adopt = false;
        Ok(())
    }

    /// Apps that are as desired are left alone: their events tell when that changes.
    fn check(&self) {
        for entry in self.apps.values() {
            let status = entry.mailbox.status();
            if !status.busy
                && entry
                    .mailbox
                    .target()
                    .is_some_and(|target| target != status.state)
            {
                entry.mailbox.nudge(Nudge {
                    look: Look::Change,
                    ..Nudge::default()
                });
            }
        }
    }

    fn nudge_all(&self, nudge: Nudge) {
        for entry in self.apps.values() {
            entry.mailbox.nudge(nudge);
        }
    }
}

/// A power cut of the agent leaves calls of the command line running, and their registry logins lying.
async fn end_what_was_left_behind(context: &AppContext) {
    let serial = context.device.current().serial_number.clone();
    let downloads = context.settings.downloads_dir();
    let ended = super::worker::blocking(move || {
        Engine::end_compose_calls(&serial);
        directory::remove_private(&downloads)
    });
    if let Err(error) = ended.await {
        tracing::warn!(error = %Chain(&error), "removing left registry logins");
    }
}
