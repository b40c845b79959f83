//! How the process ends: signals, the bound on an orderly end, exit codes (`session-and-api.md` 3.5, 3.6). Must not
//! know what is being ended.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::os::Signals;
use crate::service;
use crate::update::{self, Custody};

/// Everything went as asked.
pub const OK: u8 = 0;
/// The agent could not start or go on.
pub const FAILURE: u8 = 1;

/// What an orderly end may take (3.5); then the process ends anyway. Killing is safe at any moment.
const BOUND: Duration = Duration::from_secs(10);

/// Another version is to be started in the place of this process, by whoever has it in custody.
static START_OVER: OnceLock<Custody> = OnceLock::new();

/// A restart was asked for: part of the exit code, which is the process's own and one only.
static RESTART: AtomicBool = AtomicBool::new(false);

/// The end was asked for by a signal.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Whether the end was asked for by a signal.
pub(crate) fn is_signalled() -> bool {
    SIGNALLED.load(Ordering::Relaxed)
}

/// From now on SIGINT and SIGTERM, or what asks for an end on other systems, cancel the returned token, whatever the
/// agent is doing (weakness R15). [`BOUND`] later, or at once on a second signal, the process ends with the code it would
/// have ended with.
pub fn on_signals(runtime: &Runtime) -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let _context = runtime.enter();
    // Owned by the runtime: it ends with the process.
    runtime.spawn(watch(Signals::listen()?, stop.clone()));
    Ok(stop)
}

async fn watch(mut signals: Signals, stop: CancellationToken) {
    let signal = tokio::select! {
        name = signals.asked() => Some(name),
        // Somebody inside wants the end; the bound holds for them too.
        () = stop.cancelled() => None,
    };
    if let Some(signal) = signal {
        tracing::info!("stopping on {signal}");
        SIGNALLED.store(true, Ordering::Relaxed);
    }
    stop.cancel();
    tokio::select! {
        _ = signals.asked() => {}
        () = tokio::time::sleep(BOUND) => {}
    }
    tracing::warn!("stopped before everything was closed");
    start_over_if_asked();
    service::leave(code());
}

/// Ends the process in order, with an exit code after which every supervisor starts it again.
pub fn restart(stop: &CancellationToken) {
    RESTART.store(true, Ordering::Relaxed);
    stop.cancel();
}

/// Ends the process in order, then starts over in its place ([`start_over_if_asked`]).
pub fn start_over(stop: &CancellationToken, custody: Custody) {
    // Whoever was first wants the same.
    let _ = START_OVER.set(custody);
    restart(stop);
}

/// Starts over if [`start_over`] was called. Returns if not, or when it cannot be done: a supervisor may still do it.
pub fn start_over_if_asked() {
    if let Some(custody) = START_OVER.get() {
        let error = update::start_over(custody);
        tracing::error!(%error, "the next version cannot be started from here");
    }
}

/// The code for an end that was asked for: 0, or 1 when a supervisor shall start the agent again (as the reference
/// does under the Windows service manager: policies that restart on failure only must see one).
pub fn code() -> u8 {
    if RESTART.load(Ordering::Relaxed) {
        FAILURE
    } else {
        OK
    }
}
