//! `/proc` of Linux. Where there is none, figures are zero.

use std::fs;
use std::path::Path;

use super::{CpuTimes, Measured};

/// `/proc/meminfo` counts in these.
pub(super) const KIB: u64 = 1024;

/// Reads `stat` and `meminfo`.
pub(super) fn measure(proc_dir: &Path) -> Measured {
    let stat = fs::read_to_string(proc_dir.join("stat")).unwrap_or_default();
    let memory = fs::read_to_string(proc_dir.join("meminfo")).unwrap_or_default();
    let (memory_total, memory_available) = memory_of(&memory);
    Measured {
        cpu_count: cpu_count(&stat),
        times: times(&stat),
        memory_total,
        memory_available,
    }
}

/// The line `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; guest time is part of user.
fn times(stat: &str) -> CpuTimes {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else {
        return CpuTimes::default();
    };
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map(|word| word.parse().unwrap_or_default())
        .collect();
    let total: u64 = ticks.iter().sum();
    let resting: u64 = ticks.iter().skip(3).take(2).sum();
    CpuTimes {
        total,
        busy: total - resting,
    }
}

fn cpu_count(stat: &str) -> u64 {
    let lines = stat.lines().filter(|line| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    match lines.count() {
        // No such file: another system than Linux.
        0 => std::thread::available_parallelism().map_or(0, |count| count.get() as u64),
        count => count as u64,
    }
}

/// Total and available bytes; kernels without `MemAvailable` get the usual estimate.
pub(super) fn memory_of(meminfo: &str) -> (u64, u64) {
    let value = |name: &str| {
        meminfo.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix(':')?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        })
    };
    let sum = || {
        ["MemFree", "Buffers", "Cached"]
            .into_iter()
            .filter_map(value)
            .sum()
    };
    let available = value("MemAvailable").unwrap_or_else(sum);
    (value("MemTotal").unwrap_or_default() * KIB, available * KIB)
}
