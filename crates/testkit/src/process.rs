//! A program under test: its output collected, its end enforced.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// Longest wait for the end of writing to a program.
const WRITTEN: Duration = Duration::from_secs(5);

/// A running child in a process group of its own; the whole group is killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command` with collected output. Panics when it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Process {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // A file that was just written is still open in what another thread was starting meanwhile, until that executes.
        let started = wait::poll(WRITTEN, || match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            started => Some(started),
        });
        let mut child = started
            .unwrap_or_else(|| panic!("cannot start {name}: somebody writes to it"))
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = Arc::new(Mutex::new(Vec::new()));
        if let Some(stream) = child.stdout.take() {
            collect(stream, Arc::clone(&output));
        }
        if let Some(stream) = child.stderr.take() {
            collect(stream, Arc::clone(&output));
        }
        Process {
            name: name.to_owned(),
            child,
            output,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far, both streams, by line.
    pub fn output(&self) -> Vec<String> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a line contains `text` and returns it.
    pub fn wait_for_line(&mut self, text: &str, deadline: Duration) -> String {
        let what = format!("{} prints {text:?}", self.name);
        let end = std::time::Instant::now() + deadline;
        loop {
            if let Some(line) = self.output().into_iter().find(|line| line.contains(text)) {
                return line;
            }
            let over = matches!(self.child.try_wait(), Ok(Some(_))) || std::time::Instant::now() > end;
            assert!(
                !over,
                "waited in vain until {what}; it printed:\n{}",
                self.output().join("\n")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(deadline)
    }

    /// SIGTERM and a bounded wait, for clean-up: never panics, says whether it ended.
    pub fn end(&mut self, deadline: Duration) -> bool {
        self.signal(Signal::TERM);
        wait::poll(deadline, || self.child.try_wait().ok().flatten()).is_some()
    }

    /// Waits until somebody listens on this port of loopback. Panics with the output when it ends before, or is late.
    pub fn wait_for_port(&mut self, port: u16, deadline: Duration) {
        let what = format!("{} listens", self.name);
        let up = wait::until(&what, deadline, || {
            if !self.is_running() {
                return Some(false);
            }
            TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true)
        });
        assert!(up, "{} ended:\n{}", self.name, self.output().join("\n"));
    }

    /// SIGKILL to this process alone, as a power cut would; waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.raw_pid() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends a signal to it and all that it has started.
    pub fn signal_all(&self, signal: Signal) {
        if let Some(pid) = self.raw_pid() {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Waits for the end. Panics with the output after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait::until(&what, deadline, || self.child.try_wait().ok().flatten())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn raw_pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.raw_pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of {}:\n{}\n---", self.name, self.output().join("\n"));
        }
    }
}

fn collect(stream: impl Read + Send + 'static, output: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            output.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

/// The directory of the workspace's binaries of this profile, found from a test's own executable.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/<profile>/deps");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace",
        path.display()
    );
    path
}
