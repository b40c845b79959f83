//! `reagent service install|uninstall|start|stop|status` for systemd, with the verbs and options of the Windows service
//! (`session-and-api.md` 1.8, `update-and-system.md` 8.1), and the agent's words to its service manager.
//!
//! The installed binary and the identity are copies of their own below the agent directory; updates never touch the
//! binary, they start from it. Must not know what the agent does.

pub mod notify;
mod unit;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::go_flags::{self, FlagError, Kind};
use crate::durable;
use crate::settings::DirectoryError;

/// Name of the unit, as on the vendor's images.
const UNIT: &str = "reagent.service";
/// Where the vendor's images put what they manage; two masters of one agent undo each other's work.
const MANAGED: [&str; 2] = ["Reagent-active", "reswarm-mode"];
/// And in which directory (1.13).
const SCRIPT_DIR: &str = "/opt/reagent";

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
    agent_dir: PathBuf,
    apps_dir: Option<PathBuf>,
    unit_dir: PathBuf,
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

/// Why an order could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("{0} exists: the vendor's manager script runs the agent on this device")]
    Managed(PathBuf),
    #[error("{0} was not written by reagent service install; it is left alone")]
    Foreign(PathBuf),
    #[error("{doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a directory is missing")]
    Directory(#[from] DirectoryError),
    #[error("the path {0} cannot be written into a unit")]
    Path(PathBuf),
    #[error("systemctl cannot be run; is this a systemd machine?")]
    NoSystemd(#[source] io::Error),
    #[error("systemctl {what} failed: {said}")]
    Systemd { what: String, said: String },
    #[error("the service is not installed")]
    NotInstalled,
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
            "config" | "agentDir" | "appsDir" | "proxy" | "unitDir" => Some(Kind::Text),
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
            agent_dir: PathBuf::from("/opt/reagent"),
            apps_dir: None,
            unit_dir: PathBuf::from("/etc/systemd/system"),
            proxy: Proxy::default(),
            no_start: false,
        };
        for flag in &normal.flags {
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            match name {
                "--config" => order.config = PathBuf::from(value),
                "--agentDir" => order.agent_dir = PathBuf::from(value),
                "--appsDir" => order.apps_dir = Some(PathBuf::from(value)),
                "--proxy" => order.proxy = Proxy(value.to_owned()),
                "--unitDir" => order.unit_dir = PathBuf::from(value),
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

/// Carries it out; the text is for people. Blocks.
pub fn obey(order: &Order) -> Result<String, ServiceError> {
    match order.verb {
        Verb::Install => install(order),
        Verb::Uninstall => uninstall(order),
        Verb::Start => systemctl(&["start", UNIT]).map(|_| "started".to_owned()),
        Verb::Stop => systemctl(&["stop", UNIT]).map(|_| "stopped".to_owned()),
        Verb::Status => status(order),
    }
}

fn install(order: &Order) -> Result<String, ServiceError> {
    refuse_what_is_not_ours(order)?;
    let agent_dir = absolute(&order.agent_dir)?;
    let paths = unit::Paths {
        apps_dir: match &order.apps_dir {
            Some(apps_dir) => absolute(apps_dir)?,
            None => agent_dir.join("apps"),
        },
        binary: agent_dir.join("reagent"),
        config: agent_dir.join("device.flock"),
        proxy: (!order.proxy.0.is_empty()).then(|| agent_dir.join("proxy.env")),
        agent_dir,
    };
    let unit = unit::text(&paths).map_err(ServiceError::Path)?;
    create_directory(&paths.agent_dir)?;
    create_directory(&paths.apps_dir)?;
    let own = std::env::current_exe().map_err(file("cannot find", Path::new("the running binary")))?;
    copy(&own, &paths.binary, 0o755)?;
    // Its secret is for root alone.
    copy(&order.config, &paths.config, 0o600)?;
    if let Some(path) = &paths.proxy {
        let content = unit::proxy_environment(&order.proxy.0);
        durable::replace(path, content.as_bytes(), 0o600).map_err(file("cannot write", path))?;
    }
    let path = order.unit_dir.join(UNIT);
    durable::replace(&path, unit.as_bytes(), 0o644).map_err(file("cannot write", &path))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", UNIT])?;
    if order.no_start {
        return Ok(format!("installed {}, not started", path.display()));
    }
    // Returns when the agent has said that it is ready.
    systemctl(&["restart", UNIT])?;
    Ok(format!("installed {} and started", path.display()))
}

/// Whether the device belongs to the vendor's manager script, or the unit to somebody else. The script works in its own
/// directory, whatever directory the order names.
fn refuse_what_is_not_ours(order: &Order) -> Result<(), ServiceError> {
    if let Some(sign) = sign_of_the_script(&[&order.agent_dir, Path::new(SCRIPT_DIR)]) {
        return Err(ServiceError::Managed(sign));
    }
    let path = order.unit_dir.join(UNIT);
    match fs::read(&path) {
        Ok(text) if unit::is_ours(&text) => Ok(()),
        Ok(_) => Err(ServiceError::Foreign(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file("cannot read", &path)(error)),
    }
}

fn sign_of_the_script(directories: &[&Path]) -> Option<PathBuf> {
    let signs = directories
        .iter()
        .flat_map(|directory| MANAGED.map(|name| directory.join(name)));
    signs.into_iter().find(|sign| fs::symlink_metadata(sign).is_ok())
}

/// Data, identity and binaries stay.
fn uninstall(order: &Order) -> Result<String, ServiceError> {
    let path = order.unit_dir.join(UNIT);
    if !path.exists() {
        return Err(ServiceError::NotInstalled);
    }
    refuse_what_is_not_ours(order)?;
    systemctl(&["disable", "--now", UNIT])?;
    fs::remove_file(&path).map_err(file("cannot remove", &path))?;
    systemctl(&["daemon-reload"])?;
    Ok(format!(
        "removed {}, kept {}",
        path.display(),
        order.agent_dir.display()
    ))
}

fn status(order: &Order) -> Result<String, ServiceError> {
    if !order.unit_dir.join(UNIT).exists() {
        return Err(ServiceError::NotInstalled);
    }
    let word = |verb: &str| match run(&[verb, UNIT]) {
        // Its exit status says the same in other words.
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(source) => Err(ServiceError::NoSystemd(source)),
    };
    Ok(format!("{} ({})", word("is-active")?, word("is-enabled")?))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), ServiceError> {
    let same = fs::canonicalize(from).ok() == fs::canonicalize(to).ok() && to.exists();
    if same {
        return Ok(());
    }
    let content = fs::read(from).map_err(file("cannot read", from))?;
    durable::replace(to, &content, mode).map_err(file("cannot write", to))
}

fn absolute(path: &Path) -> Result<PathBuf, ServiceError> {
    std::path::absolute(path).map_err(file("cannot use", path))
}

fn create_directory(path: &Path) -> Result<(), ServiceError> {
    fs::create_dir_all(path).map_err(file("cannot create", path))
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ServiceError {
    let path = path.to_owned();
    move |source| ServiceError::File { doing, path, source }
}

fn systemctl(arguments: &[&str]) -> Result<(), ServiceError> {
    let output = run(arguments).map_err(ServiceError::NoSystemd)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServiceError::Systemd {
        what: arguments.join(" "),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn run(arguments: &[&str]) -> io::Result<std::process::Output> {
    Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_found_in_any_of_its_directories() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, its) = (directory.path().join("ours"), directory.path().join("its"));
        for path in [&ours, &its] {
            fs::create_dir(path).unwrap();
        }
        assert_eq!(sign_of_the_script(&[&ours, &its]), None);
        let sign = its.join("Reagent-active");
        std::os::unix::fs::symlink("/nonexistent", &sign).unwrap();
        assert_eq!(sign_of_the_script(&[&ours, &its]), Some(sign));
    }
}
