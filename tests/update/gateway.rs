//! A gateway with a bucket, a router and a backend around it. Its power can be cut at any moment.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::uri;
use reagent::system::platform::{build_arch, os};
use serde_json::{Value, json};
use testkit::process::Process;
use testkit::release::{BucketDir, Signer};
use testkit::static_server::StaticServer;
use testkit::wait;
use wamp::client::{CallOptions, RequestError, Subscription};
use wamp::{Dict, Payload};

use super::SOON;
use super::backend::Backend;
use super::builds::{self, Build, NEW, OLD};
use super::plane::{DEVICE_SECRET, Plane};

const SERIAL: &str = "00000000-0000-4000-8000-00000000da7e";

pub(crate) struct Gateway {
    // Ends first, as it writes to its home until then.
    pub(crate) agent: Option<Process>,
    pub(crate) bucket: BucketDir,
    pub(crate) server: StaticServer,
    pub(crate) signer: Signer,
    pub(crate) backend: Backend,
    _plane: Plane,
    results: Subscription,
    /// Milliseconds that differ from the product's.
    setup: Value,
    pub(crate) home: tempfile::TempDir,
}

impl Gateway {
    /// Everything but the agent, which is installed and off. No version is offered.
    pub(crate) async fn new() -> Gateway {
        let home = tempfile::Builder::new()
            .prefix("reagent-update-")
            .tempdir()
            .unwrap();
        let plane = Plane::own().await;
        let backend = Backend::join(&plane).await;
        let topic = uri::device(SERIAL, "agent_update_result");
        let results = backend.session.subscribe(&topic, Dict::new()).await.unwrap();
        let root = home.path().join("bucket");
        let bucket = BucketDir::new(&root, os(), build_arch());
        bucket.offer(OLD);
        let server = StaticServer::start(&root);
        let signer = Signer::new();
        let flock = json!({
            "name": "gate", "secret": DEVICE_SECRET, "swarm_key": 42, "device_key": 7, "swarm_name": "plant",
            "swarm_owner_name": "acme", "serial_number": SERIAL, "device_endpoint_url": plane.url,
            "docker_registry_url": "127.0.0.1:9/", "docker_main_repository": "apps/",
            "environment": "production", "update_url": server.url(),
        });
        std::fs::write(home.path().join("device.flock"), flock.to_string()).unwrap();
        std::fs::create_dir_all(home.path().join("agent")).unwrap();
        let setup = json!({
            "keys": [signer.public()], "start_delay": 0, "period": 3_600_000, "proof": 3000, "tick": 50,
            "activation": 50, "version_run": 2000, "idle": 5000, "pause": 50, "heartbeat": 200,
        });
        let mut gateway = Gateway {
            home,
            bucket,
            server,
            signer,
            backend,
            _plane: plane,
            results,
            setup: json!({}),
            agent: None,
        };
        gateway.set_up(setup);
        let agent = tokio::task::spawn_blocking(builds::agent).await.unwrap();
        install(&gateway.path("bin/reagent"), &agent);
        gateway
    }

