//! Self-update of the agent (`update-and-system.md` 1, 9.1 to 9.4): from the version list to a version that has proven
//! itself, or back.
//!
//! Whatever happens at whatever moment, one complete version runs afterwards. A version is signed, whole and for this
//! machine before it gets a name that anybody starts; what is about to happen is remembered on disk before it happens;
//! who counts the starts of a new version is, where that is possible, not the new version. Nothing here waits for the
//! session with the router: a version that cannot connect can still be replaced. Must not know about apps.

mod boot;
mod bucket;
mod check;
mod checks;
mod clock;
mod custody;
mod delta;
mod disk;
mod download;
mod health;
mod http;
mod install;
#[cfg(target_os = "linux")]
mod launcher;
mod litter;
mod manifest;
mod memory;
#[cfg(not(target_os = "linux"))]
mod nobody;
mod order;
mod overdue;
mod progress;
mod rollout;
mod setup;
mod spare;
mod state;
pub(crate) mod swap;
mod telling;
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "launchers alone ask for it")
)]
mod trial;
mod version;
mod watch;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::rollout::place;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use boot::{Boot, first};
pub use custody::Custody;
pub use health::Health;
pub use launcher::start_over;
pub use setup::{Setup, SetupError};

use crate::cli::VERSION;
use crate::engine::Engine;
use crate::exit;
use crate::flock::DeviceFile;
use crate::journal::Chain;
use crate::link::SessionWatch;
use crate::settings::Settings;
use checks::Checks;
use install::Installer;
use memory::Memory;
#[cfg(not(target_os = "linux"))]
use nobody as launcher;
use state::{Binary, State};
use watch::Arrival;

/// Requests that wait to be taken: only who found no update under way makes one.
const QUEUE: usize = 1;
/// What was found out about the newest version is believed for so long (U11).
const FRESH: Duration = Duration::from_secs(5 * 60);
/// And for so long that it cannot be found out.
const AWAY: Duration = Duration::from_secs(30);
/// The version before must have been connected this recently for the new one to be expected to (R2).
const RECENTLY: Duration = Duration::from_secs(60 * 60);
/// Sessions that have died are missed by a router within this as a rule.
const DUPLICATES: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// A version that has lived for so long does not end at every start.
const WORKS: Duration = Duration::from_secs(5 * 60);

/// What updates need from the rest of the agent.
#[derive(Clone, Debug)]
pub struct UpdateContext {
    pub settings: Settings,
    pub device: DeviceFile,
    pub session: SessionWatch,
    /// What an update that nobody asked for does not break off.
    pub engine: Engine,
    pub footing: Footing,
}

/// How this process came to run, and what it does about updates from its first action on. Cloneable.
#[derive(Clone, Debug)]
pub struct Footing {
    custody: Custody,
    setup: Setup,
    memory: Memory,
    arrival: Arrival,
}

impl Footing {
    /// Right after [`first`]: a version under test is watched from here on.
    pub fn take(settings: &Settings, custody: Custody, setup: Setup) -> Footing {
        let footing = Footing {
            custody,
            setup,
            memory: Memory::open(&settings.agent_dir),
            arrival: Arrival::default(),
        };
        watch::begin(settings, &footing);
        footing
    }

    /// This start cannot go on for a reason of this machine, such as another agent that runs there: if it is one of a
    /// version under test, it does not count.
    pub fn excuse(&self, why: &str) {
        let state = self.memory.current();
        if state.is_trial() && state.new_version == VERSION {
            watch::excuse(&self.memory, why);
        }
    }

    /// The same when a signal ended this process under the manager script, however early. A launcher ends a version by
    /// signal that hangs, too, and excuses by itself one that does not.
    pub fn excuse_signal(&self) {
        if self.custody == Custody::Managed && exit::is_signalled() {
            self.excuse("this machine or somebody ends it");
        }
    }

