//! Where no manager script starts the agent, the installed binary does: it executes the version that proved itself in
//! its own place, and stays beside a version under test to count its starts, watch its time and return to the old one.
//! So a plain systemd unit, a container and a shell need nothing else, and the installed file is never touched.
//!
//! Whoever executes or watches here is never the version under test. Must not know how a version gets to the disk.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::Pid;
use tokio::process::Child;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::boot::Boot;
use super::custody::{self, Custody, LAUNCHER, LAUNCHER_VERSION, WATCHED};
use super::overdue;
use super::setup::Setup;
use super::state::State;
use super::trial::{self, Launch};
use super::{binary_is_complete, candidate_is_complete, disk, watch};
use crate::cli::VERSION;
use crate::instance::LockError;
use crate::journal::Chain;
use crate::os::Signals;
use crate::service::notify::{Ear, Notifier};
use crate::settings::Settings;
use crate::{exit, instance, journal};

/// The running binary, also after its name is gone.
const MYSELF: &str = "/proc/self/exe";
/// Held by the one who watches a version under test.
const LOCK: &str = ".update.lock";
/// How many starts of the version that proved itself came to nothing so far, as a text.
const MARK: &str = ".update-starts";
/// After so many of them its content is looked at.
const SUSPECT: u32 = 2;
/// What a version that shall end gets before it is killed; it bounds itself at 10 s.
const GRACE: Duration = Duration::from_secs(12);
/// Before a version that ended is started again, times its starts.
const PAUSE: Duration = Duration::from_secs(1);
/// For a signal that came while a version was being ended to be noticed.
const SETTLE: Duration = Duration::from_millis(10);

/// Starts what is to run. Returns when that is this process, or when what was started has ended.
pub(super) fn run(settings: &Settings, setup: &Setup) -> Boot {
    let agent_dir = settings.agent_dir.as_path();
    let Ok(launcher) = custody::myself() else {
        return own(PathBuf::new());
    };
    let mut lock = None;
    let mut watcher: Option<Watcher> = None;
    let mut shortages = 0;
    loop {
        let mut state = State::load(agent_dir);
        if state.is_trial() && lock.is_none() {
            // A second start must not count as one of the version under test.
            match watch_lock(agent_dir) {
                Ok(file) => {
                    lock = Some(file);
                    // The one who held it may have changed what is to be done.
                    continue;
                }
                Err(error) => {
                    journal::complain(&format!("a new version cannot be tried: {}", Chain(&error)));
                    if matches!(error, LockError::Taken) {
                        return Boot::End(exit::FAILURE);
                    }
                    // A lock that nobody can have must not keep the device without an agent.
                    return proven(agent_dir, &state, launcher);
                }
            }
        }
        let (next, changed) = trial::launch(&mut state, VERSION, candidate_is_complete, |state| {
            active_is_complete(agent_dir, state)
        });
        if changed && let Err(error) = state.save(agent_dir) {
            journal::complain(&format!("the update state cannot be written: {error}"));
            // What cannot be counted is not tried.
            return proven(agent_dir, &state, launcher);
        }
        match next {
            Launch::Myself | Launch::Active => return proven(agent_dir, &state, launcher),
            Launch::Candidate => {
                let watched = match &mut watcher {
                    Some(watcher) => watcher.watch(settings, setup, &launcher, &state),
                    None => Watcher::new()
                        .and_then(|new| watcher.insert(new).watch(settings, setup, &launcher, &state)),
                };
                match watched {
                    Ok(Watched::Stopped(code) | Watched::Done(code)) => return Boot::End(code),
                    Ok(Watched::Again) => {}
                    Err(error) => {
                        journal::complain(&format!(
                            "the new version {} cannot be tried: {error}",
                            state.new_version
                        ));
                        if is_shortage(&error) {
                            shortages += 1;
                            if let Err(error) = excuse(agent_dir) {
                                journal::complain(&format!("the update state cannot be written: {error}"));
                            }
                            if shortages > trial::STARTS {
                                // A later start of this device finds it still waiting.
                                return proven(agent_dir, &state, launcher);
                            }
                        }
                        let pause = PAUSE * state.attempts;
                        match &mut watcher {
                            Some(watcher) => {
                                if watcher.stopped_within(pause) {
                                    return Boot::End(exit::OK);
                                }
                            }
                            None => std::thread::sleep(pause),
                        }
                    }
                }
            }
        }
    }
}

