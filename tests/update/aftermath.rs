//! What has to hold when the power comes back to a disk in some state: the device settles by itself, exactly one agent
//! runs, what it runs is proven, the studio was told, and the next update can be staged from there. Several devices try
//! the states of one recording at a time.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testkit::wait;

use super::SOON;
use super::builds::{self, Build, NEW, NEWER, OLD};
use super::gateway::Gateway;
use super::manager::Manager;
use super::recording::{Cut, File};

/// Devices that come back at the same time. They mostly wait.
const DEVICES: usize = 4;
/// Checks of the manager script after which a device that has settled has to be as it was.
const CHECKS: u32 = 3;

/// Which update was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) build: Build,
    /// The vendor's manager script starts the agent.
    pub(crate) managed: bool,
    /// There is a patch for the old version.
    pub(crate) patched: bool,
}

impl Story {
    pub(crate) fn of(build: Build) -> Story {
        Story {
            build,
            managed: false,
            patched: false,
        }
    }

    pub(crate) fn managed(build: Build) -> Story {
        Story {
            managed: true,
            ..Story::of(build)
        }
    }

    /// A gateway to which `NEW` is offered.
    pub(crate) async fn gateway(self) -> Gateway {
        let gateway = Gateway::new().await;
        let new = builds::built(NEW, self.build).await;
        match self.patched {
            true => {
                let (bucket, signer) = (&gateway.bucket, &gateway.signer);
                bucket.publish_with_patch(NEW, &new, &builds::agent(), signer);
            }
            false => gateway.bucket.publish(NEW, &new, &gateway.signer),
        }
        gateway.bucket.offer(NEW);
        gateway
    }

    /// What a binary of each name has to be.
    fn binaries(self) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            (format!("reagent-v{OLD}"), builds::agent()),
            (format!("reagent-v{NEW}"), builds::build(NEW, self.build)),
        ])
    }
}

/// A test's runtime: what the test does may block, routers and backends go on.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Lets devices come back from each of these states, which were recorded in `home`. How often which version runs then.
pub(crate) fn after_each(cuts: &[Cut], home: &Path, story: Story) -> BTreeMap<String, usize> {
    let next = AtomicUsize::new(0);
    let common = Common {
        story,
        home: home.to_str().unwrap().to_owned(),
        binaries: story.binaries(),
        newer: builds::build(NEWER, Build::Good),
        staged_from: Mutex::default(),
        ran: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..DEVICES.min(cuts.len()) {
            scope.spawn(|| {
                runtime().block_on(async {
                    let mut device = Device::new(&common).await;
                    while let Some(cut) = cuts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _told = Told(&cut.after);
                        device.comes_back(cut).await;
                    }
                });
            });
        }
    });
    eprintln!(
        "{story:?}: {} states, of which ran {:?}; updates were staged from {} different ends",
        cuts.len(),
        common.ran.lock().unwrap(),
        common.staged_from.lock().unwrap().len()
    );
    common.ran.into_inner().unwrap()
}

/// Says which state it was when the test fails.
struct Told<'a>(&'a str);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- after {}", self.0);
        }
    }
}

struct Common {
    story: Story,
    /// Where paths in the recorded files lead to.
    home: String,
    binaries: BTreeMap<String, Vec<u8>>,
    newer: Vec<u8>,
    /// Ends from which an update was staged. What comes after one depends on nothing else.
    staged_from: Mutex<HashSet<String>>,
    ran: Mutex<BTreeMap<String, usize>>,
}

struct Device<'a> {
    common: &'a Common,
    gateway: Gateway,
    manager: Manager,
}

