//! `studio serve`: composition, order of start and of shutdown.
//!
//! Start: data directory and its lock, store, listener, registry, router, own session; only then the credentials
//! file and the line that says ready. Shutdown in reverse, each step with a deadline.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wamp::client::{ClientConfig, Credentials};
use wamp::router::{Limits, Router, RouterConfig};

use crate::admission::{self, REALM, SYSTEM};
use crate::component;
use crate::operator::{self, Operator};
use crate::registry::{Registry, RegistryError};
use crate::secret;
use crate::store::{Store, StoreError};
use crate::studio::{Settings, Studio};

/// Time for our own session to join our own router.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// Time for each part to end at shutdown.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Name of the first account.
const FIRST_ACCOUNT: &str = "operator";

/// What `serve` needs.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    pub data: PathBuf,
    pub listen: SocketAddr,
    /// Router URL written into `.flock` files; the listen address when `None`.
    pub public_url: Option<String>,
    /// `host:port/` of a registry that somebody else runs.
    pub registry: Option<String>,
    /// Run one beside the studio on this port of 127.0.0.1; 0: any free one.
    pub with_registry: Option<u16>,
    /// `apps/`
    pub repository: String,
    /// `reswarmBaseURL` told to devices.
    pub base_url: Option<String>,
}

/// Why the studio could not start or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot use the data directory {path}: {what}")]
    Data {
        path: String,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("another studio uses the data directory {0}")]
    Locked(String),
    #[error("cannot listen on {0}: choose another address with --listen")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("the fleet store cannot be used")]
    Store(#[from] StoreError),
    #[error("the registry cannot be started: {0}")]
    Registry(String),
    #[error("the studio's own session did not join within {READY_DEADLINE:?}: see the log")]
    NotReady,
    #[error("the system gives no random numbers")]
    Random(#[source] io::Error),
    #[error("the router ended")]
    Router(#[source] io::Error),
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
}

/// What the caller may tell once the studio answers.
#[derive(Clone, Debug)]
pub struct Ready {
    pub url: String,
    pub realm: &'static str,
    pub registry: Option<String>,
    pub operator_file: PathBuf,
}

/// Runs the studio until `stop`. `on_ready` is called once, when everything answers.
pub async fn serve(
    config: ServeConfig,
    stop: CancellationToken,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let _lock = prepare(&config.data)?;
    let store = Store::open(&config.data.join("studio.db")).await?;
    let owner = store.ensure_first_account(FIRST_ACCOUNT).await?;
    // No session of an earlier run can still exist at a router that starts now.
    store.disconnect_all().await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| ServeError::Listen(config.listen, error))?;
    let address = listener
        .local_addr()
        .map_err(|error| ServeError::Listen(config.listen, error))?;
    let local_url = format!("ws://{}", reachable(address));
    let public_url = config.public_url.clone().unwrap_or_else(|| {
        if address.ip().is_unspecified() {
            tracing::warn!(
                "identity files will say {local_url}: give --public-url for devices on other machines"
            );
        }
        local_url.clone()
    });

    let registry_stop = CancellationToken::new();
    let (registry, registry_task) = match config.with_registry {
        Some(port) => start_registry(&config.data, port, &store, registry_stop.clone()).await?,
        None => (None, None),
    };
    let settings = Settings {
        public_url,
        registry: match (&registry, config.registry) {
            (_, Some(given)) => given,
            (Some(registry), None) => registry.url(),
            (None, None) => String::new(),
        },
        repository: config.repository,
        base_url: config.base_url,
    };

    let system_secret = secret::fresh().map_err(ServeError::Random)?;
    let router = Router::new(RouterConfig {
        realm: REALM.to_owned(),
        roles: admission::roles(),
        authenticator: admission::authenticator(store.clone(), system_secret.clone()),
        limits: Limits::default(),
    });
    let router_stop = CancellationToken::new();
    let mut router_task = {
        let (router, stop) = (router.clone(), router_stop.clone());
        tokio::spawn(async move { router.serve(listener, stop).await })
    };

    let ready = Ready {
        url: local_url.clone(),
        realm: REALM,
        registry: (!settings.registry.is_empty()).then(|| settings.registry.clone()),
        operator_file: config.data.join(operator::FILE),
    };
    let studio = Arc::new(Studio {
        store: store.clone(),
        settings,
        registry,
    });
    let component_stop = CancellationToken::new();
    let (ready_sender, mut ready_watch) = watch::channel(false);
    let component_task = {
        let mut client = ClientConfig::new(&local_url, REALM);
        client.credentials = Credentials::Cra {
            authid: SYSTEM.to_owned(),
            secret: system_secret,
        };
        tokio::spawn(component::run(
            studio.clone(),
            client,
            ready_sender,
            component_stop.clone(),
        ))
    };

    let outcome = tokio::select! {
        joined = tokio::time::timeout(READY_DEADLINE, ready_watch.wait_for(|ready| *ready)) => match joined {
            Ok(Ok(_)) => match write_operator(&ready, &store, owner.key).await {
                Ok(()) => {
                    on_ready(&ready);
                    tokio::select! {
                        () = stop.cancelled() => Ok(()),
                        ended = &mut router_task => Err(router_ended(ended)),
                    }
                }
                Err(error) => Err(error),
            },
            Ok(Err(_)) | Err(_) => Err(ServeError::NotReady),
        },
        () = stop.cancelled() => Ok(()),
        ended = &mut router_task => Err(router_ended(ended)),
    };

    tracing::info!("stopping");
    component_stop.cancel();
    await_end("own session", component_task).await;
    router_stop.cancel();
    if !router_task.is_finished() {
        await_end("router", router_task).await;
    }
    registry_stop.cancel();
    if let Some(task) = registry_task {
        await_end("registry", task).await;
    }
    store.close().await;
    outcome
}

type RunningRegistry = (Option<Registry>, Option<tokio::task::JoinHandle<()>>);

async fn start_registry(
    data: &Path,
    port: u16,
    store: &Store,
    stop: CancellationToken,
) -> Result<RunningRegistry, ServeError> {
    let fresh = secret::fresh().map_err(ServeError::Random)?;
    let password = store.setting_or("registry publisher password", fresh).await?;
    match Registry::start(&data.join("registry"), port, store.clone(), password, stop).await {
        Ok((registry, task)) => Ok((Some(registry), Some(task))),
        Err(missing @ RegistryError::Missing(_)) => {
            tracing::error!("{missing}; going on without");
            Ok((None, None))
        }
        Err(error) => {
            let cause = std::error::Error::source(&error)
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            Err(ServeError::Registry(format!("{error}{cause}")))
        }
    }
}

async fn write_operator(
    ready: &Ready,
    store: &Store,
    owner: crate::keys::AccountKey,
) -> Result<(), ServeError> {
    let secret = store.account_secret(owner).await?.unwrap_or_default();
    let operator = Operator {
        url: ready.url.clone(),
        authid: owner.to_string(),
        secret,
    };
    operator
        .save(&ready.operator_file)
        .map_err(|source| ServeError::Data {
            path: ready.operator_file.display().to_string(),
            what: "cannot write the operator's credentials",
            source,
        })
}

fn router_ended(ended: Result<io::Result<()>, tokio::task::JoinError>) -> ServeError {
    ServeError::Router(match ended {
        Ok(Ok(())) => io::Error::other("it stopped by itself"),
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    })
}

async fn await_end<T>(what: &str, task: tokio::task::JoinHandle<T>) {
    let abort = task.abort_handle();
    match tokio::time::timeout(STOP_DEADLINE, task).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(what, %error, "ended badly"),
        Err(_) => {
            abort.abort();
            tracing::error!(what, "did not end in time");
        }
    }
}

/// Makes the data directory and the database file private, and takes the lock that keeps a second studio out.
fn prepare(data: &Path) -> Result<File, ServeError> {
    let failed = |what| {
        move |source| ServeError::Data {
            path: data.display().to_string(),
            what,
            source,
        }
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(failed("cannot create it"))?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data.join("studio.lock"))
        .map_err(failed("cannot open its lock"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(ServeError::Locked(data.display().to_string())),
        Err(error) => return Err(failed("cannot lock it")(error.into())),
    }
    let database = data.join("studio.db");
    match secret::create_private(&database) {
        // The database holds every secret of the fleet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600))
                .map_err(failed("cannot make the database private"))?;
        }
        Err(error) => return Err(failed("cannot create the database")(error)),
        Ok(_) => {}
    }
    Ok(lock)
}

/// The address under which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_studio_is_kept_out_of_the_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let lock = prepare(&data).unwrap();
        assert!(matches!(prepare(&data), Err(ServeError::Locked(_))));
        drop(lock);
        drop(prepare(&data).unwrap());
    }

    #[test]
    fn directory_and_database_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        drop(prepare(&data).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("studio.db")), 0o600);
    }

    #[test]
    fn a_wildcard_address_is_reached_over_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