/// Whether this machine lacked something for a moment, which says nothing about what was to be started.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lacks = [
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOSPC,
    ];
    Errno::from_io_error(error).is_some_and(|errno| lacks.contains(&errno))
}

/// The start that was counted last does not count.
fn excuse(agent_dir: &Path) -> io::Result<()> {
    let mut state = State::load(agent_dir);
    if !state.is_trial() {
        return Ok(());
    }
    state.excuse_start();
    state.save(agent_dir)
}

/// Starts the version that proved itself in the place of this process; where there is none, this process is the agent.
fn proven(agent_dir: &Path, state: &State, launcher: PathBuf) -> Boot {
    let next = trial::settled(state, VERSION, |state| active_is_complete(agent_dir, state));
    if next == Launch::Active
        && let Some(active) = &state.active
    {
        let path = agent_dir.join(super::file_name(&active.version));
        if is_damaged(agent_dir, &path, &active.sha256) {
            journal::complain(&format!("{} is damaged and is not started", path.display()));
            return own(launcher);
        }
        let Err(error) = execute(&path, &launcher);
        journal::complain(&format!("{} cannot be executed: {error}", path.display()));
    }
    own(launcher)
}

/// Whether a binary that came to nothing twice is not any more what proved itself. Counts its starts; all of it is read
/// only then. Not durable: a power cut is no fault of a binary.
fn is_damaged(agent_dir: &Path, path: &Path, sha256: &str) -> bool {
    let mark = agent_dir.join(MARK);
    let starts = std::fs::read_to_string(&mark).ok();
    let starts: u32 = starts.and_then(|text| text.parse().ok()).unwrap_or(0);
    // Where nothing can be written, nothing is judged.
    let _ = std::fs::write(&mark, starts.saturating_add(1).to_string());
    starts >= SUSPECT && !disk::digest(path).is_ok_and(|digest| digest == sha256)
}

/// A start came to something: whatever was started works.
pub(super) fn forget_starts(agent_dir: &Path) {
    if let Err(error) = disk::remove(&agent_dir.join(MARK)) {
        tracing::debug!(%error, "the mark of starts stays");
    }
}

fn own(launcher: PathBuf) -> Boot {
    Boot::GoOn(Custody::Own {
        launcher,
        launcher_version: VERSION.to_owned(),
        watched: false,
    })
}

fn active_is_complete(agent_dir: &Path, state: &State) -> bool {
    let complete = |active| binary_is_complete(agent_dir, active);
    state.active.as_ref().is_some_and(complete)
}

/// Starts over in the place of this process, with its arguments: the launcher decides what runs next. Where it is gone,
/// because its package was removed, this binary is the launcher. Returns only if that is impossible.
pub fn start_over(custody: &Custody) -> io::Error {
    let Custody::Own { launcher, .. } = custody else {
        return io::Error::other("the manager script decides");
    };
    let over = |path: &Path| {
        let mut command = command(path);
        command
            .env_remove(LAUNCHER)
            .env_remove(LAUNCHER_VERSION)
            .env_remove(WATCHED);
        command.exec()
    };
    let error = over(launcher);
    tracing::warn!(launcher = %launcher.display(), %error, "the installed binary cannot be started");
    over(Path::new(MYSELF))
}

/// The same program name and arguments: who looks at processes sees what they always saw.
fn command(path: &Path) -> Command {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(path);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    command
}

