//! What the clock on the wall says where the device is.
//!
//! The zone is read from its one file. Asked by name, jiff would list all the zones that the system has and keep the list:
//! 0.2 MB, and a walk through a thousand files at every start.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// How long a file is believed: rules change while an agent runs. As long as jiff believes that of the system.
const BELIEVED: Duration = Duration::from_secs(5 * 60);
/// Where systems keep the files, as jiff knows it.
const DIRECTORIES: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];

/// Now, in the zone of `TZ` or else of the system; UTC without either.
pub(crate) fn now() -> Zoned {
    match named() {
        Some(zone) => Timestamp::now().to_zoned(zone),
        None => Zoned::now(),
    }
}

/// The zone that `TZ` names. `None`: it names none; rules such as `CET-1CEST` have no file and need none.
fn named() -> Option<TimeZone> {
    static KNOWN: Mutex<Option<(Instant, Option<TimeZone>)>> = Mutex::new(None);
    if cfg!(windows) {
        // jiff has them with it there.
        return None;
    }
    let name = std::env::var("TZ").ok()?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((read, zone)) if read.elapsed() < BELIEVED => zone.clone(),
        _ => {
            let chosen = std::env::var_os("TZDIR").map(PathBuf::from);
            let directories: Vec<PathBuf> =
                chosen.into_iter().chain(DIRECTORIES.map(PathBuf::from)).collect();
            let zone = zone(&directories, &name);
            *known = Some((Instant::now(), zone.clone()));
            zone
        }
    }
}

/// What is found first under this name, or under that part of a path which is one.
fn zone(directories: &[PathBuf], name: &str) -> Option<TimeZone> {
    let name = name.strip_prefix(':').unwrap_or(name);
    let inside = name.rsplit_once("zoneinfo/").map(|(_, inside)| inside);
    [Some(name), inside]
        .into_iter()
        .flatten()
        .find_map(|name| directories.iter().find_map(|directory| read(directory, name)))
}

fn read(directory: &Path, name: &str) -> Option<TimeZone> {
    let content = std::fs::read(directory.join(name)).ok()?;
    TimeZone::tzif(name, &content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_its_file_whatever_else_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("zones");
        let directories = [folder.path().join("gone"), directory.clone()];
        std::fs::create_dir_all(directory.join("Europe")).unwrap();
        let file = directory.join("Europe/Berlin");
        std::fs::write(&file, testkit::zone::file(60, "CET")).unwrap();
        std::fs::write(directory.join("zone.tab"), "no zone").unwrap();
        let moment: Timestamp = "2026-08-14T08:00:00Z".parse().unwrap();
        let moved = "/mnt/zoneinfo/Europe/Berlin";
        for name in ["Europe/Berlin", ":Europe/Berlin", file.to_str().unwrap(), moved] {
            let time = moment.to_zoned(zone(&directories, name).unwrap());
            assert_eq!(time.strftime("%H:%M %:z %Z").to_string(), "09:00 +01:00 CET");
        }
        for name in [
            "",
            "Europe",
            "Europe/Atlantis",
            "zone.tab",
            "CET-1CEST,M3.5.0,M10.5.0/3",
        ] {
            assert_eq!(zone(&directories, name), None, "{name:?}");
        }
    }
}
