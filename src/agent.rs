//! Composition: builds the parts, start-up order, shutdown order with a deadline.
//!
//! Start-up never waits for the network or for Docker (`DESIGN.md` rule 3): the database is opened, the apps are
//! loaded and supervised, then the link dials. Shutdown goes the other way round: the link says GOODBYE, running
//! transitions are parked, histories are flushed, the database is closed.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::app::{AppContext, Apps};
use crate::backend::Backend;
use crate::engine::{Engine, EngineEvent};
use crate::flock::DeviceFile;
use crate::journal::{Chain, LogPlace, START_UP};
use crate::link::{self, LinkContext, LinkEnd, Timing};
use crate::logs::Logs;
use crate::rpc;
use crate::settings::Settings;
use crate::store::{Opened, Store};
use crate::system::HostSampler;
use crate::transfer::Transfers;
use crate::update::{Custody, Footing, Setup, UpdateContext, Updater};

/// How the agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Asked to stop; exit code 0.
    Clean,
    /// Could not start or may not go on; exit code 1. The text says why and what to do.
    Failure(String),
}

/// How long statistics stay fresh.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(30);

/// Docker may take this long to come up before it is said to be late, and is waited for in such rounds (5.6).
const DOCKER_GRACE: Duration = Duration::from_secs(5);
const DOCKER_ROUND: Duration = Duration::from_secs(30);

/// Runs the agent until `stop`, with the Docker daemon of this process's environment. `for_logs`: the runtime on which app
/// logs are read and put together. One of its own, because a thread that works for apps that flood their logs gets its
/// turns late, and with it the calls that it answers.
pub async fn run(
    settings: Settings,
    device: DeviceFile,
    footing: Footing,
    stop: CancellationToken,
    for_logs: Handle,
) -> Exit {
    match Engine::new() {
        Ok(engine) => {
            let mut timing = Timing::default();
            timing.heartbeat = footing.setup().heartbeat.unwrap_or(timing.heartbeat);
            run_updating(settings, device, engine, timing, footing, stop, for_logs).await
        }
        Err(failure) => Exit::Failure(format!(
            "cannot set up the Docker client: {failure}; check DOCKER_HOST"
        )),
    }
}

/// The same with a Docker daemon and spans of time of one's own, and the updates of an installed agent.
pub async fn run_with(
    settings: Settings,
    device: DeviceFile,
    engine: Engine,
    timing: Timing,
    stop: CancellationToken,
) -> Exit {
    let footing = Footing::take(&settings, Custody::Managed, Setup::default());
    run_updating(settings, device, engine, timing, footing, stop, Handle::current()).await
}

async fn run_updating(
    settings: Settings,
    device: DeviceFile,
    engine: Engine,
    timing: Timing,
    footing: Footing,
    stop: CancellationToken,
    for_logs: Handle,
) -> Exit {
    let store = match open_store(&settings).await {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    let parts = stop.child_token();
    // Owned by the runtime; ends with the parts.
    tokio::spawn(announce_late_docker(engine.clone(), parts.clone()));
    let (publish, session) = watch::channel(None);
    let backend = Backend::with_deadline(session.clone(), timing.backend_call);
    let serial = device.current().serial_number.clone();
    let host = HostSampler::start(SAMPLE_INTERVAL, parts.clone());
    let logs = Logs::start_in(
        &for_logs,
        Some(settings.downloads_dir()),
        serial.clone(),
        store.clone(),
        engine.clone(),
        parts.clone(),
    );
    let transfers = Transfers::start(
        &settings.apps_dir.join("build"),
        serial,
        backend.clone(),
        logs.clone(),
        engine.works().clone(),
        parts.clone(),
    );
    let trial = footing.clone();
    let updates = Updater::start(
        UpdateContext {
            settings: settings.clone(),
            device: device.clone(),
            session,
            engine: engine.clone(),
            footing,
        },
        stop.clone(),
    );
    let context = AppContext {
        settings: settings.clone(),
        device: device.clone(),
        store: store.clone(),
        engine: engine.clone(),
        logs: logs.clone(),
        backend: backend.clone(),
        transfers: transfers.clone(),
    };
    let apps = match Apps::start(context, parts.clone()).await {
        Ok(apps) => apps,
        Err(failure) => {
            return Exit::Failure(format!(
                "cannot read the apps from the database: {}",
                Chain(&failure)
            ));
        }
    };
    let end = if settings.offline {
        tracing::info!("Started in offline mode, will not establish a socket connection!");
        stop.cancelled().await;
        LinkEnd::Stopped
    } else {
        let procedures = rpc::Context {
            device: device.clone(),
            access: std::sync::Arc::new(Access::new(backend.clone(), device.clone())),
            apps: apps.clone(),
            engine,
            logs: logs.clone(),
            host: host.clone(),
            transfers,
            log: LogPlace::of(&settings).0,
            updates,
            stop: stop.clone(),
        };
        let context = LinkContext {
            settings,
            device,
            store: store.clone(),
            backend,
            apps: apps.clone(),
            logs: logs.clone(),
            host,
            procedures,
            timing,
        };
        link::run(context, publish, stop.clone()).await
    };
    apps.close().await;
    logs.close().await;
    parts.cancel();
    store.close().await;
    match end {
        LinkEnd::Stopped => Exit::Clean,
        LinkEnd::AuthenticationFailed => Exit::Failure(
            "the router refused the device's secret; check `secret` in the .flock file".to_owned(),
        ),
        LinkEnd::DuplicateSerial => {
            trial.excuse_duplicate();
            Exit::Failure("another device is connected with the same serial number".to_owned())
        }
    }
}

/// Says what operators of the reference expect to read when Docker is late (`session-and-api.md` 1.6, 5.4). Nothing
/// waits for it.
async fn announce_late_docker(engine: Engine, stop: CancellationToken) {
    let mut events = engine.events();
    let up = async {
        // The watch ends only when its reader does.
        while events.recv().await != Some(EngineEvent::Resync) {}
    };
    let mut up = std::pin::pin!(up);
    let announce = async {
        let late = "Docker daemon is not reachable yet, continuing startup; \
                    container features become available once Docker is up";
        if tokio::time::timeout(DOCKER_GRACE, &mut up).await.is_ok() {
            return;
        }
        tracing::info!(target: START_UP, "{late}");
        while tokio::time::timeout(DOCKER_ROUND, &mut up).await.is_err() {
            tracing::debug!("still waiting for the Docker daemon...");
        }
        tracing::info!("Docker daemon is up");
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = announce => {}
    }
}

async fn open_store(settings: &Settings) -> Result<Store, Exit> {
    match Store::open(&settings.database).await {
        Ok((store, Opened::Healthy { created })) => {
            tracing::info!(path = %settings.database.display(), created, "database open");
            Ok(store)
        }
        Ok((store, Opened::Rebuilt { damaged })) => {
            tracing::error!(
                path = %settings.database.display(), damaged = %damaged.display(),
                "the database was damaged; it was put aside and is rebuilt from Docker and the backend"
            );
            Ok(store)
        }
        Err(failure) => Err(Exit::Failure(format!(
            "cannot open the database {}: {}; check -dbFileName and the directory's permissions",
            settings.database.display(),
            Chain(&failure)
        ))),
    }
}
