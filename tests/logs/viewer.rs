//! `studio logs -f` across interruptions in which the app prints more than a history has: every line once and in order.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::docker;
use testkit::fleet::{Fleet, Plane};
use testkit::process::{self, Process};
use testkit::wait;

use super::rig::printed;

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");
const MINUTE: Duration = Duration::from_secs(60);

/// Counts slowly, and by so many at once when told to.
const BURST: usize = 9400;
const SCRIPT: &str = r#"
    i=0
    say() { i=$((i+1)); echo "number $i"; }
    while :; do
        if [ -e /tmp/burst ]; then
            n=0; while [ $n -lt 9400 ]; do say; n=$((n+1)); done
            rm /tmp/burst
        fi
        say; sleep 0.05
    done"#;

/// Lets it print so many lines, and waits until it has.
fn burst(container: &str) {
    let script = ": > /tmp/burst; while [ -e /tmp/burst ]; do sleep 0.1; done";
    docker::docker(&["exec", container, "/bin/sh", "-c", script]).unwrap();
}

/// The way of one client to a server, which can be cut.
struct Way {
    address: String,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(server: String) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way {
            address: listener.local_addr().unwrap().to_string(),
            open: Arc::new(AtomicBool::new(true)),
            streams: Arc::default(),
        };
        let (open, streams) = (Arc::clone(&way.open), Arc::clone(&way.streams));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut streams = streams.lock().unwrap();
                let Some(server) = open
                    .load(Ordering::SeqCst)
                    .then(|| TcpStream::connect(&server).ok())
                    .flatten()
                else {
                    continue;
                };
                carry(&client, &server);
                carry(&server, &client);
                streams.extend([client, server]);
            }
        });
        way
    }

    fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

fn carry(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}

fn numbers(viewer: &Process) -> Vec<usize> {
    let output = viewer.output();
    let number = |line: &String| line.strip_prefix("number ")?.parse().ok();
    output.iter().filter_map(number).collect()
}

#[test]
fn an_interruption_with_many_lines_costs_none_and_repeats_none() {
    let mut fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("meter-1");
    let _agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.publish_app("burst", SCRIPT);
    fleet.studio(&["install", "meter-1", "burst", "--wait"]).ok();
    let apps = fleet.studio(&["app", "list", "--json"]).ok().json();
    let container = format!("prod_{}_burst", apps[0]["app_key"]);

    let address = fleet.url().trim_start_matches("ws://").replace("/ws", "");
    let way = Way::to(address.clone());
    let url = format!("ws://{}/ws", way.address);
    let viewer = Process::start(
        "viewer",
        &mut fleet.command(&["logs", "meter-1", "burst", "-f", "--url", &url]),
    );
    let reaches = |goal: usize| {
        wait::until(&format!("{goal} lines are seen"), MINUTE, || {
            (numbers(&viewer).len() >= goal).then_some(())
        });
    };
    reaches(20);
    // Its own link, while the agent's holds.
    way.cut();
    burst(&container);
    way.mend();
    let mut goal = numbers(&viewer).len() + BURST + 20;
    reaches(goal);
    // The studio, so that the agent holds what is printed.
    fleet.server().kill();
    burst(&container);
    let data = fleet.directory().join("studio");
    let registry = fleet.registry();
    let port = registry.rsplit(':').next().unwrap();
    let mut command = std::process::Command::new(process::binary("studio"));
    command.args(["serve", "--with-registry", port, "--listen", &address, "--data"]);
    *fleet.server() = Process::start("studio", command.arg(data));
    goal += BURST + 20;
    reaches(goal);
    // Nothing of it comes late.
    reaches(goal + 100);

    let seen = numbers(&viewer);
    let expected: Vec<usize> = (seen[0]..seen[0] + seen.len()).collect();
    let differs = seen
        .iter()
        .zip(&expected)
        .position(|(seen, wanted)| seen != wanted);
    assert_eq!(
        differs.map(|place| &seen[place.saturating_sub(2)..place + 3]),
        None
    );
    let doubts = viewer.output();
    assert!(
        !doubts.iter().any(|line| line.contains("may be missing")),
        "it knows that none is"
    );
    drop(viewer);
    fleet.studio(&["remove", "meter-1", "burst", "--wait"]).ok();
}

