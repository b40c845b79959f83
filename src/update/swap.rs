//! Activation where the service manager of Windows starts the agent (`update-and-system.md` 1.14): the service's image
//! has one name for ever, so a new version takes it over from the running one, which keeps another. Works on any system
//! that can rename a running program. Must not know how a version gets to the disk or why it is given up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::boot::Boot;
use super::custody::{self, Custody};
use super::disk;
use super::memory::Memory;
use super::state::{Phase, State};
use super::trial::{self, Swapped};
use crate::cli::VERSION;
use crate::{durable, exit, journal};

/// What the service starts.
pub(crate) const ACTIVE: &str = "reagent.exe";
/// What it started before.
const PREVIOUS: &str = "reagent-prev.exe";
/// Attempts to rename a file that another program, a virus scanner as a rule, has open.
const TRIES: u32 = 5;
/// Between them.
const PAUSE: Duration = Duration::from_millis(300);

/// Why a new version did not take over. The running one goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwapError {
    #[error("the running binary {0} is not the one that the service starts")]
    Elsewhere(PathBuf),
    #[error("the new version is missing or damaged on disk")]
    Damaged,
    #[error("{0}")]
    Disk(&'static str, #[source] io::Error),
}

/// What a swap does to the world. In tests the power goes at any of these.
pub(crate) trait Hands {
    /// Renames within the directory; there is nothing of the new name.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes what may be gone already.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// Changes what is remembered, for good.
    fn remember(&mut self, change: &dyn Fn(&mut State)) -> io::Result<()>;
}

/// Those of an agent that runs.
struct Live<'a>(&'a Memory);

impl Hands for Live<'_> {
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        disk::remove(path)
    }

    fn remember(&mut self, change: &dyn Fn(&mut State)) -> io::Result<()> {
        self.0.change_blocking(change)
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match fs::rename(from, to) {
            Ok(()) => return durable::sync_directory(to.parent().unwrap_or(Path::new("."))),
            Err(error) if tries == TRIES || error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(_) => {
                tries += 1;
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Lets the staged version take over at the next start. Blocks for at most some seconds.
pub(super) fn activate(agent_dir: &Path, memory: &Memory) -> Result<(), SwapError> {
    let own = custody::myself().map_err(|error| SwapError::Disk("finding the running binary", error))?;
    let staged = memory.current();
    if !super::candidate_is_complete(&staged) {
        return Err(SwapError::Damaged);
    }
    swap(&mut Live(memory), agent_dir, &own, VERSION, &staged)
}

/// The steps of 1.14 from the fifth on: `running`, whose binary is `own`, makes room for what `staged` names.
fn swap(
    hands: &mut impl Hands,
    agent_dir: &Path,
    own: &Path,
    running: &str,
    staged: &State,
) -> Result<(), SwapError> {
    let active = agent_dir.join(ACTIVE);
    if !is_same(own, &active) {
        return Err(SwapError::Elsewhere(own.to_owned()));
    }
    // A version that never proved itself is nothing to return to: then the one before stays what it is.
    let aside = match staged.old_version == running {
        true => agent_dir.join(PREVIOUS),
        false => agent_dir.join(failed(running)),
    };
    hands
        .remove(&aside)
        .map_err(|error| SwapError::Disk("removing what is in the way", error))?;
    hands
        .remember(&|state| state.phase = Phase::Swapping)
        .map_err(|error| SwapError::Disk("remembering it", error))?;
    if let Err(error) = hands.rename(&active, &aside) {
        never_mind(hands);
        return Err(SwapError::Disk("putting the running version aside", error));
    }
    if let Err(error) = hands.rename(&staged.new_file, &active) {
        // When this fails too, the repair at the next start of the system does it.
        if hands.rename(&aside, &active).is_ok() {
            never_mind(hands);
        }
        return Err(SwapError::Disk("putting the new version in its place", error));
    }
    let previous = agent_dir.join(PREVIOUS);
    hands
        .remember(&|state| {
            state.phase = Phase::Probation;
            state.attempts = 0;
            state.new_file.clone_from(&active);
            state.old_file.clone_from(&previous);
        })
        // The next start of the new version knows what `Swapping` means.
        .map_err(|error| SwapError::Disk("remembering that it is tried", error))
}

/// Nothing has happened after all. If that cannot be remembered, the next start finds out.
fn never_mind(hands: &mut impl Hands) {
    let _ = hands.remember(&|state| state.phase = Phase::None);
}

/// Gives the previous binary its name back; the running `version` gets one that nobody starts. `false`: there is no
/// previous one, and nothing was changed. On an error the running version has its name.
fn put_back(hands: &mut impl Hands, agent_dir: &Path, version: &str) -> io::Result<bool> {
    let path = |name: &str| agent_dir.join(name);
    let (active, previous, failed) = (path(ACTIVE), path(PREVIOUS), path(&failed(version)));
    if !previous.is_file() {
        return Ok(false);
    }
    hands.remove(&failed)?;
    hands.rename(&active, &failed)?;
    match hands.rename(&previous, &active) {
        Ok(()) => Ok(true),
        Err(error) => {
            hands.rename(&failed, &active)?;
            Err(error)
        }
    }
}

/// The first action of a start by the service manager.
pub(super) fn at_start(agent_dir: &Path) -> Boot {
    let mut state = State::load(agent_dir);
    let before = state.clone();
    let verdict = trial::swapped(&mut state, VERSION);
    if verdict == Swapped::Try && state.new_sha256.is_empty() {
        // The marker is another agent's, which remembers less (1.16).
        complete(&mut state, agent_dir);
    }
    let mut boot = Boot::GoOn(Custody::Service);
    if verdict == Swapped::PutBack {
        match put_back(&mut AtStart(agent_dir), agent_dir, VERSION) {
            Ok(true) => {
                journal::complain("a new version did not prove itself and was taken out of use");
                state.roll_back(&trial::exhausted());
                boot = Boot::End(exit::FAILURE);
            }
            Ok(false) => {
                journal::complain(
                    "a new version did not prove itself, and there is no other one to return to",
                );
            }
            Err(error) => journal::complain(&format!(
                "a version that failed cannot be taken out of use: {error}"
            )),
        }
    }
    if state != before
        && let Err(error) = state.save(agent_dir)
    {
        journal::complain(&format!("the update state cannot be written: {error}"));
    }
    boot
}

/// Those of a start, which remembers at its end.
struct AtStart<'a>(&'a Path);

impl Hands for AtStart<'_> {
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        disk::remove(path)
    }

    fn remember(&mut self, change: &dyn Fn(&mut State)) -> io::Result<()> {
        let mut state = State::load(self.0);
        change(&mut state);
        state.save(self.0)
    }
}

