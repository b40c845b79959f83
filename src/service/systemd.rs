//! A unit of systemd. The agent that it runs is told nothing that the system does not say to any process.

mod unit;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{FileError, Order, Verb, absolute, copy, create_directory, file};
use crate::durable;

/// Where units of the operator lie.
const UNIT_DIR: &str = "/etc/systemd/system";
const AGENT_DIR: &str = "/opt/reagent";
/// Name of the unit, as on the vendor's images.
const UNIT: &str = "reagent.service";
/// Where the vendor's images put what they manage; two masters of one agent undo each other's work.
const MANAGED: [&str; 2] = ["Reagent-active", "reswarm-mode"];
/// And in which directory (1.13).
const SCRIPT_DIR: &str = "/opt/reagent";

/// Why an order could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(
        "{0} exists: the vendor's manager script runs the agent on this device and updates it, so no service is needed"
    )]
    Managed(PathBuf),
    #[error("{0} was not written by reagent service install and is left alone: move it away first")]
    Foreign(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the path {0} cannot be written into a unit")]
    Path(PathBuf),
    #[error("systemctl cannot be run; is this a systemd machine?")]
    NoSystemd(#[source] io::Error),
    #[error("systemctl {what} failed: {said}")]
    Systemd { what: String, said: String },
    #[error("the service is not installed")]
    NotInstalled,
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

/// Runs the agent; under systemd as anywhere else.
pub fn host(agent: impl FnOnce() -> u8) -> u8 {
    agent()
}

/// Whether a service manager runs this process that has to be told how it ends.
pub(crate) fn is_supervised() -> bool {
    false
}

/// Ends this process.
pub fn leave(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

fn install(order: &Order) -> Result<String, ServiceError> {
    refuse_what_is_not_ours(order)?;
    let agent_dir = absolute(agent_dir(order))?;
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
    let text = unit::text(&paths).map_err(ServiceError::Path)?;
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
    let path = unit(order);
    durable::replace(&path, text.as_bytes(), 0o644).map_err(file("cannot write", &path))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", UNIT])?;
    if order.no_start {
        return Ok(format!("installed {}, not started", path.display()));
    }
    // Returns when the agent has said that it is ready.
    systemctl(&["restart", UNIT])?;
    Ok(format!("installed {} and started", path.display()))
}

fn agent_dir(order: &Order) -> &Path {
    order.agent_dir.as_deref().unwrap_or(Path::new(AGENT_DIR))
}

fn unit(order: &Order) -> PathBuf {
    order
        .unit_dir
        .as_deref()
        .unwrap_or(Path::new(UNIT_DIR))
        .join(UNIT)
}

/// Whether the device belongs to the vendor's manager script, or the unit to somebody else. The script works in its own
/// directory, whatever directory the order names.
fn refuse_what_is_not_ours(order: &Order) -> Result<(), ServiceError> {
    if let Some(sign) = sign_of_the_script(&[agent_dir(order), Path::new(SCRIPT_DIR)]) {
        return Err(ServiceError::Managed(sign));
    }
    let path = unit(order);
    match fs::read(&path) {
        Ok(text) if unit::is_ours(&text) => Ok(()),
        Ok(_) => Err(ServiceError::Foreign(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file("cannot read", &path)(error).into()),
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
    let path = unit(order);
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
        agent_dir(order).display()
    ))
}

fn status(order: &Order) -> Result<String, ServiceError> {
    if !unit(order).exists() {
        return Err(ServiceError::NotInstalled);
    }
    let word = |verb: &str| match run(&[verb, UNIT]) {
        // Its exit status says the same in other words.
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(source) => Err(ServiceError::NoSystemd(source)),
    };
    Ok(format!("{} ({})", word("is-active")?, word("is-enabled")?))
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
