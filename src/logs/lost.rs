//! Lines that were lost on their way, per log topic, until somebody says so to the viewers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::batch::{Cause, Item};

/// Lines of a topic, by what they were lost to.
type Counts = BTreeMap<Cause, u64>;

/// Shared counts. The lock is held for one addition.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: Mutex<BTreeMap<String, Counts>>,
    added: Notify,
}

impl Lost {
    pub(super) fn add(&self, container: &str, lines: u64, cause: Cause) {
        let mut topics = self.topics();
        match topics.get_mut(container) {
            Some(counts) => *counts.entry(cause).or_default() += lines,
            None => drop(topics.insert(container.to_owned(), Counts::from([(cause, lines)]))),
        }
        drop(topics);
        self.0.added.notify_one();
    }

    /// Returns when lines were lost since it did so last. Cancel-safe; for one task.
    pub(super) async fn added(&self) {
        self.0.added.notified().await;
    }

    /// Topics of which something is to be said.
    pub(super) fn of(&self) -> Vec<String> {
        self.topics().keys().cloned().collect()
    }

    /// What to say of one topic, whose counts start at zero again.
    pub(super) fn gaps(&self, container: &str) -> impl Iterator<Item = Item> + use<> {
        let counts = self.topics().remove(container).unwrap_or_default();
        counts
            .into_iter()
            .map(|(cause, lines)| Item::Gap { lines, cause })
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<String, Counts>> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
