//! The first action of every process start, before the network, the lock and the log: under the manager script the
//! starts are counted and failed versions taken out of use (`update-and-system.md` 9.3.1); elsewhere the installed
//! binary becomes the launcher of what proved itself. Must not know what an agent does.

use std::path::Path;

use super::custody::{self, Custody};
use super::launcher;
use super::setup::Setup;
use super::state::{Phase, State};
use super::trial::{self, Managed};
use super::{candidate_is_complete, disk};
use crate::cli::VERSION;
use crate::exit;
use crate::journal;
use crate::settings::Settings;

/// What comes after the first action.
#[derive(Debug)]
pub enum Boot {
    /// This process is the agent.
    GoOn(Custody),
    /// This process ends with this code: another version is to be started, or was and has ended.
    End(u8),
}

/// Looks whose turn it is. Returns at once, or, when a new version is tried, after it has ended.
pub fn first(settings: &Settings, setup: &Setup) -> Boot {
    let agent_dir = settings.agent_dir.as_path();
    if Custody::is_managed(agent_dir) {
        return managed(agent_dir);
    }
    match Custody::launched() {
        Some(custody) => {
            if matches!(custody, Custody::Own { watched: true, .. }) {
                // Without the one who counts, a version under test must not stay.
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
            }
            Boot::GoOn(custody)
        }
        None => launcher::run(settings, setup),
    }
}

fn managed(agent_dir: &Path) -> Boot {
    let mut state = State::load(agent_dir);
    let own_digest = || custody::myself().and_then(|path| disk::digest(&path)).ok();
    let verdict = trial::managed(&mut state, VERSION, own_digest, candidate_is_complete);
    let go_on = Boot::GoOn(Custody::Managed);
    if verdict == Managed::GoOn {
        return go_on;
    }
    if let Err(error) = state.save(agent_dir) {
        // What cannot be counted cannot be judged; the manager script still has its own way back.
        journal::complain(&format!("the update state cannot be written: {error}"));
        return go_on;
    }
    match verdict {
        Managed::GoOn | Managed::Remember => go_on,
        Managed::Demote => {
            complain_of(custody::demote(agent_dir, &state));
            go_on
        }
        Managed::DemoteMyself => match complain_of(custody::demote(agent_dir, &state)) {
            true => Boot::End(exit::FAILURE),
            // A version that failed is better than none.
            false => go_on,
        },
    }
}

fn complain_of(demoted: std::io::Result<bool>) -> bool {
    match demoted {
        Ok(true) => {
            journal::complain("a new version did not prove itself and was taken out of use");
            true
        }
        Ok(false) => {
            journal::complain("a new version did not prove itself, and there is no other one to return to");
            false
        }
        Err(error) => {
            journal::complain(&format!(
                "a version that failed cannot be taken out of use: {error}"
            ));
            false
        }
    }
}

/// Takes the running version out of use when its time is up, under the manager script. Returns whether the process is
/// to end.
pub(super) fn give_up(agent_dir: &Path, state: &mut State, reason: &str) -> bool {
    if state.phase != Phase::Probation || state.new_version != VERSION || !state.old_file.is_file() {
        return false;
    }
    state.roll_back(reason);
    match state.save(agent_dir) {
        Ok(()) => complain_of(custody::demote(agent_dir, state)),
        Err(error) => {
            journal::complain(&format!("the update state cannot be written: {error}"));
            false
        }
    }
}
