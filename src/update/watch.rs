//! A version under test watches itself, from its first action on and on a thread of its own, so that nothing in which it
//! may hang keeps it from that. Under the manager script nobody else does; a launcher sees neither more than signs of
//! life. Must not know what the agent does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::flock::FlockDocument;

use super::custody::Custody;
use super::memory::Memory;
use super::setup::Setup;
use super::{Footing, boot, overdue};
use crate::cli::VERSION;
use crate::settings::Settings;
use crate::{exit, journal};

/// Whether this process looks after its own updates yet. Cloneable; all clones share one answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// It does, from now on.
    pub(crate) fn report(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Returns when `bound` has passed without a report; never after one.
    async fn missed(&self, bound: Duration) {
        tokio::time::sleep(bound).await;
        if self.has_come() {
            std::future::pending::<()>().await;
        }
    }
}

/// Begins to watch this process if it is under test.
pub(super) fn begin(settings: &Settings, footing: &Footing) {
    let state = footing.memory.current();
    if !state.is_trial() || state.new_version != VERSION {
        return;
    }
    let (settings, footing) = (settings.clone(), footing.clone());
    let watch = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        let Footing {
            custody,
            setup,
            memory,
            arrival,
        } = footing;
        let is_overdue = runtime.block_on(async {
            let endpoint = endpoint(&settings.config);
            let overdue = async {
                // Otherwise it is the launcher who watches the time.
                if !matches!(custody, Custody::Managed | Custody::Service) {
                    return std::future::pending().await;
                }
                let backend_away = || memory.current().backend_away;
                overdue::passed(&setup, state.was_connected, endpoint.as_deref(), backend_away).await;
            };
            let excused = async {
                overdue::cut_off(&setup, endpoint.as_deref()).await;
                // One that hangs is not excused by that.
                if arrival.has_come() {
                    excuse(&memory, "the router was not reachable");
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = overdue => true,
                () = excused => unreachable!("it never ends"),
                // What could replace it, however bad its connection is, does not run.
                () = arrival.missed(setup.isolation) => false,
            }
        });
        match is_overdue {
            true => give_up(&settings.agent_dir, &setup, &memory),
            // One of its starts that came to nothing.
            false => end(&format!(
                "it hangs: nothing looks after updates {} s after its start",
                setup.isolation.as_secs()
            )),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("trial".to_owned()).spawn(watch) {
        journal::complain(&format!("the new version cannot be watched: {error}"));
    }
}

/// The present start of a version under test does not count: it has lasted, and cannot prove anything.
pub(super) fn excuse(memory: &Memory, why: &str) {
    let excused = memory.change_blocking(|state| {
        if state.new_version == VERSION {
            state.excuse_start();
        }
    });
    match excused {
        Ok(()) => tracing::info!(why, "this start of the version under test does not count"),
        Err(error) => tracing::warn!(%error, "this start of the version under test counts"),
    }
}

/// Ends this process for another version, unless it has proven itself or there is nothing to return to.
fn give_up(agent_dir: &Path, setup: &Setup, memory: &Memory) {
    let reason = format!("it did not prove its health within {} s", setup.proof.as_secs());
    let mut pauses = setup.patience.pauses.start();
    loop {
        match boot::give_up(agent_dir, memory, &reason) {
            Ok(true) => end(&reason),
            Ok(false) => return,
            // A disk that is full now may not be later.
            Err(error) => {
                tracing::error!(%error, "this version cannot be taken out of use yet");
                std::thread::sleep(pauses.pause());
            }
        }
    }
}

fn end(reason: &str) -> ! {
    tracing::error!(reason, "this version under test ends");
    // Before the log is open nobody hears that.
    journal::complain(&format!("version {VERSION} under test ends: {reason}"));
    std::process::exit(i32::from(exit::FAILURE));
}

/// The router's URL, if the identity can be read: a version under test is blamed only while the router is reachable.
pub(super) fn endpoint(config: &Path) -> Option<String> {
    let text = std::fs::read_to_string(config).ok()?;
    let document = FlockDocument::parse(&text).ok()?;
    Some(document.flock().device_endpoint_url)
}
