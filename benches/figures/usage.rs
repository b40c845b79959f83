//! What a process uses: memory and time from `/proc`, system calls from strace.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::process::Process;
use testkit::wait;

const SOON: Duration = Duration::from_secs(10);

/// System calls further apart than this belong to different wake-ups, seconds.
const APART: f64 = 0.01;

/// Resident set and private dirty pages of a process, MB.
pub(crate) fn memory(pid: u32) -> (f64, f64) {
    let rollup = read(pid, "smaps_rollup");
    let megabytes = |key| number(&rollup, key) as f64 * 1.024e-3;
    (megabytes("Rss:"), megabytes("Private_Dirty:"))
}

/// The largest resident set that a process has had, MB.
pub(crate) fn peak(pid: u32) -> f64 {
    number(&read(pid, "status"), "VmHWM:") as f64 * 1.024e-3
}

/// What a process has used up so far.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Nanoseconds of each thread that still runs.
    threads: BTreeMap<OsString, u64>,
    /// Bytes that went to the disk.
    pub(crate) written: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Usage {
        let threads = std::fs::read_dir(proc(pid, "task")).expect("the process runs");
        // A thread may end meanwhile.
        let threads = threads.flatten().filter_map(|thread| {
            let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanoseconds = schedstat.split(' ').next()?.parse().ok()?;
            Some((thread.file_name(), nanoseconds))
        });
        Usage {
            threads: threads.collect(),
            written: number(&read(pid, "io"), "write_bytes:"),
        }
    }

    /// Time used up after `before`, without that of threads that have ended since.
    pub(crate) fn cpu_since(&self, before: &Usage) -> Duration {
        let spent = self.threads.iter().map(|(thread, nanoseconds)| {
            nanoseconds.saturating_sub(before.threads.get(thread).copied().unwrap_or_default())
        });
        Duration::from_nanos(spent.sum())
    }
}

/// strace attached to a process.
#[derive(Debug)]
pub(crate) struct Trace {
    strace: Process,
    output: PathBuf,
}

impl Trace {
    /// Notes the system calls in `calls` (strace's words) of all threads; `directory` takes its file.
    pub(crate) fn start(pid: u32, calls: &str, directory: &Path) -> Trace {
        let output = directory.join("strace");
        let mut command = Command::new("strace");
        command.args([
            "--quiet=all",
            "--decode-fds=path",
            "--timestamps=unix,us",
            "--follow-forks",
        ]);
        command
            .arg(format!("--trace={calls}"))
            .arg("--output")
            .arg(&output);
        command.arg(format!("--attach={pid}"));
        let strace = Process::start("strace", &mut command);
        wait::until("strace is attached", SOON, || {
            (number(&read(pid, "status"), "TracerPid:") != 0).then_some(())
        });
        Trace { strace, output }
    }

    /// Detaches.
    pub(crate) fn stop(mut self) -> Calls {
        self.strace.terminate(SOON);
        Calls(std::fs::read_to_string(&self.output).expect("strace wrote its file"))
    }
}

/// System calls, one a line: thread, time, call.
#[derive(Debug)]
pub(crate) struct Calls(String);

impl Calls {
    /// Calls that have `text` in them.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.0.lines().filter(|line| line.contains(text)).count()
    }

    /// How often something was done after nothing was: wake-ups of the process, however many of its threads took part.
    pub(crate) fn bursts(&self) -> usize {
        let times: Vec<f64> = self
            .0
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
            .collect();
        times.windows(2).filter(|pair| pair[1] - pair[0] > APART).count()
    }
}

fn proc(pid: u32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

fn read(pid: u32, file: &str) -> String {
    std::fs::read_to_string(proc(pid, file)).expect("the process runs")
}

/// The number behind a key at the start of a line.
fn number(text: &str, key: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_default();
    value
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}
