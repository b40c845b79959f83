//! Rollouts as people ask for them; what devices do about it is told by the stories of the whole workspace.

use std::sync::{Arc, Mutex};

use protocol::flock::Flock;
use serde_json::{Value, json};
use wamp::Payload;
use wamp::client::{RegisterOptions, WampError, handler};

use crate::harness::{Device, Studio, eventually, finish, within};

#[tokio::test]
async fn a_rollout_waits_for_devices_that_are_away_and_there_is_one_at_a_time() {
    let studio = Studio::start().await;
    assert_eq!(studio.run(&["rollout", "status"]).await.code, 3);
    assert_eq!(studio.run(&["rollout", "start", "1.0.0"]).await.code, 3);
    for name in ["one", "two", "three"] {
        studio.add_device(name).await;
    }
    for words in [
        &["rollout", "start", "latest"][..],
        &["rollout", "start", "1.0.0", "--waves", "50,10"],
        &["rollout", "start", "1.0.0", "--threshold", "101"],
    ] {
        let done = studio.run(words).await;
        assert_eq!(done.code, 2, "{words:?}: {done:?}");
    }
    let started = studio
        .ok(&["rollout", "start", "1.0.0", "--canary", "two", "--device", "one"])
        .await;
    assert_eq!(started["state"], "running");
    let members: Vec<_> = started["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| json!([device["device"], device["wave"], device["state"]]))
        .collect();
    assert_eq!(
        members,
        [json!(["two", 0, "waiting"]), json!(["one", 1, "waiting"])]
    );
    let second = studio.run(&["rollout", "start", "1.0.1"]).await;
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("abort it"), "{second:?}");
    assert_eq!(studio.run(&["rollout", "resume"]).await.code, 1);
    assert_eq!(studio.ok(&["rollout", "pause"]).await["state"], "paused");
    assert_eq!(studio.ok(&["rollout", "resume"]).await["state"], "running");
    assert_eq!(studio.ok(&["rollout", "abort"]).await["state"], "aborted");
    let shown = studio.run(&["rollout", "status"]).await;
    assert!(
        shown.stdout.contains("WAVE  DEVICE  STATE") && shown.stdout.contains("version 1.0.0 is aborted"),
        "{shown:?}"
    );
    studio.ok(&["rollout", "start", "1.0.1"]).await;
}

#[tokio::test]
async fn a_rollout_belongs_to_the_account_that_started_it() {
    let studio = Studio::start().await;
    studio.add_device("press").await;
    studio.add_device("lathe").await;
    let alice = studio
        .ok(&["account", "add", "alice", "--out", "alice.secret"])
        .await["account"]
        .to_string();
    let as_alice = |words: &[&str]| {
        let words = [
            &["--json", "--authid", &alice, "--secret-file", "alice.secret"],
            words,
        ]
        .concat();
        finish(studio.command(&words))
    };
    assert_eq!(as_alice(&["rollout", "start", "1.0.0"]).await.code, 3);
    studio.ok(&["account", "grant", &alice, "press", "READ"]).await;
    let refused = as_alice(&["rollout", "start", "1.0.0", "--device", "press"]).await;
    assert_eq!(refused.code, 6, "{refused:?}");
    studio
        .ok(&["account", "grant", &alice, "press", "MAINTAIN"])
        .await;
    let started = as_alice(&["rollout", "start", "1.0.0"]).await.json();
    assert_eq!(started["devices"].as_array().unwrap().len(), 1, "{started}");
    // Administrators may end anybody's.
    studio.ok(&["rollout", "abort"]).await;
    studio.ok(&["rollout", "start", "1.0.0"]).await;
    for words in [["rollout", "status"], ["rollout", "abort"]] {
        assert_eq!(as_alice(&words).await.code, 6);
    }
}

#[tokio::test]
async fn a_device_that_answers_with_an_error_has_refused() {
    let studio = Studio::start().await;
    let device = Device::connect(studio.add_device("press").await).await;
    let answer = handler(|_| async {
        Err(WampError {
            uri: "wamp.error.canceled".to_owned(),
            payload: Payload::one(&json!({"error": "insufficient privileges to update reagent"})).unwrap(),
        })
    });
    let uri = protocol::uri::device(&device.flock.serial_number, "update_agent");
    let registered = device.session.register(&uri, RegisterOptions::default(), answer);
    within("register", registered).await.unwrap();
    studio.ok(&["rollout", "start", "1.0.0"]).await;
    let paused = shown(&studio, "the rollout pauses itself", |status| {
        status["state"] == "paused"
    })
    .await;
    assert_eq!(paused["devices"][0]["state"], "failed", "{paused}");
    assert_eq!(
        paused["reason"],
        "1 of 1 devices failed, 0 may; press: insufficient privileges to update reagent"
    );
}

