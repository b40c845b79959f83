//! The service control manager of Windows: the service as the contract describes it, and this process as one.

mod commands;
mod process;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceErrorControl, ServiceFailureActions,
    ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState, ServiceType,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};

use super::repair;
use super::{FileError, Order, Verb, absolute, copy, create_directory, file};
use crate::durable;
use crate::update::swap::ACTIVE;

pub use process::{host, leave};
pub(crate) use process::{is_supervised, stop_asked};

/// Name of the service.
const NAME: &str = "reagent";
/// As people see it.
const DISPLAY: &str = "IronFlock Device Agent";
/// Beneath the directory for data of all programs.
const AGENT_DIR: &str = r"IronFlock\Reagent";
/// Waits of the manager before it starts the service again; the last one goes on.
const RECOVERY: [u64; 3] = [5, 30, 120];
/// After so long without a failure the first wait comes again.
const RESET: Duration = Duration::from_secs(86_400);
/// For the service to have started or stopped.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks at it.
const LOOK: Duration = Duration::from_millis(250);

/// Not there.
const NO_SUCH_SERVICE: i32 = 1060;
/// Stopped already.
const NOT_ACTIVE: i32 = 1062;
/// Started already.
const RUNNING_ALREADY: i32 = 1056;

/// Why an order could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("ProgramData is not set; say where the agent shall live with -agentDir")]
    NoProgramData,
    #[error(
        "{0} is the database of an agent that was started by hand: go on with its data by naming its directory \
         with -agentDir, or begin anew by naming another one"
    )]
    ByHand(PathBuf),
    #[error("the service manager refused {0}; is this an administrator's console?")]
    Manager(&'static str, #[source] io::Error),
    #[error("{program} failed: {said}")]
    Command { program: &'static str, said: String },
    #[error("{0} cannot be run")]
    NoCommand(&'static str, #[source] io::Error),
    #[error("the service did not get there within {} s; look at its log", PATIENCE.as_secs())]
    Late,
    #[error("the service is not installed")]
    NotInstalled,
}

/// Carries it out; the text is for people. Blocks.
pub fn obey(order: &Order) -> Result<String, ServiceError> {
    match order.verb {
        Verb::Install => install(order),
        Verb::Uninstall => uninstall(order),
        Verb::Start => start(&open(ServiceAccess::START | ServiceAccess::QUERY_STATUS)?),
        Verb::Stop => stop(&open(ServiceAccess::STOP | ServiceAccess::QUERY_STATUS)?),
        Verb::Status => status(),
    }
}

fn install(order: &Order) -> Result<String, ServiceError> {
    let agent_dir = match &order.agent_dir {
        Some(agent_dir) => agent_dir.clone(),
        None => match started_by_hand() {
            Some(database) => return Err(ServiceError::ByHand(database)),
            None => program_data()?.join(AGENT_DIR),
        },
    };
    let agent_dir = absolute(&agent_dir)?;
    let apps_dir = match &order.apps_dir {
        Some(apps_dir) => absolute(apps_dir)?,
        None => agent_dir.join("apps"),
    };
    // An administrator is needed for this, and for what follows: whoever is none changes nothing.
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager = manager(access)?;
    create_directory(&agent_dir)?;
    create_directory(&apps_dir)?;
    commands::restrict(&agent_dir)?;
    commands::open_to_users(&apps_dir)?;
    let binary = agent_dir.join(ACTIVE);
    let present = service_of(&manager, ServiceAccess::all())?;
    if let Some(service) = &present {
        // Its binary cannot be written while it runs.
        stop(service)?;
    }
    let own = std::env::current_exe().map_err(file("cannot find", Path::new("the running binary")))?;
    copy(&own, &binary, 0o755)?;
    let config = agent_dir.join("device.flock");
    copy(&order.config, &config, 0o600)?;
    let repair = agent_dir.join(repair::FILE);
    durable::replace(&repair, repair::text(NAME).as_bytes(), 0o600).map_err(file("cannot write", &repair))?;
    let info = ServiceInfo {
        name: NAME.into(),
        display_name: DISPLAY.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: binary,
        launch_arguments: arguments(&agent_dir, &apps_dir, &config),
        dependencies: Vec::new(),
        // LocalSystem.
        account_name: None,
        account_password: None,
    };
    let service = match present {
        Some(service) => service
            .change_config(&info)
            .map(|()| service)
            .map_err(refused("the change of the service"))?,
        None => manager
            .create_service(&info, ServiceAccess::all())
            .map_err(refused("the new service"))?,
    };
    describe(&service)?;
    commands::schedule_repair(&repair)?;
    if !order.proxy.0.is_empty() {
        commands::set_proxy(NAME, &agent_dir, &order.proxy.0)?;
    }
    if order.no_start {
        return Ok(format!("installed in {}, not started", agent_dir.display()));
    }
    start(&service)?;
    Ok(format!("installed in {} and started", agent_dir.display()))
}

/// All places are named: defaults of another version must not lead elsewhere.
fn arguments(agent_dir: &Path, apps_dir: &Path, config: &Path) -> Vec<OsString> {
    let places = [
        ("-config", config.to_owned()),
        ("-agentDir", agent_dir.to_owned()),
        ("-appsDir", apps_dir.to_owned()),
        ("-dbFileName", agent_dir.join("reagent.db")),
        ("-logFile", agent_dir.join("reagent.log")),
    ];
    places
        .into_iter()
        .flat_map(|(flag, place)| [OsString::from(flag), place.into_os_string()])
        .collect()
}

fn describe(service: &Service) -> Result<(), ServiceError> {
    let actions = RECOVERY.map(|seconds| ServiceAction {
        action_type: ServiceActionType::Restart,
        delay: Duration::from_secs(seconds),
    });
    let recovery = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(RESET),
        reboot_msg: None,
        command: None,
        actions: Some(actions.to_vec()),
    };
    service
        .set_delayed_auto_start(true)
        .and_then(|()| service.set_description("Runs apps in containers on behalf of a studio"))
        .and_then(|()| service.update_failure_actions(recovery))
        .and_then(|()| service.set_failure_actions_on_non_crash_failures(true))
        .map_err(refused("how the service is started"))
}

/// Data, identity and binaries stay.
fn uninstall(order: &Order) -> Result<String, ServiceError> {
    let service = open(ServiceAccess::STOP | ServiceAccess::QUERY_STATUS | ServiceAccess::DELETE)?;
    stop(&service)?;
    service.delete().map_err(refused("the removal of the service"))?;
    commands::forget_repair();
    let kept = match &order.agent_dir {
        Some(agent_dir) => agent_dir.clone(),
        None => program_data()?.join(AGENT_DIR),
    };
    Ok(format!("removed the service, kept {}", kept.display()))
}

fn status() -> Result<String, ServiceError> {
    let service = open(ServiceAccess::QUERY_STATUS)?;
    let word = match state(&service)? {
        ServiceState::Stopped => "stopped",
        ServiceState::StartPending => "starting",
        ServiceState::StopPending => "stopping",
        ServiceState::Running => "running",
        _ => "paused",
    };
    Ok(word.to_owned())
}

fn start(service: &Service) -> Result<String, ServiceError> {
    match service.start::<&str>(&[]) {
        Err(error) if code(&error) != Some(RUNNING_ALREADY) => Err(refused("the start")(error)),
        _ => wait(service, ServiceState::Running).map(|()| "started".to_owned()),
    }
}

fn stop(service: &Service) -> Result<String, ServiceError> {
    match service.stop() {
        Err(error) if code(&error) != Some(NOT_ACTIVE) => Err(refused("the stop")(error)),
        _ => wait(service, ServiceState::Stopped).map(|()| "stopped".to_owned()),
    }
}

fn wait(service: &Service, wanted: ServiceState) -> Result<(), ServiceError> {
    let end = Instant::now() + PATIENCE;
    while state(service)? != wanted {
        if Instant::now() >= end {
            return Err(ServiceError::Late);
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn state(service: &Service) -> Result<ServiceState, ServiceError> {
    let found = service.query_status().map_err(refused("a question"))?;
    Ok(found.current_state)
}

fn open(access: ServiceAccess) -> Result<Service, ServiceError> {
    service_of(&manager(ServiceManagerAccess::CONNECT)?, access)?.ok_or(ServiceError::NotInstalled)
}

fn manager(access: ServiceManagerAccess) -> Result<ServiceManager, ServiceError> {
    ServiceManager::local_computer(None::<&str>, access).map_err(refused("to be opened"))
}

fn service_of(manager: &ServiceManager, access: ServiceAccess) -> Result<Option<Service>, ServiceError> {
    match manager.open_service(NAME, access) {
        Ok(service) => Ok(Some(service)),
        Err(error) if code(&error) == Some(NO_SUCH_SERVICE) => Ok(None),
        Err(error) => Err(refused("the service")(error)),
    }
}

fn code(error: &windows_service::Error) -> Option<i32> {
    match error {
        windows_service::Error::Winapi(error) => error.raw_os_error(),
        _ => None,
    }
}

fn refused(what: &'static str) -> impl FnOnce(windows_service::Error) -> ServiceError {
    move |error| {
        let source = match error {
            windows_service::Error::Winapi(error) => error,
            other => io::Error::other(other),
        };
        ServiceError::Manager(what, source)
    }
}

fn program_data() -> Result<PathBuf, ServiceError> {
    let found = std::env::var_os("ProgramData").filter(|path| !path.is_empty());
    found.map(PathBuf::from).ok_or(ServiceError::NoProgramData)
}

/// The database of an agent that somebody ran in a console, in the default place (1.3).
fn started_by_hand() -> Option<PathBuf> {
    let mut users = PathBuf::from(std::env::var_os("SystemDrive")?);
    users.push(r"\Users");
    let databases = std::fs::read_dir(users).ok()?.flatten();
    databases
        .map(|user| user.path().join("reagent").join("reagent.db"))
        .find(|database| database.is_file())
}