    /// The same of a session that holds this device's serial number at the router: after a cut it is as a rule our own
    /// that the router has not missed yet. But a version that takes its serial number from itself is not to go on so for
    /// ever.
    pub fn excuse_duplicate(&self) {
        let staged: Option<jiff::Timestamp> = self.memory.current().staged_at.parse().ok();
        let since = staged.map(|staged| jiff::Timestamp::now().duration_since(staged));
        if since.is_some_and(|since| since < DUPLICATES) {
            self.excuse("another session holds this device's serial number");
        }
    }

    /// Spans of time and keys.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }
}

/// What came of a request, for the caller of `update_agent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub latest: String,
    /// Why nothing happened, or what happens next; for people.
    pub message: String,
    /// A new version was installed and is about to be started.
    pub updated: bool,
    pub in_progress: bool,
    /// Bytes of the new binary.
    pub size: u64,
}

#[derive(Debug)]
struct Request {
    version: Option<String>,
    force: bool,
    id: String,
    answer: oneshot::Sender<Report>,
}

/// Handle of everything about updates. Cloneable.
#[derive(Clone, Debug)]
pub struct Updater {
    requests: mpsc::Sender<Request>,
    busy: Arc<AtomicBool>,
    health: Health,
    installer: Arc<Installer>,
    newest: Newest,
}

/// The newest version that is known, `None` when it could not be found out, and since when.
type Newest = Arc<Mutex<Option<(Instant, Option<String>)>>>;

impl Updater {
    /// Starts the tasks: checks, proof of the running version, report of the last outcome. They end with `stop`, which
    /// they cancel when another version is to be started.
    pub fn start(context: UpdateContext, stop: CancellationToken) -> Updater {
        let (requests, inbox) = mpsc::channel(QUEUE);
        let memory = context.footing.memory.clone();
        // The version before may have been ending when it was read.
        memory.refresh();
        context.footing.arrival.report();
        let health = Health::default();
        let newest = Newest::default();
        let installer = Arc::new(Installer::new(context.clone(), memory.clone(), health.clone()));
        let updater = Updater {
            requests,
            busy: Arc::default(),
            health: health.clone(),
            installer: Arc::clone(&installer),
            newest: Arc::clone(&newest),
        };
        if !installer.has_keys() {
            tracing::warn!(
                "this build carries no release key and will install no update; see docs/releasing.md, 'Once: keys'"
            );
        }
        let under_test = {
            let state = memory.current();
            state.is_trial() && state.new_version == VERSION
        };
        let checks = Checks {
            context: context.clone(),
            memory: memory.clone(),
            installer,
            newest,
            busy: Arc::clone(&updater.busy),
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        if under_test {
            let (context, memory, health) = (context.clone(), memory.clone(), health.clone());
            tasks.spawn(keep_excuse(memory.clone(), health.clone()));
            tasks.spawn(async move { prove(&context, &memory, &health).await });
        } else {
            let state = memory.current();
            if !state.is_trial() {
                spare::give_up(&context.settings.agent_dir);
            }
            litter::sweep(&context.settings.agent_dir, &state);
            litter::sweep_stale(&context.settings.downloads_dir());
        }
        tasks.spawn(checks.run(inbox, under_test));
        tasks.spawn(keep_connected(memory.clone(), health.clone()));
        let (agent_dir, connected) = (context.settings.agent_dir.clone(), health.clone());
        tasks.spawn(async move {
            // Out of coverage it works, too.
            let _ = tokio::time::timeout(WORKS, connected.connected()).await;
            launcher::forget_starts(&agent_dir);
        });
        tasks.spawn(telling::tell(context, memory, health));
        // Owned by the runtime: it ends, with its tasks, when the agent stops.
        tokio::spawn(async move {
            stop.cancelled().await;
            tasks.shutdown().await;
        });
        updater
    }

    /// Where the link writes down what proves this version's health.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Whether this build can update itself at all: it has keys.
    pub fn is_possible(&self) -> bool {
        self.installer.has_keys()
    }

    /// Checks and installs what is offered, or `version`; with `force` also what failed here before. Its outcome has
    /// `id`. Answers when it is done; when another update is under way, at once. `None`: the agent is stopping, and
    /// nothing is decided.
    pub async fn update(&self, version: Option<String>, force: bool, id: String) -> Option<Report> {
        let in_progress = Report {
            message: "another update is in progress".to_owned(),
            in_progress: true,
            ..Report::default()
        };
        // Whoever comes second does not wait for the end of the first update.
        if self.busy.swap(true, Ordering::AcqRel) {
            return Some(in_progress);
        }
        let (answer, answered) = oneshot::channel();
        let request = Request {
            version,
            force,
            id,
            answer,
        };
        // There is room for the one that may come; else nobody takes requests any more, and drops the answer.
        let _ = self.requests.try_send(request);
        answered.await.ok()
    }

    /// How the last update ended, as it is told in `agent_update_result`; `None`: there was none.
    pub fn last(&self) -> Option<serde_json::Value> {
        let outcome = self.installer.memory().current().outcome?;
        serde_json::to_value(outcome).ok()
    }

    /// The version that waits to prove itself, whether it runs yet or not.
    pub fn on_trial(&self) -> Option<String> {
        let state = self.installer.memory().current();
        state.is_trial().then_some(state.new_version)
    }

    /// The version that the list offers this device, if the list can be had.
    pub async fn newest(&self) -> Option<String> {
        let known = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, version)) = known {
            let believed = if version.is_some() { FRESH } else { AWAY };
            if since.elapsed() < believed {
                return version;
            }
        }
        // Asked by others while this is under way, they are told what this one is: nothing yet.
        remember(&self.newest, None);
        match self.installer.offered().await {
            Ok(version) => remember(&self.newest, Some(version.clone())),
            Err(failure) => tracing::debug!(error = %Chain(&failure), "the newest version is unknown"),
        }
        let known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().and_then(|(_, version)| version.clone())
    }
}

