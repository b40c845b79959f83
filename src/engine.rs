//! Docker through bollard: containers, images, events, logs. Knows nothing of app states.
//!
//! Every call has a deadline. "Already gone" is success where removal is the goal.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::port::WireProtocol;
use protocol::request::RegistryLogin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The container engine. Cloneable; holds no open connection while idle.
#[derive(Clone, Debug)]
pub struct Engine {}

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

/// What inspect and list tell about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    pub id: String,
    /// Without leading slash.
    pub name: String,
    pub status: ContainerStatus,
    pub exit_code: i64,
    /// `State.Error`, empty when none.
    pub error: String,
    pub oom_killed: bool,
    pub labels: BTreeMap<String, String>,
    /// Configured (not live) bindings: container port to host port.
    pub bindings: Vec<PortBinding>,
    /// Image reference the container was created from.
    pub image: String,
    pub network_mode: String,
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
    Container { name: String },
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
    /// Ask Docker for timestamps; they are parsed off the line into [`LogLine::timestamp`].
    pub timestamps: bool,
}

/// One line of a container's log, without line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// RFC 3339 with nanoseconds, when asked for.
    pub timestamp: Option<String>,
    /// Invalid UTF-8 replaced.
    pub text: String,
}

/// An image on the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    pub id: String,
    pub repo_tags: Vec<String>,
}

impl Engine {
    /// A client for `DOCKER_HOST` or the local socket. Does not connect.
    pub fn new() -> Result<Engine, EngineError> {
        todo!()
    }

    /// Whether the daemon answers within `within`.
    pub async fn is_up(&self, _within: Duration) -> bool {
        todo!()
    }

    /// The engine's own JSON list of all containers, passed through (`list_containers`).
    pub async fn list_raw(&self) -> Result<Vec<serde_json::Value>, EngineError> {
        todo!()
    }

    /// Every container that carries label `key=value`.
    pub async fn list_labelled(&self, _key: &str, _value: &str) -> Result<Vec<ContainerFacts>, EngineError> {
        todo!()
    }

    /// One container by exact name.
    pub async fn inspect(&self, _name: &str) -> Result<Option<ContainerFacts>, EngineError> {
        todo!()
    }

    /// Creates a container.
    pub async fn create(&self, _spec: &ContainerSpec) -> Result<(), EngineError> {
        todo!()
    }

    /// Starts a created or stopped container.
    pub async fn start(&self, _name: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Unpauses a container.
    pub async fn unpause(&self, _name: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Stops with a grace period and waits until it does not run. Gone or not running is success.
    pub async fn stop(&self, _name: &str, _grace: Duration) -> Result<(), EngineError> {
        todo!()
    }

    /// Force-removes and waits until the name is free. Gone is success; a removal in progress is waited for.
    pub async fn remove(&self, _name: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// All images (`get_images`, image presence).
    pub async fn images(&self) -> Result<Vec<ImageFacts>, EngineError> {
        todo!()
    }

    /// The dictionaries that `get_images` answers (`session-and-api.md` 6.5).
    pub async fn images_raw(&self) -> Result<Vec<serde_json::Value>, EngineError> {
        todo!()
    }

    /// Whether exactly this reference is present (references normalised, weakness W33).
    pub async fn has_image(&self, _reference: &str) -> Result<bool, EngineError> {
        todo!()
    }

    /// Removes every tag whose repository equals `repository`; used by another container or missing is success.
    pub async fn remove_repository(&self, _repository: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Pulls. Every record of the daemon goes to `progress` as its JSON line; a full channel drops lines, never waits.
    /// Ends with [`EngineError::Canceled`] when `cancel` fires, and when no progress arrives for five minutes fails.
    pub async fn pull(
        &self,
        _reference: &str,
        _login: Option<&RegistryLogin>,
        _progress: mpsc::Sender<String>,
        _cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        todo!()
    }

    /// `docker image prune -f`; with `all` what `docker system prune -af --volumes` does, but volumes, containers and
    /// images of known apps are kept (weakness R63). Returns the text for the caller.
    pub async fn prune(&self, _all: bool, _keep_names: &[String]) -> Result<String, EngineError> {
        todo!()
    }

    /// Container events, re-subscribed with back-off and a cursor for ever; ends when the receiver is dropped.
    /// Bounded: when the receiver is behind, events collapse into one [`EngineEvent::Resync`].
    pub fn events(&self) -> mpsc::Receiver<EngineEvent> {
        todo!()
    }

    /// Lines of a container's log, oldest first; the channel ends with the log, or after one error.
    /// Back-pressure: a full channel stops reading. Streams of containers without TTY are demultiplexed.
    pub fn logs(&self, _name: &str, _range: LogRange) -> mpsc::Receiver<Result<LogLine, EngineError>> {
        todo!()
    }
}
