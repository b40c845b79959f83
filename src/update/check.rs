//! Is this file a complete agent for this machine? Looked at before it gets a name that anybody would start
//! (`update-and-system.md` 9.1 U2). Must not know where it came from.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// Bytes of the ELF header that are looked at.
const HEADER: usize = 20;
/// Pause before a file that is still open elsewhere is tried again; the caller's limit ends it.
const BUSY: Duration = Duration::from_millis(50);

/// Why a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("the file is no executable of this system")]
    NotExecutable,
    #[error("the executable is for another kind of machine (ELF machine {0})")]
    Machine(u16),
    #[error("the executable does not run here")]
    DoesNotRun(#[source] io::Error),
    #[error("the executable did not print its version within {0:?}")]
    Hangs(Duration),
    #[error(
        "the executable ended with {status} and printed {printed:?} in place of its version {expected:?}"
    )]
    Version {
        status: String,
        printed: String,
        expected: String,
    },
}

/// Looks at the executable's header.
pub(crate) fn header(path: &Path) -> Result<(), Unfit> {
    let mut start = [0; HEADER];
    match File::open(path).and_then(|mut file| file.read_exact(&mut start)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Unfit::NotExecutable),
        Err(error) => return Err(Unfit::Unreadable(error)),
    }
    fits(&start)
}

/// Format, word size and machine of this build, as far as they show so early in the file.
fn fits(start: &[u8; HEADER]) -> Result<(), Unfit> {
    match std::env::consts::OS {
        "linux" => fits_linux(start),
        "windows" if !start.starts_with(b"MZ") => Err(Unfit::NotExecutable),
        // Running it tells.
        _ => Ok(()),
    }
}

fn fits_linux(start: &[u8; HEADER]) -> Result<(), Unfit> {
    let class = if cfg!(target_pointer_width = "64") { 2 } else { 1 };
    // Magic, class, little-endian.
    if start[..4] != *b"\x7fELF" || start[4] != class || start[5] != 1 {
        return Err(Unfit::NotExecutable);
    }
    let machine = u16::from_le_bytes([start[18], start[19]]);
    match expected_machine() {
        Some(expected) if machine != expected => Err(Unfit::Machine(machine)),
        _ => Ok(()),
    }
}

/// `e_machine` of this build; `None` where this list has no answer and only running it tells.
fn expected_machine() -> Option<u16> {
    match std::env::consts::ARCH {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        "arm" => Some(40),
        "x86" => Some(3),
        "riscv64" => Some(243),
        _ => None,
    }
}

/// Runs it with `--version` before `arguments`, those that it is to be started with, and compares what it prints: one that
/// does not know a flag of this device would end before its first action. The process is gone when this returns.
pub(crate) async fn prints_version(
    path: &Path,
    expected: &str,
    arguments: &[OsString],
    limit: Duration,
) -> Result<(), Unfit> {
    let mut command = Command::new(path);
    command
        .arg("--version")
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .kill_on_drop(true);
    let output = match tokio::time::timeout(limit, run(&mut command)).await {
        Err(_) => return Err(Unfit::Hangs(limit)),
        Ok(Err(error)) => return Err(Unfit::DoesNotRun(error)),
        Ok(Ok(output)) => output,
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && printed.trim() == expected {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let told = match printed.trim() {
        "" => complaint.lines().next().unwrap_or_default(),
        printed => printed,
    };
    Err(Unfit::Version {
        status: output.status.to_string(),
        printed: told.chars().take(80).collect(),
        expected: expected.to_owned(),
    })
}

/// A child that another thread starts at this moment may still hold the file open for writing until it is executed.
async fn run(command: &mut Command) -> io::Result<Output> {
    loop {
        match command.output().await {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => tokio::time::sleep(BUSY).await,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    fn script(directory: &Path, text: &str) -> PathBuf {
        let path = directory.join("candidate");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn this_very_program_fits_and_other_machines_and_pages_do_not() {
        let own = std::env::current_exe().unwrap();
        header(&own).unwrap();
        let mut start = [0; HEADER];
        File::open(&own).unwrap().read_exact(&mut start).unwrap();
        let mut foreign = start;
        foreign[18] ^= 0xff;
        assert!(matches!(fits(&foreign), Err(Unfit::Machine(_))));
        let mut half = start;
        half[4] = 3 - half[4];
        assert!(matches!(fits(&half), Err(Unfit::NotExecutable)));
        assert!(matches!(fits(b"<html><h1>404 Not Fo"), Err(Unfit::NotExecutable)));
    }

    #[test]
    fn a_file_shorter_than_a_header_is_no_executable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("short");
        std::fs::write(&path, "\x7fELF").unwrap();
        assert!(matches!(header(&path), Err(Unfit::NotExecutable)));
        assert!(matches!(
            header(&directory.path().join("none")),
            Err(Unfit::Unreadable(_))
        ));
    }

    #[tokio::test]
    async fn the_version_must_be_exactly_the_one_that_was_promised() {
        let directory = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(10);
        let good = script(directory.path(), "#!/bin/sh\necho 1.2.3\n");
        prints_version(&good, "1.2.3", &[], limit).await.unwrap();
        let other = prints_version(&good, "1.2.4", &[], limit).await.unwrap_err();
        assert!(matches!(other, Unfit::Version { .. }), "{other}");
        let failing = script(directory.path(), "#!/bin/sh\necho 1.2.3\nexit 3\n");
        prints_version(&failing, "1.2.3", &[], limit).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_program_that_knows_no_flag_of_the_device_says_which() {
        let directory = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(10);
        let text = "#!/bin/sh\n[ \"$*\" = '--version -new=1 word' ] && echo 1.2.3 && exit\necho \"unknown flag $2\" >&2\nexit 2\n";
        let picky = script(directory.path(), text);
        let arguments = ["-new=1".into(), "word".into()];
        prints_version(&picky, "1.2.3", &arguments, limit).await.unwrap();
        let other = prints_version(&picky, "1.2.3", &["-old".into()], limit).await;
        let other = other.unwrap_err().to_string();
        assert!(other.contains("unknown flag -old"), "{other}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let hangs = script(directory.path(), "#!/bin/sh\nexec sleep 1000\n");
        let limit = Duration::from_millis(200);
        let error = prints_version(&hangs, "1.2.3", &[], limit).await.unwrap_err();
        assert!(matches!(error, Unfit::Hangs(_)), "{error}");
    }
}
