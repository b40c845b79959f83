//! Long work of this device that a restart would break off (`update-and-system.md` 9.3 R4): builds, pulls, pushes, and
//! uploads of what is to be built. Must not know what it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is under way. Cloneable.
#[derive(Clone, Debug, Default)]
pub struct Works(Arc<AtomicUsize>);

/// One piece of work, until it is dropped, also in the middle.
#[derive(Debug)]
pub struct Work(Arc<AtomicUsize>);

impl Works {
    /// Something begins.
    pub fn begin(&self) -> Work {
        self.0.fetch_add(1, Ordering::Relaxed);
        Work(Arc::clone(&self.0))
    }

    /// Whether anything is under way.
    pub fn are_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