    /// Changes the developer's settings, for agents that are started later.
    pub(crate) fn set_up(&mut self, changes: Value) {
        let Value::Object(changes) = changes else {
            unreachable!()
        };
        self.setup.as_object_mut().unwrap().extend(changes);
        std::fs::write(self.path("setup.json"), self.setup.to_string()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Publishes and offers a build of `version`.
    pub(crate) async fn release(&self, version: &str, build: Build) {
        let binary = builds::built(version, build).await;
        self.bucket.publish(version, &binary, &self.signer);
        self.bucket.offer(version);
    }

    /// The agent, started by `program`, in an environment of its own.
    pub(crate) fn command(&self, program: &Path, extra: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (flag, name) in [
            ("-config", "device.flock"),
            ("-agentDir", "agent"),
            ("-appsDir", "apps"),
            ("-dbFileName", "reagent.db"),
            ("-logFile", "reagent.log"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        command
            .args(["-nmw=false", "-prettyLogging"])
            .args(extra)
            .env("REAGENT_LOCK_FILE", self.path("lock"))
            .env("REAGENT_UPDATE_SETUP", self.path("setup.json"))
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
    }

    /// The power comes (back): the installed binary is started, and nothing would start it again. It checks only when
    /// it is asked to.
    pub(crate) fn power(&mut self) {
        self.power_with(&["-update=false"]);
    }

    pub(crate) fn power_with(&mut self, extra: &[&str]) {
        let mut command = self.command(&self.path("bin/reagent"), extra);
        self.agent = Some(Process::start("agent", &mut command));
    }

    /// The power goes.
    pub(crate) fn cut(&mut self) {
        // All processes of the group die at once.
        self.agent = None;
    }

    /// Waits until the agent of this version answers.
    pub(crate) async fn runs(&self, version: &str) {
        wait::until_async(&format!("version {version} answers"), SOON, || async {
            (self.running().await.as_deref() == Some(version)).then_some(())
        })
        .await;
    }

    /// The version that answers right now.
    pub(crate) async fn running(&self) -> Option<String> {
        let metadata = self.call("get_agent_metadata", json!([])).await?;
        Some(metadata["version"].as_str()?.to_owned())
    }

    /// Calls a procedure of the device; `None`: nobody is there.
    pub(crate) async fn call(&self, name: &str, args: Value) -> Option<Value> {
        let args = args
            .as_array()
            .unwrap()
            .iter()
            .cloned()
            .map(wamp::Value::from)
            .collect();
        let procedure = uri::device(SERIAL, name);
        let called =
            self.backend
                .session
                .call(&procedure, Payload::from_args(args), CallOptions::timeout(SOON));
        match called.await {
            Ok(result) => Some(result.payload.args().unwrap().first()?.to_json()),
            Err(RequestError::Peer(_)) => None,
            Err(failure) => panic!("{procedure}: {failure}"),
        }
    }

    /// Waits for a connected agent, then has it update itself.
    pub(crate) async fn update(&self) -> Value {
        self.runs(OLD).await;
        // The update is expected to connect only if this version was.
        self.backend.status("CONNECTED").await;
        self.call("update_agent", json!([]))
            .await
            .expect("the agent answers")
    }

    /// What the studio was told so far is of no interest.
    pub(crate) fn forget_outcomes(&mut self) {
        while self.results.events.try_recv().is_ok() {}
    }

    /// The next outcome that the studio is told.
    pub(crate) async fn outcome(&mut self) -> Value {
        let event = tokio::time::timeout(SOON, self.results.events.recv()).await;
        let event = event.expect("an outcome is told").expect("the session is open");
        event.payload.args().unwrap()[0].to_json()
    }

    /// The studio is told next that the update to the offered version ended so, and why.
    pub(crate) async fn told(&mut self, result: &str, reason: &str) {
        let outcome = self.outcome().await;
        let update = ["from", "to", "result"].map(|name| outcome[name].as_str().unwrap());
        assert_eq!(update, [OLD, NEW, result], "{outcome}");
        assert!(outcome["reason"].as_str().unwrap().contains(reason), "{outcome}");
    }

    /// Asks the agent that runs for an update: it takes one.
    pub(crate) async fn takes_one(&self) {
        let answer = self.call("update_agent", json!([])).await.unwrap();
        assert_eq!(answer["DidUpdate"], true, "{answer}");
    }

    /// Asks the agent that runs for an update: it takes none, and says why.
    pub(crate) async fn takes_none(&self, why: &str) {
        let answer = self.call("update_agent", json!([])).await.unwrap();
        assert_eq!(answer["DidUpdate"], false, "{answer}");
        assert!(answer["Message"].as_str().unwrap().contains(why), "{answer}");
    }

    /// `update-state.json`
    pub(crate) fn state(&self) -> Value {
        state(&self.path("agent"))
    }

    /// Waits until what is remembered fits.
    pub(crate) async fn remembers(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until_async(&format!("the agent remembers {what}"), SOON, || async {
            Some(self.state()).filter(|state| fits(state))
        })
        .await
    }

    /// Names in the agent directory that the manager script would take for agents.
    pub(crate) fn visible(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path("agent"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("reagent-") && !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn state(agent_dir: &Path) -> Value {
    let content = std::fs::read(agent_dir.join("update-state.json")).unwrap_or_default();
    serde_json::from_slice(&content).unwrap_or(Value::Null)
}

/// Puts a binary somewhere as a package would.
pub(crate) fn install(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
