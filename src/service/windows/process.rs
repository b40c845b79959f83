//! This process as a service: it says that it runs before anything else, hears when it shall stop, and ends without a
//! word when it wants to be started again, which is what the manager's recovery waits for (`update-and-system.md` 8.1).

use std::ffi::OsString;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use windows_service::define_windows_service;
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::service_dispatcher;

use super::NAME;
use crate::{exit, journal};

/// The manager did not start this process.
const NOT_A_SERVICE: i32 = 1063;
/// What the manager may expect a stop to take (`session-and-api.md` 4.6).
const STOPPING: Duration = Duration::from_secs(15);

type Agent = Box<dyn FnOnce() -> u8 + Send>;

/// What is to be run, until it is.
static AGENT: Mutex<Option<Agent>> = Mutex::new(None);
/// How to speak to the manager, when there is one.
static MANAGER: OnceLock<ServiceStatusHandle> = OnceLock::new();
/// The manager wants the service to stop; kept until somebody waits.
static STOP: Notify = Notify::const_new();

/// Runs the agent: as a service when the manager started this process, else as any program.
pub fn host(agent: impl FnOnce() -> u8 + Send + 'static) -> u8 {
    *AGENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(agent));
    match service_dispatcher::start(NAME, service_main) {
        Ok(()) => exit::OK,
        Err(windows_service::Error::Winapi(error)) if error.raw_os_error() == Some(NOT_A_SERVICE) => run(),
        Err(error) => {
            journal::complain(&format!("the service manager cannot be reached: {error}"));
            exit::FAILURE
        }
    }
}

/// Whether a service manager runs this process that has to be told how it ends.
pub(crate) fn is_supervised() -> bool {
    MANAGER.get().is_some()
}

/// Waits until the manager wants the service to stop, once more each time; outside of a service for ever. May be
/// dropped at any time.
pub(crate) async fn stop_asked() {
    STOP.notified().await;
}

/// Ends this process. A service that was asked to stop says that it has.
pub fn leave(code: u8) -> ! {
    if code == exit::OK {
        say(ServiceState::Stopped);
    }
    std::process::exit(i32::from(code))
}

define_windows_service!(service_main, serve);

fn serve(_: Vec<OsString>) {
    let hear = |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            say(ServiceState::StopPending);
            STOP.notify_one();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    match service_control_handler::register(NAME, hear) {
        Ok(manager) => {
            // Nobody else sets it.
            let _ = MANAGER.set(manager);
        }
        Err(error) => {
            journal::complain(&format!("the service manager does not listen: {error}"));
            std::process::exit(i32::from(exit::FAILURE));
        }
    }
    // The agent may take its time to connect; the service runs.
    say(ServiceState::Running);
    leave(run());
}

fn run() -> u8 {
    let agent = AGENT.lock().unwrap_or_else(PoisonError::into_inner).take();
    agent.map_or(exit::FAILURE, |agent| agent())
}

fn say(state: ServiceState) {
    let Some(manager) = MANAGER.get() else { return };
    let (controls_accepted, wait_hint) = match state {
        ServiceState::Running => {
            let accepted = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN;
            (accepted, Duration::ZERO)
        }
        ServiceState::StopPending => (ServiceControlAccept::empty(), STOPPING),
        _ => (ServiceControlAccept::empty(), Duration::ZERO),
    };
    // A manager that does not listen any more is none.
    let _ = manager.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted,
        exit_code: ServiceExitCode::Win32(0),
        checkpoint: 0,
        wait_hint,
        process_id: None,
    });
}
