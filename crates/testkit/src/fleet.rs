//! A whole fleet on loopback: a studio (with its own router, or attached to Crossbar.io), a registry, devices.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::crossbar::{Crossbar, User};
use crate::process::{self, Process};
use crate::wait;

/// Which router carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// The one inside the studio.
    Studio,
    /// Crossbar.io, with the studio attached as a backend component.
    Crossbar,
}

/// Bound for anything that starts.
const START: Duration = Duration::from_secs(60);

/// A running studio with everything around it. Ends with this value.
#[derive(Debug)]
pub struct Fleet {
    // Order of fields is order of dropping: the studio before its router, the directory last.
    studio: Process,
    crossbar: Option<Crossbar>,
    port: u16,
    registry_port: u16,
    directory: TempDir,
}

/// A device that the studio knows, and where its agent lives.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub home: PathBuf,
    pub flock: PathBuf,
    pub serial: String,
    pub swarm_key: u64,
    pub device_key: u64,
}

/// How a `studio` command ended.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// The JSON on stdout. Panics with everything printed when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Panics unless the command succeeded.
    pub fn ok(self) -> CommandOutput {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> CommandOutput {
        CommandOutput {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Fleet {
    /// Starts a studio with a registry, on the given plane.
    pub fn start(plane: Plane) -> Fleet {
        let directory = tempfile::Builder::new()
            .prefix("reagent-fleet-")
            .tempdir()
            .expect("a temporary directory");
        let registry_port = wait::free_port();
        let data = directory.path().join("studio");
        let mut command = Command::new(process::binary("studio"));
        command
            .arg("serve")
            .arg("--data")
            .arg(&data)
            .arg("--with-registry")
            .arg(registry_port.to_string());
        let (crossbar, port) = match plane {
            Plane::Studio => {
                let port = wait::free_port();
                command.arg("--listen").arg(format!("127.0.0.1:{port}"));
                (None, port)
            }
            Plane::Crossbar => {
                let secret = "backend secret";
                let crossbar =
                    Crossbar::start_with_dynamic_devices(&[User::new("system", secret, "backend")])
                        .unwrap_or_else(|error| panic!("{error}"));
                let secret_file = directory.path().join("backend.secret");
                std::fs::write(&secret_file, secret).expect("the secret file is written");
                command
                    .arg("--router")
                    .arg(crossbar.url())
                    .arg("--router-secret-file")
                    .arg(&secret_file);
                let public = crossbar.dynamic_url();
                command.arg("--public-url").arg(&public);
                let port = crossbar.dynamic_port();
                (Some(crossbar), port)
            }
        };
        let studio = Process::start("studio", &mut command);
        let fleet = Fleet {
            studio,
            crossbar,
            port,
            registry_port,
            directory,
        };
        wait::until("the studio answers", START, || {
            (fleet.studio(&["device", "list"]).code == 0).then_some(())
        });
        fleet
    }

    /// The URL that devices dial.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// Where the registry listens.
    pub fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.registry_port)
    }

    /// The fleet's own directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Crossbar.io, on that plane.
    pub fn crossbar(&mut self) -> Option<&mut Crossbar> {
        self.crossbar.as_mut()
    }

    /// The `studio serve` process.
    pub fn server(&mut self) -> &mut Process {
        &mut self.studio
    }

    /// Runs one `studio` command to its end.
    pub fn studio(&self, args: &[&str]) -> CommandOutput {
        self.command(args).output().expect("studio starts").into()
    }

    /// A `studio` command with this fleet's data directory, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(process::binary("studio"));
        command
            .args(args)
            .env("STUDIO_DATA", self.directory.path().join("studio"));
        command
    }

    /// Creates a device and its `.flock`.
    pub fn add_device(&self, name: &str) -> Device {
        let home = self.directory.path().join(name);
        std::fs::create_dir_all(&home).expect("the device's directory is made");
        let flock = home.join("device.flock");
        self.studio(&["device", "add", name, "--out", &flock.to_string_lossy()])
            .ok();
        let text = std::fs::read_to_string(&flock).expect("the .flock was written");
        let document: Value = serde_json::from_str(&text).expect("the .flock is JSON");
        Device {
            name: name.to_owned(),
            serial: document["serial_number"]
                .as_str()
                .expect("a serial number")
                .to_owned(),
            swarm_key: document["swarm_key"].as_u64().expect("a swarm key"),
            device_key: document["device_key"].as_u64().expect("a device key"),
            home,
            flock,
        }
    }

    /// Makes a local image run `script` with busybox, registers it as an app and pushes it to the fleet's registry.
    pub fn publish_app(&self, app: &str, script: &str) {
        let image = format!("reagent-test-{}-{app}:latest", self.registry_port);
        crate::docker::import_busybox(&image, script);
        self.studio(&["app", "add", app, "--version", "1.0.0"]).ok();
        let pushed = self.studio(&["app", "push", app, &image, "--version", "1.0.0"]);
        crate::docker::remove_image(&image);
        pushed.ok();
    }

    /// Waits until the studio shows `status` for the device.
    pub fn wait_for_device(&self, device: &Device, status: &str) {
        wait::until(&format!("{} is {status}", device.name), START, || {
            let shown = self.studio(&["device", "show", &device.name, "--json"]);
            (shown.code == 0 && shown.json()["status"] == status).then_some(())
        });
    }

    /// Waits until the studio shows `state` for the app on the device.
    pub fn wait_for_app(&self, device: &Device, app: &str, state: &str) {
        wait::until(&format!("{app} on {} is {state}", device.name), START, || {
            (self.app_state(device, app).as_deref() == Some(state)).then_some(())
        });
    }

    /// What `studio ps` shows for the app on the device.
    pub fn app_state(&self, device: &Device, app: &str) -> Option<String> {
        let rows = self.studio(&["ps", &device.name, "--json"]).ok().json();
        let row = rows.as_array()?.iter().find(|row| row["app"] == app)?;
        row["current_state"].as_str().map(str::to_owned)
    }
}

impl Drop for Fleet {
    /// A story that failed half-way leaves nothing on the machine's Docker. Agents are gone by then: they are younger.
    fn drop(&mut self) {
        let registry = format!("{}/", self.registry());
        crate::docker::remove_containers_of(&registry);
        crate::docker::remove_images_of(&registry);
    }
}

impl Device {
    /// Starts the agent of this device with everything below its home. `agent` is the binary under test.
    pub fn start_agent(&self, agent: &Path, extra: &[&str]) -> Process {
        let path = |name: &str| self.home.join(name);
        let mut command = Command::new(agent);
        command
            .arg("-config")
            .arg(&self.flock)
            .arg("-agentDir")
            .arg(path("agent"))
            .arg("-appsDir")
            .arg(path("agent/apps"))
            .arg("-dbFileName")
            .arg(path("agent/reagent.db"))
            .arg("-logFile")
            .arg(path("reagent.log"))
            .args(["-nmw=false", "-update=false", "-prettyLogging"])
            .args(extra)
            .env("REAGENT_LOCK_FILE", path("agent.lock"));
        Process::start(&self.name, &mut command)
    }
}
