//! A Docker registry beside the studio: Debian's `docker-registry` as a supervised child on the loopback interface,
//! its user list kept in step with the devices.
//!
//! One task owns the child and the user list. The child runs in a process group of its own, so a Ctrl-C at the
//! terminal reaches the studio alone, which then ends the child itself.

mod users;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::secret;
use crate::store::Store;
use users::Users;

/// The registry's user who may publish. (Any user may, as far as the registry is concerned: it knows no roles.)
pub(crate) const PUBLISHER: &str = "studio";

/// Programs that this needs, and the Debian packages that bring them.
const PROGRAMS: [(&str, &str); 2] = [
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
];

/// The registry has to answer within this after its start.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Time to end by itself before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Restart pauses double from the first to the second; a run longer than the third starts over.
const BACKOFF: (Duration, Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(30),
    Duration::from_secs(60),
);

/// Why the registry does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// Programs are not installed: the studio can go on without.
    #[error("{}", missing_text(.0))]
    Missing(Vec<(&'static str, &'static str)>),
    /// Somebody else has the port.
    #[error("port {0} on 127.0.0.1 is in use: choose another with --with-registry PORT")]
    PortInUse(u16),
    /// A file in its folder could not be written, or the child could not be started.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// It ended or stayed silent; its log says why.
    #[error("the registry did not come up within {START_DEADLINE:?}: see {0}")]
    Silent(PathBuf),
}

fn missing_text(missing: &[(&str, &str)]) -> String {
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    format!(
        "no registry: {} not found; on Debian: apt-get install {}",
        programs.join(" and "),
        packages.join(" ")
    )
}

/// Handle of the running registry.
pub(crate) struct Registry {
    address: SocketAddr,
    publisher_password: String,
    /// One entry per waiting request; when full, further requests wait.
    refresh: mpsc::Sender<oneshot::Sender<()>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registry")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Starts the registry and waits until it answers. Port 0: any free one. It runs until `stop`; the task ends
    /// when the child has.
    pub(crate) async fn start(
        folder: &Path,
        port: u16,
        store: Store,
        publisher_password: String,
        stop: CancellationToken,
    ) -> Result<(Registry, JoinHandle<()>), RegistryError> {
        let missing: Vec<_> = PROGRAMS
            .into_iter()
            .filter(|(program, _)| !is_installed(program))
            .collect();
        if !missing.is_empty() {
            return Err(RegistryError::Missing(missing));
        }
        std::fs::create_dir_all(folder)
            .map_err(|error| RegistryError::Io("create the registry's folder", error))?;
        // Paths in the configuration must not depend on the working directory.
        let folder = folder
            .canonicalize()
            .map_err(|error| RegistryError::Io("find the registry's folder", error))?;
        end_leftover(&folder).await;
        let address = free_address(port)?;
        let mut users = Users::new(folder.join("htpasswd"), store, publisher_password.clone());
        users
            .refresh()
            .await
            .map_err(|error| RegistryError::Io("write the registry's user list", error))?;
        write_config(&folder, address)
            .map_err(|error| RegistryError::Io("write the registry's configuration", error))?;
        let mut child = spawn(&folder).map_err(|error| RegistryError::Io("start docker-registry", error))?;
        if !answers(address, &mut child).await {
            end(&mut child).await;
            return Err(RegistryError::Silent(folder.join("registry.log")));
        }
        tracing::info!(%address, "registry runs");
        let (refresh, requests) = mpsc::channel(16);
        let task = tokio::spawn(supervise(folder, child, users, requests, stop));
        Ok((
            Registry {
                address,
                publisher_password,
                refresh,
            },
            task,
        ))
    }

    /// `host:port/` as devices and image names write it.
    pub(crate) fn url(&self) -> String {
        format!("{}/", self.address)
    }

    pub(crate) fn publisher_password(&self) -> &str {
        &self.publisher_password
    }

    /// Brings the user list in step with the store and waits until it is written.
    pub(crate) async fn refresh_users(&self) {
        let (done, wait) = oneshot::channel();
        if self.refresh.send(done).await.is_ok() {
            // An error means the registry is shutting down: its users no longer matter.
            let _ = wait.await;
        }
    }
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn free_address(port: u16) -> Result<SocketAddr, RegistryError> {
    // The registry cannot tell which port it got, so a free one is found here and released again.
    let found = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    found.map_err(|_| RegistryError::PortInUse(port))
}

/// JSON is YAML; this way every path is quoted correctly.
fn write_config(folder: &Path, address: SocketAddr) -> io::Result<()> {
    let config = json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {
            "filesystem": {"rootdirectory": folder.join("data")},
            "delete": {"enabled": true},
        },
        "http": {"addr": address, "secret": secret::fresh()?},
        "auth": {"htpasswd": {"realm": "studio", "path": folder.join("htpasswd")}},
    });
    secret::replace_private(&folder.join("config.yml"), format!("{config:#}\n").as_bytes())
}