/// Counts, and in between says what a terminal, a program or a bound may stumble over.
const ODD: &str = r#"
    i=0
    while :; do
        if [ -e /tmp/odd ]; then
            rm /tmp/odd; printf '\033[31mred\033[0m\n'; printf 'in\377valid\n'
        fi
        if [ -e /tmp/long ]; then
            rm /tmp/long; dd if=/dev/zero bs=1024 count=1024 2>/dev/null | tr '\0' x; echo
        fi
        i=$((i+1)); echo "number $i"; sleep 0.02
    done"#;

/// What a program reads of a viewer, of the service alone.
fn of_service(output: &[String]) -> Vec<String> {
    let line = |text: &String| {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let line = value["line"].as_str()?.strip_prefix("web-1  | ")?.to_owned();
        assert_eq!(
            (&value["device"], &value["app"]),
            (&"meter-1".into(), &"odd".into())
        );
        Some(line)
    };
    output.iter().filter_map(line).collect()
}

#[test]
fn a_program_reads_every_line_of_a_compose_app_at_crossbar_whatever_it_says() {
    let fleet = Fleet::start(Plane::Crossbar);
    let device = fleet.add_device("meter-1");
    let _agent = device.start_agent(Path::new(AGENT), &[]);
    let image = format!("{}/apps/web:1", fleet.registry());
    docker::import_busybox(&image, ODD);
    let document = fleet.directory().join("compose.yml");
    std::fs::write(&document, format!("services:\n  web:\n    image: {image}\n")).unwrap();
    let compose = ["--version", "1.0.0", "--compose", document.to_str().unwrap()];
    fleet
        .studio(&[&["app", "add", "odd"][..], &compose].concat())
        .ok();
    fleet.studio(&["install", "meter-1", "odd", "--wait"]).ok();
    let apps = fleet.studio(&["app", "list", "--json"]).ok().json();
    let key = &apps[0]["app_key"];
    let project = format!("label=com.docker.compose.project=prod_{key}_odd_compose");
    let container = docker::docker(&["ps", "-q", "--filter", &project]).unwrap();
    let container = container.trim();
    let say = |what: &str| {
        let script = format!(": > /tmp/{what}");
        docker::docker(&["exec", container, "/bin/sh", "-c", &script]).unwrap();
    };
    let read = |more: &[&str]| {
        let arguments = [&["logs", "meter-1", "odd", "--json"], more].concat();
        let output = fleet.studio(&arguments).ok().stdout;
        of_service(&output.lines().map(str::to_owned).collect::<Vec<_>>())
    };

    let way = Way::to(fleet.url().trim_start_matches("ws://").replace("/ws", ""));
    let url = format!("ws://{}/ws", way.address);
    let mut follow = fleet.command(&["logs", "meter-1", "odd", "-f", "--json", "--url", &url]);
    let viewer = Process::start("viewer", &mut follow);
    let seen = || of_service(&viewer.output());
    let further = |more: usize| {
        let goal = seen().len() + more;
        wait::until(&format!("{more} more lines are seen"), MINUTE, || {
            (seen().len() >= goal).then_some(())
        });
    };
    // By then lines are shown as they come.
    further(80);
    say("odd");
    further(20);
    let history = read(&[]);
    say("long");
    further(20);
    way.cut();
    let before = printed(container);
    say("odd");
    wait::until("the app goes on", MINUTE, || {
        (printed(container) > before + 40).then_some(())
    });
    way.mend();
    further(100);
    let asked = read(&["--since", "1h"]);

    let is_long = |line: &&String| line.len() == 1 << 20 && line.bytes().all(|byte| byte == b'x');
    for (lines, odd, long) in [(&seen(), 2, 1), (&history, 1, 0), (&asked, 2, 1)] {
        for text in ["\u{1b}[31mred\u{1b}[0m", "in\u{fffd}valid"] {
            assert_eq!(lines.iter().filter(|line| *line == text).count(), odd, "{text:?}");
        }
        assert_eq!(lines.iter().filter(is_long).count(), long);
        let rest: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("number "))
            .collect();
        let first: usize = rest[0].parse().unwrap();
        let expected: Vec<String> = (first..first + rest.len())
            .map(|number| number.to_string())
            .collect();
        assert_eq!(rest, expected, "each once and in order");
        assert_eq!(lines.len(), rest.len() + 2 * odd + long, "nothing else was said");
    }
    drop(viewer);
    fleet.studio(&["remove", "meter-1", "odd", "--wait"]).ok();
}
