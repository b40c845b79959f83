//! What updates leave behind, and how much of it stays (`update-and-system.md` 9.2 A3): the current and the previous
//! binary, nothing unfinished. Only names that updates themselves give are ever removed.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::custody::{Custody, myself};
use super::manifest::{Manifest, is_digest};
use super::state::{Phase, State};
use super::{disk, file_name, swap, version, version_of};

/// Every agent binary in the agent directory, as the manager script sees them (1.13).
pub(crate) fn binaries(agent_dir: &Path) -> Vec<PathBuf> {
    entries(agent_dir)
        .filter(|(name, _)| name.contains("reagent-") && !name.starts_with('.'))
        .map(|(_, path)| path)
        .collect()
}

/// Unfinished downloads of this age are not gone on with.
const STALE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Removes versions that nothing needs any more: the one that runs, the one before, what failed last, what the links of
/// the manager script lead to and what it takes next stay. While a version is being tried, all do.
pub(crate) fn sweep(agent_dir: &Path, state: &State) {
    let launcher = match Custody::launched() {
        Some(Custody::Own { launcher, .. }) => Some(launcher),
        _ => None,
    };
    sweep_beside(agent_dir, state, launcher);
}

/// `launcher`: the installed binary, which starts the others and may lie among them.
fn sweep_beside(agent_dir: &Path, state: &State, launcher: Option<PathBuf>) {
    if state.is_trial() || state.phase == Phase::Swapping {
        return;
    }
    let near = agent_dir.join(disk::NEAR);
    complain(disk::remove(&near), &near);
    let mut kept = vec![state.new_file.clone(), state.old_file.clone()];
    kept.extend(myself());
    kept.extend(launcher);
    kept.extend(
        state
            .active
            .as_ref()
            .map(|active| agent_dir.join(file_name(&active.version))),
    );
    let links = ["Reagent-active", "Reagent-previous", "Reagent-latest"].map(|link| agent_dir.join(link));
    if links.iter().any(|link| link.is_symlink()) {
        // Somebody may have put it there since the script looked last.
        kept.extend(newest(agent_dir));
    }
    kept.extend(links);
    let kept: Vec<PathBuf> = kept
        .iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    for (name, path) in entries(agent_dir) {
        // What failed on Windows goes when another version has proven itself.
        let waits = state.phase == Phase::Rolledback && swap::failed_version(&name).is_some();
        let ours = version_of(&name).is_some() && !waits;
        let needed = fs::canonicalize(&path).is_ok_and(|path| kept.contains(&path));
        if ours && !needed && path.is_file() {
            tracing::info!(file = %path.display(), "removing an old version");
            complain(disk::remove(&path), &path);
        }
    }
}

/// What the manager script takes next (1.13), whatever its version.
pub(crate) fn newest(agent_dir: &Path) -> Option<PathBuf> {
    let modified = |path: &PathBuf| fs::symlink_metadata(path).and_then(|found| found.modified());
    binaries(agent_dir)
        .into_iter()
        .filter_map(|path| Some((modified(&path).ok()?, Reverse(path))))
        .max()
        .map(|(_, Reverse(path))| path)
}

/// Removes downloads that do not belong to this release.
pub(crate) fn sweep_downloads(directory: &Path, manifest: &Manifest) {
    let wanted = |digest: &str| {
        digest == manifest.sha256 || manifest.deltas.iter().any(|delta| delta.sha256 == digest)
    };
    for (name, path) in entries(directory) {
        // Ours, and those that other agents left there (1.7).
        let of_another = name
            .strip_suffix(".part")
            .is_some_and(|digest| is_digest(digest) && !wanted(digest))
            || name
                .strip_prefix("reagent-v")
                .is_some_and(|version| version::parse(version).is_ok());
        if of_another {
            complain(disk::remove(&path), &path);
        }
    }
}

/// Removes what was downloaded so far of anything but `wanted`; whether there was something.
pub(crate) fn sweep_parts(agent_dir: &Path, wanted: &str) -> bool {
    let mut found = false;
    for (name, path) in entries(&agent_dir.join("downloads")) {
        if name
            .strip_suffix(".part")
            .is_some_and(|digest| is_digest(digest) && digest != wanted)
        {
            complain(disk::remove(&path), &path);
            found = true;
        }
    }
    found
}

