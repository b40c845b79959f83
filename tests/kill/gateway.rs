//! A gateway that can be cut off at any moment: the real agent binary, a real router and a backend that only listens,
//! so that nothing but the agent's own database can tell it what was asked for.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use protocol::{AppId, AppState, Stage, naming};
use reagent::system::platform::build_arch;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::{Value, json};
use testkit::docker::{self, Scope};
use testkit::process::Process;
use testkit::registry::Registry;
use testkit::wait;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wamp::client::{CallOptions, ClientConfig, Credentials, RegisterOptions, Session, WampError, handler};
use wamp::router::{JoinRequest, Limits, Permission, Principal, Router, RouterConfig};
use wamp::{Dict, Payload};

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");
const SECRET: &str = "device-secret";
const TOKEN: &str = "registry-token";
/// Every wait for something that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(90);

pub(crate) struct Gateway {
    pub(crate) app: AppId,
    pub(crate) app_name: String,
    pub(crate) scope: Scope,
    /// It is asked for as a compose app with one service and one volume.
    pub(crate) compose: bool,
    /// Where its port is published, which has the same number then; 0: the agent chooses.
    pub(crate) host_port: u32,
    /// What the backend takes for installed; 1: version 1.0.
    pub(crate) present: u32,
    serial: String,
    registry: Registry,
    home: tempfile::TempDir,
    system: Session,
    reports: mpsc::UnboundedReceiver<AppState>,
    agent: Option<Process>,
    stop: CancellationToken,
}

impl Gateway {
    /// Everything but the agent, which is off. The app's image is in the registry and nowhere else.
    pub(crate) async fn new(script: &str) -> Gateway {
        Gateway::with(Stage::Prod, script).await
    }

    pub(crate) async fn with(stage: Stage, script: &str) -> Gateway {
        let scope = Scope::new();
        let registry = Registry::start();
        registry.add_user(TOKEN, SECRET);
        let key = u64::from(std::process::id()) * 1000 + u64::from(wait::free_port() % 1000);
        let app = AppId { key, stage };
        let app_name = format!("Kill{key}");
        publish(&registry, &scope, app, &app_name, "1.0", script);

        let (url, stop) = router().await;
        let home = tempfile::tempdir().unwrap();
        let serial = scope.name("serial");
        let flock = json!({
            "name": "gateway", "secret": SECRET, "swarm_key": 2, "device_key": 3, "swarm_name": "s",
            "swarm_owner_name": "o", "serial_number": serial, "device_endpoint_url": url,
            "docker_registry_url": format!("{}/", registry.address()), "docker_main_repository": "apps/"
        });
        std::fs::write(home.path().join("device.flock"), flock.to_string()).unwrap();
        let mut config = ClientConfig::new(url, "realm1");
        config.credentials = Credentials::Cra {
            authid: "system".to_owned(),
            secret: SECRET.to_owned(),
        };
        let system = Session::connect(&config).await.unwrap();
        let reports = serve_all(&system).await;
        Gateway {
            app,
            app_name,
            scope,
            compose: false,
            host_port: 0,
            present: 1,
            serial,
            registry,
            home,
            system,
            reports,
            agent: None,
            stop,
        }
    }

    /// Puts another version into the registry.
    pub(crate) fn publish(&self, version: &str, script: &str) {
        publish(
            &self.registry,
            &self.scope,
            self.app,
            &self.app_name,
            version,
            script,
        );
    }

    /// The power comes (back).
    pub(crate) fn power(&mut self) {
        self.power_until("");
    }

    /// The power comes back and goes at this point (`src/crash.rs`).
    pub(crate) fn power_until(&mut self, point: &str) {
        let path = |name: &str| self.home.path().join(name);
        let mut command = Command::new(AGENT);
        for (flag, name) in [
            ("-config", "device.flock"),
            ("-agentDir", "agent"),
            ("-appsDir", "agent/apps"),
            ("-dbFileName", "agent/reagent.db"),
            ("-logFile", "reagent.log"),
        ] {
            command.arg(flag).arg(path(name));
        }
        command.args(["-nmw=false", "-update=false"]);
        command.env("REAGENT_LOCK_FILE", path("lock"));
        command.env("REAGENT_CRASH_AT", point);
        command.env("REAGENT_CRASH_LOG", path("points"));
        let _ = std::fs::remove_file(path("points"));
        self.agent = Some(Process::start("agent", &mut command));
    }

