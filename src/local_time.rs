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

    /// Central European time by RFC 8536, version 2: one kind of local time, and the rule for everything later.
    fn central_europe() -> Vec<u8> {
        let header = |types: u8| {
            let mut header = b"TZif2".to_vec();
            header.resize(44, 0);
            header[39] = types;
            header[43] = 4;
            header
        };
        let block = [&3600_i32.to_be_bytes()[..], &[0, 0], b"CET\0"].concat();
        let rule = b"\nCET-1CEST,M3.5.0,M10.5.0/3\n";
        [&header(1)[..], &block, &header(1), &block, rule].concat()
    }

    #[test]
    fn a_zone_is_its_file_whatever_else_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        std::fs::create_dir(directory.join("Europe")).unwrap();
        let file = directory.join("Europe/Berlin");
        std::fs::write(&file, central_europe()).unwrap();
        std::fs::write(directory.join("zone.tab"), "no zone").unwrap();
        let summer: Timestamp = "2026-08-14T08:00:00Z".parse().unwrap();
        for name in ["Europe/Berlin", ":Europe/Berlin", file.to_str().unwrap()] {
            let time = summer.to_zoned(zone(directory, name).unwrap());
            assert_eq!(time.strftime("%H:%M %:z %Z").to_string(), "10:00 +02:00 CEST");
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
