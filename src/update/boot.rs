//! The first action of every process start, before the network, the lock and the log: under the manager script the
//! starts are counted and failed versions taken out of use (`update-and-system.md` 9.3.1); elsewhere the installed
//! binary becomes the launcher of what proved itself. Must not know what an agent does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::custody::{self, Custody, Demoting};
use super::launcher;
use super::memory::Memory;
use super::setup::Setup;
use super::state::{self, Phase, State};
use super::trial::{self, Managed};
use super::{candidate_is_complete, disk, spare, swap};
use crate::cli::VERSION;
use crate::exit;
use crate::journal;
use crate::service;
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
    if service::is_supervised() {
        return swap::at_start(agent_dir);
    }
    if Custody::is_managed(agent_dir) {
        return managed(agent_dir);
    }
    match Custody::launched() {
        Some(custody) => {
            if matches!(custody, Custody::Own { watched: true, .. })
                && !launcher::end_with_launcher(custody::watcher())
            {
                journal::complain("whoever watches this version under test has ended");
                return Boot::End(exit::FAILURE);
            }
            Boot::GoOn(custody)
        }
        None => launcher::run(settings, setup),
    }
}

fn managed(agent_dir: &Path) -> Boot {
    let mut state = State::load(agent_dir);
    let own_digest = || custody::myself().and_then(|path| disk::digest(&path)).ok();
    let mut verdict = trial::managed(&mut state, VERSION, own_digest, candidate_is_complete);
    if matches!(verdict, Managed::GoOn | Managed::Remember)
        && trial::is_stranger(&state, VERSION)
        && let Some(old) = custody::previous(agent_dir)
    {
        match stranger(agent_dir, &mut state, old) {
            Ok(()) => {
                journal::complain(&format!(
                    "nothing that is remembered accounts for version {VERSION}: it is on trial, and the way back leads to {}",
                    state.old_version
                ));
                verdict = Managed::Remember;
            }
            Err(error) => journal::complain(&format!("this version cannot be tried: {error}")),
        }
    }
    let go_on = Boot::GoOn(Custody::Managed);
    if state.phase == Phase::Staged
        && let Err(error) = custody::make_way(agent_dir, &state.new_file)
    {
        // A power cut may have come before this was done the first time.
        journal::complain(&format!("the new version may not be started: {error}"));
    }
    if verdict == Managed::GoOn {
        return go_on;
    }
    // Before the state is written, which is to take as much: whoever staged this version may not have known of that.
    if state.is_trial()
        && let Err(error) = spare::keep(agent_dir)
    {
        journal::complain(&format!("no room can be kept for the update state: {error}"));
    }
    if let Err(error) = state.save(agent_dir) {
        // What cannot be counted cannot be judged; the manager script still has its own way back.
        journal::complain(&format!("the update state cannot be written: {error}"));
        return go_on;
    }
    if !state.is_trial() {
        // The links may need it.
        spare::give_up(agent_dir);
    }
    match verdict {
        Managed::GoOn | Managed::Remember => go_on,
        Managed::Demote => {
            complain_of(custody::demote(agent_dir, &state, Demoting::Good));
            go_on
        }
        Managed::DemoteMyself => match complain_of(custody::demote(agent_dir, &state, Demoting::Bad)) {
            true => Boot::End(exit::FAILURE),
            // A version that failed is better than none.
            false => {
                state.stay("it could not be taken out of use and goes on");
                if let Err(error) = state.save(agent_dir) {
                    journal::complain(&format!("the update state cannot be written: {error}"));
                }
                go_on
            }
        },
    }
}