fn spawn(folder: &Path) -> io::Result<Child> {
    let log = File::create(folder.join("registry.log"))?;
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(folder.join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    if let Some(id) = child.id() {
        secret::replace_private(&folder.join("registry.pid"), id.to_string().as_bytes())?;
    }
    Ok(child)
}

/// Waits until the address accepts connections.
async fn answers(address: SocketAddr, child: &mut Child) -> bool {
    let deadline = Instant::now() + START_DEADLINE;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return false;
        }
        if TcpStream::connect(address).await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// Ends the child's process group: asks first, kills after the deadline, and collects it.
async fn end(child: &mut Child) {
    if let Some(group) = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
    {
        // Already gone is fine.
        let _ = rustix::process::kill_process_group(group, Signal::TERM);
        if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_ok() {
            return;
        }
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "the registry could not be collected");
    }
}

/// A studio that was killed leaves its registry behind, holding the port: end it, if it is provably ours.
async fn end_leftover(folder: &Path) {
    let file = folder.join("registry.pid");
    let Ok(text) = std::fs::read_to_string(&file) else {
        return;
    };
    let Some(pid) = text.trim().parse::<i32>().ok().and_then(Pid::from_raw) else {
        return;
    };
    let config = folder.join("config.yml");
    let ours = |pid: Pid| {
        std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|command| {
            command
                .split(|byte| *byte == 0)
                .any(|word| word == config.as_os_str().as_encoded_bytes())
        })
    };
    let deadline = Instant::now() + STOP_DEADLINE;
    let mut signal = Signal::TERM;
    while ours(pid) {
        tracing::warn!(
            pid = pid.as_raw_nonzero(),
            "ending the registry that an earlier studio left behind"
        );
        if rustix::process::kill_process_group(pid, signal).is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        if Instant::now() > deadline {
            signal = Signal::KILL;
        }
    }
    // A pid file that cannot be removed is checked again next time.
    let _ = std::fs::remove_file(&file);
}

/// The child's life: it runs, or it is started again at a time.
enum Life {
    Runs { child: Child, since: Instant },
    Pauses { until: Instant },
}

impl Life {
    /// Waits for what comes next: the child's end, or the end of the pause.
    async fn turn(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Life::Runs { child, .. } => child.wait().await.map(Some),
            Life::Pauses { until } => {
                tokio::time::sleep_until(*until).await;
                Ok(None)
            }
        }
    }
}

/// Keeps the child running and the user list fresh until `stop`.
async fn supervise(
    folder: PathBuf,
    child: Child,
    mut users: Users,
    mut requests: mpsc::Receiver<oneshot::Sender<()>>,
    stop: CancellationToken,
) {
    let mut life = Life::Runs {
        child,
        since: Instant::now(),
    };
    let mut pause = BACKOFF.0;
    loop {
        tokio::select! {
            turn = life.turn() => {
                life = match life {
                    Life::Runs { since, .. } => {
                        if since.elapsed() > BACKOFF.2 {
                            pause = BACKOFF.0;
                        }
                        tracing::error!(?turn, ?pause, "the registry ended, starting it again");
                        Life::Pauses { until: Instant::now() + pause }
                    }
                    Life::Pauses { .. } => match spawn(&folder) {
                        Ok(child) => Life::Runs { child, since: Instant::now() },
                        Err(error) => {
                            tracing::error!(%error, "the registry could not be started");
                            Life::Pauses { until: Instant::now() + pause }
                        }
                    },
                };
                if matches!(life, Life::Pauses { .. }) {
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
            request = requests.recv() => match request {
                Some(done) => {
                    if let Err(error) = users.refresh().await {
                        tracing::error!(%error, "the registry's user list could not be written");
                    }
                    // The asker may have gone away.
                    let _ = done.send(());
                }
                None => break,
            },
            () = stop.cancelled() => break,
        }
    }
    if let Life::Runs { mut child, .. } = life {
        end(&mut child).await;
    }
    // Without a pid file nothing is looked for next time.
    let _ = std::fs::remove_file(folder.join("registry.pid"));
}
