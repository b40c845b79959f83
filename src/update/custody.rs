//! Who starts this process: the vendor's manager script (`update-and-system.md` 1.13), or nobody but ourselves. And the
//! links by which the script is told what to start (9.3.1).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk;
use super::litter;
use super::state::State;

/// Set by a launcher for what it starts: its own path.
pub(super) const LAUNCHER: &str = "REAGENT_LAUNCHER";
/// Its version.
pub(super) const LAUNCHER_VERSION: &str = "REAGENT_LAUNCHER_VERSION";
/// Set when the launcher stays to watch: its process id, in older ones 1.
pub(super) const WATCHED: &str = "REAGENT_WATCHED";

const ACTIVE: &str = "Reagent-active";
const PREVIOUS: &str = "Reagent-previous";
const LATEST: &str = "Reagent-latest";

/// Who starts the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The manager script: it picks up what becomes visible.
    Managed,
    /// The service manager of Windows: the new version is put in the place of the running one.
    Service,
    /// Nobody who would start another version: on macOS, and in a console of Windows.
    Nobody,
    /// The binary that was installed starts what proved itself.
    Own {
        launcher: PathBuf,
        launcher_version: String,
        /// The launcher waits for the end of this process.
        watched: bool,
    },
}

impl Custody {
    /// Whether the manager script started this executable: its link leads here.
    pub(crate) fn is_managed(agent_dir: &Path) -> bool {
        let resolve = |path: &Path| fs::canonicalize(path).ok();
        let active = resolve(&agent_dir.join(ACTIVE));
        active.is_some() && active == myself().ok().and_then(|own| resolve(&own))
    }

    /// What a launcher left in the environment; `None`: nobody launched this process.
    pub(crate) fn launched() -> Option<Custody> {
        let text = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        Some(Custody::Own {
            launcher: PathBuf::from(text(LAUNCHER)?),
            launcher_version: text(LAUNCHER_VERSION)?.into_string().ok()?,
            watched: text(WATCHED).is_some(),
        })
    }
}

/// The process that stays to watch this one, if it says so. One that is the first of a container takes all others along
/// when it ends.
pub(super) fn watcher() -> Option<u32> {
    let id = std::env::var(WATCHED).ok()?.parse().ok()?;
    (id > 1).then_some(id)
}

/// Path of the running binary.
pub(crate) fn myself() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The binary that the script returns to, if it is there and is not this one.
pub(crate) fn previous(agent_dir: &Path) -> Option<PathBuf> {
    let previous = fs::canonicalize(agent_dir.join(PREVIOUS)).ok()?;
    let own = fs::canonicalize(myself().ok()?).ok()?;
    (previous != own && previous.is_file()).then(|| beside(agent_dir, previous))
}

/// `file` by its path below the agent directory, as the script names it, if it lies there.
pub(crate) fn beside(agent_dir: &Path, file: PathBuf) -> PathBuf {
    let inside = file.parent() == fs::canonicalize(agent_dir).ok().as_deref();
    match file.file_name() {
        Some(name) if inside => agent_dir.join(name),
        _ => file,
    }
}

/// Which process takes a version out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demoting {
    /// One of the old version, under whatever name: it stays.
    Good,
    /// The one that failed: `old_file` takes its place.
    Bad,
}

/// Takes the new version of `state` out of use under the manager script: the good binary becomes active, and the one that
/// the script would take up next becomes previous if it has failed or is the good one, under whatever name; the script
/// leaves both alone. `false`: there is no good binary, nothing was changed. Says the same however often it is asked.
pub(crate) fn demote(agent_dir: &Path, state: &State, by: Demoting) -> io::Result<bool> {
    let good = match by {
        Demoting::Good => beside(agent_dir, myself()?),
        Demoting::Bad => state.old_file.clone(),
    };
    if !good.is_file() {
        return Ok(false);
    }
    let shunned = litter::newest(agent_dir)
        .filter(|newest| *newest == good || has_failed(state, newest))
        .unwrap_or_else(|| state.new_file.clone());
    // Cut off in between, the next boot starts the good one, which comes here again before the script looks.
    point(agent_dir, ACTIVE, &good)?;
    point(agent_dir, PREVIOUS, &shunned)?;
    Ok(true)
}

/// Whether the file is a build that is blocked here.
fn has_failed(state: &State, file: &Path) -> bool {
    if file == state.new_file {
        return true;
    }
    match disk::digest(file) {
        Ok(digest) => state.blocked.iter().any(|blocked| blocked.sha256 == digest),
        // What cannot be read is not started either.
        Err(_) => false,
    }
}

