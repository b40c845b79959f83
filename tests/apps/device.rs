//! One device for a test: real Docker, real database, real router with a backend that hands out registry tokens.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::flock::Flock;
use protocol::request::parse_row;
use protocol::{AppId, AppRequest, AppState, Stage, naming};
use reagent::app::{AppContext, Apps};
use reagent::backend::Backend;
use reagent::engine::Engine;
use reagent::flock::DeviceFile;
use reagent::logs::Logs;
use reagent::settings::Settings;
use reagent::store::Store;
use reagent::system::platform::build_arch;
use reagent::transfer::Transfers;
use serde_json::{Value, json};
use testkit::docker::{self, Scope};
use testkit::wait;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wamp::client::{ClientConfig, RegisterOptions, Session, handler};
use wamp::payload::Payload;
use wamp::router::{Limits, Permission, Principal, Router, RouterConfig};

/// Every wait for something that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const FOREVER: &str = "echo up; while :; do sleep 1; done";
/// Has much to say when it is told to stop.
pub(crate) const LAST_WORDS: &str =
    "trap 'seq 1 20000; echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done";
/// What the backend answers when asked for a registry user.
pub(crate) const TOKEN: &str = "registry-token";
pub(crate) const SECRET: &str = "device-secret";

/// A device with one app of its own; everything it leaves in Docker goes with it.
pub(crate) struct Device {
    pub(crate) scope: Scope,
    pub(crate) app: AppId,
    pub(crate) app_name: String,
    pub(crate) apps: Apps,
    pub(crate) store: Store,
    pub(crate) logs: Logs,
    home: tempfile::TempDir,
    flock: Flock,
    stop: CancellationToken,
    session: watch::Sender<Option<Session>>,
    docker_host: Option<String>,
    /// What the backend was told in the other shape of `update_app_on_device`.
    port_reports: Arc<Mutex<Vec<Value>>>,
}

impl Device {
    /// A running agent's apps, without a session.
    pub(crate) async fn start(stage: Stage) -> Device {
        Device::with(stage, None, None).await
    }

    /// `registry`: host and port of the platform's registry. `docker_host`: another address of the daemon.
    pub(crate) async fn with(stage: Stage, registry: Option<&str>, docker_host: Option<&str>) -> Device {
        let scope = Scope::new();
        // Unique on this machine, so that tests never meet each other's apps.
        let key = u64::from(std::process::id()) * 1000 + u64::from(wait::free_port() % 1000);
        let app = AppId { key, stage };
        let registry = registry.map_or_else(|| scope.name("registry"), str::to_owned);
        let flock = flock(&format!("{registry}/"), &scope.name("serial"));
        let home = tempfile::tempdir().unwrap();
        let docker_host = docker_host.map(str::to_owned);
        let started = agent(home.path().into(), flock.clone(), docker_host.as_deref()).await;
        Device {
            app,
            app_name: format!("App{key}"),
            apps: started.0,
            store: started.1,
            logs: started.2,
            stop: started.3,
            session: started.4,
            scope,
            home,
            flock,
            docker_host,
            port_reports: Arc::default(),
        }
    }

    /// The port reports that came since the last call; waits for the first.
    pub(crate) async fn ports_reported(&self) -> Vec<Value> {
        wait::until_async("host ports are reported", SOON, || async {
            let reports = std::mem::take(&mut *self.port_reports.lock().unwrap());
            (!reports.is_empty()).then_some(reports)
        })
        .await
    }

    /// Stops the agent and starts it again on the same database, optionally after `between`.
    pub(crate) async fn restart(&mut self, between: impl FnOnce(&Device)) {
        self.close().await;
        between(self);
        let home = self.home.path().into();
        let started = agent(home, self.flock.clone(), self.docker_host.as_deref()).await;
        (self.apps, self.store, self.logs, self.stop, self.session) = started;
    }

    pub(crate) async fn close(&self) {
        self.apps.close().await;
        self.logs.close().await;
        self.stop.cancel();
        self.store.close().await;
    }

