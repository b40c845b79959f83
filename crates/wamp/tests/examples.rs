//! The examples as somebody who tries them out runs them: five processes on one machine.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Bound for what must happen by itself.
const SOON: Duration = Duration::from_secs(30);

/// A running example and what it has printed.
struct Example {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Drop for Example {
    fn drop(&mut self) {
        // Only if the test has failed: otherwise it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Example {
    fn start(name: &'static str, arguments: &[&str]) -> Example {
        // Beside the directory of this very test.
        let own = std::env::current_exe().unwrap();
        let program: PathBuf = own.parent().unwrap().with_file_name("examples").join(name);
        assert!(
            program.exists(),
            "{} is not built; cargo build --examples does it",
            program.display()
        );
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Example {
            name,
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that begins like this; gives the rest of it.
    fn says(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{} does not say {beginning:?}, but {:?}", self.name, self.seen);
            };
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.to_owned();
            }
            self.seen.push(line);
        }
    }

    fn interrupt(&self) {
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::INT).unwrap();
    }

    /// Everything that was printed since the last line that was waited for, after the example has ended well.
    fn ends(mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| self.lines.recv_timeout(SOON).ok()).collect();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.name);
        lines
    }
}

#[test]
fn the_examples_work_together_and_survive_a_restart_of_the_router() {
    let mut router = Example::start("router", &["127.0.0.1:0", "examples"]);
    let place = router.says("listening on ");
    let (url, realm) = place.split_once(", realm ").unwrap();
    assert_eq!(realm, "examples");
    let at = [url, realm];

    let mut callee = Example::start("callee", &at);
    callee.says("serving in session ");
    let caller = Example::start("caller", &at);
    assert_eq!(
        caller.ends(),
        [
            "2 + 40 = 42",
            "2 + forty: wamp.error.invalid_argument: [1]: expected i64, got text",
            "3 …",
            "2 …",
            "1 …",
            "lift-off",
        ]
    );
    callee.says("add 2 and 40");
    callee.says("count down from 3");

    let mut subscriber = Example::start("subscriber", &at);
    subscriber.says("listening in session ");
    let mut publisher = Example::start("publisher", &at);
    publisher.says("second 0 is publication ");
    subscriber.says("com.example.clock: second 0");
    subscriber.says("com.example.clock: second 1");

    // The router goes and comes back in the same place: who has a plan is there again.
    let address = url
        .strip_prefix("ws://")
        .and_then(|rest| rest.strip_suffix("/ws"))
        .unwrap();
    router.interrupt();
    router.says("stopping");
    assert_eq!(router.ends(), Vec::<String>::new());
    publisher.says("the session has ended: Goodbye(\"wamp.close.system_shutdown\")");
    publisher.ends();
    let mut router = Example::start("router", &[address, realm]);
    router.says("listening on ");
    callee.says("serving in session ");
    subscriber.says("the session was lost and is back");
    let mut publisher = Example::start("publisher", &at);
    publisher.says("second 0 is publication ");
    subscriber.says("com.example.clock: second 0");

    for example in [publisher, callee, subscriber] {
        example.interrupt();
        assert_eq!(example.ends().last().unwrap(), "left");
    }
    router.interrupt();
    router.says("stopping");
    router.ends();
}