/// Lets the script upgrade to `file`: it never takes up what its link to the previous binary names. That link leads to
/// the active binary then. Only after `file` has become visible: before, the one in its place would be taken up.
/// Changes nothing where the link leads elsewhere, so it can be repeated.
pub(crate) fn make_way(agent_dir: &Path, file: &Path) -> io::Result<()> {
    let resolve = |path: &Path| fs::canonicalize(path).ok();
    let Some(previous) = resolve(&agent_dir.join(PREVIOUS)) else {
        return Ok(());
    };
    let Some(active) = resolve(&agent_dir.join(ACTIVE)) else {
        return Ok(());
    };
    if resolve(file) != Some(previous.clone()) || previous == active {
        return Ok(());
    }
    point(agent_dir, PREVIOUS, &beside(agent_dir, active))
}

/// Points a link in the way the script does, by name or by path: it compares texts.
fn point(agent_dir: &Path, link: &str, file: &Path) -> io::Result<()> {
    let by_name = fs::read_link(agent_dir.join(LATEST)).is_ok_and(|target| target.is_relative());
    let target = match file.file_name() {
        Some(name) if by_name && file.parent() == Some(agent_dir) => PathBuf::from(name),
        _ => file.to_owned(),
    };
    if fs::read_link(agent_dir.join(link)).is_ok_and(|present| present == target) {
        return Ok(());
    }
    disk::relink(agent_dir, link, &target)
}

#[cfg(test)]
mod tests {
    use super::super::state::Blocked;
    use super::*;
    use std::os::unix::fs::symlink;

    fn gateway() -> (tempfile::TempDir, State) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("reagent-v1"), "good").unwrap();
        let good = fs::File::options().write(true).open(path("reagent-v1")).unwrap();
        good.set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::write(path("reagent-v2"), "bad").unwrap();
        let state = State {
            new_file: path("reagent-v2"),
            old_file: path("reagent-v1"),
            ..State::default()
        };
        (directory, state)
    }

    #[test]
    fn after_a_demotion_the_script_finds_nothing_to_upgrade_to() {
        let (directory, state) = gateway();
        let path = |name: &str| directory.path().join(name);
        let link = |name: &str| fs::read_link(path(name)).unwrap();
        symlink(path("reagent-v2"), path("Reagent-latest")).unwrap();
        symlink(path("reagent-v2"), path("Reagent-active")).unwrap();
        symlink(path("reagent-v1"), path("Reagent-previous")).unwrap();
        for _ in 0..2 {
            assert!(demote(directory.path(), &state, Demoting::Bad).unwrap());
            assert_eq!(link("Reagent-active"), path("reagent-v1"));
            assert_eq!(link("Reagent-previous"), link("Reagent-latest"));
        }
    }

    #[test]
    fn what_failed_is_not_upgraded_to_under_another_name_and_what_is_unknown_is() {
        let (directory, mut state) = gateway();
        let path = |name: &str| directory.path().join(name);
        let link = |name: &str| fs::read_link(path(name)).unwrap();
        state.blocked.push(Blocked {
            version: "2".to_owned(),
            sha256: disk::digest(&state.new_file).unwrap(),
            reason: String::new(),
        });
        for (content, previous) in [("bad", "reagent-latest"), ("another", "reagent-v2")] {
            fs::write(path("reagent-latest"), content).unwrap();
            let newest = fs::File::options()
                .write(true)
                .open(path("reagent-latest"))
                .unwrap();
            let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
            newest.set_modified(later).unwrap();
            assert!(demote(directory.path(), &state, Demoting::Bad).unwrap());
            assert_eq!(link("Reagent-active"), path("reagent-v1"));
            assert_eq!(link("Reagent-previous"), path(previous));
        }
    }

    #[test]
    fn links_by_name_stay_links_by_name() {
        let (directory, state) = gateway();
        let path = |name: &str| directory.path().join(name);
        symlink("reagent-v2", path("Reagent-latest")).unwrap();
        assert!(demote(directory.path(), &state, Demoting::Bad).unwrap());
        assert_eq!(
            fs::read_link(path("Reagent-previous")).unwrap(),
            Path::new("reagent-v2")
        );
    }

    #[test]
    fn a_new_version_in_the_place_of_the_previous_one_can_be_upgraded_to() {
        let (directory, _) = gateway();
        let path = |name: &str| directory.path().join(name);
        let link = |name: &str| fs::read_link(path(name)).unwrap();
        symlink(path("reagent-v1"), path("Reagent-active")).unwrap();
        symlink(path("reagent-v2"), path("Reagent-previous")).unwrap();
        fs::write(path("reagent-v3"), "another").unwrap();
        make_way(directory.path(), &path("reagent-v3")).unwrap();
        assert_eq!(link("Reagent-previous"), path("reagent-v2"));
        for _ in 0..2 {
            make_way(directory.path(), &path("reagent-v2")).unwrap();
            assert_eq!(link("Reagent-previous"), path("reagent-v1"));
            assert_eq!(link("Reagent-active"), path("reagent-v1"));
        }
    }

    #[test]
    fn the_only_binary_is_never_taken_out_of_use() {
        let (directory, state) = gateway();
        fs::remove_file(&state.old_file).unwrap();
        assert!(!demote(directory.path(), &state, Demoting::Bad).unwrap());
        assert!(!directory.path().join("Reagent-active").exists());
    }
}
