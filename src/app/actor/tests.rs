//! The actor's decisions over random histories of requests, crashes, daemons that go and come, failures and restarts.
//! Only Docker is made up: what an action does there, and what a look finds.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use protocol::flock::Flock;
use tokio::sync::watch;

use super::observing::Seen;
use super::*;
use crate::app::AppContext;
use crate::app::container::bare_request;
use crate::app::mailbox::{Mailbox, Status};
use crate::app::worker::Shared;
use crate::backend::Backend;
use crate::engine::{ContainerStatus, Engine};
use crate::flock::DeviceFile;
use crate::logs::Logs;
use crate::settings::Settings;
use crate::store::Store;
use crate::transfer::Transfers;

#[derive(Clone, Copy, Debug)]
enum Happening {
    Ask(AppState),
    /// The same, and version 2 in place of version 1.
    AskUpdate(AppState),
    /// The container ends by itself.
    Crash,
    DockerGoes,
    DockerComes,
    Wait(u64),
    /// The agent is killed and starts again.
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    let targets = vec![
        AppState::Present,
        AppState::Running,
        AppState::Running,
        AppState::Removed,
        AppState::Uninstalled,
        AppState::Built,
        AppState::Published,
    ];
    prop_oneof![
        4 => prop::sample::select(targets.clone()).prop_map(Happening::Ask),
        2 => prop::sample::select(targets).prop_map(Happening::AskUpdate),
        3 => Just(Happening::Crash),
        1 => Just(Happening::DockerGoes),
        2 => Just(Happening::DockerComes),
        2 => (1u64..2000).prop_map(Happening::Wait),
        1 => Just(Happening::Restart),
    ]
}

/// One app on a made-up host.
struct House {
    actor: Actor,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    app: AppId,
    container: Option<ContainerStatus>,
    image: bool,
    docker: bool,
    running_since: Option<Instant>,
    _retired: mpsc::Receiver<AppId>,
    _session: watch::Sender<Option<wamp::client::Session>>,
}

impl House {
    async fn new(home: &Path, stage: Stage) -> House {
        let app = AppId { key: 6, stage };
        let store = Store::open(&home.join("reagent.db")).await.unwrap().0;
        let engine = Engine::at("unix:///nowhere").unwrap();
        let stop = CancellationToken::new();
        let (sender, session) = watch::channel(None);
        let logs = Logs::start("abc".to_owned(), store.clone(), engine.clone(), stop.clone());
        let context = AppContext {
            settings: settings(home.into()),
            device: DeviceFile::in_memory(flock()),
            store: store.clone(),
            engine: engine.clone(),
            logs: logs.clone(),
            transfers: Transfers::start(
                &home.join("build"),
                "abc".to_owned(),
                Backend::new(session.clone()),
                logs.clone(),
                engine.works().clone(),
                stop,
            ),
            backend: Backend::new(session),
        };
        let shared = Arc::new(Shared::new(context, None));
        shared.online.store(true, std::sync::atomic::Ordering::Relaxed);
        let (retired, _retired) = mpsc::channel(64);
        let status = Status {
            app_name: "x".to_owned(),
            version: String::new(),
            state: AppState::Removed,
            busy: false,
            gone: false,
        };
        let mailbox = Arc::new(Mailbox::new(None, status));
        let actor = Actor::new(
            worker(&shared, &mailbox, app, AppState::Removed, Recorded::Deleted),
            true,
            retired,
            CancellationToken::new(),
        );
        House {
            actor,
            shared,
            mailbox,
            app,
            container: None,
            image: false,
            docker: false,
            running_since: None,
            _retired,
            _session: sender,
        }
    }

    fn target(&self) -> Option<AppState> {
        self.mailbox.target()
    }