fn launched(path: &Path, launcher: &Path) -> Command {
    let mut command = command(path);
    command
        .env(LAUNCHER, launcher)
        .env(LAUNCHER_VERSION, VERSION)
        .env_remove(WATCHED);
    command
}

fn execute(path: &Path, launcher: &Path) -> Result<Infallible, io::Error> {
    Err(launched(path, launcher).exec())
}

/// Without the one who counts, a version under test must not stay. `false`: `launcher` has ended already; `None`: an
/// older one, which does not say who it is.
pub(super) fn end_with_launcher(launcher: Option<u32>) -> bool {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // Who dies before that sends no signal any more.
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_pid());
    launcher.is_none_or(|launcher| parent.and_then(|parent| u32::try_from(parent).ok()) == Some(launcher))
}

fn watch_lock(agent_dir: &Path) -> Result<File, LockError> {
    let path = agent_dir.join(LOCK);
    let unusable = |source| LockError::Unusable {
        path: path.clone(),
        source,
    };
    let file = disk::open_part(&path).map_err(unusable)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Taken),
        Err(error) => return Err(unusable(error.into())),
    }
    // An agent that still runs would keep the version under test from starting; one that is ending is waited for.
    instance::acquire_soon(|| false).map(|_free| file)
}

/// How the watch over one start ended.
enum Watched {
    /// Somebody asked for the end.
    Stopped(u8),
    /// The version had proven itself and ended later.
    Done(u8),
    /// Look again what is to run.
    Again,
}

/// Hears signals from the first start that is watched to the last, also between them.
struct Watcher {
    runtime: Runtime,
    stop: Stop,
}

/// SIGINT and SIGTERM. A signal that comes while nobody waits is kept.
struct Stop(Signals);

impl Stop {
    async fn asked(&mut self) {
        self.0.asked().await;
    }

    /// Waits for `span`, or less; whether the end was asked for.
    async fn within(&mut self, span: Duration) -> bool {
        tokio::time::timeout(span, self.asked()).await.is_ok()
    }
}

impl Watcher {
    fn new() -> io::Result<Watcher> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let context = runtime.enter();
        let stop = Stop(Signals::listen()?);
        drop(context);
        Ok(Watcher { runtime, stop })
    }

    /// Waits for `span`, or less; whether the end was asked for.
    fn stopped_within(&mut self, span: Duration) -> bool {
        let Watcher { runtime, stop } = self;
        runtime.block_on(stop.within(span))
    }

    /// One start of the version under test, to its end.
    fn watch(
        &mut self,
        settings: &Settings,
        setup: &Setup,
        launcher: &Path,
        state: &State,
    ) -> io::Result<Watched> {
        let Watcher { runtime, stop } = self;
        runtime.block_on(async {
            let watched = watch(settings, setup, launcher, state, stop).await?;
            // What comes next may not be watched any more.
            if matches!(watched, Watched::Again) && stop.within(SETTLE).await {
                return Ok(Watched::Stopped(exit::OK));
            }
            Ok(watched)
        })
    }
}

