//! The whole way: a container, the agent, a router, and `studio logs` at the other end.

use std::path::Path;
use std::time::Duration;

use testkit::fleet::{Fleet, Plane};
use testkit::process::Process;
use testkit::wait;

use super::rig::{go_on, hold, numbering, wait_until_confirmed};

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");
const MINUTE: Duration = Duration::from_secs(60);

/// The numbers that a viewer printed, of the container's lines alone.
fn numbers(viewer: &Process) -> Vec<u64> {
    let output = viewer.output();
    let of_line = |line: &String| line.rsplit("number ").next()?.parse().ok();
    output.iter().filter_map(of_line).collect()
}

#[test]
fn whoever_follows_a_log_sees_every_line_once_although_the_agent_is_killed() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("meter-1");
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.publish_app("count", &numbering("number ", "0.05"));
    fleet.studio(&["install", "meter-1", "count", "--wait"]).ok();
    let viewer = Process::start(
        "viewer",
        &mut fleet.command(&[
            "logs", "--device", "meter-1", "--app", "count", "-f", "--grep", "number",
        ]),
    );
    let reaches = |goal: usize| {
        wait::until(&format!("{goal} lines are seen"), MINUTE, || {
            (numbers(&viewer).len() >= goal).then_some(())
        });
    };
    reaches(40);
    let apps = fleet.studio(&["app", "list", "--json"]).ok().json();
    let container = format!("prod_{}_count", apps[0]["app_key"]);
    for _ in 0..2 {
        // At rest: a line whose confirmation a kill takes along is said again.
        let last = hold(&container);
        wait::until("the last line is seen", MINUTE, || {
            (numbers(&viewer).last() == Some(&last)).then_some(())
        });
        wait_until_confirmed(&device.home.join("agent/downloads"), &container);
        agent.kill();
        go_on(&container);
        agent = device.start_agent(Path::new(AGENT), &[]);
        let goal = numbers(&viewer).len() + 60;
        reaches(goal);
    }
    let seen = numbers(&viewer);
    let first = seen[0];
    let expected: Vec<u64> = (first..first + seen.len() as u64).collect();
    assert_eq!(seen, expected, "every line once and in order");
    drop(viewer);

    // Queries over the same way.
    for (tail, has_more) in [(5, true), (5000, false)] {
        let arguments = format!(r#"{{"containerName":"{container}","tail":{tail}}}"#);
        let answer = fleet.studio(&["call", "meter-1", "query_app_logs", &arguments, "--json"]);
        let answer = answer.ok().json().to_string();
        assert!(
            answer.contains(&format!(r#""has_more":{has_more}"#)),
            "{tail}: {answer}"
        );
        assert!(answer.contains(r#""truncated":false"#), "{tail}: {answer}");
    }
    let arguments = r#"{"containerName":"x","tail":-1}"#;
    let refused = fleet.studio(&["call", "meter-1", "query_app_logs", arguments]);
    assert!(
        refused
            .stderr
            .contains("the tail param should be a non-negative whole number"),
        "{refused:?}"
    );
    let answer = fleet.studio(&["call", "meter-1", "query_device_logs", r#"{"tail":5}"#, "--json"]);
    assert!(answer.ok().stdout.contains("oldest_available"));
    fleet.studio(&["remove", "meter-1", "count", "--wait"]).ok();
}
