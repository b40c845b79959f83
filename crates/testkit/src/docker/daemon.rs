//! A Docker daemon of a test's own, which may be restarted, killed and run out of space. Its containers have a network
//! that leads nowhere.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::wait;

const SOON: Duration = Duration::from_secs(60);

/// A running `dockerd` with its data on a file system of a fixed size in memory. Killed and unmounted on drop.
#[derive(Debug)]
pub struct Daemon {
    directory: tempfile::TempDir,
    /// A bridge of its own. One without any would take down the bridge of the machine's daemon at its start.
    bridge: String,
    /// Beside those that keep it apart from the machine's daemon.
    options: Vec<String>,
    process: Option<Process>,
}

impl Daemon {
    /// Starts one, with so much space for images. `Err` says why that is not possible here: only root may.
    pub fn start(megabytes: u32) -> Result<Daemon, String> {
        Daemon::start_with(megabytes, &[])
    }

    /// As [`Daemon::start`], with further options of `dockerd`.
    pub fn start_with(megabytes: u32, options: &[&str]) -> Result<Daemon, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may start a Docker daemon".to_owned());
        }
        let directory = tempfile::Builder::new()
            .prefix("reagent-dockerd-")
            .tempdir()
            .expect("a directory for the daemon");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("a directory in one of ours");
        let mut daemon = Daemon {
            directory,
            bridge: format!("reagent{}", std::process::id()),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: None,
        };
        run("ip", &["link", "add", "name", &daemon.bridge, "type", "bridge"])?;
        let size = format!("size={megabytes}m");
        let data = data.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &data])?;
        daemon.up();
        Ok(daemon)
    }

    /// As `DOCKER_HOST` wants it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Runs `docker` with `args` against this daemon; its output, or what it complained about.
    pub fn docker(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("docker")
            .args(args)
            .env("DOCKER_HOST", self.host())
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Where images take space.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Kills it with all it has started.
    pub fn kill(&mut self) {
        // Its group goes with it: containerd above all.
        drop(self.process.take());
        for file in ["docker.sock", "docker.pid"] {
            let _ = std::fs::remove_file(self.path(file));
        }
        let _ = std::fs::remove_dir_all(self.path("exec"));
    }

    /// Starts it (again) and waits until it answers.
    pub fn up(&mut self) {
        let mut command = Command::new("dockerd");
        for (flag, file) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "docker.pid"),
        ] {
            command.arg(flag).arg(self.path(file));
        }
        command.args(["--host", &self.host()]);
        command.args(["--bridge", &self.bridge]);
        // Touches nothing else of the machine's network.
        command.args(["--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        command.args(["--storage-driver=vfs", "--log-level=error"]);
        // A download that fails is not repeated by the daemon.
        command.args(["--max-download-attempts=1"]);
        command.args(&self.options);
        self.process = Some(Process::start("dockerd", &mut command));
        wait::until("the daemon answers", SOON, || {
            self.docker(&["version", "--format", "{{.Server.Version}}"]).ok()
        });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        // Lazily: what the daemon has mounted in it goes, too.
        let _ = run("umount", &["--lazy", &self.data().display().to_string()]);
        let _ = run("ip", &["link", "del", &self.bridge]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
    }
}
