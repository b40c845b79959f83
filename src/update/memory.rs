//! The remembered state while the agent runs: one copy, changed under a lock, durable before the change counts. Must not
//! know what the changes mean.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::state::State;

/// Cloneable; all clones share one state.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    agent_dir: PathBuf,
    state: Mutex<State>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

impl Memory {
    /// What is remembered in the agent directory.
    pub(crate) fn open(agent_dir: &Path) -> Memory {
        Memory {
            shared: Arc::new(Shared {
                agent_dir: agent_dir.to_owned(),
                state: Mutex::new(State::load(agent_dir)),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// Looks again what is on disk.
    pub(crate) fn refresh(&self) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::load(&self.shared.agent_dir);
    }

    /// The state as it is now.
    pub(crate) fn current(&self) -> State {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes whenever the state does.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Applies `change` and remembers the result; when that fails, nothing has changed.
    pub(crate) async fn change<F>(&self, change: F) -> io::Result<()>
    where
        F: FnOnce(&mut State) + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let work = tokio::task::spawn_blocking(move || shared.change(change));
        work.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// The same for threads without a runtime.
    pub(crate) fn change_blocking(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        self.shared.change(change)
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = state.clone();
        change(&mut changed);
        if changed != *state {
            changed.save(&self.agent_dir)?;
            *state = changed;
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}
