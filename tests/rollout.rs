//! The whole story of a release on one machine: a build is signed and published, the studio serves it and brings it to
//! real agents in waves, stops by itself at a bad one, and goes on where it was when it is killed.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[allow(dead_code, reason = "shared with the stories of single updates")]
#[path = "update/builds.rs"]
mod builds;
#[path = "rollout/fleet.rs"]
mod fleet;

use builds::{Build, NEW, NEWER, OLD};
use fleet::Fleet;
use reagent::system::platform::{build_arch, os};

/// One after the bad one.
const NEWEST: &str = "9.9.9";
/// Agents of the large story.
const DEVICES: usize = 20;

#[test]
fn a_release_reaches_the_fleet_in_waves_and_a_bad_one_stops_itself() {
    let fleet = Fleet::start(DEVICES);
    fleet.all_run(OLD);

    let first = fleet.publish(NEW, Build::Good);
    assert!(first.contains("published"), "{first}");
    let second = fleet.publish(NEW, Build::Good);
    assert!(second.contains("was there already"), "{second}");

    let done = fleet.studio(&[
        "rollout", "start", NEW, "--canary", "gate-2", "--waves", "40,100", "--follow", "--json",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    let steps: Vec<serde_json::Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for step in &steps {
        let devices = step["devices"].as_array().unwrap();
        for device in devices {
            // Nobody is asked before everybody of the waves before has ended.
            let early = device["wave"].as_u64() > step["wave"].as_u64();
            assert!(!early || device["state"] == "waiting", "{step}");
            let earlier = devices
                .iter()
                .filter(|other| other["wave"].as_u64() < step["wave"].as_u64());
            assert!(earlier.clone().all(|other| other["state"] == "updated"), "{step}");
        }
    }
    let last = steps.last().unwrap();
    assert_eq!(
        (&last["state"], &last["waves"]),
        (&"done".into(), &3.into()),
        "{last}"
    );
    assert_eq!(last["devices"][0]["device"], "gate-2");
    fleet.all_run(NEW);

    // A build that starts, lives and never joins.
    fleet.publish(NEWER, Build::CannotConnect);
    let stopped = fleet.studio(&[
        "rollout", "start", NEWER, "--canary", "gate-3", "--waves", "40,100", "--follow",
    ]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    assert!(
        stopped
            .stderr
            .contains("the rollout is paused: 1 of 1 devices failed, 0 may; gate-3: rolledback"),
        "{stopped:?}"
    );
    let states = |fleet: &Fleet| {
        let status = fleet.status();
        let devices = status["devices"].as_array().unwrap().clone();
        devices
            .iter()
            .map(|device| device["state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let states_now = states(&fleet);
    assert_eq!(states_now[0], "failed");
    assert!(
        states_now[1..].iter().all(|state| state == "waiting"),
        "{states_now:?}"
    );
    fleet.all_run(NEW);

    // Somebody does not believe it.
    let again = fleet.studio(&["rollout", "resume", "--follow"]);
    assert_eq!(again.code, 1, "{again:?}");
    let states = states(&fleet);
    // The second wave reaches up to 40 percent of the others.
    let spared = DEVICES - 1 - ((DEVICES - 1) * 40).div_ceil(100);
    let waiting = states.iter().filter(|state| *state == "waiting").count();
    assert_eq!(waiting, spared, "{states:?}");
    let refused = fleet.studio(&["rollout", "start", NEWER]);
    assert_eq!(refused.code, 1, "{refused:?}");
    fleet.studio(&["rollout", "abort"]).ok();
    assert_eq!(fleet.status()["state"], "aborted");
    assert_eq!(fleet.studio(&["rollout", "resume"]).code, 1);
    fleet.all_run(NEW);
}

#[test]
fn a_rollout_goes_on_after_the_studio_was_killed_and_waits_while_it_is_paused() {
    let mut fleet = Fleet::start(3);
    fleet.all_run(OLD);
    fleet.publish(NEWER, Build::Good);
    fleet
        .studio(&["rollout", "start", NEWER, "--canary", "gate-1", "--waves", "100"])
        .ok();
    fleet.wait_for("the canary is asked", |status| {
        status["devices"][0]["state"] != "waiting"
    });
    fleet.kill_studio();
    fleet.start_studio();
    fleet.wait_for("the canary is updated", |status| {
        status["devices"][0]["state"] == "updated"
    });
    fleet.wait_for("the others are asked", |status| {
        status["devices"][2]["state"] != "waiting"
    });
    fleet.kill_studio();
    fleet.start_studio();
    fleet.wait_for("the rollout is done", |status| status["state"] == "done");
    fleet.all_run(NEWER);

    // A version that nobody published: the studio says so, else the first device, and no other is asked.
    let start = ["rollout", "start", NEWEST, "--canary", "gate-2", "--waves", "100"];
    let refused = fleet.studio(&start);
    assert_eq!(refused.code, 3, "{refused:?}");
    let platform = format!("not published for {}/{} in the bucket", os(), build_arch());
    assert!(refused.stderr.contains(&platform), "{refused:?}");
    assert_eq!(fleet.status()["version"], NEWER, "nothing was begun");
    fleet.studio(&[&start[..], &["--unchecked"]].concat()).ok();
    let paused = fleet.wait_for("the rollout pauses itself", |status| status["state"] == "paused");
    assert!(
        paused["reason"]
            .as_str()
            .unwrap()
            .contains("could not be fetched"),
        "{paused}"
    );
    fleet.publish(NEWEST, Build::Good);
    let done = fleet.studio(&["rollout", "resume", "--retry", "--follow"]);
    assert_eq!(done.code, 0, "{done:?}");
    fleet.all_run(NEWEST);
}

#[test]
fn devices_of_the_studio_find_its_bucket_and_take_what_the_list_names() {
    let fleet = Fleet::start(1);
    fleet.publish(NEW, Build::Good);
    let unlisted = fleet.studio(&["call", "gate-1", "update_agent"]).ok();
    assert!(
        unlisted.stdout.contains("version list could not be fetched"),
        "{unlisted:?}"
    );
    fleet.make_live(NEW);
    let listed = fleet
        .studio(&["call", "gate-1", "update_agent", "--timeout", "60"])
        .ok();
    assert!(listed.stdout.contains("is installed"), "{listed:?}");
    fleet.all_run(NEW);
}
