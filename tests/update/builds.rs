//! Second builds of the agent, good ones and bad ones. The real binary is the build under test without its debugging
//! information; another version or a defect of it is the same program with other bytes in a constant, so that no test
//! has to compile the agent twice. What must not even begin to be an agent is a small program of its own.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use reagent::cli::VERSION;

/// What the new version does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// What it should.
    Good,
    /// Starts, lives, and never joins: it looks for a realm that does not exist.
    CannotConnect,
    /// Ends with an error soon after its first action: it finds no serial number.
    EndsEarly,
    /// Ends at once, before its first action.
    Crashes,
    /// Does not know a flag that devices are started with, so it would end before its first action.
    LacksAFlag,
    /// Does nothing for ever.
    Hangs,
    /// Does its first action and then nothing more: opening its database takes for ever.
    HangsOnItsWay,
    /// Prints no version and does not end.
    VersionHangs,
    /// Prints another version.
    OtherVersion,
}

/// The running version.
pub(crate) const OLD: &str = VERSION;
/// The version that is offered; as long as the running one, because it takes its place.
pub(crate) const NEW: &str = "7.7.7";
/// One after that.
pub(crate) const NEWER: &str = "8.8.8";

/// The agent under test.
pub(crate) fn agent() -> Vec<u8> {
    static AGENT: OnceLock<Vec<u8>> = OnceLock::new();
    AGENT
        .get_or_init(|| stripped(Path::new(env!("CARGO_BIN_EXE_reagent"))))
        .clone()
}

/// The same as [`build`], while whoever shares the test's thread goes on.
pub(crate) async fn built(version: &str, build: Build) -> Vec<u8> {
    let version = version.to_owned();
    let building = tokio::task::spawn_blocking(move || self::build(&version, build));
    building.await.unwrap()
}

/// A build that calls itself `version`.
pub(crate) fn build(version: &str, build: Build) -> Vec<u8> {
    let program = |behaviour: &str, shown: &str| {
        let mut program = stand_in();
        program.extend_from_slice(format!("\n{shown} {behaviour}\n").as_bytes());
        program
    };
    match build {
        Build::Good => rebadged(version),
        Build::CannotConnect => replaced(rebadged(version), b"realm1", b"realmX"),
        Build::EndsEarly => replaced(rebadged(version), b"serial_number", b"serial_nXmber"),
        Build::LacksAFlag => replaced(rebadged(version), b"dbFileName", b"dbFileNXme"),
        Build::HangsOnItsWay => endless(rebadged(version)),
        Build::Crashes => program("crashes", version),
        Build::Hangs => program("hangs", version),
        Build::VersionHangs => program("version-hangs", version),
        Build::OtherVersion => program("crashes", "1.2.3"),
    }
}

fn rebadged(version: &str) -> Vec<u8> {
    assert_eq!(version.len(), OLD.len(), "it takes the place of the other one");
    replaced(
        agent(),
        format!("{OLD}\n").as_bytes(),
        format!("{version}\n").as_bytes(),
    )
}

/// `binary` with a query that has no end where it prepares its tables.
fn endless(binary: Vec<u8>) -> Vec<u8> {
    let table = "CREATE TABLE IF NOT EXISTS ReagentSchema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL)";
    let query = "WITH RECURSIVE a(b) AS (SELECT 1 UNION ALL SELECT b FROM a) SELECT count(*) FROM a";
    let query = format!("{query:width$}", width = table.len());
    replaced(binary, table.as_bytes(), query.as_bytes())
}

/// `binary` with every `from` replaced by an equally long `to`.
fn replaced(mut binary: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = memory_find(&binary, from);
    assert!(!places.is_empty(), "{from:?} is not in the binary");
    for place in places {
        binary[place..place + to.len()].copy_from_slice(to);
    }
    binary
}

fn memory_find(binary: &[u8], wanted: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut start = 0;
    // Comparing at every byte takes a second where nothing is optimised.
    while let Some(next) = binary[start..].iter().position(|byte| *byte == wanted[0]) {
        start += next;
        if binary[start..].starts_with(wanted) {
            places.push(start);
        }
        start += 1;
    }
    places
}

/// Without debugging information: a quarter of the size.
fn stripped(path: &Path) -> Vec<u8> {
    let target = scratch("stripped");
    let status = Command::new("strip").arg("-o").arg(&target).arg(path).status();
    match status {
        Ok(status) if status.success() => {}
        // Larger, and just as good.
        _ => {
            std::fs::copy(path, &target).unwrap();
        }
    }
    let content = std::fs::read(&target).unwrap();
    std::fs::remove_file(&target).unwrap();
    content
}

/// The small program: its last line says what it does.
fn stand_in() -> Vec<u8> {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let (source, target) = (scratch("stand-in.rs"), scratch("stand-in"));
            std::fs::write(&source, include_str!("stand_in.txt")).unwrap();
            let output = Command::new("rustc")
                .args([
                    "--edition",
                    "2024",
                    "-C",
                    "opt-level=1",
                    "-C",
                    "strip=symbols",
                    "-o",
                ])
                .arg(&target)
                .arg(&source)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            let content = std::fs::read(&target).unwrap();
            for path in [source, target] {
                std::fs::remove_file(path).unwrap();
            }
            content
        })
        .clone()
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}
