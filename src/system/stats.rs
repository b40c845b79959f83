//! Host statistics as the heartbeat and `get_storage_data` show them (`session-and-api.md` 7.2). Measured once per
//! interval by one task and shared, so that nobody's question distorts another's answer (weakness R58); a dead mount
//! costs a zero, never the task. Must not know who asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::report::HostStats;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::os;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix::measure;
#[cfg(windows)]
use windows::measure;

/// The fixed path of 7.2.
const DOCKER_APPS: &str = "/opt/reagent/docker-apps";
/// What one file system may take to answer before it counts as unreadable.
const DISK_DEADLINE: Duration = Duration::from_secs(3);

/// The newest measurement, for everybody. Cloneable.
#[derive(Clone, Debug)]
pub struct HostSampler {
    newest: watch::Receiver<HostStats>,
    task: TaskTracker,
}

impl HostSampler {
    /// Measures now and then every `interval` until `stop`. CPU and memory are there on return, file systems shortly
    /// after.
    pub fn start(interval: Duration, stop: CancellationToken) -> HostSampler {
        let proc_dir = std::env::var_os("HOST_PROC").map_or_else(|| PathBuf::from("/proc"), PathBuf::from);
        HostSampler::start_at(Host::new(proc_dir, os::ROOT, DOCKER_APPS), interval, stop)
    }

    fn start_at(mut host: Host, interval: Duration, stop: CancellationToken) -> HostSampler {
        let (sender, newest) = watch::channel(host.processor_and_memory());
        let task = TaskTracker::new();
        task.spawn(async move {
            loop {
                let mut stats = *sender.borrow();
                host.storage(&mut stats).await;
                sender.send_replace(stats);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                let storage = stats;
                stats = host.processor_and_memory();
                // Until the file systems answered, their last figures stand.
                sender.send_replace(HostStats {
                    cpu_count: stats.cpu_count,
                    cpu_usage: stats.cpu_usage,
                    memory_total: stats.memory_total,
                    memory_used: stats.memory_used,
                    memory_available: stats.memory_available,
                    ..storage
                });
            }
        });
        task.close();
        HostSampler { newest, task }
    }

    /// The newest measurement. Never waits.
    pub fn current(&self) -> HostStats {
        *self.newest.borrow()
    }

    /// Waits until the task has ended, which it does after `stop`.
    pub async fn ended(&self) {
        self.task.wait().await;
    }
}

/// Where the figures come from, and what the last measurement left behind.
#[derive(Debug)]
struct Host {
    proc_dir: PathBuf,
    times: CpuTimes,
    root: Disk,
    docker_apps: Disk,
}

impl Host {
    fn new(proc_dir: PathBuf, root: impl Into<PathBuf>, docker_apps: impl Into<PathBuf>) -> Host {
        Host {
            proc_dir,
            times: CpuTimes::default(),
            root: Disk {
                path: root.into(),
                pending: None,
            },
            docker_apps: Disk {
                path: docker_apps.into(),
                pending: None,
            },
        }
    }

    fn processor_and_memory(&mut self) -> HostStats {
        let found = measure(&self.proc_dir);
        let before = std::mem::replace(&mut self.times, found.times);
        HostStats {
            cpu_count: found.cpu_count,
            cpu_usage: found.times.usage_since(before),
            memory_total: found.memory_total,
            memory_available: found.memory_available,
            memory_used: found.memory_total.saturating_sub(found.memory_available),
            ..HostStats::default()
        }
    }

    async fn storage(&mut self, stats: &mut HostStats) {
        let (root, docker_apps) = tokio::join!(self.root.ask(), self.docker_apps.ask());
        (stats.storage_total, stats.storage_used, stats.storage_free) = root.unwrap_or_default();
        (
            stats.docker_apps_total,
            stats.docker_apps_used,
            stats.docker_apps_free,
        ) = docker_apps.unwrap_or_default();
        stats.docker_apps_mounted = docker_apps.is_some_and(|(total, ..)| total != stats.storage_total);
    }
}

/// Total, used, free.
type Space = (u64, u64, u64);

/// A file system that may hang for ever: its question runs on a thread of its own, at most one at a time.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    pending: Option<JoinHandle<Option<Space>>>,
}

impl Disk {
    async fn ask(&mut self) -> Option<Space> {
        let pending = match self.pending.take() {
            Some(stuck) => stuck,
            None => {
                let path = self.path.clone();
                tokio::task::spawn_blocking(move || space(&path))
            }
        };
        let asked = self.pending.insert(pending);
        match tokio::time::timeout(DISK_DEADLINE, asked).await {
            Ok(answer) => {
                self.pending = None;
                answer.ok().flatten()
            }
            // Still hanging: the next measurement waits for the same answer instead of asking again.
            Err(_) => None,
        }
    }
}

fn space(path: &Path) -> Option<Space> {
    let space = os::space(path).ok()?;
    Some((
        space.total,
        space.total.saturating_sub(space.free),
        space.available,
    ))
}

/// What the system says of its processors and its memory.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    cpu_count: u64,
    times: CpuTimes,
    /// Bytes.
    memory_total: u64,
    memory_available: u64,
}

/// Clock ticks, or other units of time, of all CPUs since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct CpuTimes {
    total: u64,
    busy: u64,
}

