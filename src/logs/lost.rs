//! Lines that were lost on their way, per app, until somebody says so to the viewers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::AppId;

/// Shared count. The lock is held for one addition.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost(Arc<Mutex<BTreeMap<AppId, u64>>>);

impl Lost {
    pub(super) fn add(&self, app: AppId, lines: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(app).or_default() += lines;
    }

    /// The count of one app, which starts at zero again.
    pub(super) fn take(&self, app: AppId) -> u64 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.remove(&app).unwrap_or(0)
    }
}