/// Puts this process on trial, the first start of which is this one: whoever brought it here, a Go agent as a rule,
/// counts nothing and blocks nothing (1.16). That one was connected, or it could not have fetched it; whether it
/// reached Docker is not known.
fn stranger(agent_dir: &Path, state: &mut State, old: PathBuf) -> io::Result<()> {
    let own = custody::myself()?;
    state.new_sha256 = disk::digest(&own)?;
    state.new_size = fs::metadata(&own)?.len();
    state.new_file = custody::beside(agent_dir, own);
    VERSION.clone_into(&mut state.new_version);
    let name = old.file_name().unwrap_or_default().to_string_lossy();
    state.old_version = name.strip_prefix("reagent-v").unwrap_or(&name).to_owned();
    state.old_file = old;
    state.id.clear();
    state.staged_by.clear();
    state.phase = Phase::Probation;
    state.attempts = 1;
    state.old_starts = 0;
    state.staged_at = state::now();
    state.was_connected = true;
    state.had_docker = false;
    Ok(())
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

/// Takes the running version out of use when its time is up, under the manager script or the service manager of
/// Windows. `Ok`: whether that was done, and the process is to end; `Err`: it has to be tried again, and nothing is
/// remembered yet, or the links or names are not right.
pub(super) fn give_up(agent_dir: &Path, memory: &Memory, reason: &str) -> io::Result<bool> {
    if service::is_supervised() {
        return swap::give_up(agent_dir, memory, reason);
    }
    let mut tried = memory.current();
    let is_due = |state: &State| {
        state.phase == Phase::Probation && state.new_version == VERSION && state.old_file.is_file()
    };
    memory.change_blocking(|state| {
        if is_due(state) {
            state.roll_back(reason);
        }
        tried.clone_from(state);
    })?;
    let given_up = tried.phase == Phase::Rolledback && tried.new_version == VERSION;
    if !given_up {
        return Ok(false);
    }
    custody::demote(agent_dir, &tried, Demoting::Bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use testkit::disk::SmallDisk;

    #[test]
    fn the_first_version_of_this_make_puts_itself_on_trial_when_there_is_a_way_back() {
        let directory = tempfile::tempdir().unwrap();
        let agent_dir = directory.path();
        let go_agent = agent_dir.join("reagent-v0.20.20");
        fs::write(&go_agent, "a Go agent").unwrap();
        let own = custody::myself().unwrap();
        symlink(&own, agent_dir.join("Reagent-active")).unwrap();
        // A first installation: there is nothing to return to.
        symlink(&own, agent_dir.join("Reagent-previous")).unwrap();
        assert!(matches!(managed(agent_dir), Boot::GoOn(Custody::Managed)));
        assert_eq!(State::load(agent_dir), State::default());

        disk::relink(agent_dir, "Reagent-previous", &go_agent).unwrap();
        for attempt in 1..=3 {
            assert!(matches!(managed(agent_dir), Boot::GoOn(Custody::Managed)));
            let state = State::load(agent_dir);
            assert_eq!((state.phase, state.attempts), (Phase::Probation, attempt));
            assert_eq!(state.old_version, "0.20.20");
            assert_eq!(state.new_version, VERSION);
            assert!(state.was_connected);
        }
        assert!(matches!(managed(agent_dir), Boot::End(exit::FAILURE)));
        let active = fs::canonicalize(agent_dir.join("Reagent-active")).unwrap();
        assert_eq!(active, fs::canonicalize(&go_agent).unwrap());
        // Among the binaries of the directory nothing else is the newest.
        let previous = fs::canonicalize(agent_dir.join("Reagent-previous")).unwrap();
        assert_eq!(previous, active);
    }

    /// A version that `stage` puts on a small disk: its starts are counted there while the disk is full.
    fn is_taken_out_of_use(stage: impl FnOnce(&Path, &mut State)) {
        let disk = match SmallDisk::mount(1) {
            Ok(disk) => disk,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let agent_dir = &disk.path();
        let path = |name: &str| agent_dir.join(name);
        fs::write(path("reagent-v0.0.1"), "an older agent").unwrap();
        let own = custody::myself().unwrap();
        symlink(&own, path("Reagent-active")).unwrap();
        symlink(path("reagent-v0.0.1"), path("Reagent-previous")).unwrap();
        let mut state = State {
            phase: Phase::Staged,
            new_version: VERSION.to_owned(),
            old_version: "0.0.1".to_owned(),
            new_file: own,
            old_file: path("reagent-v0.0.1"),
            ..State::default()
        };
        stage(agent_dir, &mut state);
        let attempts = State::load(agent_dir).attempts;
        for attempt in attempts + 1..=3 {
            disk.fill();
            assert!(matches!(managed(agent_dir), Boot::GoOn(Custody::Managed)));
            let state = State::load(agent_dir);
            assert_eq!((state.phase, state.attempts), (Phase::Probation, attempt));
        }
        disk.fill();
        assert!(matches!(managed(agent_dir), Boot::End(exit::FAILURE)));
        assert_eq!(State::load(agent_dir).phase, Phase::Rolledback);
        let active = fs::canonicalize(path("Reagent-active")).unwrap();
        assert_eq!(active, fs::canonicalize(path("reagent-v0.0.1")).unwrap());
    }

    #[test]
    fn starts_are_counted_and_a_bad_version_goes_out_of_use_when_the_disk_is_full() {
        is_taken_out_of_use(|agent_dir, state| {
            spare::keep(agent_dir).unwrap();
            state.save(agent_dir).unwrap();
        });
    }

    #[test]
    fn room_for_the_starts_of_a_version_is_kept_by_itself_when_whoever_staged_it_kept_none() {
        is_taken_out_of_use(|agent_dir, state| {
            state.save(agent_dir).unwrap();
            assert!(matches!(managed(agent_dir), Boot::GoOn(Custody::Managed)));
        });
    }

    #[test]
    fn a_smaller_room_that_an_older_version_kept_is_enough_for_what_it_remembered() {
        is_taken_out_of_use(|agent_dir, state| {
            state.save(agent_dir).unwrap();
            fs::write(agent_dir.join(".update-state.spare"), [b' '; 8 * 1024]).unwrap();
        });
    }

    #[test]
    fn a_version_gives_up_however_often_that_fails_at_first() {
        let directory = tempfile::tempdir().unwrap();
        let agent_dir = directory.path();
        let path = |name: &str| agent_dir.join(name);
        for name in ["reagent-v1", "reagent-v2"] {
            fs::write(path(name), name).unwrap();
        }
        symlink("reagent-v2", path("Reagent-active")).unwrap();
        let mut state = State {
            phase: Phase::Probation,
            new_version: VERSION.to_owned(),
            old_version: "0.0.1".to_owned(),
            new_file: path("reagent-v2"),
            old_file: path("reagent-v1"),
            ..State::default()
        };
        state.save(agent_dir).unwrap();
        let memory = Memory::open(agent_dir);
        let active = || fs::canonicalize(path("Reagent-active")).unwrap();
        // Nothing can be written, then no link be made: directories are in the way of the temporary names.
        for obstacle in [".update-state.json.new", ".Reagent-active.new"] {
            fs::create_dir(path(obstacle)).unwrap();
            for _ in 0..2 {
                give_up(agent_dir, &memory, "too late").unwrap_err();
                assert_eq!(active(), fs::canonicalize(path("reagent-v2")).unwrap());
            }
            fs::remove_dir(path(obstacle)).unwrap();
        }
        assert!(give_up(agent_dir, &memory, "too late").unwrap());
        assert_eq!(active(), fs::canonicalize(path("reagent-v1")).unwrap());
        assert_eq!(State::load(agent_dir).outcome.unwrap().reason, "too late");

        // One that proved itself in the meantime stays.
        let memory = Memory::open(agent_dir);
        memory.change_blocking(|state| state.prove()).unwrap();
        assert!(!give_up(agent_dir, &memory, "too late").unwrap());
    }

    #[test]
    fn a_version_that_proved_itself_is_not_put_on_trial_again() {
        let directory = tempfile::tempdir().unwrap();
        let agent_dir = directory.path();
        let go_agent = agent_dir.join("reagent-v0.20.20");
        fs::write(&go_agent, "a Go agent").unwrap();
        symlink(&go_agent, agent_dir.join("Reagent-previous")).unwrap();
        managed(agent_dir);
        let mut state = State::load(agent_dir);
        state.prove();
        state.save(agent_dir).unwrap();
        managed(agent_dir);
        assert_eq!(State::load(agent_dir).phase, Phase::None);
    }
}
