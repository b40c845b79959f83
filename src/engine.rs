//! Docker through bollard: containers, images, events, logs. Knows nothing of app states.
//!
//! Every call has a deadline. "Already gone" is success where removal is the goal.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use build::{BuildSpec, dockerfile_in};
pub use compose::{Call, Cli, Dialect};
pub(crate) use compose::{registry_host, registry_of, same_image};
pub use create::Concession;
use daemon::Raw;
use protocol::port::WireProtocol;

use crate::work::Works;

mod build;
mod compose;
mod container;
mod create;
mod daemon;
mod events;
mod image;
pub(crate) mod lines;
mod log_stream;
mod prune;
mod records;
mod registry;

/// The container engine. Cloneable; holds no open connection while idle.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `unix:///var/run/docker.sock`, `tcp://…`, `npipe://…`.
    host: Arc<str>,
    /// The daemon has been found to lack capabilities: containers are made without privileges right away, instead of
    /// made twice at every start. Until the daemon goes away.
    unprivileged: Arc<AtomicBool>,
    /// The compose command line, once it was found.
    compose: Arc<Mutex<Option<Cli>>>,
    /// Builds, pulls and pushes under way.
    works: Works,
}

/// Why an engine call failed; the text is what operators see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The daemon cannot be reached.
    #[error("Docker is not reachable: {0}")]
    Unreachable(String),
    /// No such container.
    #[error("container {0} not found")]
    NoSuchContainer(String),
    /// No such image, locally or in the registry.
    #[error("{0}")]
    NoSuchImage(String),
    /// The registry refused the login.
    #[error("{0}")]
    Denied(String),
    /// Another container has the name.
    #[error("{0}")]
    NameInUse(String),
    /// A host port is taken (`port is already allocated`, `address already in use`).
    #[error("{0}")]
    PortConflict(String),
    /// No space left on the device.
    #[error("{0}")]
    NoSpace(String),
    /// A build without instructions.
    #[error("the Dockerfile cannot be empty")]
    EmptyDockerfile,
    /// A build whose archive has no Dockerfile at its root.
    #[error("cannot locate the Dockerfile")]
    NoDockerfile,
    /// The archive to build from cannot be read.
    #[error("{0}")]
    NoArchive(String),
    /// Cancelled by the caller's token.
    #[error("canceled")]
    Canceled,
    /// The daemon did not answer in time.
    #[error("Docker did not answer within {0:?} ({1})")]
    Timeout(Duration, &'static str),
    /// Anything else, in the daemon's words.
    #[error("{0}")]
    Other(String),
}

/// `State.Status` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerStatus {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
    /// A status this version does not know.
    Unknown,
}

/// What a container's health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not judged yet.
    Starting,
    Healthy,
    /// With the output of the last check, without line end.
    Unhealthy(String),
}

/// What inspect and list tell about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    pub id: String,
    /// Without leading slash.
    pub name: String,
    pub status: ContainerStatus,
    /// When it was last started, in the daemon's words: another run has another moment.
    pub started: String,
    pub exit_code: i64,
    /// `State.Error`, empty when none.
    pub error: String,
    pub oom_killed: bool,
    /// Of its health check; `None` without one.
    pub health: Option<Health>,
    pub labels: BTreeMap<String, String>,
    /// Configured (not live) bindings: container port to host port.
    pub bindings: Vec<PortBinding>,
    /// Image reference the container was created from.
    pub image: String,
    pub network_mode: String,
    /// The file that the daemon writes its log to, on the daemon's machine; empty when its log driver has none.
    pub log_path: String,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortBinding {
    pub container_port: u16,
    pub protocol: WireProtocol,
    pub host_port: u16,
}

/// What [`Engine::create`] makes (`app-lifecycle.md` 4.1, 4.2); everything not listed is fixed by the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// DEV containers get an open stdin and attached streams.
    pub interactive: bool,
    pub bindings: Vec<PortBinding>,
    /// Bind mounts, host path to container path, read-write.
    pub mounts: Vec<(String, String)>,
    /// `nvidia` when a GPU was detected.
    pub runtime: Option<String>,
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// Look at this container (name without slash) again: create, start, die, destroy, pause, health, oom, ….
    /// `project` is that of compose, if it is part of one.
    Container { name: String, project: Option<String> },
    /// The event stream was (re-)established: look at everything.
    Resync,
    /// The daemon went away.
    Down,
}

/// Which part of a container's log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRange {
    pub follow: bool,
    /// Newest lines; `None` is all.
    pub tail: Option<u32>,
    /// Only lines after this moment, as Docker wants it (`seconds.nanoseconds`).
    pub since: Option<String>,
    /// Only lines up to this moment, in the same form.
    pub until: Option<String>,
    /// Ask Docker for timestamps; they are parsed off the line into [`LogLine::timestamp`].
    pub timestamps: bool,
}

/// One line of a container's log, without line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// RFC 3339 with nanoseconds, when asked for.
    pub timestamp: Option<String>,
    /// The same moment, since 1970.
    pub nanoseconds: Option<u64>,
    /// Invalid UTF-8 replaced.
    pub text: String,
}

/// An image on the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    pub id: String,
    pub repo_tags: Vec<String>,
}

/// Where the daemon listens when nobody says otherwise.
#[cfg(not(windows))]
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
#[cfg(windows)]
const DEFAULT_HOST: &str = "npipe:////./pipe/docker_engine";

impl Engine {
    /// A client for `DOCKER_HOST` or the local socket. Does not connect.
    pub fn new() -> Result<Engine, EngineError> {
        match std::env::var("DOCKER_HOST") {
            Ok(host) if !host.is_empty() => Engine::at(&host),
            Ok(_) | Err(_) => Engine::at(DEFAULT_HOST),
        }
    }

    /// A client for the daemon at `host`, in the syntax of `DOCKER_HOST`. Does not connect; fails only when the
    /// scheme is not one that we speak.
    pub fn at(host: &str) -> Result<Engine, EngineError> {
        let engine = Engine {
            host: host.into(),
            unprivileged: Arc::default(),
            compose: Arc::default(),
            works: Works::default(),
        };
        match engine.client(daemon::READ) {
            // A socket that does not exist yet: the daemon may come later.
            Ok(_) | Err(EngineError::Unreachable(_)) => Ok(engine),
            Err(error) => Err(error),
        }
    }

    /// Builds, pulls and pushes that would have to begin again, and whatever else is counted with them.
    pub fn works(&self) -> &Works {
        &self.works
    }

    /// Whether the daemon answers within `within`.
    pub async fn is_up(&self, within: Duration) -> bool {
        let ping = Raw::get("/_ping");
        self.send("ping", within, "", ping).await.is_ok()
    }
}

/// `name`, if a container can have it. No other name is ever sent: in a URL it could address something else.
fn checked(name: &str) -> Result<&str, EngineError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.bytes().all(valid) {
        Ok(name)
    } else {
        Err(EngineError::NoSuchContainer(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_container_can_have_reach_the_daemon() {
        assert_eq!(checked("prod_6_my.app-2"), Ok("prod_6_my.app-2"));
        for bad in ["", ".", "..", "-x", "a/b", "a?force=1", "a b", "a%2f", "ü"] {
            assert_eq!(checked(bad), Err(EngineError::NoSuchContainer(bad.to_owned())));
        }
    }

    #[test]
    fn a_daemon_that_is_not_there_yet_is_no_reason_to_fail_but_an_unknown_scheme_is() {
        assert!(Engine::at("unix:///nonexistent/docker.sock").is_ok());
        assert!(Engine::at("ssh://somewhere").is_err());
    }
}