    /// The points that the agent has come by since the power came, in order.
    pub(crate) fn points(&self) -> Vec<String> {
        let points = std::fs::read_to_string(self.home.path().join("points")).unwrap_or_default();
        points.lines().map(str::to_owned).collect()
    }

    /// Waits until the agent has come by all of these points.
    pub(crate) async fn comes_by(&self, points: &[String]) {
        wait::until_async(&format!("it has come by {points:?}"), SOON, || async {
            let seen = self.points();
            points.iter().all(|point| seen.contains(point)).then_some(())
        })
        .await;
    }

    /// Waits until the agent has died at the point that it was given. What it has reported before counts.
    pub(crate) async fn dies(&mut self) {
        let end = tokio::time::Instant::now() + SOON;
        while self.agent.as_mut().is_some_and(Process::is_running) {
            let seen = self.points();
            assert!(
                tokio::time::Instant::now() < end,
                "the agent only came by {seen:?}"
            );
            self.work_on().await;
        }
        self.agent = None;
    }

    /// Lets the router work, and the reports pile up.
    async fn work_on(&self) {
        tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>())
            .await
            .unwrap_err();
    }

    /// The power goes; what was reported so far is forgotten.
    pub(crate) fn cut(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill();
        }
        while self.reports.try_recv().is_ok() {}
    }

    /// Has the target accepted, however often it takes: what is not acknowledged may be lost.
    pub(crate) async fn request(&self, target: AppState) {
        self.request_update(target, &self.version(0)).await;
    }

    /// As the app declares it. One of the same number is published outside of those that agents choose from, too.
    fn port(&self) -> u32 {
        match self.host_port {
            0 => 8080,
            port => port,
        }
    }

    /// The version so many updates after the one that the backend takes for installed.
    pub(crate) fn version(&self, updates: u32) -> String {
        format!("{}.0", self.present + updates)
    }

    /// The same for version `newest`.
    pub(crate) async fn request_update(&self, target: AppState, newest: &str) {
        wait::until_async(&format!("{target} is accepted"), SOON, || async {
            self.asks(target, newest).await.then_some(())
        })
        .await;
    }

    /// Has the target stored and nothing of it begun: the power comes and goes with the commit of the request.
    pub(crate) async fn store(&mut self, target: AppState, newest: &str) {
        self.power_until("after request");
        let end = tokio::time::Instant::now() + SOON;
        while self.agent.as_mut().is_some_and(Process::is_running) {
            assert!(tokio::time::Instant::now() < end, "{target} is not stored");
            self.asks(target, newest).await;
            self.work_on().await;
        }
        self.cut();
    }

    /// Asks once; returns whether it was acknowledged.
    async fn asks(&self, target: AppState, newest: &str) -> bool {
        let procedure = format!("re.mgmt.{}.request_app_state", self.serial);
        let present = self.version(0);
        let release = 99 + self.present;
        let kwargs = json!({
            "app_key": self.app.key, "app_name": self.app_name, "stage": self.app.stage.as_str(), "current_state": "REMOVED",
            "target_state": target.as_str(), "release_key": release, "present_version": present, "newest_version": newest,
            "new_release_key": release + 1, "version": newest, "request_update": self.app.stage == Stage::Prod && newest != present, "requestor_account_key": 12, "ports": [{"port": self.port(), "host_port": self.host_port}],
        });
        let Value::Object(mut kwargs) = kwargs else {
            unreachable!()
        };
        if self.compose {
            kwargs.insert("docker_compose".to_owned(), self.document(&present));
            kwargs.insert("new_docker_compose".to_owned(), self.document(newest));
        }
        let kwargs: Dict = kwargs
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        let payload = Payload::from_parts(Vec::new(), kwargs);
        let options = CallOptions::timeout(Duration::from_secs(5));
        self.system.call(&procedure, payload, options).await.is_ok()
    }

    fn document(&self, version: &str) -> Value {
        let name = naming::registry_image("", "apps/", self.app, build_arch(), &self.app_name);
        let image = format!("{}/{name}:{version}", self.registry.address());
        json!({
            "services": {"web": {"image": image, "ports": [format!("{}:80", self.port())], "volumes": ["state:/state"]}},
            "volumes": {"state": {}},
        })
    }

    /// What the project has of this: `ps -a`, `volume ls`, `network ls`; by id or name.
    pub(crate) fn of_project(&self, list: &[&str]) -> Vec<String> {
        let project = naming::compose_project(self.app, &self.app_name);
        let filter = format!("label=com.docker.compose.project={project}");
        let found = docker::docker(&[list, &["-q", "--filter", &filter]].concat());
        found.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The next report within `within`.
    pub(crate) async fn reported(&mut self, within: Duration) -> Option<AppState> {
        tokio::time::timeout(within, self.reports.recv()).await.ok()?
    }

    /// Waits until this state is reported, passing over others.
    pub(crate) async fn settles(&mut self, target: AppState) {
        let settled = tokio::time::timeout(SOON, async {
            while self.reports.recv().await.expect("the backend is ours") != target {}
        });
        assert!(settled.await.is_ok(), "waited in vain for a report of {target}");
    }

    /// Waits until this state is recorded of this version, with nothing of the request left to do, and has been
    /// reported. A start may report what was before the request: the report alone says little.
    pub(crate) async fn fulfils(&mut self, target: AppState, version: &str) {
        let end = tokio::time::Instant::now() + SOON;
        let is_done =
            |gateway: &Gateway| Some(gateway.is_recorded(target, version)? && !gateway.is_unfinished()?);
        while is_done(self) != Some(true) {
            let seen = self.points();
            assert!(
                tokio::time::Instant::now() < end,
                "waited in vain for {target} of {version}: {seen:?}"
            );
            self.work_on().await;
        }
        self.settles(target).await;
    }

    /// `None` while the database is busy.
    fn is_recorded(&self, target: AppState, version: &str) -> Option<bool> {
        let found: Option<(String, String)> =
            self.row("SELECT state, version FROM AppStates WHERE app_key = ?1")?;
        Some(match (target, found) {
            (AppState::Removed, found) => found.is_none(),
            (AppState::Uninstalled, Some((state, _))) => state == target.as_str(),
            (_, Some((state, of))) => state == target.as_str() && of == version,
            (_, None) => false,
        })
    }

    fn is_unfinished(&self) -> Option<bool> {
        let found: Option<(bool, i64)> =
            self.row("SELECT unfinished > 0, app_key FROM ReagentApps WHERE app_key = ?1")?;
        Some(found.is_some_and(|(unfinished, _)| unfinished))
    }

    /// The app's row; the outer `None` is an error of the database, as while it is written.
    fn row<A: FromSql, B: FromSql>(&self, sql: &str) -> Option<Option<(A, B)>> {
        let file = Connection::open(self.home.path().join("agent/reagent.db")).unwrap();
        let key = [i64::try_from(self.app.key).unwrap()];
        file.query_row(sql, key, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .ok()
    }

    /// What is to be built.
    pub(crate) fn upload(&self, dockerfile: &str) {
        let build = self.home.path().join("agent/apps/build");
        std::fs::create_dir_all(&build).unwrap();
        let archive = testkit::archive::tgz(&[("Dockerfile", dockerfile)]);
        std::fs::write(build.join(format!("{}.tgz", self.app_name)), archive).unwrap();
    }

    /// Whether version `version` of the app has been pushed as a release.
    pub(crate) fn is_released(&self, version: &str) -> bool {
        let app = AppId {
            stage: Stage::Prod,
            ..self.app
        };
        let registry = format!("{}/", self.registry.address());
        let name = naming::registry_image(&registry, "apps/", app, build_arch(), &self.app_name);
        self.registry.has(&format!("{name}:{version}"))
    }

    /// Its containers, by id.
    pub(crate) fn containers(&self) -> Vec<String> {
        if self.compose {
            return self.of_project(&["ps", "-a"]);
        }
        docker::inspect(&self.container(), "{{.Id}}")
            .into_iter()
            .collect()
    }

    /// Whether its only container runs (`true`, `false`), and the image.
    pub(crate) fn running(&self) -> Option<String> {
        match &self.containers()[..] {
            [id] => docker::inspect(id, "{{.State.Running}} {{.Config.Image}}"),
            _ => None,
        }
    }

    pub(crate) fn container(&self) -> String {
        naming::container(self.app, &self.app_name)
    }

    pub(crate) fn images(&self) -> Vec<String> {
        docker::images_of(&format!("{}/", self.registry.address()))
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        let name = self.app_name.to_lowercase();
        self.home
            .path()
            .join("agent/apps")
            .join(self.app.stage.lower())
            .join(name)
    }

    /// Version and release that the agent has recorded.
    pub(crate) fn installed(&self) -> Option<(String, i64)> {
        self.row("SELECT version, release_key FROM AppStates WHERE app_key = ?1")?
    }

    /// Rows that `table` has of the app.
    pub(crate) fn rows(&self, table: &str) -> i64 {
        let file = Connection::open(self.home.path().join("agent/reagent.db")).unwrap();
        let sql = format!("SELECT count(*) FROM {table} WHERE app_key = ?1");
        file.query_row(&sql, [i64::try_from(self.app.key).unwrap()], |row| row.get(0))
            .unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.agent.take());
        self.stop.cancel();
        docker::remove(&self.container());
        if self.compose {
            for container in self.of_project(&["ps", "-a"]) {
                docker::remove(&container);
            }
            for volume in self.of_project(&["volume", "ls"]) {
                let _ = docker::docker(&["volume", "rm", &volume]);
            }
            for network in self.of_project(&["network", "ls"]) {
                let _ = docker::docker(&["network", "rm", &network]);
            }
        }
    }
}