/// What the reference knows without writing it down: it was connected, or it could not have fetched this version.
fn complete(state: &mut State, agent_dir: &Path) {
    let active = agent_dir.join(ACTIVE);
    state.new_sha256 = disk::digest(&active).unwrap_or_default();
    state.new_size = fs::metadata(&active).map(|found| found.len()).unwrap_or_default();
    state.new_file = active;
    state.old_file = agent_dir.join(PREVIOUS);
    state.was_connected = true;
    state.had_docker = false;
}

/// Takes the running version out of use when its time is up. `Ok`: whether that was done, and the process is to end;
/// `Err`: it has to be tried again.
pub(super) fn give_up(agent_dir: &Path, memory: &Memory, reason: &str) -> io::Result<bool> {
    let mut done = Ok(false);
    // While this changes, nobody else does: a proof comes before it or too late.
    memory.change_blocking(|state| {
        if state.phase != Phase::Probation || state.new_version != VERSION {
            return;
        }
        done = put_back(&mut AtStart(agent_dir), agent_dir, VERSION);
        if matches!(done, Ok(true)) {
            state.roll_back(reason);
        }
    })?;
    done
}

/// Name of a version that failed.
fn failed(version: &str) -> String {
    format!("reagent-failed-v{version}.exe")
}

/// The version that a file of [`failed`] has.
pub(super) fn failed_version(name: &str) -> Option<&str> {
    name.strip_prefix("reagent-failed-v")?.strip_suffix(".exe")
}

/// Whether both name one file. Its name may be written in capitals or not.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => {
            let plain = |path: &Path| path.to_string_lossy().to_lowercase();
            one == other || (cfg!(windows) && plain(&one) == plain(&other))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