impl CpuTimes {
    /// Counters of a hot-plugged CPU may go backwards; that is no usage.
    fn usage_since(self, before: CpuTimes) -> f64 {
        let total = self.total.saturating_sub(before.total);
        let busy = self.busy.saturating_sub(before.busy);
        if total == 0 {
            return 0.0;
        }
        (busy as f64 / total as f64 * 100.0).clamp(0.0, 100.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::unix::{KIB, memory_of};
    use super::*;

    const STAT: &str = "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 50 0 25 400 25 0 0 0 7 0\ncpu1 50 0 25 400 25 0 0 0 0 0\nintr 1\n";
    const MEMINFO: &str = "MemTotal:        4000 kB\nMemFree:          100 kB\nMemAvailable:    3000 kB\nBuffers: 10 kB\nCached: 20 kB\n";

    fn machine() -> tempfile::TempDir {
        let proc_dir = tempfile::tempdir().unwrap();
        fs::write(proc_dir.path().join("stat"), STAT).unwrap();
        fs::write(proc_dir.path().join("meminfo"), MEMINFO).unwrap();
        proc_dir
    }

    #[test]
    fn processor_and_memory_come_from_proc() {
        let proc_dir = machine();
        let mut host = Host::new(proc_dir.path().to_path_buf(), "/", "/none");
        let first = host.processor_and_memory();
        assert_eq!(first.cpu_count, 2);
        assert_eq!(first.cpu_usage, 15.0);
        assert_eq!(first.memory_total, 4_096_000);
        assert_eq!(first.memory_available, 3_072_000);
        assert_eq!(first.memory_used, 1_024_000);

        fs::write(proc_dir.path().join("stat"), "cpu  130 0 60 850 60 0 0 0 7 0\n").unwrap();
        assert_eq!(host.processor_and_memory().cpu_usage, 40.0);
        assert_eq!(host.processor_and_memory().cpu_usage, 0.0);
    }

    #[test]
    fn a_kernel_without_available_memory_gets_an_estimate() {
        let old = MEMINFO.replace("MemAvailable", "Other");
        assert_eq!(memory_of(&old), (4000 * KIB, 130 * KIB));
    }

    #[test]
    fn what_cannot_be_read_is_zero() {
        let mut host = Host::new(PathBuf::from("/none"), "/none", "/none");
        let stats = host.processor_and_memory();
        assert_eq!(
            (stats.cpu_usage, stats.memory_total, stats.memory_used),
            (0.0, 0, 0)
        );
        assert!(stats.cpu_count > 0);
    }

    #[tokio::test]
    async fn storage_follows_the_file_systems() {
        let mut host = Host::new(PathBuf::from("/proc"), "/", "/none");
        let mut stats = HostStats::default();
        host.storage(&mut stats).await;
        assert!(stats.storage_total > 0);
        assert!(stats.storage_used <= stats.storage_total);
        assert_eq!((stats.docker_apps_total, stats.docker_apps_mounted), (0, false));

        let mut host = Host::new(PathBuf::from("/proc"), "/", "/");
        host.storage(&mut stats).await;
        assert_eq!(stats.docker_apps_total, stats.storage_total);
        assert!(!stats.docker_apps_mounted, "the same file system is no mount");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_hangs_costs_a_zero_and_one_thread() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hanging = tokio::task::spawn_blocking(move || {
            let _ = held.recv();
            Some((1, 1, 1))
        });
        let mut disk = Disk {
            path: PathBuf::from("/"),
            pending: Some(hanging),
        };
        for _ in 0..2 {
            let mut asked = std::pin::pin!(disk.ask());
            assert!(futures_util::poll!(asked.as_mut()).is_pending());
            tokio::time::advance(DISK_DEADLINE).await;
            assert_eq!(asked.await, None);
        }
        assert!(disk.pending.is_some(), "the same question is still open");
        release.send(()).unwrap();
        assert_eq!(disk.ask().await, Some((1, 1, 1)));
        assert!(disk.pending.is_none());
    }

    #[tokio::test]
    async fn the_sampler_measures_at_once_and_ends_with_its_token() {
        let proc_dir = machine();
        let host = Host::new(proc_dir.path().to_path_buf(), "/", "/none");
        let stop = CancellationToken::new();
        let sampler = HostSampler::start_at(host, Duration::from_millis(5), stop.clone());
        assert_eq!(sampler.current().cpu_usage, 15.0);

        let mut newest = sampler.newest.clone();
        let within = Duration::from_secs(10);
        let measured = newest.wait_for(|stats| stats.storage_total > 0 && stats.cpu_usage == 0.0);
        tokio::time::timeout(within, measured).await.unwrap().unwrap();
        assert_eq!(sampler.current().memory_total, 4_096_000);

        stop.cancel();
        tokio::time::timeout(within, sampler.ended()).await.unwrap();
    }

    #[test]
    fn the_payload_has_the_keys_of_the_contract_in_their_order() {
        let stats = HostStats {
            cpu_usage: 0.0,
            cpu_count: 4,
            ..HostStats::default()
        };
        assert_eq!(
            serde_json::to_string(&stats).unwrap(),
            "{\"cpu_count\":4,\"cpu_usage\":0.0,\"memory_total\":0,\"memory_used\":0,\"memory_available\":0,\
             \"storage_total\":0,\"storage_used\":0,\"storage_free\":0,\"docker_apps_total\":0,\"docker_apps_used\":0,\
             \"docker_apps_free\":0,\"docker_apps_mounted\":false}"
        );
    }
}
