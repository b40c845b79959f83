//! Writes histories to the store, without the pipeline waiting for it.
//!
//! Only the newest wish per app counts, so however slow the disk is, no more than one history per app waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::AppId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

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
    histories: BTreeMap<AppId, (String, History)>,
    cursors: Option<String>,
}

#[derive(Debug)]
enum History {
    Save(Vec<String>),
    Clear,
}

impl Shelf {
    pub(super) fn save(&self, app: AppId, app_name: &str, lines: Vec<String>) {
        self.wish(|wishes| {
            wishes
                .histories
                .insert(app, (app_name.to_owned(), History::Save(lines)));
        });
    }

    pub(super) fn clear(&self, app: AppId, app_name: &str) {
        self.wish(|wishes| {
            wishes
                .histories
                .insert(app, (app_name.to_owned(), History::Clear));
        });
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
            let wishes = self.take();
            for (app, (app_name, history)) in wishes.histories {
                let written = match history {
                    History::Save(lines) => store.save_log_history(app, &app_name, lines).await,
                    History::Clear => store.clear_log_history(app, &app_name).await,
                };
                report(written);
            }
            // After the histories: a crash in between repeats lines instead of losing them.
            if let Some(cursors) = wishes.cursors {
                report(store.set_fact(CURSORS, &cursors).await);
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

fn report(written: Result<(), StoreError>) {
    if let Err(error) = written {
        tracing::warn!(%error, "log history not saved");
    }
}