fn remember(newest: &Newest, version: Option<String>) {
    let now = (Instant::now(), version);
    *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
}

/// Waits for the proof of the running version and makes it the one that is started from now on.
async fn prove(context: &UpdateContext, memory: &Memory, health: &Health) {
    let state = memory.current();
    tracing::info!(
        from = state.old_version,
        attempt = state.attempts,
        "this version is being tried"
    );
    health.proven(state.had_docker).await;
    let active = match &context.footing.custody {
        Custody::Managed | Custody::Service | Custody::Nobody => None,
        Custody::Own { launcher_version, .. } => Some(Binary {
            version: state.new_version.clone(),
            sha256: state.new_sha256.clone(),
            size: state.new_size,
            launcher: launcher_version.clone(),
        }),
    };
    let mut pauses = context.footing.setup.patience.pauses.start();
    loop {
        let active = active.clone();
        let proven = memory.change(move |state| {
            // Its time may have been up in the same moment, or a newer one be staged.
            if state.is_trial() && state.new_version == VERSION {
                state.prove();
                state.active = active.or(state.active.take());
            }
        });
        match proven.await {
            Ok(()) => break,
            Err(error) => tracing::error!(%error, "the proof of this version cannot be remembered"),
        }
        tokio::time::sleep(pauses.pause()).await;
    }
    if memory.current().is_trial() {
        // A newer one is, and the room is for its starts.
        return;
    }
    tracing::info!(from = state.old_version, "this version has proven itself");
    spare::give_up(&context.settings.agent_dir);
    litter::sweep(&context.settings.agent_dir, &memory.current());
}

