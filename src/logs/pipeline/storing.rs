//! What earlier runs stored: read without anybody waiting for it, and never written over before it was read.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;

use super::Pipeline;
use crate::journal::Chain;
use crate::logs::cursor::Cursor;
use crate::logs::entry::Entry;
use crate::logs::shelf::{CURSORS, Shelf};
use crate::store::{LogHistory, StoreError};

/// Followers wait so long for where to go on, and whoever asks for a history for the stored part of it: a disk that
/// takes longer must not keep anybody from the lines of the moment.
pub(super) const RESTORE: Duration = Duration::from_secs(2);
/// Pauses before something is read again that could not be.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Something that was read from the store.
#[derive(Debug)]
pub(super) enum Restored {
    Cursors(BTreeMap<String, Cursor>),
    History { topic: String, lines: Vec<String> },
}

impl Pipeline {
    pub(super) fn restore_cursors(&mut self) {
        let store = self.store.clone();
        self.cursors_by = Some(Instant::now() + RESTORE);
        self.restoring.spawn(async move {
            let text = until_read(|| store.fact(CURSORS)).await;
            // Unreadable: the end of each log is read again.
            let cursors = text.and_then(|text| serde_json::from_str(&text).ok());
            Restored::Cursors(cursors.unwrap_or_default())
        });
    }

    pub(super) fn restore_history(&mut self, entry: &mut Entry) {
        let (store, app, topic) = (
            self.store.clone(),
            entry.container.app,
            entry.container.name.clone(),
        );
        entry.awaits_stored = true;
        self.restoring.spawn(async move {
            let lines = until_read(|| store.log_history(app)).await;
            Restored::History { topic, lines }
        });
    }

    pub(super) fn on_restored(&mut self, restored: Result<Restored, JoinError>) {
        match restored {
            Ok(Restored::Cursors(stored)) => {
                for (container, cursor) in stored {
                    if let Some((_, before @ None)) = self.held.get_mut(&container) {
                        *before = Some(cursor.clone());
                    }
                    self.cursors.entry(container).or_insert(cursor);
                }
                self.awaits_cursors = false;
                self.begin_all_to_follow();
                if std::mem::take(&mut self.cursors_unsaved) {
                    self.save_cursors();
                }
            }
            Ok(Restored::History { topic, lines }) => {
                if let Some(entry) = self.entries.get_mut(&topic)
                    && entry.awaits_stored
                {
                    entry.ring.restore(lines);
                    self.history_is_known(&topic);
                }
            }
            // Aborted only when we end.
            Err(_) => {}
        }
    }

    /// What was stored is in the ring of a topic, or is not wanted any more.
    pub(super) fn history_is_known(&mut self, topic: &str) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.awaits_stored = false;
            entry.answer();
        }
        self.held.retain(|_, (of, _)| of != topic);
    }

    /// Lines of `container` go into a history that cannot be saved yet: for the next run they are not read.
    pub(super) fn hold_cursor(&mut self, topic: &str, container: &str) {
        if self.entries.get(topic).is_some_and(|entry| entry.awaits_stored)
            && !self.held.contains_key(container)
        {
            let before = self.cursors.get(container).cloned();
            self.held.insert(container.to_owned(), (topic.to_owned(), before));
        }
    }

    /// Saves histories, answers who asks for one, and gives up waiting, where it is time.
    pub(super) fn look_after_entries(&mut self, now: Instant) {
        if self.cursors_by.is_some_and(|by| by <= now) {
            tracing::warn!(
                "where logs were read to could not be read in time; the end of each is read again"
            );
            self.begin_all_to_follow();
        }
        // All of them: the cursors go with them, and those of a history that is older than its cursor would leave a hole.
        if self.entries.values().any(|entry| entry.is_to_be_saved(now)) {
            self.save_all();
        }
        for (name, entry) in &mut self.entries {
            if entry.answer_by.is_some_and(|by| by <= now) {
                entry.answer();
            }
            if entry.is_abandoned(now) {
                entry.not_listened();
                self.ledger.end(name);
                self.ledger.save();
            }
        }
    }

    pub(super) fn save_all(&mut self) {
        for entry in self.entries.values_mut() {
            if entry.save_at.is_some() && !entry.awaits_stored {
                save(entry, &self.shelf);
            }
        }
        self.save_cursors();
    }

    fn save_cursors(&mut self) {
        if self.awaits_cursors {
            self.cursors_unsaved = true;
            return;
        }
        let mut cursors = self.cursors.clone();
        for (container, (_, before)) in &self.held {
            match before {
                Some(cursor) => drop(cursors.insert(container.clone(), cursor.clone())),
                None => drop(cursors.remove(container)),
            }
        }
        if let Ok(text) = serde_json::to_string(&cursors) {
            self.shelf.save_cursors(text);
        }
    }

    /// What a disk gives that is only slow, to be saved with what is new.
    pub(super) async fn finish_restoring(&mut self) {
        let read = async {
            while let Some(restored) = self.restoring.join_next().await {
                self.on_restored(restored);
            }
        };
        if tokio::time::timeout(RESTORE, read).await.is_err() {
            tracing::warn!("stored log histories could not be read; what is new of them is not saved");
        }
        self.restoring.shutdown().await;
    }
}

/// Reads until it succeeds.
async fn until_read<T, F>(read: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match read().await {
            Ok(value) => return value,
            Err(error) => tracing::debug!(error = %Chain(&error), "reading stored logs"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn save(entry: &mut Entry, shelf: &Shelf) {
    entry.save_at = None;
    if entry.container.is_stored() {
        shelf.save(LogHistory {
            app: entry.container.app,
            app_name: entry.container.app_name.clone(),
            lines: entry.ring.lines(),
        });
    }
}