impl Device<'_> {
    async fn new(common: &Common) -> Device<'_> {
        let gateway = common.story.gateway().await;
        gateway.bucket.publish(NEWER, &common.newer, &gateway.signer);
        Device {
            common,
            gateway,
            manager: Manager::boot(),
        }
    }

    async fn comes_back(&mut self, cut: &Cut) {
        restore(
            &self.gateway,
            &moved(&cut.files, &self.common.home, &self.gateway),
        );
        self.gateway.forget_outcomes();
        let was_told = self.gateway.state()["reported"] == true;
        match self.common.story.managed {
            true => self.manager = Manager::boot(),
            false => self.gateway.power(),
        }
        let version = self.settles().await;
        self.is_whole();
        self.gateway.exactly_one_runs(&version, self.common.story.managed);
        let state = self.gateway.state();
        if version == NEW {
            assert_eq!(self.common.story.build, Build::Good, "it cannot prove itself");
            assert_eq!(state["outcome"]["result"], "updated", "{state}");
        } else {
            assert_eq!(version, OLD);
        }
        if !was_told && !state["outcome"].is_null() {
            assert_eq!(self.gateway.outcome().await, state["outcome"], "what is told");
        }
        if self.common.story.managed {
            self.stays(&version).await;
        }
        self.can_update(&version).await;
        *self.common.ran.lock().unwrap().entry(version).or_default() += 1;
        self.manager.cut();
        self.gateway.cut();
    }

    /// Until nothing is on trial, the studio was told and the version whose turn it is answers.
    async fn settles(&mut self) -> String {
        let Device {
            common,
            gateway,
            manager,
        } = self;
        let gateway = &*gateway;
        wait::until_async("the device settles", 2 * SOON, || {
            if common.story.managed {
                manager.cycle(gateway);
            }
            async {
                let expected = gateway.settled(common.story.managed)?;
                (gateway.running().await? == expected).then_some(expected)
            }
        })
        .await
    }

    /// The manager script finds nothing to do any more.
    async fn stays(&mut self, version: &str) {
        let (starts, checks) = (self.manager.history.len(), self.manager.checks);
        let (gateway, manager) = (&self.gateway, &mut self.manager);
        wait::until("more checks", SOON, || {
            manager.cycle(gateway);
            (manager.checks >= checks + CHECKS).then_some(())
        });
        assert_eq!(
            self.manager.history[starts..],
            [""; 0],
            "{:?}",
            self.manager.history
        );
        self.gateway.runs(version).await;
    }

    /// Whatever anybody could start is whole.
    fn is_whole(&self) {
        for name in self.gateway.visible() {
            let path = self.gateway.path("agent").join(&name);
            assert!(
                std::fs::read(&path).unwrap() == self.common.binaries[&name],
                "{name} is not whole"
            );
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{name}");
        }
    }

    /// The next update is staged, once from every different end.
    async fn can_update(&mut self, version: &str) {
        if !self.common.staged_from.lock().unwrap().insert(self.gateway.end()) {
            return;
        }
        let blocked = self.gateway.state()["phase"] == "rolledback";
        let wanted = if blocked || version == NEW { NEWER } else { NEW };
        self.gateway.bucket.offer(wanted);
        self.gateway.takes_one().await;
        let state = self.gateway.state();
        assert_eq!(state["new_version"], wanted, "{state}");
        assert!(self.gateway.visible().contains(&format!("reagent-v{wanted}")));
        self.gateway.bucket.offer(NEW);
    }
}

impl Gateway {
    /// One agent, of this version, and nobody beside it but the launcher that started it.
    pub(crate) fn exactly_one_runs(&self, version: &str, managed: bool) {
        let agents = agents(self);
        let installed = self.path("bin/reagent");
        let expected = match version == OLD && !managed {
            true => installed.clone(),
            false => self.path(&format!("agent/reagent-v{version}")),
        };
        let parents: HashSet<u32> = agents.iter().map(|agent| agent.parent).collect();
        let (launchers, ours): (Vec<_>, Vec<_>) =
            agents.iter().partition(|agent| parents.contains(&agent.pid));
        assert_eq!(ours.len(), 1, "{agents:?}");
        assert_eq!(ours[0].binary, expected, "{agents:?}");
        assert!(launchers.len() <= usize::from(!managed));
        assert!(
            launchers.iter().all(|agent| agent.binary == installed),
            "{agents:?}"
        );
    }

