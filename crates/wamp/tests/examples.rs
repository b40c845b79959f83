//! The examples, as processes that talk to one another.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::process::{Process, binary};
use testkit::wait;

/// For a process to start and answer.
const SOON: Duration = Duration::from_secs(30);

/// Cargo builds examples beside the tests.
fn example(name: &str) -> Command {
    Command::new(binary(&format!("examples/{name}")))
}

/// Everything a process prints, once it is so many lines.
fn lines(process: &Process, count: usize) -> Vec<String> {
    let output = || Some(process.output()).filter(|output| output.len() >= count);
    wait::until("everything is printed", SOON, output)
}

#[test]
fn router_callee_caller_publisher_and_subscriber_work_together() {
    let address = format!("127.0.0.1:{}", wait::free_port());
    let url = format!("ws://{address}");
    // The callee comes first and waits for the router.
    let mut callee = Process::start("callee", example("callee").arg(&url));
    callee.wait_for_line("again in", SOON);
    let mut router = Process::start("router", example("router").arg(&address));
    router.wait_for_line("Ctrl-C ends it", SOON);
    callee.wait_for_line("callee: ready as session", SOON);

    let mut caller = Process::start("caller", example("caller").arg(&url));
    caller.wait_for_line("caller: done", SOON);
    let said = lines(&caller, 8);
    assert_eq!(said[0], "caller: 40 + 2 = 42");
    assert_eq!(said[1], "caller: com.example.overflow: the sum is too large");
    assert_eq!(said[2], "caller: counted to Some(1)");
    assert_eq!(said.len(), 8, "{said:?}");
    assert!(caller.wait(SOON).success());

    // Over RawSocket, and behind a publisher that has said something already.
    let raw = format!("rs://{address}");
    let mut publisher = Process::start("publisher", example("publisher").args([&raw, "realm1", "20"]));
    publisher.wait_for_line("publisher: reading 1", SOON);
    let mut subscriber = Process::start("subscriber", example("subscriber").args([&url, "realm1", "3"]));
    assert!(subscriber.wait(SOON).success());
    let said = lines(&subscriber, 4);
    assert_eq!(said[0], "subscriber: ready");
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[1..].iter().all(|line| line.contains("degrees")), "{said:?}");
    assert!(publisher.wait(SOON).success());

    router.signal(Signal::INT);
    router.wait_for_line("goodbye", SOON);
    callee.wait_for_line("callee: lost (Goodbye(\"wamp.close.system_shutdown\"))", SOON);
    callee.signal(Signal::INT);
    callee.wait_for_line("callee: goodbye", SOON);
}
