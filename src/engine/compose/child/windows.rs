//! Trees of processes, which only `taskkill` knows. That no call outlives its agent is the job's doing, in which the
//! agent runs with all that it starts.

use std::io::{self, Read as _};
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Blocks of output that wait to be read; then the program waits.
const QUEUE: usize = 16;
/// Read in one go.
const BLOCK: usize = 8 << 10;

/// The program and what it started; ended when this is dropped before the program was.
pub(super) struct Group {
    id: Option<u32>,
}

impl Group {
    /// Nothing to prepare.
    pub(super) fn prepare(_: &mut Command) {}

    /// That of a program that was started.
    pub(super) fn of(child: &Child) -> Group {
        Group { id: child.id() }
    }

    /// There is no way to ask a program without a window.
    pub(super) fn ask_to_end(&self) {
        self.kill();
    }

    /// All of it ends.
    pub(super) fn kill(&self) {
        if let Some(id) = self.id {
            // Nobody there any more is what we want.
            let _ = std::process::Command::new("taskkill")
                .args(["/T", "/F", "/PID", &id.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
        }
    }

    /// Nobody is left in it.
    pub(super) fn forget(&mut self) {
        self.id = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the program says, read by a thread: pipes without a name cannot be waited for otherwise.
pub(super) struct Output {
    blocks: mpsc::Receiver<io::Result<Vec<u8>>>,
    rest: Vec<u8>,
}

impl Output {
    pub(super) fn of(mut reader: io::PipeReader) -> io::Result<Output> {
        let (sender, blocks) = mpsc::channel(QUEUE);
        // Ends with the last writer, or with the one who listens.
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let mut block = vec![0; BLOCK];
                loop {
                    let read = reader.read(&mut block).map(|length| block[..length].to_vec());
                    let last = !read.as_ref().is_ok_and(|read| !read.is_empty());
                    if sender.blocking_send(read).is_err() || last {
                        return;
                    }
                }
            })?;
        Ok(Output {
            blocks,
            rest: Vec::new(),
        })
    }

    /// As for any reader; 0 is the end. May be dropped at any time.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.blocks.recv().await.unwrap_or_else(|| Ok(Vec::new()))?;
        }
        let length = self.rest.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(self.rest.drain(..length)) {
            *place = byte;
        }
        Ok(length)
    }
}

/// Nothing is left behind by an agent whose job has ended.
pub(in crate::engine::compose) fn kill_marked(_: &str) {}