/// Removes downloads that were begun long ago and that nobody has gone on with.
pub(crate) fn sweep_stale(downloads: &Path) {
    for (name, path) in entries(downloads) {
        let of_ours = name.strip_suffix(".part").is_some_and(is_digest);
        let age = fs::metadata(&path).and_then(|found| found.modified());
        let age = age.ok().and_then(|modified| modified.elapsed().ok());
        if of_ours && age.is_some_and(|age| age > STALE) {
            complain(disk::remove(&path), &path);
        }
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

fn complain(removed: std::io::Result<()>, path: &Path) {
    if let Err(error) = removed {
        tracing::warn!(file = %path.display(), %error, "cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = entries(directory).map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// Files of which each is younger than the one before.
    fn lay(directory: &Path, names: &[&str]) {
        let mut modified = std::time::SystemTime::now() - Duration::from_secs(600);
        for name in names {
            fs::write(directory.join(name), name).unwrap();
            let file = fs::File::options()
                .write(true)
                .open(directory.join(name))
                .unwrap();
            file.set_modified(modified).unwrap();
            modified += Duration::from_secs(1);
        }
    }

    #[test]
    fn what_the_script_takes_next_stays_whoever_has_put_it_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        lay(
            directory.path(),
            &["reagent-v1.1.0", "reagent-v1.2.0", "reagent-v0.9.0", "reagent.db"],
        );
        std::os::unix::fs::symlink(path("reagent-v1.1.0"), path("Reagent-latest")).unwrap();
        let state = State {
            old_file: path("reagent-v1.1.0"),
            ..State::default()
        };
        sweep(directory.path(), &state);
        assert_eq!(
            names(directory.path()),
            ["Reagent-latest", "reagent-v0.9.0", "reagent-v1.1.0", "reagent.db"],
            "older than that, it takes none"
        );
    }

    #[test]
    fn on_a_full_disk_every_download_goes_but_the_one_that_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let downloads = directory.path().join("downloads");
        assert!(!sweep_parts(directory.path(), ""), "there is no such directory");
        fs::create_dir(&downloads).unwrap();
        let part = |digits: &str| format!("{}.part", digits.repeat(32));
        let all = [part("ab"), part("cd"), "bundle.part".to_owned(), "ef".repeat(32)];
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        lay(&downloads, &all);
        assert!(sweep_parts(directory.path(), &"cd".repeat(32)));
        let mut left = all[1..].to_vec();
        left.sort_unstable();
        assert_eq!(names(&downloads), left);
        let again = sweep_parts(directory.path(), &"cd".repeat(32));
        assert!(!again, "nothing more can be gained");
    }

    #[test]
    fn current_and_previous_stay_and_what_is_not_ours_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        lay(
            directory.path(),
            &[
                "reagent-v1.0.0",
                "reagent-v1.1.0",
                "reagent-v1.2.0",
                "reagent-latest",
                "reagent-vault",
                "reagent.db",
            ],
        );
        let mut state = State {
            phase: Phase::Probation,
            new_file: path("reagent-v1.2.0"),
            old_file: path("reagent-v1.1.0"),
            ..State::default()
        };
        sweep(directory.path(), &state);
        assert_eq!(
            names(directory.path()).len(),
            6,
            "nothing goes while a version is tried"
        );
        state.phase = Phase::None;
        sweep(directory.path(), &state);
        assert_eq!(
            names(directory.path()),
            [
                "reagent-latest",
                "reagent-v1.1.0",
                "reagent-v1.2.0",
                "reagent-vault",
                "reagent.db"
            ]
        );
    }

    #[test]
    fn of_versions_that_failed_the_last_one_stays_and_what_the_script_links_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let all: Vec<_> = (0..6).map(|number| format!("reagent-v1.{number}.0")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        lay(directory.path(), &all);
        for (link, number) in [("active", 1), ("previous", 3), ("latest", 5)] {
            let target = path(&format!("reagent-v1.{number}.0"));
            std::os::unix::fs::symlink(target, path(&format!("Reagent-{link}"))).unwrap();
        }
        let state = State {
            phase: Phase::Rolledback,
            new_file: path("reagent-v1.4.0"),
            old_file: path("reagent-v1.1.0"),
            ..State::default()
        };
        sweep(directory.path(), &state);
        let left: Vec<_> = (0..6)
            .filter(|number| path(&format!("reagent-v1.{number}.0")).exists())
            .collect();
        assert_eq!(left, [1, 3, 4, 5]);
    }

    #[test]
    fn the_installed_binary_stays_whatever_it_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        lay(
            directory.path(),
            &[
                "reagent-v1.0.0",
                "reagent-v1.1.0",
                "reagent-v1.2.0",
                "reagent-v1.3.0",
            ],
        );
        let state = State {
            new_file: path("reagent-v1.3.0"),
            old_file: path("reagent-v1.2.0"),
            ..State::default()
        };
        sweep_beside(directory.path(), &state, Some(path("reagent-v1.0.0")));
        assert_eq!(
            names(directory.path()),
            ["reagent-v1.0.0", "reagent-v1.2.0", "reagent-v1.3.0"]
        );
    }

    #[test]
    fn a_download_that_nobody_goes_on_with_stays_for_a_week() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (old, young) = (
            format!("{}.part", "ab".repeat(32)),
            format!("{}.part", "cd".repeat(32)),
        );
        for name in [&old, &young, &"bundle.part".to_owned()] {
            fs::write(path(name), "x").unwrap();
        }
        for name in [&old, &"bundle.part".to_owned()] {
            let age = Duration::from_secs(8 * 24 * 60 * 60);
            let file = fs::File::options().write(true).open(path(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        sweep_stale(directory.path());
        assert_eq!(names(directory.path()), ["bundle.part".to_owned(), young]);
    }

    #[test]
    fn downloads_of_other_releases_go_and_this_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (this, other) = ("ab".repeat(32), "cd".repeat(32));
        for name in [
            format!("{this}.part"),
            format!("{other}.part"),
            "reagent-v0.20.19".to_owned(),
            "bundle.part".to_owned(),
        ] {
            fs::write(path(&name), "x").unwrap();
        }
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "product": "reagent", "version": "1.0.0", "os": "linux", "arch": "amd64", "sha256": this, "size": 1,
            "issued": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z",
        }))
        .unwrap();
        sweep_downloads(directory.path(), &manifest);
        assert_eq!(
            names(directory.path()),
            [format!("{this}.part"), "bundle.part".to_owned()]
        );
    }
}
