//! `reagent service install|uninstall|start|stop|status` for Windows, and for systemd with the same verbs and options
//! (`session-and-api.md` 1.8, `update-and-system.md` 8.1), and the agent's words to its service manager.
//!
//! The installed binary and the identity are copies of their own below the agent directory. Must not know what the agent
//! does.

#[cfg(target_os = "linux")]
pub mod notify;
#[cfg(any(windows, test))]
mod registry;
#[cfg(any(windows, test))]
#[cfg_attr(not(windows), expect(dead_code, reason = "named by the installation"))]
mod repair;
#[cfg(not(target_os = "linux"))]
pub mod silent;
#[cfg(unix)]
mod systemd;
#[cfg(windows)]
mod windows;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::go_flags::{self, FlagError, Kind};
use crate::durable;

#[cfg(not(target_os = "linux"))]
pub use silent as notify;
#[cfg(unix)]
pub(crate) use systemd::is_supervised;
#[cfg(unix)]
pub use systemd::{ServiceError, host, leave, obey};
#[cfg(windows)]
pub use windows::{ServiceError, host, leave, obey};
#[cfg(windows)]
pub(crate) use windows::{is_supervised, stop_asked};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Install,
    Uninstall,
    Start,
    Stop,
    Status,
}

/// One `service` command, understood.
#[derive(Clone, Debug)]
pub struct Order {
    verb: Verb,
    config: PathBuf,
    /// Else the system's own place.
    agent_dir: Option<PathBuf>,
    apps_dir: Option<PathBuf>,
    /// For systemd alone.
    unit_dir: Option<PathBuf>,
    /// May hold a password.
    proxy: Proxy,
    no_start: bool,
}

#[derive(Clone, Default)]
struct Proxy(String);

impl std::fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_empty() { "none" } else { "(masked)" })
    }
}

/// Why a command line is not understood.
#[derive(Debug, thiserror::Error)]
pub enum Misunderstood {
    #[error("one of install, uninstall, start, stop, status is needed")]
    Verb,
    #[error(
        "{0}; options of install: -config <file> -agentDir <directory> -appsDir <directory> -proxy <url> -noStart -unitDir <directory>"
    )]
    Options(String),
    #[error("-config <file> is needed: the .flock file of this device")]
    NoConfig,
}

impl Misunderstood {
    /// Exit code (1.8).
    pub fn code(&self) -> u8 {
        match self {
            Misunderstood::Verb => 2,
            Misunderstood::Options(_) | Misunderstood::NoConfig => crate::exit::FAILURE,
        }
    }
}

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}{}", self.remedy())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    fn remedy(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied if cfg!(windows) => " (run this as an administrator)",
            io::ErrorKind::PermissionDenied => " (run this as root)",
            _ => "",
        }
    }
}

impl Order {
    /// Understands the words after `service`.
    pub fn parse(mut words: Vec<String>) -> Result<Order, Misunderstood> {
        if words.is_empty() {
            return Err(Misunderstood::Verb);
        }
        let verb = match words.remove(0).as_str() {
            "install" => Verb::Install,
            "uninstall" => Verb::Uninstall,
            "start" => Verb::Start,
            "stop" => Verb::Stop,
            "status" => Verb::Status,
            _ => return Err(Misunderstood::Verb),
        };
        let normal = go_flags::normalise(words, |name| match name {
            "config" | "agentDir" | "appsDir" | "proxy" => Some(Kind::Text),
            "unitDir" if cfg!(unix) => Some(Kind::Text),
            "noStart" | "start" => Some(Kind::Bool),
            _ => None,
        })
        .map_err(|error| match error {
            FlagError::Help => Misunderstood::Options("help".to_owned()),
            error => Misunderstood::Options(error.to_string()),
        })?;
        let mut order = Order {
            verb,
            config: PathBuf::new(),
            agent_dir: None,
            apps_dir: None,
            unit_dir: None,
            proxy: Proxy::default(),
            no_start: false,
        };
        for flag in &normal.flags {
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            match name {
                "--config" => order.config = PathBuf::from(value),
                "--agentDir" => order.agent_dir = Some(PathBuf::from(value)),
                "--appsDir" => order.apps_dir = Some(PathBuf::from(value)),
                "--proxy" => order.proxy = Proxy(value.to_owned()),
                "--unitDir" => order.unit_dir = Some(PathBuf::from(value)),
                "--noStart" => order.no_start = value == "true",
                // `-start` says what happens anyway.
                _ => {}
            }
        }
        if verb == Verb::Install && order.config.as_os_str().is_empty() {
            return Err(Misunderstood::NoConfig);
        }
        Ok(order)
    }
}

/// Copies a file over another, in one step.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), FileError> {
    let same = fs::canonicalize(from).ok() == fs::canonicalize(to).ok() && to.exists();
    if same {
        return Ok(());
    }
    let content = fs::read(from).map_err(file("cannot read", from))?;
    durable::replace(to, &content, mode).map_err(file("cannot write", to))
}

fn absolute(path: &Path) -> Result<PathBuf, FileError> {
    std::path::absolute(path).map_err(file("cannot use", path))
}

fn create_directory(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(file("cannot create", path))
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { doing, path, source }
}
