//! The log file: opened when it can be, capped by size, two backups (`session-and-api.md` 1.7). Must not know what a
//! line says.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};

use super::complain;
use super::line::Line;
use crate::local_time;
use crate::os::{self, DirBuilderExt as _, OpenOptionsExt as _};
use crate::settings::Settings;

/// Size at which the file becomes a backup.
const MAX_BYTES: u64 = 100 * 1024 * 1024;
/// Backups kept.
const BACKUPS: usize = 2;
/// Pause between attempts to open a file that could not be opened.
const RETRY: Duration = Duration::from_secs(60);
/// UTC, in the name of a backup.
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
/// Part of a name that the vendor's manager takes for a new agent binary (weakness R13).
const TABOO: &str = "reagent-";

/// Where the log is: `<stem><ext>` and its backups `<backup_prefix><UTC time><ext>` in the same directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    pub file: PathBuf,
    /// Normally `<stem>-`.
    pub backup_prefix: String,
    /// With its dot; empty when the file has none.
    pub extension: String,
}

impl LogPlace {
    /// The place that `-logFile` names, and whether another name had to be taken for the file itself: in the agent
    /// directory neither the file nor a backup may be called `…reagent-…`, the hyphen becomes `_` (weakness R13).
    pub fn of(settings: &Settings) -> (LogPlace, bool) {
        let wanted = &settings.log_file;
        let directory = parent(wanted);
        let mut name = wanted
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let careful = same_directory(directory, &settings.agent_dir);
        let renamed = careful && name.contains(TABOO);
        if renamed {
            name = name.replace(TABOO, "reagent_");
        }
        let (stem, extension) = match name.rfind('.') {
            Some(dot) => name.split_at(dot),
            None => (name.as_str(), ""),
        };
        let mut backup_prefix = format!("{stem}-");
        if careful {
            backup_prefix = backup_prefix.replace(TABOO, "reagent_");
        }
        let extension = extension.to_owned();
        // A path without a name stays as it is: opening it fails and says so.
        let file = if renamed {
            directory.join(&name)
        } else {
            wanted.clone()
        };
        (
            LogPlace {
                file,
                backup_prefix,
                extension,
            },
            renamed,
        )
    }

    /// Names of the backups that exist, oldest first.
    pub fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(parent(&self.file))? {
            let entry = entry?;
            let is_backup = entry
                .file_name()
                .to_str()
                .is_some_and(|name| self.is_backup(name));
            if is_backup {
                found.push(entry.path());
            }
        }
        // The time in the name sorts as text.
        found.sort();
        Ok(found)
    }

    fn is_backup(&self, name: &str) -> bool {
        name.strip_prefix(self.backup_prefix.as_str())
            .and_then(|rest| rest.strip_suffix(self.extension.as_str()))
            .is_some_and(|time| {
                let shape = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte };
                time.bytes().map(shape).eq(*b"0000-00-00T00-00-00.000")
            })
    }

    fn backup_at(&self, now: Timestamp) -> PathBuf {
        let time = now.to_zoned(TimeZone::UTC).strftime(BACKUP_TIME).to_string();
        parent(&self.file).join(format!("{}{time}{}", self.backup_prefix, self.extension))
    }
}

/// The file, open or waiting to be.
#[derive(Debug)]
pub(super) struct LogFile {
    place: LogPlace,
    max_bytes: u64,
    open: Option<OpenFile>,
    /// When the last attempt to open failed.
    failed: Option<Instant>,
    /// Lines that could not be written since the last one that could.
    lost: u64,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    size: u64,
    /// The last write ended within a line.
    torn: bool,
}

impl LogFile {
    /// Opens the log at `place`; a failure is said on stderr and tried again while lines come.
    pub(super) fn open(place: LogPlace) -> LogFile {
        LogFile::with_limit(place, MAX_BYTES)
    }

    pub(super) fn with_limit(place: LogPlace, max_bytes: u64) -> LogFile {
        let mut log = LogFile {
            place,
            max_bytes,
            open: None,
            failed: None,
            lost: 0,
        };
        log.reopen(0o600);
        log
    }

    /// Appends one line with its newline. A line that cannot be written is counted, and the count written first as
    /// soon as writing works again.
    pub(super) fn append(&mut self, line: &[u8]) {
        if self.open.is_none() && self.failed.is_none_or(|failed| failed.elapsed() >= RETRY) {
            self.reopen(0o600);
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.size > 0 && open.size + line.len() as u64 > self.max_bytes)
        {
            self.rotate();
        }
        let Some(open) = &mut self.open else {
            self.lost += 1;
            return;
        };
        let mut text = Vec::new();
        if open.torn {
            text.push(b'\n');
        }
        if self.lost > 0 {
            text.extend(Line::of_loss(self.lost, &local_time::now()).to_json());
        }
        text.extend_from_slice(line);
        match open.write(&text) {
            Ok(()) => self.lost = 0,
            Err(error) => {
                if self.lost == 0 {
                    complain(&format!(
                        "cannot write the log file {}: {error}",
                        self.place.file.display()
                    ));
                }
                self.lost += 1;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// As if the pause after a failed attempt were over.
    #[cfg(test)]
    pub(super) fn forget_failure(&mut self) {
        self.failed = None;
    }

    fn reopen(&mut self, new_mode: u32) {
        match open(&self.place.file, new_mode) {
            Ok(open) => {
                self.open = Some(open);
                self.failed = None;
            }
            Err(error) => {
                if self.failed.is_none() {
                    complain(&format!(
                        "cannot open the log file {}, going on without it: {error}",
                        self.place.file.display()
                    ));
                }
                self.open = None;
                self.failed = Some(Instant::now());
            }
        }
    }

    /// Makes the file a backup and starts a new one with the same mode. When it cannot be renamed it is emptied: the
    /// cap holds in any case.
    fn rotate(&mut self) {
        let Some(open) = &mut self.open else { return };
        let mode = open
            .file
            .metadata()
            .map_or(0o600, |metadata| os::mode(&metadata) & 0o777);
        match fs::rename(&self.place.file, self.place.backup_at(Timestamp::now())) {
            Ok(()) => {}
            // Somebody took it away: a new file is all that is left to do.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                complain(&format!(
                    "cannot keep a backup of the log file, emptying it: {error}"
                ));
                if open.file.set_len(0).is_ok() {
                    open.size = 0;
                }
                return;
            }
        }
        self.reopen(mode);
        if let Ok(backups) = self.place.backups() {
            let surplus = backups.len().saturating_sub(BACKUPS);
            for backup in &backups[..surplus] {
                // The next rotation tries again.
                let _ = fs::remove_file(backup);
            }
        }
    }
}

impl OpenFile {
    fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            match self.file.write(text) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.size += count as u64;
                    self.torn = text[count - 1] != b'\n';
                    text = &text[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens for appending; makes missing directories (0755) and a missing file with `new_mode`.
fn open(path: &Path, new_mode: u32) -> io::Result<OpenFile> {
    let directory = parent(path);
    if !directory.exists() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(new_mode)
        .open(path)?;
    let size = file.metadata()?.len();
    Ok(OpenFile {
        file,
        size,
        torn: false,
    })
}

/// The directory of `path`, `.` for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether both name one directory, also when it does not exist yet.
fn same_directory(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        fs::canonicalize(path)
            .or_else(|_| std::path::absolute(path))
            .unwrap_or_else(|_| path.to_path_buf())
    };
    real(one) == real(other)
}