    /// The version whose turn it is, if nothing goes on any more.
    fn settled(&self, managed: bool) -> Option<String> {
        let state = self.state();
        let phase = state["phase"].as_str().unwrap_or_default();
        let is_told = state["outcome"].is_null() || state["reported"] == true;
        if !is_told || !matches!(phase, "" | "rolledback") {
            return None;
        }
        let version = if managed {
            self.linked("Reagent-active")?
        } else {
            let active = state["active"]["version"].as_str();
            active.filter(|_| phase.is_empty()).unwrap_or(OLD).to_owned()
        };
        // The script leaves alone what its link to the previous one names.
        let out_of_use = !managed || self.linked("Reagent-previous")? == NEW;
        (phase.is_empty() || (version == OLD && out_of_use)).then_some(version)
    }

    /// The version that a link of the manager script leads to.
    fn linked(&self, name: &str) -> Option<String> {
        let target = std::fs::canonicalize(self.path("agent").join(name)).ok()?;
        let name = target.file_name()?.to_str()?.to_owned();
        name.strip_prefix("reagent-v").map(str::to_owned)
    }

    /// Everything in the agent directory on which it may depend what comes next.
    fn end(&self) -> String {
        let mut state = self.state();
        if let Some(state) = state.as_object_mut() {
            for moment in ["updated_at", "staged_at"] {
                state.remove(moment);
            }
        }
        let mut files = Vec::new();
        for directory in ["agent", "agent/downloads"] {
            for entry in std::fs::read_dir(self.path(directory)).unwrap() {
                let path = entry.unwrap().path();
                let size = path.symlink_metadata().unwrap().len();
                let name = path.file_name().unwrap().to_owned();
                // Its time is in it.
                let size = if name == "update-state.json" { 0 } else { size };
                files.push((name, path.read_link().ok(), size));
            }
        }
        files.sort();
        format!("{state} {files:?}").replace(self.home.path().to_str().unwrap(), "")
    }
}

/// A process that was started with this gateway's agent directory.
#[derive(Debug)]
struct Agent {
    pid: u32,
    parent: u32,
    binary: PathBuf,
}

fn agents(gateway: &Gateway) -> Vec<Agent> {
    let directory = gateway.path("agent");
    let agent = |process: PathBuf| {
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        let arguments = std::fs::read(process.join("cmdline")).ok()?;
        let ours = arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == directory.as_os_str().as_encoded_bytes());
        if !ours {
            return None;
        }
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        Some(Agent {
            pid,
            parent: parent.trim().parse().ok()?,
            // Nothing for one that has ended and was not waited for.
            binary: std::fs::read_link(process.join("exe")).ok()?,
        })
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|process| agent(process.ok()?.path()))
        .collect()
}

/// The same files in another home: links and what is remembered name places.
fn moved(files: &[File], home: &str, gateway: &Gateway) -> Vec<File> {
    let there = gateway.home.path().to_str().unwrap();
    let moved = |file: &File| {
        let mut file = file.clone();
        file.link = file.link.map(|target| target.replace(home, there));
        if file.name.contains("update-state") {
            let text = String::from_utf8_lossy(&file.content).replace(home, there);
            file.content = Arc::new(text.into_bytes());
        }
        file
    };
    files.iter().map(moved).collect()
}

/// Puts exactly these files into the agent directory.
pub(crate) fn restore(gateway: &Gateway, files: &[File]) {
    let directory = gateway.path("agent");
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::create_dir_all(directory.join("downloads")).unwrap();
    for file in files {
        let path = directory.join(&file.name);
        if let Some(target) = &file.link {
            std::os::unix::fs::symlink(target, &path).unwrap();
            continue;
        }
        std::fs::write(&path, &*file.content).unwrap();
        if let Some(time) = file.time {
            let opened = std::fs::File::options().write(true).open(&path).unwrap();
            opened.set_modified(time).unwrap();
        }
        let mode = if file.executable { 0o755 } else { 0o600 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}
