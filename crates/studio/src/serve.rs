//! `studio serve`: composition, order of start and of shutdown.
//!
//! Start: data directory and its lock, store, listener, registry, router, own session; only then the credentials
//! file and the line that says ready. Shutdown in reverse, each step with a deadline.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wamp::transport::tls::TlsError;

use crate::admission::REALM;
use crate::bucket;
use crate::component;
use crate::development::Reports;
use crate::operator::{self, Operator};
use crate::plane::{Plane, TlsFiles, reachable};
use crate::registry::{Registry, RegistryError};
use crate::rollout::Alarm;
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
    /// Address of the embedded router; unused with `router`.
    pub listen: SocketAddr,
    /// Only `wss` connections are taken; needs `public_url`, which names the host of the certificate.
    pub tls: Option<TlsFiles>,
    /// Attach to a router that somebody else runs instead of opening one.
    pub router: Option<ExternalRouter>,
    /// Router URL written into `.flock` files and into the operator's credentials; by default where the studio itself
    /// reaches its router.
    pub public_url: Option<String>,
    /// `host:port/` of a registry that somebody else runs.
    pub registry: Option<String>,
    /// Run one beside the studio on this port of 127.0.0.1; 0: any free one.
    pub with_registry: Option<u16>,
    /// `apps/`
    pub repository: String,
    /// `reswarmBaseURL` told to devices.
    pub base_url: Option<String>,
    /// Serve an update bucket.
    pub bucket: Option<BucketConfig>,
    /// `update_url` written into `.flock` files; by default where the bucket is reached.
    pub update_url: Option<String>,
}

/// The update bucket of this process.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// What `scripts/publish` fills.
    pub directory: PathBuf,
    pub listen: SocketAddr,
}

/// A router outside of this process, for example Crossbar.io, and the studio's place there.
#[derive(Clone)]
pub struct ExternalRouter {
    pub url: String,
    /// `system`, in a role that may register and call everything.
    pub authid: String,
    pub secret: String,
}

impl std::fmt::Debug for ExternalRouter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ExternalRouter({} as {})", self.url, self.authid)
    }
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
    #[error("cannot listen on {0}: choose another address with --bucket-listen")]
    BucketListen(SocketAddr, #[source] io::Error),
    #[error("--bucket {path} cannot be made")]
    Bucket {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path}")]
    TlsFile {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the files of --tls-certificate and --tls-key cannot be used: {0}")]
    Tls(#[source] TlsError),
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
    /// Written into `.flock` files.
    pub update_url: Option<String>,
    pub operator_file: PathBuf,
}

/// Runs the studio until `stop`. `on_ready` is called once, when everything answers.
pub async fn serve(
    config: ServeConfig,
    stop: CancellationToken,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let _lock = prepare(&config.data)?;
    raise_file_limit();
    let store = Store::open(&config.data.join("studio.db")).await?;
    let owner = store.ensure_first_account(FIRST_ACCOUNT).await?;
    if config.router.is_none() {
        // No session of an earlier run can still exist at a router that starts now.
        store.disconnect_all().await?;
    }
    let mut plane = match config.router {
        Some(router) => Plane::external(router),
        None => Plane::embedded(config.listen, config.tls.as_ref(), &store).await?,
    };
    let public_url = config.public_url.unwrap_or_else(|| plane.url.clone());

    let registry_stop = CancellationToken::new();
    let (registry, registry_task) = match config.with_registry {
        Some(port) => start_registry(&config.data, port, &store, registry_stop.clone()).await?,
        None => (None, None),
    };
    let bucket_stop = CancellationToken::new();
    let bucket_directory = config.bucket.as_ref().map(|bucket| bucket.directory.clone());
    let (bucket_task, bucket_url) = match config.bucket {
        Some(bucket) => start_bucket(bucket, bucket_stop.clone())
            .await
            .map(|(task, url)| (Some(task), Some(url)))?,
        None => (None, None),
    };
    let update_url = config.update_url.or(bucket_url);
    let settings = Settings {
        public_url: public_url.clone(),
        registry: match (&registry, config.registry) {
            (_, Some(given)) => given,
            (Some(registry), None) => registry.url(),
            (None, None) => String::new(),
        },
        repository: config.repository,
        base_url: config.base_url,
        update_url: update_url.clone().unwrap_or_default(),
        bucket: bucket_directory,
    };

    let ready = Ready {
        url: public_url,
        realm: REALM,
        registry: (!settings.registry.is_empty()).then(|| settings.registry.clone()),
        update_url,
        operator_file: config.data.join(operator::FILE),
    };
    let studio = Arc::new(Studio {
        store: store.clone(),
        settings,
        registry,
        router: plane.router(),
        alarm: Alarm::default(),
        development: Reports::default(),
    });
    let component_stop = CancellationToken::new();
    let (ready_sender, mut ready_watch) = watch::channel(false);
    let component_task = {
        let place = component::Place {
            door: plane.door.clone(),
            answers_authentication: plane.answers_authentication,
        };
        tokio::spawn(component::run(
            studio.clone(),
            place,
            ready_sender,
            component_stop.clone(),
        ))
    };

    // What it gives keeps the session from ever changing the value, so it must not outlive this.
    let joined = async { ready_watch.wait_for(|ready| *ready).await.map(drop) };
    let outcome = tokio::select! {
        joined = tokio::time::timeout(READY_DEADLINE, joined) => match joined {
            Ok(Ok(())) => match write_operator(&ready, &store, owner.key).await {
                Ok(()) => {
                    on_ready(&ready);
                    tokio::select! {
                        () = stop.cancelled() => Ok(()),
                        error = plane.ended() => Err(ServeError::Router(error)),
                    }
                }
                Err(error) => Err(error),
            },
            Ok(Err(_)) | Err(_) => Err(ServeError::NotReady),
        },
        () = stop.cancelled() => Ok(()),
        error = plane.ended() => Err(ServeError::Router(error)),
    };

    tracing::info!("stopping");
    component_stop.cancel();
    await_end("own session", component_task).await;
    if let Some(task) = plane.close() {
        await_end("router", task).await;
    }
    registry_stop.cancel();
    if let Some(task) = registry_task {
        await_end("registry", task).await;
    }
    bucket_stop.cancel();
    if let Some(task) = bucket_task {
        await_end("bucket", task).await;
    }
    store.close().await;
    outcome
}

/// Opens the update bucket. Its task, and the URL under which this machine reaches it.
async fn start_bucket(
    config: BucketConfig,
    stop: CancellationToken,
) -> Result<(tokio::task::JoinHandle<()>, String), ServeError> {
    std::fs::create_dir_all(&config.directory).map_err(|source| ServeError::Bucket {
        path: config.directory.display().to_string(),
        source,
    })?;
    let failed = |error| ServeError::BucketListen(config.listen, error);
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let url = format!("http://{}", reachable(listener.local_addr().map_err(failed)?));
    Ok((tokio::spawn(bucket::serve(listener, config.directory, stop)), url))
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

/// Every session of the router is a socket; the usual limit of 1024 open files is meant for programs with few.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!(limit = limit.current, "limit of open files raised"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
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
    fn all_the_files_that_may_be_opened_can_be() {
        raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
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
}
