//! What the system's own programs do for an installation. Paths and names on their command lines, never a secret.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ServiceError;
use crate::durable;
use crate::service::{file, registry};

/// The scheduled task that repairs at start-up.
const TASK: &str = "IronFlock Agent Repair";
const SYSTEM: &str = "*S-1-5-18:(OI)(CI)F";
const ADMINISTRATORS: &str = "*S-1-5-32-544:(OI)(CI)F";
const USERS: &str = "*S-1-5-32-545:(OI)(CI)M";

/// Only the system and administrators get into `directory` from now on.
pub(super) fn restrict(directory: &Path) -> Result<(), ServiceError> {
    let words = [
        directory.as_os_str(),
        "/inheritance:r".as_ref(),
        "/grant:r".as_ref(),
        SYSTEM.as_ref(),
        ADMINISTRATORS.as_ref(),
    ];
    run("icacls.exe", &words)
}

/// Users may change what is in `directory`.
pub(super) fn open_to_users(directory: &Path) -> Result<(), ServiceError> {
    run(
        "icacls.exe",
        &[directory.as_os_str(), "/grant".as_ref(), USERS.as_ref()],
    )
}

/// Lets the system run `script` whenever it starts.
pub(super) fn schedule_repair(script: &Path) -> Result<(), ServiceError> {
    let quoted = format!("\"{}\"", script.display());
    let words = [
        "/Create", "/F", "/TN", TASK, "/SC", "ONSTART", "/RU", "SYSTEM", "/RL", "HIGHEST", "/TR", &quoted,
    ];
    run("schtasks.exe", &words.map(OsStr::new))
}

/// Takes that back. A task that is gone is no reason to complain.
pub(super) fn forget_repair() {
    let _ = run("schtasks.exe", &["/Delete", "/F", "/TN", TASK].map(OsStr::new));
}

/// Gives the service its proxy. It may hold a password, which no command line shows: the registry reads it from a file
/// that others cannot.
pub(super) fn set_proxy(service: &str, private: &Path, proxy: &str) -> Result<(), ServiceError> {
    let path = private.join("proxy.reg");
    let written = durable::replace(&path, &registry::environment(service, proxy), 0o600)
        .map_err(|error| file("cannot write", &path)(error).into());
    let imported = written.and_then(|()| run("reg.exe", &["import".as_ref(), path.as_os_str()]));
    let _ = fs::remove_file(&path);
    imported
}

fn run(program: &'static str, words: &[&OsStr]) -> Result<(), ServiceError> {
    let output = Command::new(system(program))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| ServiceError::NoCommand(program, error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = match output.stderr.trim_ascii() {
        b"" => output.stdout.trim_ascii(),
        said => said,
    };
    Err(ServiceError::Command {
        program,
        said: String::from_utf8_lossy(said).into_owned(),
    })
}

/// The system's own program, not one of that name that lies nearer.
fn system(program: &str) -> PathBuf {
    let root = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    [Path::new(&root), Path::new("System32"), Path::new(program)]
        .iter()
        .collect()
}
