//! Ten containers that print as fast as they can, all at once, through the agent as a process.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use testkit::docker::Scope;
use testkit::fleet::{Fleet, Plane};
use testkit::process::Process;
use tokio::task::JoinSet;
use wamp::Payload;
use wamp::client::CallOptions;

use super::rig::{Tally, Viewer, operator};

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");
const APPS: usize = 10;
/// Of each, with 40 characters.
const LINES: u64 = 20_000;
/// How long a caller waits. How fast answers are is measured elsewhere.
const ANSWER: Duration = Duration::from_secs(5);
/// Of the agent at most, kB: what the figures promise of a release build, twice.
const RESIDENT: u64 = 2 * 32 * 1000;

/// The largest resident set of a process, kB.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_containers_that_flood_at_once_lose_nothing_without_a_word_and_leave_calls_answered() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("meter-1");
    let agent = device.start_agent(Path::new(AGENT), &[]);
    let script = format!(
        "while ! [ -e /shared/go ]; do sleep 0.05; done
         awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) printf \"%040d\\n\", i }}'
         while :; do sleep 3600; done"
    );
    let apps: Vec<String> = (0..APPS).map(|number| format!("flood{number}")).collect();
    let images = Scope::new();
    let image = images.image("flood", &script);
    std::thread::scope(|scope| {
        for app in &apps {
            scope.spawn(|| {
                let version = ["--version", "1.0.0"];
                fleet.studio(&[&["app", "add", app][..], &version].concat()).ok();
                fleet
                    .studio(&[&["app", "push", app, &image][..], &version].concat())
                    .ok();
                fleet.studio(&["install", "meter-1", app, "--wait"]).ok();
            });
        }
    });
    let known = fleet.studio(&["app", "list", "--json"]).ok().json();
    let containers: Vec<String> = known
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("prod_{}_{}", row["app_key"], row["name"].as_str().unwrap()))
        .collect();
    assert_eq!(containers.len(), APPS);
    let mut tallies = JoinSet::new();
    for container in &containers {
        let mut viewer = Viewer::at(operator(&fleet).await, &device.serial, container).await;
        tallies.spawn(async move {
            let mut tally = Tally::default();
            tally.watch(&mut viewer, LINES).await;
            tally
        });
    }
    let caller = operator(&fleet).await;
    let procedure = protocol::uri::device(&device.serial, "get_app_log_history");
    let question = Payload::from_args(vec![
        wamp::Value::from_serialize(&json!({"containerName": containers[0]})).unwrap(),
    ]);
    std::fs::write(device.home.join("agent/apps/shared/go"), "").unwrap();

    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let (mut answers, mut delivered, mut dropped) = (0, 0, 0);
    while !tallies.is_empty() {
        tokio::select! {
            tally = tallies.join_next() => {
                let tally = tally.unwrap().unwrap();
                assert_eq!(tally.delivered + tally.dropped, LINES);
                delivered += tally.delivered;
                dropped += tally.dropped;
            }
            _ = pace.tick() => {
                let call = caller.call(&procedure, question.clone(), CallOptions::default());
                let answer = tokio::time::timeout(ANSWER, call).await.expect("an answer in time");
                answer.unwrap();
                answers += 1;
            }
        }
    }
    let peak = peak(&agent);
    println!("{delivered} lines, {dropped} said to be missing, {answers} answers, {peak} kB at most");
    assert!(answers > 0);
    assert!(peak < RESIDENT, "{peak} kB");
}
