//! `studio logs` of several devices at once: all of them are shown, whichever is away.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use testkit::docker;
use testkit::fleet::{Device, Fleet, Plane};
use testkit::process::Process;
use testkit::wait;

use super::rig::{go_on, hold, numbering, wait_until_confirmed};

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");
const MINUTE: Duration = Duration::from_secs(60);
const BOTH: [&str; 5] = ["logs", "--device", "meter-1", "--device", "meter-2"];

/// Two devices that run an app each. In this machine's one Docker their containers would have one name, so each has
/// an app of its own.
struct Two {
    agents: Vec<Process>,
    devices: Vec<Device>,
    apps: [&'static str; 2],
    containers: [String; 2],
    // Dropped last: agents end before their studio.
    fleet: Fleet,
}

impl Two {
    fn start(apps: [&'static str; 2], script: impl Fn(&str) -> String) -> Two {
        let fleet = Fleet::start(Plane::Studio);
        let devices: Vec<Device> = ["meter-1", "meter-2"]
            .into_iter()
            .map(|name| fleet.add_device(name))
            .collect();
        let agents = devices
            .iter()
            .map(|device| device.start_agent(Path::new(AGENT), &[]))
            .collect();
        for (device, app) in devices.iter().zip(apps) {
            fleet.publish_app(app, &script(app));
            fleet.studio(&["install", &device.name, app, "--wait"]).ok();
        }
        let known = fleet.studio(&["app", "list", "--json"]).ok().json();
        let container = |app: &str| {
            let row = known.as_array().unwrap().iter().find(|row| row["name"] == app);
            format!("prod_{}_{app}", row.unwrap()["app_key"])
        };
        Two {
            containers: apps.map(container),
            apps,
            agents,
            devices,
            fleet,
        }
    }

    fn restart(&mut self, index: usize) {
        self.agents[index] = self.devices[index].start_agent(Path::new(AGENT), &[]);
    }

    fn end(self) {
        for (device, app) in self.devices.iter().zip(self.apps) {
            self.fleet.studio(&["remove", &device.name, app, "--wait"]).ok();
        }
    }
}

/// The numbers behind a word in what was printed.
fn numbers(output: &[String], word: &str) -> Vec<u64> {
    let of_line = |line: &String| line.rsplit_once(word)?.1.parse().ok();
    output.iter().filter_map(of_line).collect()
}

fn assert_each_once(numbers: &[u64]) {
    let expected: Vec<u64> = (numbers[0]..numbers[0] + numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "every line once and in order");
}

#[test]
fn who_follows_two_devices_sees_all_of_both_although_one_goes_away_and_comes_back() {
    let mut two = Two::start(["north", "south"], |app| {
        numbering(&format!("number of {app} "), "0.05")
    });
    let mut command = two.fleet.command(&BOTH);
    let viewer = Process::start("viewer", command.args(["--follow", "--grep", "number of"]));
    let seen = |app: &str| numbers(&viewer.output(), &format!("number of {app} "));
    let further = |app: &str, more: usize| {
        let goal = seen(app).len() + more;
        wait::until(&format!("{more} lines of {app} are seen"), MINUTE, || {
            (seen(app).len() >= goal).then_some(())
        });
    };
    further("north", 20);
    further("south", 20);

    // At rest: a line whose confirmation a kill takes along is said again.
    let last = hold(&two.containers[1]);
    wait::until("the last line of south is seen", MINUTE, || {
        (seen("south").last() == Some(&last)).then_some(())
    });
    wait_until_confirmed(&two.devices[1].home.join("agent/downloads"), &two.containers[1]);
    two.agents[1].kill();
    go_on(&two.containers[1]);
    two.fleet.wait_for_device(&two.devices[1], "DISCONNECTED");
    further("north", 40);
    assert_eq!(seen("south").last(), Some(&last), "nobody is there to tell");

    // What is there already: of the device that is away, that it is.
    let past = two.fleet.studio(&[&BOTH[..], &["--since", "1h"]].concat());
    assert_eq!(past.code, 5, "{past:?}");
    let lines: Vec<String> = past.stdout.lines().map(str::to_owned).collect();
    let of_one = numbers(&lines, "number of north ");
    assert_eq!(of_one[0], 1);
    assert_each_once(&of_one);
    assert!(
        lines.iter().all(|line| line.starts_with("meter-1 north | ")),
        "{lines:?}"
    );
    assert!(past.stderr.contains("(meter-2: "), "{past:?}");

    two.restart(1);
    further("south", 60);
    for app in ["north", "south"] {
        let line = viewer
            .output()
            .into_iter()
            .find(|line| line.contains(app))
            .unwrap();
        assert!(line.starts_with("meter-"), "{line}");
        assert_each_once(&seen(app));
    }
    drop(viewer);

    // Since the beginning, of both, and since a moment.
    let past = two.fleet.studio(&[&BOTH[..], &["--since", "1h"]].concat()).ok();
    let lines: Vec<String> = past.stdout.lines().map(str::to_owned).collect();
    for app in ["north", "south"] {
        let all = numbers(&lines, &format!("number of {app} "));
        assert_eq!(all[0], 1);
        assert_each_once(&all);
    }
    let past = two.fleet.studio(&[&BOTH[..], &["--since", "2s"]].concat()).ok();
    let lines: Vec<String> = past.stdout.lines().map(str::to_owned).collect();
    for app in ["north", "south"] {
        let recent = numbers(&lines, &format!("number of {app} "));
        assert!(
            recent.first().is_some_and(|first| *first > 1),
            "{app}: {recent:?}"
        );
        assert_each_once(&recent);
    }
    two.end();
}

#[test]
fn lines_that_a_hanging_studio_had_no_room_for_are_shown_as_a_gap_whatever_is_looked_for() {
    /// More than memory holds.
    const LINES: u64 = 200_000;
    let mut two = Two::start(["dawn", "dusk"], |app| {
        format!(
            "echo first of {app}; while ! [ -e /tmp/go ]; do sleep 0.1; done
             awk 'BEGIN {{ for (i = 2; i <= {LINES}; i++) printf \"%040d\\n\", i; print \"last of {app}\" }}'
             while :; do sleep 1; done"
        )
    });
    let mut command = two.fleet.command(&BOTH);
    let viewer = Process::start("viewer", command.args(["--follow", "--grep", " of "]));
    let seen = |text: &str| viewer.output().iter().filter(|line| line.contains(text)).count();
    let shown = |text: &str| wait::until(text, MINUTE * 2, || (seen(text) == 1).then_some(()));
    shown("first of dawn");
    shown("first of dusk");
    let server = two.fleet.server();
    server.signal(Signal::STOP);
    docker::docker(&["exec", &two.containers[0], "/bin/sh", "-c", ": > /tmp/go"]).unwrap();
    wait::until("the flood is over", MINUTE, || {
        let end = docker::docker(&["logs", "--tail", "1", &two.containers[0]]).ok()?;
        end.contains("last of dawn").then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", two.agents[0].pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("agent: {}", resident.unwrap_or_default().trim());
    // By then lines do not wait for viewers any more.
    two.agents[0].wait_for_line("session ended", MINUTE);
    two.fleet.server().signal(Signal::CONT);
    shown("last of dawn");
    // Lines that were asked for may be there before what came live.
    wait::until("a gap is shown", MINUTE, || {
        (seen("log line(s) dropped (") > 0).then_some(())
    });
    // The other one is as it was.
    docker::docker(&["exec", &two.containers[1], "/bin/sh", "-c", ": > /tmp/go"]).unwrap();
    shown("last of dusk");
    two.end();
}
