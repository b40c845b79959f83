//! The agent under test: in this process with short spans of time, or the real binary. No Docker behind it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use protocol::report::StateReport;
use protocol::request::parse_row;
use protocol::{AppState, UpdateStatus, uri};
use reagent::agent::{self, Exit};
use reagent::engine::Engine;
use reagent::flock::DeviceFile;
use reagent::link::{Pauses, Timing};
use reagent::settings::Settings;
use reagent::store::{StateChange, Store};
use serde_json::{Value, json};
use testkit::process::Process;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wamp::client::{CallOptions, RequestError, Session, WampError};
use wamp::{Dict, Payload};

use super::SOON;
use super::plane::DEVICE_SECRET;

/// The device of every story: project 42, key 7.
pub(crate) struct Device {
    home: tempfile::TempDir,
    pub(crate) serial: String,
    pub(crate) offline: bool,
    pub(crate) response_timeout: Duration,
}

impl Device {
    pub(crate) fn new(url: &str) -> Device {
        Device::with(url, DEVICE_SECRET)
    }

    pub(crate) fn with(url: &str, secret: &str) -> Device {
        let home = tempfile::Builder::new()
            .prefix("reagent-session-")
            .tempdir()
            .unwrap();
        let serial = "00000000-0000-4000-8000-00000000beef".to_owned();
        let device = Device {
            home,
            serial,
            offline: false,
            response_timeout: Duration::from_secs(5),
        };
        let flock = json!({
            "name": "gate", "secret": secret, "swarm_key": 42, "device_key": 7, "swarm_name": "plant",
            "swarm_owner_name": "acme", "serial_number": device.serial, "device_endpoint_url": url,
            "docker_registry_url": "127.0.0.1:9/", "docker_main_repository": "apps/", "owner_account_key": 5,
        });
        std::fs::write(device.path("device.flock"), flock.to_string()).unwrap();
        device
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The `.flock` as it is on disk.
    pub(crate) fn flock(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("device.flock")).unwrap()).unwrap()
    }

    /// The database, while no agent runs.
    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.path("reagent.db")).await.unwrap().0
    }

    /// Puts an app into the database that stays as it is, with these reports waiting to be sent.
    pub(crate) async fn knows(&self, app_key: u64, waiting: &[AppState]) {
        let store = self.store().await;
        let row = json!({"app_key": app_key, "app_name": format!("App{app_key}"), "stage": "PROD",
            "current_state": "PRESENT", "target_state": "PRESENT", "present_version": "1", "newest_version": "1"});
        let request = parse_row(&row).unwrap();
        let (app, app_name) = (request.app, request.app_name.clone());
        store.commit_request(request, AppState::Present).await.unwrap();
        for state in waiting.iter().copied() {
            let report = StateReport {
                app_key,
                device_key: 7,
                swarm_key: 42,
                serial_number: self.serial.clone(),
                stage: app.stage,
                state,
                device_to_app_key: 0,
                requestor_account_key: 1,
                release_key: 1,
                request_update: false,
                release_build: false,
                update_status: UpdateStatus::default(),
            };
            let change = StateChange {
                app,
                app_name: app_name.clone(),
                state,
                version: "1".to_owned(),
                release_key: 1,
                finishes: None,
                document: None,
                report: Some(report),
            };
            store.set_state(change).await.unwrap();
        }
        store.close().await;
    }

    /// The agent as tasks of this test.
    pub(crate) fn start(&self, timing: Timing) -> Agent {
        let settings = self.settings();
        settings.create_directories().unwrap();
        let device = DeviceFile::load(&settings.config).unwrap();
        let engine = Engine::at("unix:///nonexistent/docker.sock").unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(agent::run_with(settings, device, engine, timing, stop.clone()));
        Agent { stop, task }
    }

    /// The binary.
    pub(crate) fn spawn(&self, extra: &[&str]) -> Process {
        Process::start("reagent", &mut self.command(extra))
    }

    /// The binary, not started.
    pub(crate) fn command(&self, extra: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reagent"));
        let path = |name: &str| self.path(name);
        command
            .arg("-config")
            .arg(path("device.flock"))
            .arg("-agentDir")
            .arg(path("agent"))
            .arg("-appsDir")
            .arg(path("apps"))
            .arg("-dbFileName")
            .arg(path("reagent.db"))
            .arg("-logFile")
            .arg(path("reagent.log"))
            .args(["-nmw=false", "-update=false"])
            .args(extra)
            .env("REAGENT_LOCK_FILE", path("lock"))
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
    }

    /// Calls a procedure of the device.
    pub(crate) async fn call(
        &self,
        caller: &Session,
        name: &str,
        args: Value,
        kwargs: Value,
    ) -> Result<Payload, WampError> {
        let procedure = uri::device(&self.serial, name);
        let (Value::Array(args), Value::Object(kwargs)) = (args, kwargs) else {
            panic!("a list and a dictionary");
        };
        let kwargs: Dict = kwargs
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect();
        let payload = Payload::from_parts(args.into_iter().map(wamp::Value::from).collect(), kwargs);
        match caller.call(&procedure, payload, CallOptions::timeout(SOON)).await {
            Ok(result) => Ok(result.payload),
            Err(RequestError::Peer(error)) => Err(error),
            Err(failure) => panic!("{procedure}: {failure}"),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            config: self.path("device.flock"),
            apps_dir: self.path("apps"),
            database: self.path("reagent.db"),
            log_file: self.path("reagent.log"),
            agent_dir: self.path("agent"),
            compressed_build_extension: "tgz".to_owned(),
            debug: false,
            debug_messaging: false,
            pretty_logging: false,
            offline: self.offline,
            network_manager: false,
            update: false,
            environment: String::new(),
            remote_update_url: String::new(),
            connect_timeout: Duration::from_secs(10),
            response_timeout: self.response_timeout,
            ping_interval: Duration::ZERO,
        }
    }
}

/// An agent in this process.
pub(crate) struct Agent {
    stop: CancellationToken,
    task: JoinHandle<Exit>,
}

impl Agent {
    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        assert_eq!(self.end().await, Exit::Clean);
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn end(self) -> Exit {
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("the agent ends")
            .unwrap()
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

/// Quick pauses, and no heartbeat unless the test is about it.
pub(crate) fn quick() -> Timing {
    let quick = Pauses {
        first: Duration::from_millis(20),
        cap: Duration::from_millis(200),
    };
    Timing {
        heartbeat: Duration::from_secs(36_000),
        reconnect: quick,
        credentials: quick,
        evictions: quick,
        duplicate: Duration::from_millis(20),
        reclaim: quick,
        catch_up: quick,
        unwilling: quick,
        report: quick,
        ..Timing::default()
    }
}

/// The one dictionary of an error of the agent: text and code.
pub(crate) fn refusal(error: &WampError) -> (String, String) {
    assert_eq!(error.uri, "wamp.error.canceled", "{error:?}");
    assert!(error.payload.kwargs().unwrap().is_empty(), "{error:?}");
    let args = error.payload.args().unwrap();
    let [wamp::Value::Dict(dict)] = args.as_slice() else {
        panic!("{args:?} in place of one dictionary");
    };
    assert_eq!(dict.len(), 2, "{dict:?}");
    let text = |key: &str| dict[key].as_str().unwrap().to_owned();
    (text("error"), text("code"))
}

/// Positional results as JSON.
pub(crate) fn results(payload: &Payload) -> Vec<Value> {
    payload.args().unwrap().iter().map(wamp::Value::to_json).collect()
}