    async fn happen(&mut self, happening: Happening) {
        match happening {
            // Refused before it gets here.
            Happening::Ask(target) | Happening::AskUpdate(target)
                if target.is_once() && self.app.stage == Stage::Prod => {}
            Happening::Ask(target) => self.ask(bare_request(self.app, "x".to_owned(), target)).await,
            Happening::AskUpdate(target) => {
                let mut request = bare_request(self.app, "x".to_owned(), target);
                "1".clone_into(&mut request.present_version);
                "2".clone_into(&mut request.newest_version);
                request.request_update = true;
                self.ask(request).await;
            }
            Happening::Crash => {
                if self.container == Some(ContainerStatus::Running) {
                    self.container = Some(ContainerStatus::Exited);
                    self.look(Look::Change).await;
                }
            }
            Happening::DockerGoes => self.docker_is(false).await,
            Happening::DockerComes => self.docker_is(true).await,
            Happening::Wait(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
            Happening::Restart => {
                let rows = self.shared.context.store.apps().await.unwrap();
                let row = rows.first().map(|row| row.state);
                let (retired, receiver) = mpsc::channel(64);
                self._retired = receiver;
                let state = row.unwrap_or(AppState::Removed);
                let recorded = row.map_or(Recorded::Deleted, |_| Recorded::Kept);
                let mut worker = worker(&self.shared, &self.mailbox, self.app, state, recorded);
                worker.version = rows.first().map(|row| row.version.clone()).unwrap_or_default();
                let unfinished = self.shared.context.store.unfinished().await.unwrap();
                if let Some(mut desired) = self.mailbox.desired() {
                    desired.finished = desired.request.target.is_once() && unfinished.is_empty();
                    self.mailbox.desire(desired, Nudge::default(), Instant::now());
                }
                let docker = self.docker;
                self.docker_is(false).await;
                self.actor = Actor::new(worker, false, retired, CancellationToken::new());
                self.docker_is(docker).await;
            }
        }
    }

    async fn ask(&mut self, request: AppRequest) {
        let store = &self.shared.context.store;
        let state = self.actor.worker.state;
        let number = store.commit_request(request.clone(), state).await.unwrap();
        let desired = Desired {
            request: Arc::new(request),
            adopted: false,
            unlisted: false,
            number,
            finished: false,
        };
        let nudge = Nudge {
            asked: true,
            stored: true,
            ..Nudge::default()
        };
        self.mailbox.desire(desired, nudge, Instant::now());
        let nudge = self.mailbox.take();
        self.actor.hear(nudge).await;
    }

    async fn docker_is(&mut self, up: bool) {
        self.docker = up;
        self.shared
            .engine_up
            .store(up, std::sync::atomic::Ordering::Relaxed);
        // The made-up look takes the place of the real one.
        self.actor.new = true;
        self.actor
            .hear(Nudge {
                lost: !up,
                look: if up { Look::Fresh } else { Look::No },
                ..Nudge::default()
            })
            .await;
        if up {
            self.look(Look::Fresh).await;
        }
    }

    async fn look(&mut self, look: Look) {
        self.actor.looked = true;
        let (Some(target), true) = (self.target(), self.docker) else {
            return;
        };
        if self.actor.worker.rows == Recorded::Deleted {
            return;
        }
        let seen = Seen {
            container: self.container.map(|status| (status, 1)),
            out_of_memory: false,
            image: self.image,
        };
        self.actor.take_in(look, target, seen).await.unwrap();
    }

    /// Lets the actor do what it wants until it rests; returns until when.
    async fn settle(&mut self, outcomes: &mut impl Iterator<Item = bool>) -> Option<Instant> {
        for _ in 0..40 {
            let attempts = self.actor.retry.attempts();
            let now = Instant::now();
            let step = self.actor.decide(now);
            self.check_counter(attempts, now);
            match step {
                Step::Rest(until) => return until,
                Step::Look => self.look(Look::Change).await,
                Step::Report => self.actor.report_settled().await,
                Step::RemoveOutdatedImages => {
                    assert!(self.docker && self.container == Some(ContainerStatus::Running));
                    self.actor.outdated = None;
                }
                Step::Rename(desired) => panic!("{} has one name", desired.request.app_name),
                Step::Act(action, desired) => {
                    self.check_action(action, &desired, now);
                    self.act(action, &desired, outcomes.next().unwrap_or(true)).await;
                }
            }
        }
        panic!(
            "never rests: {} toward {:?}",
            self.actor.worker.state,
            self.target()
        );
    }

    fn check_action(&self, action: Action, desired: &Desired, now: Instant) {
        assert!(self.docker, "{action:?} without Docker");
        assert_eq!(
            Some(desired.request.target),
            self.target(),
            "{action:?} for an old wish"
        );
        assert!(
            !matches!(action, Action::Undefined | Action::Impossible | Action::Report),
            "{action:?} is no action"
        );
        // An update waits for its own failures alone.
        let retry = match action {
            Action::Update => &self.actor.update_retry,
            _ => &self.actor.retry,
        };
        match retry.gate() {
            Gate::Open => {}
            Gate::Until(moment) => assert!(moment <= now, "{action:?} too early"),
            Gate::Shut => panic!("{action:?} of an app that is not tried again"),
        }
    }

    /// Failures are forgotten only where nothing has to run, or after a stable run. (A request forgets them too, but not
    /// by a decision.)
    fn check_counter(&self, before: u32, now: Instant) {
        if before > 0 && self.actor.retry.attempts() == 0 && self.actor.worker.state == AppState::Running {
            let since = self.running_since.expect("it runs");
            assert!(now >= since + STABLE, "forgotten after {:?}", now - since);
        }
    }

    /// What a real action leaves in Docker and says about itself.
    async fn act(&mut self, action: Action, desired: &Desired, succeeds: bool) {
        let request = &desired.request;
        let before = self.actor.worker.state;
        self.actor.report_due = false;
        if action == Action::Update {
            return self.update(request, before, succeeds).await;
        }
        if !succeeds {
            if matches!(action, Action::Run | Action::RecoverRunning) {
                self.container = self.image.then_some(ContainerStatus::Exited);
            }
            let error = ActionError::Container("the container has exited".to_owned());
            self.actor.failed(action, request, &error).await;
            return;
        }
        if matches!(
            action,
            Action::Build | Action::Publish | Action::RemoveThenPublish
        ) {
            (self.container, self.image) = (None, true);
            let worker = &mut self.actor.worker;
            worker.set(AppState::Building).await.unwrap();
            let end: &[AppState] = match request.target {
                AppState::Published => &[AppState::Published],
                _ => &[AppState::Built, AppState::Present],
            };
            worker.finish(request, end).await.unwrap();
            self.actor.succeeded(before, request);
            return;
        }
        let (state, container, image) = match (action, request.target) {
            (Action::Run | Action::RecoverRunning, _) => {
                self.running_since = Some(Instant::now());
                (AppState::Running, Some(ContainerStatus::Running), true)
            }
            (Action::Uninstall, _) | (Action::CancelPull, AppState::Uninstalled) => {
                self.actor.worker.set(AppState::Removed).await.unwrap();
                (AppState::Uninstalled, None, false)
            }
            (Action::Remove | Action::CancelPull, _) => (AppState::Removed, None, false),
            (Action::Pull | Action::Stop | Action::RecoverPresent, _) => (AppState::Present, None, true),
            (action, target) => panic!("{action:?} toward {target} is not of this version"),
        };
        (self.container, self.image) = (container, image);
        self.actor.worker.set(state).await.unwrap();
        self.actor.succeeded(before, request);
    }
}

impl House {
    async fn update(&mut self, request: &AppRequest, before: AppState, succeeds: bool) {
        self.actor.worker.set(AppState::Updating).await.unwrap();
        if succeeds {
            request.newest_version.clone_into(&mut self.actor.worker.version);
            self.container = (request.target == AppState::Running).then_some(ContainerStatus::Running);
            self.image = true;
            self.mailbox.installed("2", 0, None);
        }
        let state = match (self.container, before) {
            (Some(ContainerStatus::Running), _) => AppState::Running,
            (_, AppState::Failed) if !succeeds => AppState::Failed,
            (_, _) => AppState::Present,
        };
        self.actor.worker.set(state).await.unwrap();
        if succeeds {
            self.running_since = Some(Instant::now());
            self.actor.updated();
        } else {
            let error = ActionError::Container("the container has exited".to_owned());
            self.actor.stays(&ActionError::NotUpdated(Box::new(error)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn whatever_happens_the_newest_wish_comes_true(
        dev in any::<bool>(), happenings in prop::collection::vec(happening(), 1..16),
        outcomes in prop::collection::vec(any::<bool>(), 0..24),
    ) {
        let stage = if dev { Stage::Dev } else { Stage::Prod };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let home = tempfile::tempdir().unwrap();
            let mut house = House::new(home.path(), stage).await;
            let mut outcomes = outcomes.into_iter();
            for happening in happenings {
                house.happen(happening).await;
                house.settle(&mut outcomes).await;
            }
            // From now on nothing fails.
            house.happen(Happening::DockerComes).await;
            for _ in 0..8 {
                if let Some(moment) = house.settle(&mut std::iter::empty()).await {
                    tokio::time::advance(moment.saturating_duration_since(Instant::now())).await;
                }
            }
            let Some(target) = house.target() else { return };
            let state = house.actor.worker.state;
            let dead_end = (state, target) == (AppState::Uninstalled, AppState::Removed);
            // Cells that the table leaves empty on purpose.
            let absent = matches!(state, AppState::Removed | AppState::Uninstalled);
            let nothing_to_pull = dev && absent && target == AppState::Present;
            let given_up = house.actor.retry.gate() == Gate::Shut;
            let done = house.mailbox.desired().unwrap().finished;
            assert_eq!(done && !given_up, target.is_once() && !given_up, "{target}");
            assert!(state == target || dead_end || nothing_to_pull || given_up || done, "{state} instead of {target}");
            assert!(!target.is_once() || house.shared.context.store.unfinished().await.unwrap().is_empty());
            let request = house.mailbox.desired().unwrap().request;
            let stays = matches!(target, AppState::Present | AppState::Running) && !nothing_to_pull && !given_up;
            assert!(!(stays && house.actor.worker.is_update_pending(&request)), "the update is forgotten");
            let runs = house.container == Some(ContainerStatus::Running);
            assert_eq!(runs, state == AppState::Running);
            house.shared.context.logs.close().await;
            house.shared.context.store.close().await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_nobody_asked_for_waits_for_its_turn() {
    let home = tempfile::tempdir().unwrap();
    let house = House::new(home.path(), Stage::Prod).await;
    let worker = &house.actor.worker;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(worker.turn().await.expect("there is room"));
    }
    {
        let mut next = std::pin::pin!(worker.turn());
        assert!(futures_util::poll!(&mut next).is_pending(), "four at once");
        held.pop();
        held.push(next.await.expect("a place is free again"));
    }
    let mut next = std::pin::pin!(worker.turn());
    assert!(futures_util::poll!(&mut next).is_pending());
    let desired = Desired {
        request: Arc::new(bare_request(house.app, "x".to_owned(), AppState::Running)),
        adopted: false,
        unlisted: false,
        number: 1,
        finished: false,
    };
    let asked = Nudge {
        asked: true,
        ..Nudge::default()
    };
    house.mailbox.desire(desired, asked, Instant::now());
    assert!(next.await.is_none(), "who asks does not wait");
    assert!(worker.turn().await.is_none());
    house.shared.context.logs.close().await;
    house.shared.context.store.close().await;
}

fn worker(
    shared: &Arc<Shared>,
    mailbox: &Arc<Mailbox>,
    app: AppId,
    state: AppState,
    rows: Recorded,
) -> Worker {
    Worker {
        update_status: protocol::UpdateStatus::None,
        release_build: false,
        keeps_history: false,
        outdated_images: Vec::new(),
        told_unhealthy: std::collections::BTreeSet::new(),
        told_failures: std::collections::BTreeSet::new(),
        shared: Arc::clone(shared),
        mailbox: Arc::clone(mailbox),
        app,
        app_name: "x".to_owned(),
        state,
        version: String::new(),
        release_key: 0,
        rows,
    }
}

fn settings(home: PathBuf) -> Settings {
    Settings {
        config: home.join("device.flock"),
        apps_dir: home.join("apps"),
        database: home.join("reagent.db"),
        log_file: home.join("reagent.log"),
        agent_dir: home,
        compressed_build_extension: "tgz".to_owned(),
        debug: false,
        debug_messaging: false,
        pretty_logging: false,
        offline: false,
        network_manager: false,
        update: false,
        environment: String::new(),
        remote_update_url: String::new(),
        connect_timeout: Duration::ZERO,
        response_timeout: Duration::from_secs(5),
        ping_interval: Duration::ZERO,
    }
}

fn flock() -> Flock {
    Flock {
        name: "gateway".to_owned(),
        secret: "s".to_owned(),
        swarm_key: 2,
        device_key: 3,
        swarm_name: "fleet".to_owned(),
        swarm_owner_name: "owner".to_owned(),
        serial_number: "abc".to_owned(),
        device_endpoint_url: String::new(),
        docker_registry_url: "r/".to_owned(),
        docker_main_repository: "apps/".to_owned(),
        environment: "local".to_owned(),
        appliance_domain: String::new(),
        update_url: String::new(),
        board_model: String::new(),
        certificate: String::new(),
        certificate_key: String::new(),
    }
}
