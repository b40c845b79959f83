//! What the vendor's manager script does on devices, from its description in `update-and-system.md` 1.13: three links,
//! the newest file by its modification time, and a cycle that upgrades a living agent and starts or rolls back a dead
//! one.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::process::Process;

use super::gateway::{Gateway, install};
use super::recording::{self, Moment, Recording, Step};

/// Between two checks: 15 to 30 s on devices.
const CYCLE: Duration = Duration::from_millis(400);

/// The script and the unit that it starts.
pub(crate) struct Manager {
    counter: u32,
    next: Instant,
    agent: Option<Process>,
    /// Binaries that were linked as active, in order.
    pub(crate) history: Vec<String>,
    pub(crate) checks: u32,
    /// Agents look for updates by themselves.
    pub(crate) automatic: bool,
    /// Where what agents do to the disk is recorded, if it is.
    trace: Option<PathBuf>,
    /// What the script itself did there.
    steps: Vec<(Moment, Step)>,
}

impl Manager {
    /// A device with one installed version and nothing running.
    pub(crate) fn install(gateway: &Gateway, version: &str, binary: &[u8]) -> Manager {
        install(&gateway.path(&format!("agent/reagent-v{version}")), binary);
        Manager::boot()
    }

    /// The device comes up: nothing runs, the counter stands high.
    pub(crate) fn boot() -> Manager {
        Manager {
            counter: 999,
            next: Instant::now(),
            agent: None,
            history: Vec::new(),
            checks: 0,
            automatic: false,
            trace: None,
            steps: Vec::new(),
        }
    }

    /// The same; whatever happens to the disk is recorded, that of agents below `trace`.
    pub(crate) fn boot_recorded(trace: PathBuf) -> Manager {
        let trace = Some(trace);
        Manager {
            trace,
            ..Manager::boot()
        }
    }

    /// One check, if it is time for one.
    pub(crate) fn cycle(&mut self, gateway: &Gateway) {
        if Instant::now() < self.next {
            return;
        }
        let directory = gateway.path("agent");
        let newest = newest(&directory);
        self.link(&directory, "Reagent-latest", &newest);
        if target(&directory, "Reagent-active").is_none() {
            self.link(&directory, "Reagent-active", &newest);
        }
        if target(&directory, "Reagent-previous").is_none() {
            let active = target(&directory, "Reagent-active").unwrap();
            self.link(&directory, "Reagent-previous", &active);
        }
        let latest = target(&directory, "Reagent-latest");
        let active = target(&directory, "Reagent-active");
        let previous = target(&directory, "Reagent-previous");
        if self.is_alive() {
            if latest != active && latest != previous {
                self.link(&directory, "Reagent-previous", &active.unwrap());
                self.link(&directory, "Reagent-active", &latest.unwrap());
                self.restart(gateway);
                self.counter = 0;
            }
        } else {
            if latest == active && latest != previous && self.counter < 4 {
                self.link(&directory, "Reagent-active", &previous.unwrap());
            }
            self.restart(gateway);
        }
        self.counter += 1;
        self.checks += 1;
        self.next = Instant::now() + CYCLE;
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.agent.as_mut().is_some_and(Process::is_running)
    }

    /// The power goes. What the script did to the disk until then, if that was recorded.
    pub(crate) fn cut(&mut self) -> Vec<(Moment, Step)> {
        self.agent = None;
        std::mem::take(&mut self.steps)
    }

    fn link(&mut self, directory: &Path, name: &str, target: &Path) {
        if std::fs::remove_file(directory.join(name)).is_ok() {
            self.did(Step::Unlink(name.to_owned()));
        }
        std::os::unix::fs::symlink(target, directory.join(name)).unwrap();
        self.did(Step::Link(name.to_owned(), target.to_string_lossy().into_owned()));
    }

    fn did(&mut self, step: Step) {
        if self.trace.is_some() {
            self.steps.push((recording::now(), step));
        }
    }

    /// `systemctl restart`
    pub(crate) fn restart(&mut self, gateway: &Gateway) {
        if let Some(mut agent) = self.agent.take() {
            if self.trace.is_some() {
                // Whoever records hears no signal; it ends with what it records.
                agent.signal_all(Signal::TERM);
            }
            agent.end(Duration::from_secs(15));
        }
        let active = gateway.path("agent/Reagent-active");
        // For the log, as the script does.
        let _ = Command::new(&active)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        let binary = std::fs::canonicalize(&active).unwrap();
        self.history
            .push(binary.file_name().unwrap().to_string_lossy().into_owned());
        // What cannot be executed stays dead, as a unit that failed.
        let extra: &[&str] = match self.automatic {
            true => &[],
            false => &["-update=false"],
        };
        let mut command = gateway.command(&active, extra);
        if let Some(trace) = &self.trace {
            command = Recording::command(trace, &command);
        }
        self.agent = Some(Process::start("agent", &mut command));
    }
}

/// The newest file whose name contains `reagent-`; hidden ones are not listed.
fn newest(directory: &Path) -> PathBuf {
    let named = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    named
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.contains("reagent-") && !name.starts_with('.')
        })
        .max_by_key(|entry| entry.metadata().unwrap().modified().unwrap())
        .unwrap()
        .path()
}

fn target(directory: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_link(directory.join(name)).ok()
}