#[tokio::test]
async fn a_rollout_whose_canary_is_removed_asks_somebody_before_it_goes_on() {
    let studio = Studio::start().await;
    for name in ["one", "two"] {
        studio.add_device(name).await;
    }
    studio.ok(&["rollout", "start", "1.0.0", "--canary", "one"]).await;
    studio.ok(&["device", "rm", "one"]).await;
    let paused = shown(&studio, "the rollout pauses itself", |status| {
        status["state"] == "paused"
    })
    .await;
    assert_eq!(
        paused["reason"],
        "no device of wave 0 is left, so it has proven nothing"
    );
    studio.ok(&["rollout", "resume"]).await;
    shown(&studio, "the next wave begins", |status| status["wave"] == 1).await;
}

/// A device on which the version is staged when it is asked.
struct Staging {
    device: Device,
    /// What the question was called.
    asked: Arc<Mutex<String>>,
}

impl Staging {
    /// `metadata` is what it says of itself, given what the question was called.
    async fn connect(
        flock: Flock,
        metadata: impl Fn(&str) -> Value + Clone + Send + Sync + 'static,
    ) -> Staging {
        let device = Device::connect(flock).await;
        let asked = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&asked);
        device
            .offer("update_agent", move |payload| {
                let id = payload.kwargs().unwrap()["id"].as_str().unwrap().to_owned();
                *heard.lock().unwrap() = id;
                Payload::one(
                    &json!({"CurrentVersion": "0.9.0", "LatestVersion": "1.0.0", "DidAgentUpdate": true}),
                )
                .unwrap()
            })
            .await;
        let known = Arc::clone(&asked);
        device
            .offer("get_agent_metadata", move |_| {
                Payload::one(&metadata(&known.lock().unwrap())).unwrap()
            })
            .await;
        Staging { device, asked }
    }

    /// One that remembers that it rolled back.
    async fn rolled_back(flock: Flock) -> Staging {
        Staging::connect(flock, |id| {
            json!({"version": "0.9.0", "lastUpdate": {
                "from": "0.9.0", "to": "1.0.0", "result": "rolledback", "reason": "it crashed", "id": id,
            }})
        })
        .await
    }

    /// It has started the version, which reports itself.
    async fn runs_it(&self) {
        let report = json!({"architecture": "amd64", "os": "linux", "agent_version": "1.0.0"});
        self.device
            .call("reswarm.devices.update_device_architecture", &[report])
            .await
            .unwrap();
    }

    /// Tells how the update that it was asked for ended.
    async fn tells(&self, result: &str, reason: &str) {
        let topic = protocol::uri::device(&self.device.flock.serial_number, "agent_update_result");
        let id = self.asked.lock().unwrap().clone();
        let outcome = json!({"from": "0.9.0", "to": "1.0.0", "result": result, "reason": reason, "id": id});
        self.device.publish(&topic, outcome).await;
    }
}

/// Waits until the newest rollout is as it should be.
async fn shown(studio: &Studio, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || async {
        Some(studio.ok(&["rollout", "status"]).await).filter(|status| fits(status))
    })
    .await
}

async fn begins(studio: &Studio, words: &[&str]) {
    studio.ok(&[&["rollout", "start", "1.0.0"], words].concat()).await;
}

async fn pauses_because(studio: &Studio, reason: &str) {
    let paused = shown(studio, "the rollout pauses itself", |status| {
        status["state"] == "paused"
    })
    .await;
    assert_eq!(paused["devices"][0]["reason"], reason, "{paused}");
}

#[tokio::test]
async fn a_version_on_trial_when_the_patience_ends_has_failed_unless_it_proves_itself_later() {
    let studio = Studio::start().await;
    studio.add_device("lathe").await;
    let press = Staging::connect(studio.add_device("press").await, |_| {
        json!({"version": "1.0.0", "trialVersion": "1.0.0", "lastUpdate": {
            "from": "0.8.0", "to": "0.9.0", "result": "updated", "reason": "",
        }})
    })
    .await;
    press.runs_it().await;
    begins(&studio, &["--canary", "press", "--patience", "1"]).await;
    pauses_because(
        &studio,
        "no word within 1 s; version 1.0.0 has yet to prove itself there",
    )
    .await;
    press.tells("updated", "").await;
    shown(&studio, "the device has ended well", |status| {
        status["devices"][0]["state"] == "updated"
    })
    .await;
}

#[tokio::test]
async fn a_device_that_leaves_the_version_again_has_failed_after_all() {
    let studio = Studio::start().await;
    studio.add_device("lathe").await;
    // Of an agent that says nothing about updates, the version is all that is known.
    let press = Staging::connect(studio.add_device("press").await, |_| json!({"version": "1.0.0"})).await;
    press.runs_it().await;
    begins(&studio, &["--canary", "press", "--patience", "1"]).await;
    shown(&studio, "the next wave begins", |status| status["wave"] == 1).await;
    press.tells("rolledback", "it crashed").await;
    pauses_because(&studio, "rolledback: it crashed").await;
}

