use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

/// Not in the format in which documents are written, so that a rewrite without a change would show.
const GOOD: &str = r#"{"serial_number": "s-1", "secret": "x", "swarm_key": "42", "device_key": 7, "extra": [1, 2],
 "device_endpoint_url": "ws://localhost:8080/ws"}"#;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn with(content: &str) -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(place.file(), content).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("device.flock")
    }

    fn backup(&self) -> PathBuf {
        self.directory.path().join("device.flock.bak")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn backup_text(&self) -> String {
        fs::read_to_string(self.backup()).unwrap()
    }
}

#[test]
fn a_good_file_is_read_left_alone_and_backed_up_privately() {
    let place = Place::with(GOOD);
    let before = fs::metadata(place.file()).unwrap();
    let device = DeviceFile::load(&place.file()).unwrap();
    assert_eq!(device.current().swarm_key, 42);
    let after = fs::metadata(place.file()).unwrap();
    assert_eq!(
        (after.ino(), after.mtime_nsec()),
        (before.ino(), before.mtime_nsec())
    );
    assert_eq!(place.backup_text(), GOOD);
    assert_eq!(fs::metadata(place.backup()).unwrap().mode() & 0o777, 0o600);

    let backup = fs::metadata(place.backup()).unwrap();
    DeviceFile::load(&place.file()).unwrap();
    assert_eq!(
        fs::metadata(place.backup()).unwrap().ino(),
        backup.ino(),
        "an equal backup is not written again"
    );
}

#[test]
fn outdated_addresses_are_migrated_on_disk_at_load() {
    let place = Place::with(&GOOD.replace(
        "ws://localhost:8080/ws",
        "wss://cbw.record-evolution.com/ws-re-dev",
    ));
    let device = DeviceFile::load(&place.file()).unwrap();
    assert_eq!(
        device.current().device_endpoint_url,
        "wss://cbw.ironflock.com/ws-re-dev"
    );
    assert!(place.text().contains("\"wss://cbw.ironflock.com/ws-re-dev\""));
    assert!(place.text().contains("\"extra\": ["));
    assert_eq!(place.backup_text(), place.text());
}

#[tokio::test]
async fn a_change_counts_at_once_and_reaches_file_and_backup() {
    let place = Place::with(GOOD);
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let device = DeviceFile::load(&place.file()).unwrap();
    let clone = device.clone();
    assert!(device.update(|document| document.set_swarm_key(43)).await);
    assert_eq!(clone.current().swarm_key, 43);
    assert_eq!(DeviceFile::load(&place.file()).unwrap().current().swarm_key, 43);
    assert_eq!(place.backup_text(), place.text());
    assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn a_change_to_the_same_value_writes_nothing() {
    let place = Place::with(GOOD);
    let device = DeviceFile::load(&place.file()).unwrap();
    assert!(!device.update(|document| document.set_name("")).await);
    assert_eq!(place.text(), GOOD);

    assert!(device.update(|document| document.set_name("gate")).await);
    let written = fs::metadata(place.file()).unwrap().ino();
    assert!(!device.update(|document| document.set_name("gate")).await);
    assert_eq!(fs::metadata(place.file()).unwrap().ino(), written);
}

#[tokio::test]
async fn changes_from_many_tasks_all_arrive_and_the_newest_is_on_disk() {
    let place = Place::with(GOOD);
    let device = DeviceFile::load(&place.file()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 100..120 {
        let device = device.clone();
        tasks.spawn(async move { device.update(|document| document.set_swarm_key(number)).await });
    }
    assert!(tasks.join_all().await.into_iter().all(|changed| changed));
    let on_disk = DeviceFile::load(&place.file()).unwrap();
    assert_eq!(on_disk.current().swarm_key, device.current().swarm_key);
}

#[tokio::test]
async fn a_link_stays_and_its_target_is_replaced() {
    let boot = Place::with(GOOD);
    let agent = tempfile::tempdir().unwrap();
    let link = agent.path().join("device-config.flock");
    symlink(boot.file(), &link).unwrap();
    let device = DeviceFile::load(&link).unwrap();
    device.update(|document| document.set_name("gate")).await;
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(boot.text().contains("\"gate\""));
    assert!(boot.backup().exists());
    assert_eq!(
        fs::read_dir(agent.path()).unwrap().count(),
        1,
        "nothing beside the link"
    );
}

#[test]
fn a_file_that_is_not_an_identity_is_refused_and_left_as_it_is() {
    for bad in [
        "",
        "{",
        "[]",
        "{}",
        &GOOD[..40],
        &GOOD.replace("\"x\"", "\"\""),
        &GOOD.replace("\"42\"", "\"4x\""),
    ] {
        let place = Place::with(bad);
        let error = DeviceFile::load(&place.file()).unwrap_err();
        assert!(matches!(error, DeviceFileError::Damaged { .. }), "{error:?}");
        assert!(
            error.to_string().contains("failed to load .flock config file: "),
            "{error}"
        );
        assert_eq!(place.text(), bad);
        assert!(!place.backup().exists(), "what is damaged is no backup");
    }
    let place = Place::with("");
    fs::write(place.file(), b"\xff\xfe{").unwrap();
    DeviceFile::load(&place.file()).unwrap_err();
    assert_eq!(fs::read(place.file()).unwrap(), b"\xff\xfe{");
}

#[test]
fn a_missing_file_and_a_directory_are_refused_by_name() {
    let place = Place::with(GOOD);
    for path in [
        place.directory.path().join("none.flock"),
        place.directory.path().to_path_buf(),
    ] {
        let error = DeviceFile::load(&path).unwrap_err();
        assert!(matches!(error, DeviceFileError::Read { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn the_backup_takes_the_place_of_a_damaged_file_which_stays_as_it_is() {
    let place = Place::with(GOOD);
    DeviceFile::load(&place.file()).unwrap();
    fs::write(place.file(), &GOOD[..30]).unwrap();

    let device = DeviceFile::load(&place.file()).unwrap();
    assert_eq!(device.current().serial_number, "s-1");
    assert!(device.update(|document| document.set_swarm_key(43)).await);
    assert_eq!(place.text(), &GOOD[..30]);
    assert_eq!(
        DeviceFile::load(&place.file()).unwrap().current().swarm_key,
        43,
        "changes live in the backup"
    );

    fs::write(place.file(), GOOD).unwrap();
    assert_eq!(
        DeviceFile::load(&place.file()).unwrap().current().swarm_key,
        42,
        "a repaired file counts again"
    );
    assert_eq!(place.backup_text(), GOOD);
}

#[tokio::test]
async fn a_write_that_fails_keeps_the_values_in_memory() {
    let place = Place::with(GOOD);
    let device = DeviceFile::load(&place.file()).unwrap();
    // Not even root can write into a directory that is gone.
    fs::remove_dir_all(place.directory.path()).unwrap();
    assert!(device.update(|document| document.set_name("gate")).await);
    assert_eq!(device.current().name, "gate");
    assert!(!place.file().exists());
}

#[tokio::test]
async fn an_identity_in_memory_changes_without_a_file() {
    let flock = FlockDocument::parse(GOOD).unwrap().flock();
    let device = DeviceFile::in_memory(flock.clone());
    assert_eq!(*device.current(), flock);
    assert!(device.update(|document| document.set_swarm_name("plant")).await);
    assert_eq!(device.current().swarm_name, "plant");
}
