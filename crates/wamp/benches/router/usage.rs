//! What a process and all its descendants use: CPU time and memory, read from /proc.

use std::fs;
use std::time::Duration;

/// CPU time of `pid` and of every living descendant since their start. Threads that have ended are not counted, so it is
/// for programs whose threads live as long as they do.
pub(crate) fn cpu(pid: u32) -> Duration {
    family(pid).into_iter().map(threads_cpu).sum()
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    threads_cpu(std::process::id())
}

/// Resident set of `pid` and all its descendants, bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    family(pid).into_iter().map(resident_alone).sum()
}

fn resident_alone(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// The first number of `schedstat` is the time on a CPU in nanoseconds; `stat` counts in hundredths of a second only.
fn threads_cpu(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let line = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        family.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
        next += 1;
    }
    family
}
