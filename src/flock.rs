//! The `.flock` on disk: strict load, atomic rewrite, backup (`session-and-api.md` 2).

use std::sync::{Arc, RwLock};

use protocol::flock::Flock;

/// The device's identity: values in memory and the file they came from.
#[derive(Clone, Debug)]
pub struct DeviceFile {
    current: Arc<RwLock<Arc<Flock>>>,
}

impl DeviceFile {
    /// The identity as it is now. Cheap; ask again after every await.
    pub fn current(&self) -> Arc<Flock> {
        Arc::clone(
            &self
                .current
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}