    /// Joins a router whose backend knows the registry token. Gives back how others join it.
    pub(crate) async fn connect(&self) -> ClientConfig {
        let (session, config) = backend_session(Arc::clone(&self.port_reports)).await;
        self.session.send_replace(Some(session));
        config
    }

    pub(crate) fn serial(&self) -> &str {
        &self.flock.serial_number
    }

    pub(crate) fn container(&self) -> String {
        naming::container(self.app, &self.app_name)
    }

    /// The reference under which the app's image is looked for.
    pub(crate) fn image(&self, version: &str) -> String {
        let repository = naming::registry_image(
            &self.flock.docker_registry_url,
            &self.flock.docker_main_repository,
            self.app,
            build_arch(),
            &self.app_name,
        );
        match self.app.stage {
            Stage::Prod => format!("{repository}:{version}"),
            Stage::Dev => format!("{repository}:latest"),
        }
    }

    /// Puts an image of the app on the device.
    pub(crate) fn install(&self, version: &str, script: &str) {
        docker::import_busybox(&self.image(version), script);
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.home.path().join("apps").join(path)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.home.path().join("reagent.db")
    }

    pub(crate) fn wanted(&self, target: AppState, members: Value) -> AppRequest {
        let mut row = json!({
            "app_key": self.app.key, "app_name": self.app_name, "stage": self.app.stage.as_str(),
            "current_state": "REMOVED", "target_state": target.as_str(), "release_key": 100,
            "present_version": "1.0", "newest_version": "1.0", "requestor_account_key": 12,
        });
        let (Value::Object(row), Value::Object(members)) = (&mut row, members) else {
            unreachable!()
        };
        row.extend(members);
        parse_row(&Value::Object(row.clone())).unwrap()
    }

    pub(crate) async fn request(&self, target: AppState) {
        self.apps.request(self.wanted(target, json!({}))).await.unwrap();
    }

    /// The states that a client sees, in order, since the last [`Device::confirm`].
    pub(crate) async fn reported(&self) -> Vec<AppState> {
        let pending = self.store.pending_reports().await.unwrap();
        let of_app = pending
            .into_iter()
            .filter(|pending| pending.report.app_key == self.app.key);
        of_app.map(|pending| pending.report.state).collect()
    }

    /// Waits until exactly these states have been reported, then forgets them.
    pub(crate) async fn reports(&self, expected: &[AppState]) {
        let found = wait::until_async(&format!("{expected:?} are reported"), SOON, || async {
            let found = self.reported().await;
            (found.len() >= expected.len()).then_some(found)
        })
        .await;
        let log = self.logs.history(self.app, &self.app_name).await;
        assert_eq!(found, expected, "log {log:#?}");
        self.confirm().await;
    }

    pub(crate) async fn confirm(&self) {
        for pending in self.store.pending_reports().await.unwrap() {
            self.store.confirm_report(pending.number).await.unwrap();
        }
    }

    /// Waits until the app's log has a line that contains `text`.
    pub(crate) async fn logged(&self, text: &str) {
        wait::until_async(&format!("the log has {text:?}"), SOON, || async {
            let log = self.logs.history(self.app, &self.app_name).await;
            log.iter().any(|line| line.contains(text)).then_some(())
        })
        .await;
    }

    /// Waits for `text` in the app's log, before which an app with [`LAST_WORDS`] has said them all.
    pub(crate) async fn said_all_before(&self, text: &str) {
        self.logged(text).await;
        let log = self.logs.history(self.app, &self.app_name).await;
        let place = |text: &str| log.iter().rposition(|line| line.ends_with(text));
        let (Some(bye), Some(after)) = (place("bye"), place(text)) else {
            panic!("not all was said: {log:#?}");
        };
        assert!(bye < after && log[bye - 1].ends_with("20000"), "{log:#?}");
    }

    /// The same when nothing is logged afterwards.
    pub(crate) async fn said_all(&self) {
        let log = self.logs.history(self.app, &self.app_name).await;
        assert!(log.ends_with(&["20000".to_owned(), "bye".to_owned()]), "{log:#?}");
    }