fn publish(registry: &Registry, scope: &Scope, app: AppId, app_name: &str, version: &str, script: &str) {
    let local = scope.image("source", script);
    let name = naming::registry_image("", "apps/", app, build_arch(), app_name);
    registry.push(&local, &format!("{name}:{version}"), TOKEN, SECRET);
    docker::remove_image(&local);
}

async fn router() -> (String, CancellationToken) {
    let everything = Permission {
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
        roles: HashMap::from([("all".to_owned(), vec![everything])]),
        authenticator: Arc::new(|_: JoinRequest| {
            let principal = Principal::Cra {
                secret: SECRET.to_owned(),
                role: "all".to_owned(),
                salting: None,
                extra: Dict::new(),
            };
            Box::pin(async { Ok(principal) })
        }),
        limits: Limits::default(),
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move { router.serve(listener, until).await });
    (url, stop)
}

/// A backend that takes everything and wants nothing: what it is asked for, it does not know.
async fn serve_all(system: &Session) -> mpsc::UnboundedReceiver<AppState> {
    // Unbounded: a test reads it to its end, and the agent sends at most some dozens.
    let (seen, reports) = mpsc::unbounded_channel();
    let answer = |uri: &'static str, args: Value| match uri {
        "reswarm.devices.read_device_metadata" => Ok(json!({"swarm_key": 2})),
        "reswarm.devices.get_app_cred_key" => Ok(json!("a2V5")),
        "reswarm.containers.get_registry_token" => Ok(json!(TOKEN)),
        "reswarm.containers.get_requested_app_states" => Err("the list is not available"),
        _ => Ok(json!({"echo": args.is_object()})),
    };
    for uri in [
        "reswarm.devices.read_device_metadata",
        "reswarm.devices.get_app_cred_key",
        "reswarm.devices.update_device_status",
        "reswarm.devices.update_device_architecture",
        "reswarm.containers.get_registry_token",
        "reswarm.containers.get_requested_app_states",
        "reswarm.containers.update_app_on_device",
    ] {
        let seen = seen.clone();
        let function = handler(move |invocation| {
            let seen = seen.clone();
            async move {
                let args = invocation.payload.args().unwrap_or_default();
                let first = args.first().map(wamp::Value::to_json).unwrap_or_default();
                if let Some(Ok(state)) = first["state"].as_str().map(str::parse) {
                    let _ = seen.send(state);
                }
                match answer(uri, first) {
                    Ok(value) => Ok(Payload::from_args(vec![value.into()])),
                    Err(text) => Err(WampError::new("reswarm.error.unavailable", text)),
                }
            }
        });
        system
            .register(uri, RegisterOptions::default(), function)
            .await
            .unwrap();
    }
    reports
}