/// Remembers over restarts whether this device is connected as a rule: what follows a start closely, before there is a
/// session, is an update that can be expected to connect all the same (R2). Writes when that changes, not when time
/// passes.
async fn keep_connected(memory: Memory, health: Health) {
    let mut seen = 0;
    loop {
        let answered = tokio::time::timeout(RECENTLY, health.connected_again(seen)).await;
        let connected = answered.is_ok();
        seen = answered.unwrap_or(seen);
        if memory.current().connected == connected {
            continue;
        }
        // Otherwise with the next heartbeat.
        if let Err(error) = memory.change(move |state| state.connected = connected).await {
            tracing::warn!(%error, "whether this device is connected cannot be remembered");
        }
    }
}

/// Remembers for whoever watches the time of this version that nobody answers it.
async fn keep_excuse(memory: Memory, health: Health) {
    let mut away = false;
    loop {
        away = health.backend_otherwise(away).await;
        if let Err(error) = memory.change(move |state| state.backend_away = away).await {
            tracing::warn!(%error, "whether the backend is away cannot be remembered");
        }
    }
}

/// A device's place among all for a version, in 0..1.
fn position(serial: &str, version: &str) -> f64 {
    f64::from(place(serial, version)) / (f64::from(u32::MAX) + 1.0)
}

/// Name of a version's binary in the agent directory (1.7).
fn file_name(version: &str) -> String {
    format!("reagent-v{version}{}", std::env::consts::EXE_SUFFIX)
}

/// The version that a file of that name has, or of that of one which failed.
fn version_of(name: &str) -> Option<&str> {
    let named = name.strip_prefix("reagent-v");
    let version = named.and_then(|rest| rest.strip_suffix(std::env::consts::EXE_SUFFIX));
    let version = version.or_else(|| swap::failed_version(name));
    version.filter(|version| version::parse(version).is_ok())
}

/// Whether the version under test is on disk as it was staged. Reads all of it.
fn candidate_is_complete(state: &State) -> bool {
    disk::digest(&state.new_file).is_ok_and(|digest| digest == state.new_sha256)
}

/// Whether a version that proved itself still looks whole. Reads little of it: this is on the way of every start.
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "launchers alone ask for it")
)]
fn binary_is_complete(agent_dir: &Path, binary: &Binary) -> bool {
    let path = agent_dir.join(file_name(&binary.version));
    let size = std::fs::metadata(&path).map(|found| found.len());
    size.is_ok_and(|size| size == binary.size) && check::header(&path).is_ok()
}

#[cfg(test)]
mod tests {
    use protocol::flock::FlockDocument;
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_an_agent_that_stops_gets_no_report() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        let words = [
            "-config",
            &path("device.flock"),
            "-agentDir",
            &path("agent"),
            "-update=false",
        ];
        let settings = crate::cli::settings(words.map(str::to_owned)).unwrap();
        let identity = r#"{"name": "gate", "secret": "s", "swarm_key": 2, "device_key": 3, "serial_number": "abc",
            "device_endpoint_url": "ws://127.0.0.1:9/ws"}"#;
        let (_session, session) = watch::channel(None);
        let context = UpdateContext {
            footing: Footing::take(&settings, Custody::Managed, Setup::default()),
            device: DeviceFile::in_memory(FlockDocument::parse(identity).unwrap().flock()),
            engine: Engine::at("unix:///nowhere").unwrap(),
            settings,
            session,
        };
        let stop = CancellationToken::new();
        let updater = Updater::start(context, stop.clone());
        stop.cancel();
        let report = updater.update(None, false, String::new()).await;
        assert_eq!(report, None);
    }

    #[test]
    fn devices_are_spread_evenly_and_each_keeps_its_place() {
        let mut early = 0;
        for number in 0..1000 {
            let serial = format!("00000000-0000-4000-8000-{number:012}");
            let place = position(&serial, "1.0.0");
            assert!((0.0..1.0).contains(&place));
            assert_eq!(place, position(&serial, "1.0.0"));
            assert_ne!(place, position(&serial, "1.0.1"));
            early += u32::from(place < 0.1);
        }
        assert!((70..130).contains(&early), "{early}");
    }
}
