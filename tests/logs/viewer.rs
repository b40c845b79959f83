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