    pub(crate) fn container_id(&self) -> Option<String> {
        docker::inspect(&self.container(), "{{.Id}}")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.cancel();
        docker::remove(&self.container());
        docker::remove_images_of(&self.flock.docker_registry_url);
    }
}

type Started = (
    Apps,
    Store,
    Logs,
    CancellationToken,
    watch::Sender<Option<Session>>,
);

async fn agent(home: PathBuf, flock: Flock, docker_host: Option<&str>) -> Started {
    let settings = settings(home);
    settings.create_directories().unwrap();
    let store = Store::open(&settings.database).await.unwrap().0;
    let engine = match docker_host {
        Some(host) => Engine::at(host).unwrap(),
        None => Engine::new().unwrap(),
    };
    let stop = CancellationToken::new();
    let logs = Logs::start(
        flock.serial_number.clone(),
        store.clone(),
        engine.clone(),
        stop.clone(),
    );
    let (publish, session) = watch::channel(None);
    let build = settings.apps_dir.join("build");
    let flock_serial = flock.serial_number.clone();
    let works = engine.works().clone();
    let context = AppContext {
        settings,
        device: DeviceFile::in_memory(flock),
        store: store.clone(),
        engine,
        logs: logs.clone(),
        transfers: Transfers::start(
            &build,
            flock_serial,
            Backend::new(session.clone()),
            logs.clone(),
            works,
            stop.clone(),
        ),
        backend: Backend::new(session),
    };
    let apps = Apps::start(context, stop.clone()).await.unwrap();
    (apps, store, logs, stop, publish)
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

fn flock(registry: &str, serial: &str) -> Flock {
    Flock {
        name: "gateway".to_owned(),
        secret: SECRET.to_owned(),
        swarm_key: 2,
        device_key: 3,
        swarm_name: "fleet".to_owned(),
        swarm_owner_name: "owner".to_owned(),
        serial_number: serial.to_owned(),
        device_endpoint_url: "ws://localhost:8080/ws-re-dev".to_owned(),
        docker_registry_url: registry.to_owned(),
        docker_main_repository: "apps/".to_owned(),
        environment: "local".to_owned(),
        appliance_domain: String::new(),
        update_url: String::new(),
        board_model: String::new(),
        certificate: String::new(),
        certificate_key: String::new(),
    }
}

async fn backend_session(port_reports: Arc<Mutex<Vec<Value>>>) -> (Session, ClientConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let all = Permission {
        uri: String::new(),
        prefix: true,
        call: true,
        register: true,
        publish: true,
        subscribe: true,
        force_register: true,
        disclose: true,
    };
    let router = Router::new(RouterConfig {
        realm: "realm1".to_owned(),
        roles: HashMap::from([("all".to_owned(), vec![all])]),
        authenticator: Arc::new(|_| {
            let principal = Principal::Anonymous {
                authid: "test".to_owned(),
                role: "all".to_owned(),
            };
            Box::pin(async { Ok(principal) })
        }),
        limits: Limits::default(),
    });
    // Ends with the test's runtime.
    tokio::spawn(async move { router.serve(listener, CancellationToken::new()).await });
    let config = ClientConfig::new(url, "realm1");
    let backend = Session::connect(&config).await.unwrap();
    let token = handler(|_| async { Ok(Payload::from_args(vec![wamp::value::Value::from(TOKEN)])) });
    backend
        .register(
            protocol::uri::backend::GET_REGISTRY_TOKEN,
            RegisterOptions::default(),
            token,
        )
        .await
        .unwrap();
    let reported = handler(move |invocation| {
        let report = invocation.payload.args().unwrap_or_default()[0].to_json();
        port_reports.lock().unwrap().push(report);
        async { Ok(Payload::Empty) }
    });
    backend
        .register(
            protocol::uri::backend::UPDATE_APP_ON_DEVICE,
            RegisterOptions::default(),
            reported,
        )
        .await
        .unwrap();
    let session = Session::connect(&config).await.unwrap();
    // The backend's session lives as long as the agent's.
    let followed = session.clone();
    tokio::spawn(async move {
        followed.closed().await;
        backend.leave().await;
    });
    (session, config)
}
