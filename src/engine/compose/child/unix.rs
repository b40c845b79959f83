//! Process groups and signals.

use std::io;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

/// The process group; killed when this is dropped before the program was reaped.
pub(super) struct Group {
    id: Option<Pid>,
}

impl Group {
    /// The program that is started gets a group of its own.
    pub(super) fn prepare(command: &mut Command) {
        command.process_group(0);
    }

    /// That of a program that was started so.
    pub(super) fn of(child: &Child) -> Group {
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Group { id }
    }

    /// All of it may end in order.
    pub(super) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// All of it ends.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Nobody is left in it.
    pub(super) fn forget(&mut self) {
        self.id = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // Nobody there any more is what we want.
            let _ = kill_process_group(id, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the program says.
pub(super) struct Output(Receiver);

impl Output {
    pub(super) fn of(reader: io::PipeReader) -> io::Result<Output> {
        Receiver::from_owned_fd(reader.into()).map(Output)
    }

    /// As for any reader; 0 is the end. May be dropped at any time.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

/// Kills every process whose environment has exactly `entry`: what was started by one that cannot end it any more,
/// children of children too. Processes of others cannot be read and are passed over.
pub(in crate::engine::compose) fn kill_marked(entry: &str) {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let marked = std::fs::read(process.path().join("environ")).is_ok_and(|environment| {
            environment
                .split(|&byte| byte == 0)
                .any(|found| found == entry.as_bytes())
        });
        if let Some(id) = Pid::from_raw(id).filter(|_| marked) {
            tracing::warn!(
                process = id.as_raw_nonzero(),
                "ending a call that an earlier agent left behind"
            );
            let _ = kill_process(id, Signal::KILL);
        }
    }
}