#[tokio::test]
async fn a_device_that_goes_before_it_could_be_asked_is_asked_when_it_comes() {
    let studio = Studio::start().await;
    studio.add_device("lathe").await;
    // It is about to go: its procedures went first.
    let press = Device::connect(studio.add_device("press").await).await;
    studio
        .ok(&["rollout", "start", "1.0.0", "--canary", "press"])
        .await;
    shown(&studio, "the device is called", |status| {
        status["devices"][0]["state"] == "asked"
    })
    .await;
    press.session.leave().await;
    shown(&studio, "the device is waited for", |status| {
        status["devices"][0]["state"] == "waiting"
    })
    .await;
    let _press = Staging::connect(press.flock, |_| json!({"version": "0.9.0"})).await;
    shown(&studio, "the version is staged", |status| {
        status["devices"][0]["state"] == "staged"
    })
    .await;
}

#[tokio::test]
async fn a_device_that_goes_while_it_is_asked_owes_its_word() {
    let studio = Studio::start().await;
    let press = Device::connect(studio.add_device("press").await).await;
    let (reached, mut reaches) = tokio::sync::mpsc::unbounded_channel();
    let silent = handler(move |_| {
        reached.send(()).unwrap();
        std::future::pending()
    });
    let uri = protocol::uri::device(&press.flock.serial_number, "update_agent");
    let registered = press.session.register(&uri, RegisterOptions::default(), silent);
    within("register", registered).await.unwrap();
    studio.ok(&["rollout", "start", "1.0.0", "--patience", "5"]).await;
    within("the call", reaches.recv()).await.unwrap();
    press.session.leave().await;
    pauses_because(&studio, "no word within 5 s; it is away").await;
}

#[tokio::test]
async fn failures_that_came_during_a_pause_are_told_before_somebody_goes_on() {
    let studio = Studio::start().await;
    studio.add_device("lathe").await;
    let press = Staging::connect(studio.add_device("press").await, |_| json!({"version": "0.9.0"})).await;
    studio
        .ok(&["rollout", "start", "1.0.0", "--canary", "press"])
        .await;
    shown(&studio, "the version is staged", |status| {
        status["devices"][0]["state"] == "staged"
    })
    .await;
    let paused = studio.ok(&["rollout", "pause"]).await;
    assert_eq!(paused["reason"], "somebody asked for it");
    press.tells("rolledback", "it crashed").await;
    let failures = "1 of 1 devices failed, 0 may; press: rolledback: it crashed";
    let told = format!("somebody asked for it; since then {failures}");
    shown(&studio, "the failure", |status| status["reason"] == told).await;

    let refused = studio.run(&["rollout", "resume"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(failures), "{refused:?}");
    let status = studio.ok(&["rollout", "status"]).await;
    assert_eq!(
        (&status["state"], &status["reason"], &status["wave"]),
        (&json!("paused"), &json!(failures), &json!(0))
    );
    // Somebody knows now.
    studio.ok(&["rollout", "resume"]).await;
    shown(&studio, "the next wave begins", |status| status["wave"] == 1).await;
}

#[tokio::test]
async fn an_outcome_that_nobody_heard_is_asked_for_before_the_device_has_failed() {
    let studio = Studio::start().await;
    let _press = Staging::rolled_back(studio.add_device("press").await).await;
    studio.ok(&["rollout", "start", "1.0.0", "--patience", "1"]).await;
    pauses_because(&studio, "rolledback: it crashed").await;
}

#[tokio::test]
async fn an_outcome_that_nobody_heard_is_asked_for_when_the_device_comes_back() {
    let studio = Studio::start().await;
    let Staging { device, .. } = Staging::rolled_back(studio.add_device("press").await).await;
    let topic = protocol::uri::device(&device.flock.serial_number, "agent_update_result");
    studio.ok(&["rollout", "start", "1.0.0"]).await;
    shown(&studio, "the version is staged", |status| {
        status["devices"][0]["state"] == "staged"
    })
    .await;
    // Of another rollout of that version.
    device
        .publish(
            &topic,
            json!({"from": "0.9.0", "to": "1.0.0", "result": "failed", "reason": "no space", "id": "77-1"}),
        )
        .await;
    device.report_status("CONFIGURING").await.unwrap();
    eventually("the device is not there", || async {
        (studio.status("press").await == "CONFIGURING").then_some(())
    })
    .await;
    device.report_status("CONNECTED").await.unwrap();
    pauses_because(&studio, "rolledback: it crashed").await;
}
