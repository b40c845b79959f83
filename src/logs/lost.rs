//! Lines that were lost on their way, per log topic, until somebody says so to the viewers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::{Cause, Item};

/// Shared count. The lock is held for one addition.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost(Arc<Mutex<BTreeMap<String, u64>>>);

impl Lost {
    pub(super) fn add(&self, container: &str, lines: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(container) {
            Some(count) => *count += lines,
            None => drop(counts.insert(container.to_owned(), lines)),
        }
    }

    /// What to say of one topic, whose count starts at zero again.
    pub(super) fn gap(&self, container: &str) -> Item {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Item::Gap {
            lines: counts.remove(container).unwrap_or(0),
            cause: Cause::Rate,
        }
    }
}
