//! What the clock on the wall says where the device is.
//!
//! The zone is read from its one file. Asked by name, jiff would list all the zones that the system has and keep the list:
//! 0.2 MB, and a walk through a thousand files at every start.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Now, in the zone of `TZ` or else of the system; UTC without either.
pub(crate) fn now() -> Zoned {
    static ZONE: OnceLock<Option<TimeZone>> = OnceLock::new();
    let named = ZONE.get_or_init(|| {
        let name = std::env::var("TZ").ok()?;
        let directory = std::env::var_os("TZDIR").map_or_else(|| "/usr/share/zoneinfo".into(), PathBuf::from);
        zone(&directory, &name)
    });
    match named {
        Some(zone) => Timestamp::now().to_zoned(zone.clone()),
        None => Zoned::now(),
    }
}

/// The zone with this name. `None`: there is no such file; rules such as `CET-1CEST` have none and need none.
fn zone(directory: &Path, name: &str) -> Option<TimeZone> {
    let name = name.strip_prefix(':').unwrap_or(name);
    let content = std::fs::read(directory.join(name)).ok()?;
    TimeZone::tzif(name, &content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_its_file_whatever_else_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        std::fs::create_dir(directory.join("Europe")).unwrap();
        let file = directory.join("Europe/Berlin");
        std::fs::write(&file, testkit::zone::file(60, "CET")).unwrap();
        std::fs::write(directory.join("zone.tab"), "no zone").unwrap();
        let moment: Timestamp = "2026-08-14T08:00:00Z".parse().unwrap();
        for name in ["Europe/Berlin", ":Europe/Berlin", file.to_str().unwrap()] {
            let time = moment.to_zoned(zone(directory, name).unwrap());
            assert_eq!(time.strftime("%H:%M %:z %Z").to_string(), "09:00 +01:00 CET");
        }
        for name in [
            "",
            "Europe",
            "Europe/Atlantis",
            "zone.tab",
            "CET-1CEST,M3.5.0,M10.5.0/3",
        ] {
            assert_eq!(zone(directory, name), None, "{name:?}");
        }
    }
}
