//! The whole way: a container, the agent, a router, and `studio logs` at the other end.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use testkit::fleet::{Fleet, Plane};
use testkit::process::Process;
use testkit::{docker, wait};

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
    // And while lines are on their way: a message whose confirmation the kill takes along may come again, as a whole.
    agent.kill();
    let _agent = device.start_agent(Path::new(AGENT), &[]);
    let goal = numbers(&viewer).len() + 60;
    reaches(goal);
    let last = hold(&container);
    wait::until("the last line is seen", MINUTE, || {
        (numbers(&viewer).last() == Some(&last)).then_some(())
    });
    let seen = numbers(&viewer);
    let again: Vec<usize> = (1..seen.len())
        .filter(|&at| seen[at] != seen[at - 1] + 1)
        .collect();
    println!("repeated from {again:?} on");
    assert!(again.len() <= 1, "{again:?}");
    if let Some(&at) = again.first() {
        // Lines of a fifth of a second, or of what the new run found when it came: those before the kill only.
        assert!(first <= seen[at] && seen[at] <= seen[at - 1], "none is missing");
    }
    drop(viewer);

    // Queries over the same way, of a log that stands still.
    let query = |arguments: serde_json::Value| {
        let arguments = arguments.to_string();
        let answer = fleet.studio(&["call", "meter-1", "query_app_logs", &arguments, "--json"]);
        answer.ok().json()["args"][0].take()
    };
    let moment = |value: &serde_json::Value| -> jiff::Timestamp {
        let text = value.as_str().unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let before = jiff::Timestamp::now();
    let newest = query(json!({"containerName": container, "tail": 5}));
    assert_eq!(
        (&newest["source"], &newest["returned"]),
        (&json!("docker"), &json!(5))
    );
    // Whole seconds.
    let now = moment(&newest["device_time"]);
    assert!((before.as_second()..=jiff::Timestamp::now().as_second()).contains(&now.as_second()));
    let lines = newest["lines"].as_array().unwrap().clone();
    assert_eq!(lines.len(), 5);
    let oldest = query(json!({"containerName": container, "tail": 5000}));
    let all = oldest["lines"].as_array().unwrap();
    assert_eq!((all.len() as u64, &oldest["returned"]), (last, &json!(last)));
    assert_eq!(all[all.len() - 5..], lines);
    let available = moment(&newest["oldest_available"]).as_second();
    assert_eq!(available, moment(&all[0]).as_second());

    let plain = json!({"containerName": container, "tail": 3, "offset": 4, "timestamps": false});
    let page = query(plain);
    let expected: Vec<String> = (last - 6..=last - 4)
        .map(|number| format!("number {number}"))
        .collect();
    assert_eq!(page["lines"], json!(expected));
    assert_eq!(
        (&page["returned"], &page["truncated"]),
        (&json!(3), &json!(false))
    );
    assert_eq!(page["has_more"], json!(true));
    let (since, until) = (moment(&lines[1]).to_string(), moment(&lines[3]).to_string());
    let window = query(json!({"containerName": container, "since": since, "until": until}));
    assert_eq!(
        (&window["lines"], &window["returned"]),
        (&json!(lines[1..=3]), &json!(3))
    );
    let until = moment(&all[0]).to_string();
    let window = query(json!({"containerName": container, "until": until}));
    assert_eq!(window["lines"], json!([all[0]]));

    // Page by page backwards: by the moment of the oldest line so far, which comes again, and by number.
    for by_moment in [true, false] {
        let mut read: Vec<serde_json::Value> = Vec::new();
        let mut more = true;
        while more {
            let place = match read.first() {
                Some(oldest) if by_moment => json!({"until": moment(oldest).to_string()}),
                Some(_) | None => json!({"offset": read.len()}),
            };
            let mut arguments = json!({"containerName": container, "tail": 60});
            arguments
                .as_object_mut()
                .unwrap()
                .extend(place.as_object().unwrap().clone());
            let page = query(arguments);
            let mut lines = page["lines"].as_array().unwrap().clone();
            let again = lines.len();
            lines.retain(|line| !read.contains(line));
            assert_eq!(again - lines.len(), usize::from(by_moment && !read.is_empty()));
            read.splice(..0, lines);
            more = page["has_more"] == json!(true);
        }
        assert_eq!(&read, all, "by moment: {by_moment}");
    }

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

#[test]
fn what_an_app_said_last_while_no_agent_ran_is_seen_before_it_is_started_again() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("meter-1");
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    let script = "if [ -e /data/again ]; then echo number 3001; while :; do sleep 1; done; fi
        : > /data/again; echo number 1; while ! [ -e /tmp/on ]; do sleep 0.1; done
        for i in $(seq 2 3000); do echo number $i; done";
    fleet.publish_app("ends", script);
    fleet.studio(&["install", "meter-1", "ends", "--wait"]).ok();
    let viewer = Process::start(
        "viewer",
        &mut fleet.command(&["logs", "meter-1", "ends", "-f", "--grep", "number"]),
    );
    wait::until("the first line is seen", MINUTE, || {
        (numbers(&viewer) == [1]).then_some(())
    });
    let apps = fleet.studio(&["app", "list", "--json"]).ok().json();
    let container = format!("prod_{}_ends", apps[0]["app_key"]);
    wait_until_confirmed(&device.home.join("agent/downloads"), &container);
    agent.kill();
    docker::docker(&["exec", &container, "/bin/sh", "-c", ": > /tmp/on"]).unwrap();
    wait::until("it ends", MINUTE, || {
        let state = docker::inspect(&container, "{{.State.Status}}")?;
        (state == "exited").then_some(())
    });
    let _agent = device.start_agent(Path::new(AGENT), &[]);
    wait::until("it is started again", MINUTE, || {
        numbers(&viewer).contains(&3001).then_some(())
    });
    let expected: Vec<u64> = (1..=3001).collect();
    assert_eq!(numbers(&viewer), expected);
}
