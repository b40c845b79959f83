//! What Windows says when it is asked.

use std::path::Path;

use super::{CpuTimes, Measured};

/// Asks. What the system does not say is zero.
pub(super) fn measure(_: &Path) -> Measured {
    let (total, busy) = win32::processor_times().unwrap_or_default();
    let (memory_total, memory_available) = win32::memory().unwrap_or_default();
    Measured {
        cpu_count: std::thread::available_parallelism().map_or(0, |count| count.get() as u64),
        times: CpuTimes { total, busy },
        memory_total,
        memory_available,
    }
}
