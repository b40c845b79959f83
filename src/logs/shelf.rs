//! Writes histories to the store, without the pipeline waiting for it.
//!
//! Only the newest wish per app counts, so however slow the disk is, no more than one history per app waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::AppId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::journal::Chain;
use crate::store::{LogHistory, Store};

/// Where each log was read to: a remembered fact, so that a restart of the agent repeats nothing (L8).
pub(super) const CURSORS: &str = "log_cursors";

/// Handle. Cloneable.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    wishes: Arc<Mutex<Wishes>>,
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Wishes {
    histories: BTreeMap<AppId, LogHistory>,
    cursors: Option<String>,
}

impl Shelf {
    /// An empty history clears the stored one.
    pub(super) fn save(&self, history: LogHistory) {
        self.wish(|wishes| drop(wishes.histories.insert(history.app, history)));
    }

    pub(super) fn save_cursors(&self, cursors: String) {
        self.wish(|wishes| wishes.cursors = Some(cursors));
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.wishes.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    fn take(&self) -> Wishes {
        std::mem::take(&mut self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes until `stop`, then what is left.
    pub(super) async fn write(self, store: Store, stop: CancellationToken) {
        loop {
            let last = stop.is_cancelled();
            let Wishes { histories, cursors } = self.take();
            if !histories.is_empty() || cursors.is_some() {
                let histories = histories.into_values().collect();
                // All or nothing: a crash repeats lines instead of losing them.
                let cursors = cursors.map(|cursors| (CURSORS, cursors));
                if let Err(error) = store.save_log_histories(histories, cursors).await {
                    tracing::warn!(error = %Chain(&error), "log histories not saved");
                }
            }
            if last {
                return;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