async fn watch(
    settings: &Settings,
    setup: &Setup,
    launcher: &Path,
    state: &State,
    stop: &mut Stop,
) -> io::Result<Watched> {
    let notifier = Notifier::from_environment();
    let ear = Ear::open()?;
    let mut command = launched(&state.new_file, launcher);
    command.env(WATCHED, std::process::id().to_string());
    let interval = notifier.interval().unwrap_or(setup.silence).min(setup.silence);
    ear.listen_to(&mut command, interval);
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()?;
    notifier.ready();
    let agent_dir = settings.agent_dir.as_path();
    let proof = CancellationToken::new();
    let proven = async {
        let mut ticks = tokio::time::interval(setup.tick);
        loop {
            ticks.tick().await;
            if !State::load(agent_dir).is_trial() {
                proof.cancel();
                return std::future::pending().await;
            }
        }
    };
    let endpoint = watch::endpoint(&settings.config);
    let backend_away = || State::load(agent_dir).backend_away;
    let overdue = async {
        tokio::select! {
            () = proof.cancelled() => std::future::pending().await,
            () = overdue::passed(setup, state.was_connected, endpoint.as_deref(), backend_away) => {}
        }
    };
    // A trial has bounds of its own. Afterwards the manager hears the version and nobody in its name.
    let alive = async {
        tokio::select! {
            () = proof.cancelled() => std::future::pending().await,
            () = notifier.keep_alive() => {}
        }
    };
    let silent = async {
        while tokio::time::timeout(setup.silence, ear.sign_of_life())
            .await
            .is_ok()
        {
            notifier.lives();
        }
    };
    tokio::select! {
        status = child.wait() => Ok(after(agent_dir, state, status?, stop).await),
        () = stop.asked() => Ok(stopped(agent_dir, &mut child).await),
        () = alive => unreachable!("a watchdog is served for ever"),
        () = proven => unreachable!("it never ends"),
        () = silent => {
            journal::complain(&format!(
                "the version {} gave no sign of life for {} s and is ended",
                state.new_version,
                setup.silence.as_secs()
            ));
            // One of its starts, like any other that came to nothing.
            end(&mut child).await;
            Ok(Watched::Again)
        }
        () = overdue => {
            end(&mut child).await;
            let tried = &state.new_version;
            let mut state = State::load(agent_dir);
            // It may have staged what is to replace it.
            if state.is_trial() && state.new_version == *tried {
                let reason = format!("it did not prove its health within {} s", setup.proof.as_secs());
                state.roll_back(&reason);
                state.save(agent_dir)?;
            }
            Ok(Watched::Again)
        }
    }
}

/// It ended by itself.
async fn after(agent_dir: &Path, tried: &State, status: ExitStatus, stop: &mut Stop) -> Watched {
    let state = State::load(agent_dir);
    if !state.is_trial() {
        return Watched::Done(code_of(status));
    }
    if state.new_version == tried.new_version {
        journal::complain(&format!(
            "the new version {} ended ({status}) before it proved itself, start {} of {}",
            state.new_version,
            state.attempts,
            trial::STARTS
        ));
        if stop.within(PAUSE * state.attempts.max(1)).await {
            return Watched::Stopped(exit::OK);
        }
    }
    Watched::Again
}

/// Asked to stop: so is the version, and the start does not count against it.
async fn stopped(agent_dir: &Path, child: &mut Child) -> Watched {
    let code = end(child).await;
    if let Err(error) = excuse(agent_dir) {
        journal::complain(&format!("the update state cannot be written: {error}"));
    }
    Watched::Stopped(code)
}

/// Ends the version, by force if need be.
async fn end(child: &mut Child) -> u8 {
    if let Some(pid) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(Ok(status)) => code_of(status),
        Ok(Err(_)) | Err(_) => {
            let _ = child.kill().await;
            exit::FAILURE
        }
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(exit::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_binary_is_started_twice_and_a_whole_one_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let agent_dir = directory.path();
        let path = agent_dir.join("reagent-v1.0.0");
        std::fs::write(&path, "whole").unwrap();
        let sha256 = disk::digest(&path).unwrap();
        for _ in 0..5 {
            assert!(!is_damaged(agent_dir, &path, &sha256));
        }
        std::fs::write(&path, "whale").unwrap();
        assert!(is_damaged(agent_dir, &path, &sha256));
        forget_starts(agent_dir);
        for damaged in [false, false, true, true] {
            assert_eq!(is_damaged(agent_dir, &path, &sha256), damaged);
        }
    }

    #[test]
    fn what_a_machine_lacks_for_a_moment_says_nothing_about_a_version() {
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        assert!(is_shortage(&error(rustix::io::Errno::AGAIN)));
        assert!(is_shortage(&error(rustix::io::Errno::NOMEM)));
        assert!(!is_shortage(&error(rustix::io::Errno::NOEXEC)));
        assert!(!is_shortage(&error(rustix::io::Errno::ACCESS)));
    }
}
