//! A studio with a bucket, agents around it, and somebody who makes releases.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reagent::system::platform::{build_arch, os};
use serde_json::{Value, json};
use testkit::fleet::CommandOutput;
use testkit::process::{self, Process};
use testkit::wait;

use super::builds::{self, Build};

/// Every wait for something that should happen; a version proves itself within seconds.
const SOON: Duration = Duration::from_secs(90);

pub(crate) struct Fleet {
    // Order of fields is order of dropping: processes before their directory.
    _agents: Vec<Process>,
    studio: Option<Process>,
    ports: (u16, u16),
    home: tempfile::TempDir,
}

impl Fleet {
    /// A studio with a bucket and `count` devices `gate-1`, `gate-2`, … that run the build under test.
    pub(crate) fn start(count: usize) -> Fleet {
        let home = tempfile::Builder::new()
            .prefix("reagent-rollout-")
            .tempdir()
            .unwrap();
        let mut fleet = Fleet {
            _agents: Vec::new(),
            studio: None,
            ports: (wait::free_port(), wait::free_port()),
            home,
        };
        fleet.start_studio();
        fleet
            .release(&["keys", "release.key", "release/current.pub"])
            .ok();
        let setup = json!({
            "keys": [std::fs::read_to_string(fleet.path("release/current.pub")).unwrap()],
            "start_delay": 0, "period": 3_600_000, "proof": 3000, "tick": 50, "activation": 50, "version_run": 5000,
            "idle": 10_000, "pause": 50, "heartbeat": 500,
        });
        std::fs::write(fleet.path("setup.json"), setup.to_string()).unwrap();
        put(&fleet.path("bin/reagent"), &builds::agent());
        fleet._agents = (1..=count)
            .map(|number| fleet.device(&format!("gate-{number}")))
            .collect();
        fleet
    }

    pub(crate) fn start_studio(&mut self) {
        std::fs::create_dir_all(self.path("release")).unwrap();
        let mut command = Command::new(process::binary("studio"));
        command
            .arg("serve")
            .arg("--data")
            .arg(self.path("studio"))
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.ports.0))
            .arg("--bucket")
            .arg(self.path("bucket"))
            .arg("--bucket-listen")
            .arg(format!("127.0.0.1:{}", self.ports.1));
        self.studio = Some(Process::start("studio", &mut command));
        wait::until("the studio answers", SOON, || {
            (self.studio(&["device", "list"]).code == 0).then_some(())
        });
    }

    /// At any moment, without a word.
    pub(crate) fn kill_studio(&mut self) {
        self.studio = None;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Adds a device and starts its agent in an environment of its own.
    fn device(&self, name: &str) -> Process {
        let home = self.path(name);
        std::fs::create_dir_all(home.join("agent")).unwrap();
        let flock = home.join("device.flock");
        self.studio(&["device", "add", name, "--out", flock.to_str().unwrap()])
            .ok();
        // A link: nothing ever writes to it.
        std::fs::hard_link(self.path("bin/reagent"), home.join("reagent")).unwrap();
        let mut command = Command::new(home.join("reagent"));
        for (flag, file) in [
            ("-config", "device.flock"),
            ("-agentDir", "agent"),
            ("-appsDir", "apps"),
            ("-dbFileName", "reagent.db"),
            ("-logFile", "reagent.log"),
        ] {
            command.arg(flag).arg(home.join(file));
        }
        command
            .args(["-nmw=false", "-update=false", "-prettyLogging"])
            .env("REAGENT_LOCK_FILE", home.join("lock"))
            .env("REAGENT_UPDATE_SETUP", self.path("setup.json"))
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        Process::start(name, &mut command)
    }

    /// One `studio` command to its end.
    pub(crate) fn studio(&self, args: &[&str]) -> CommandOutput {
        let mut command = Command::new(process::binary("studio"));
        command.args(args).env("STUDIO_DATA", self.path("studio"));
        command.output().unwrap().into()
    }

    /// One command of whoever makes releases.
    fn release(&self, args: &[&str]) -> CommandOutput {
        let mut command = Command::new(process::binary("release"));
        command
            .current_dir(self.home.path())
            .args(args)
            .env("RELEASE_KEY_FILE", self.path("release.key"));
        command.output().unwrap().into()
    }

    /// Publishes a build of `version`; offers it to nobody. What the command said.
    pub(crate) fn publish(&self, version: &str, build: Build) -> String {
        // What is published has to carry the key, as builds of the product do.
        let mut binary = builds::build(version, build);
        binary.extend(std::fs::read(self.path("release/current.pub")).unwrap());
        put(
            &self.path(&format!("build/reagent-{}-{}", os(), build_arch())),
            &binary,
        );
        std::fs::write(self.path("targets"), format!("{}/{}", os(), build_arch())).unwrap();
        std::fs::write(self.path("release/version.txt"), format!("{version}\n")).unwrap();
        self.release(&["publish", "bucket", "--deltas", "0"]).ok().stdout
    }

    /// Offers `version` on every channel.
    pub(crate) fn make_live(&self, version: &str) {
        let list = json!({"production": version, "test": version, "local": version, "all": version});
        std::fs::write(self.path("release/availableVersions.json"), list.to_string()).unwrap();
        self.release(&["versions", "bucket"]).ok();
    }

    /// Waits until every device is connected and has reported `version`.
    pub(crate) fn all_run(&self, version: &str) {
        wait::until(&format!("all devices run {version}"), SOON, || {
            let devices = self.studio(&["device", "list", "--json"]).ok().json();
            devices
                .as_array()
                .unwrap()
                .iter()
                .all(|device| device["status"] == "CONNECTED" && device["agent_version"] == version)
                .then_some(())
        });
    }

    /// The newest rollout.
    pub(crate) fn status(&self) -> Value {
        self.studio(&["rollout", "status", "--json"]).ok().json()
    }

    /// Waits until the newest rollout is as it should be.
    pub(crate) fn wait_for(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, SOON, || Some(self.status()).filter(|status| fits(status)))
    }
}

fn put(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
