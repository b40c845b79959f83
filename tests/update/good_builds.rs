//! The new version works.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use protocol::uri::{self, backend::UPDATE_DEVICE_STATUS};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use testkit::process::Process;
use testkit::release::{digest, patch};
use testkit::static_server::Fault;
use testkit::wait;
use wamp::Dict;
use wamp::client::RegisterOptions;

use super::SOON;
use super::backend::Answer;
use super::builds::{self, Build, NEW, NEWER, OLD};
use super::gateway::{Gateway, install};

#[tokio::test]
async fn the_agent_updates_itself_to_a_second_build_of_itself_and_stays_there() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    let topic = uri::device("00000000-0000-4000-8000-00000000da7e", "agent_update_progress");
    let mut progress = gateway
        .backend
        .session
        .subscribe(&topic, Dict::new())
        .await
        .unwrap();
    gateway.power();
    let answer = gateway.update().await;
    let size = builds::built(NEW, Build::Good).await.len();
    assert_eq!(
        answer,
        json!({
            "CurrentVersion": OLD, "LatestVersion": NEW, "Message": format!("version {NEW} is installed and is started next"),
            "DidAgentUpdate": true, "DidTunnelUpdate": false, "DidUpdate": true, "InProgress": false,
            "TotalFileSize": size,
        })
    );
    let mut heard = Vec::new();
    loop {
        let event = tokio::time::timeout(SOON, progress.events.recv())
            .await
            .unwrap()
            .unwrap();
        heard.push(event.payload.args().unwrap()[0].to_json());
        if heard.last().unwrap()["currentBytes"] == size {
            break;
        }
    }
    assert!(
        heard.iter().all(|progress| progress["fileSize"] == size),
        "{heard:?}"
    );
    let sum: u64 = heard
        .iter()
        .map(|progress| progress["increment"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, size as u64);

    gateway.runs(NEW).await;
    assert_eq!(
        gateway.outcome().await,
        json!({"from": OLD, "to": NEW, "result": "updated", "reason": ""})
    );
    let state = gateway
        .remembers("that the studio knows", |state| state["reported"] == true)
        .await;
    assert_eq!(
        (&state["phase"], &state["active"]["version"]),
        (&json!(""), &json!(NEW))
    );
    assert_eq!(gateway.visible(), [format!("reagent-v{NEW}")]);
    let metadata = gateway.call("get_agent_metadata", json!([])).await.unwrap();
    assert_eq!(
        (&metadata["hasLatest"], &metadata["canUpdate"]),
        (&json!(true), &json!(true))
    );

    gateway.cut();
    gateway.power();
    gateway.runs(NEW).await;

    // From there on to the next one; only that and the one before stay.
    gateway.release(NEWER, Build::Good).await;
    gateway.call("update_agent", json!([])).await.unwrap();
    gateway.runs(NEWER).await;
    assert_eq!(gateway.outcome().await["to"], NEWER);
    assert_eq!(
        gateway.visible(),
        [format!("reagent-v{NEW}"), format!("reagent-v{NEWER}")]
    );
}

#[tokio::test]
async fn an_agent_that_may_updates_without_being_asked_and_without_a_router() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    let flock = gateway.path("device.flock");
    let known = std::fs::read_to_string(&flock).unwrap();
    let mut lost: serde_json::Value = serde_json::from_str(&known).unwrap();
    lost["device_endpoint_url"] = json!(format!("ws://127.0.0.1:{}/ws", wait::free_port()));
    std::fs::write(&flock, lost.to_string()).unwrap();
    gateway.power_with(&[]);
    gateway
        .remembers("that a version is tried", |state| state["phase"] == "probation")
        .await;
    // The router is back: the new version proves itself.
    std::fs::write(&flock, known).unwrap();
    gateway.cut();
    gateway.power_with(&[]);
    gateway.runs(NEW).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;
}

#[tokio::test]
async fn a_patch_replaces_most_of_the_download_and_a_broken_one_only_costs_itself() {
    let mut gateway = Gateway::new().await;
    let (old, new) = (builds::agent(), builds::built(NEW, Build::Good).await);
    gateway
        .bucket
        .publish_with_patch(NEW, &new, &old, &gateway.signer);
    gateway.bucket.offer(NEW);
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    let (patch, whole) = (gateway.server.sent("patch.zst"), gateway.server.sent("/reagent"));
    assert!(
        patch > 0 && whole == 0 && patch < new.len() as u64 / 20,
        "{patch} {whole}"
    );
    eprintln!("update traffic: whole {} bytes, patch {patch} bytes", new.len());
    gateway.runs(NEW).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;

    let newer = builds::built(NEWER, Build::Good).await;
    gateway
        .bucket
        .publish_with_patch(NEWER, &newer, &new, &gateway.signer);
    gateway.bucket.offer(NEWER);
    gateway.server.fault("patch.zst", Fault::Corrupt(100));
    assert_eq!(
        gateway.call("update_agent", json!([])).await.unwrap()["DidUpdate"],
        true
    );
    assert_eq!(gateway.server.sent("/reagent"), newer.len() as u64);
    gateway.runs(NEWER).await;
}

#[tokio::test]
async fn a_signed_patch_that_makes_another_binary_or_is_missing_only_costs_itself() {
    let mut gateway = Gateway::new().await;
    let (old, new) = (builds::agent(), builds::built(NEW, Build::Good).await);
    let newer = builds::built(NEWER, Build::Good).await;
    // As long as what was announced, whole, and something else.
    let other = patch(&old, &newer);
    gateway
        .bucket
        .publish_with_this_patch(NEW, &new, &old, &other, &gateway.signer);
    gateway.bucket.offer(NEW);
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    let sent = |name: &str| gateway.server.sent(name);
    assert_eq!(
        (sent("patch.zst"), sent("/reagent")),
        (other.len() as u64, new.len() as u64)
    );
    let log = std::fs::read_to_string(gateway.path("reagent.log")).unwrap();
    assert!(log.contains("it makes another binary"), "{log}");
    gateway.runs(NEW).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;

    gateway
        .bucket
        .publish_with_patch(NEWER, &newer, &new, &gateway.signer);
    gateway.bucket.offer(NEWER);
    gateway.server.fault("patch.zst", Fault::Status(404));
    gateway.takes_one().await;
    assert!(gateway.server.asked("patch.zst").len() >= 2, "it was asked for");
    assert_eq!(gateway.server.sent("/reagent"), (new.len() + newer.len()) as u64);
    gateway.runs(NEWER).await;
}

#[tokio::test]
async fn what_is_there_of_the_whole_binary_is_not_given_up_for_a_patch() {
    let gateway = Gateway::new().await;
    let (old, new) = (builds::agent(), builds::built(NEW, Build::Good).await);
    let newer = builds::built(NEWER, Build::Good).await;
    let is_there = |content: &[u8], length: usize| {
        let name = format!("agent/downloads/{}.part", digest(content));
        install(&gateway.path(&name), &content[..length]);
    };
    is_there(&new, new.len() - 1000);
    gateway
        .bucket
        .publish_with_patch(NEW, &new, &old, &gateway.signer);
    gateway.bucket.offer(NEW);
    let mut power = gateway.command(&gateway.path("bin/reagent"), &["-update=false"]);
    let _agent = Process::start("agent", &mut power);
    assert_eq!(gateway.update().await["DidUpdate"], true);
    let sent = || (gateway.server.sent("patch.zst"), gateway.server.sent("/reagent"));
    assert_eq!(sent(), (0, 1000));
    gateway.runs(NEW).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;

    is_there(&newer, newer.len());
    gateway
        .bucket
        .publish_with_patch(NEWER, &newer, &new, &gateway.signer);
    gateway.bucket.offer(NEWER);
    gateway.takes_one().await;
    assert_eq!(sent(), (0, 1000), "all was there");
    gateway.runs(NEWER).await;
}

#[tokio::test]
async fn a_named_version_is_installed_and_an_older_one_only_when_it_is_signed_as_such() {
    let mut gateway = Gateway::new().await;
    let older = "0.0.1";
    let binary = builds::built(older, Build::Good).await;
    gateway.bucket.publish(older, &binary, &gateway.signer);
    gateway.power();
    gateway.runs(OLD).await;
    let refused = gateway
        .call("update_agent", json!([{"version": older}]))
        .await
        .unwrap();
    assert_eq!(refused["DidUpdate"], false);
    assert!(
        refused["Message"]
            .as_str()
            .unwrap()
            .contains("not signed as a downgrade"),
        "{refused}"
    );
    // The way back is older than a release that the device has seen since and did not get.
    let newest = builds::built(NEWER, Build::Good).await;
    let mut manifest = gateway.bucket.manifest(NEWER, &newest);
    manifest["issued"] = json!("2026-02-01T00:00:00Z");
    gateway
        .bucket
        .publish_with(NEWER, &newest, &manifest, &gateway.signer);
    gateway.server.fault("/reagent", Fault::Status(404));
    gateway
        .call("update_agent", json!([{"version": NEWER}]))
        .await
        .unwrap();
    assert_eq!(gateway.state()["newest_manifest"], "2026-02-01T00:00:00Z");
    gateway.server.heal();
    let mut manifest = gateway.bucket.manifest(older, &binary);
    manifest["allow_downgrade"] = json!(true);
    gateway
        .bucket
        .publish_with(older, &binary, &manifest, &gateway.signer);
    let answer = gateway
        .call("update_agent", json!([{"version": older}]))
        .await
        .unwrap();
    assert_eq!(answer["DidUpdate"], true, "{answer}");
    gateway.runs(older).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == older)
        .await;
    gateway.cut();
    gateway.power();
    gateway.runs(older).await;
}

#[tokio::test]
async fn a_newer_installation_takes_over_from_an_older_download() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    gateway.update().await;
    gateway.runs(NEW).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;
    gateway.cut();
    install(
        &gateway.path("bin/reagent"),
        &builds::built(NEWER, Build::Good).await,
    );
    gateway.power();
    gateway.runs(NEWER).await;
}

#[tokio::test]
async fn a_version_that_proved_itself_and_hangs_later_is_not_vouched_for_and_is_started_again() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"silence": 5000}));
    gateway.release(NEW, Build::Good).await;
    let manager = UnixDatagram::bind(gateway.path("notify")).unwrap();
    manager.set_nonblocking(true).unwrap();
    let words = || {
        let mut words = Vec::new();
        let mut word = [0; 64];
        while let Ok(length) = manager.recv(&mut word) {
            words.push(String::from_utf8_lossy(&word[..length]).into_owned());
        }
        words
    };
    let mut command = gateway.command(&gateway.path("bin/reagent"), &["-update=false"]);
    command
        .env("NOTIFY_SOCKET", gateway.path("notify"))
        .env("WATCHDOG_USEC", "500000");
    gateway.agent = Some(Process::start("agent", &mut command));
    gateway.update().await;
    gateway.runs(NEW).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;
    words();
    wait::until_async("the living version is vouched for", SOON, || async {
        words().contains(&"WATCHDOG=1".to_owned()).then_some(())
    })
    .await;

    let launcher = gateway.agent.as_ref().unwrap().pid();
    let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap();
    let tried = Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap();
    rustix::process::kill_process(tried, Signal::STOP).unwrap();
    words();
    let mut heard = Vec::new();
    wait::until_async("the version is started again", SOON, || {
        heard.extend(words());
        std::future::ready(heard.contains(&"READY=1".to_owned()).then_some(()))
    })
    .await;
    // What it had said before it hung may still arrive.
    let vouched = heard.iter().take_while(|word| *word != "READY=1").count();
    assert!(vouched <= 2, "{heard:?}");
    gateway.runs(NEW).await;
    let program = std::fs::read_link(format!("/proc/{launcher}/exe")).unwrap();
    assert_eq!(program, gateway.path(&format!("agent/reagent-v{NEW}")));
}

#[tokio::test]
async fn when_a_trial_can_be_neither_locked_nor_counted_the_version_that_proved_itself_runs() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    gateway.update().await;
    gateway.runs(NEW).await;
    let mut state = gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;
    gateway.cut();
    // Another version is about to be tried.
    let newer = builds::built(NEWER, Build::Good).await;
    let file = gateway.path(&format!("agent/reagent-v{NEWER}"));
    install(&file, &newer);
    for (name, value) in [
        ("phase", json!("staged")),
        ("old_version", json!(NEW)),
        ("new_version", json!(NEWER)),
        ("new_sha256", json!(testkit::release::digest(&newer))),
        ("new_file", json!(file)),
    ] {
        state[name] = value;
    }
    std::fs::write(gateway.path("agent/update-state.json"), state.to_string()).unwrap();
    // No file can be opened under the lock's name, then none under the state's temporary one.
    for obstacle in [".update.lock", ".update-state.json.new"] {
        let obstacle = gateway.path("agent").join(obstacle);
        let _ = std::fs::remove_file(&obstacle);
        std::fs::create_dir_all(obstacle.join("in the way")).unwrap();
        gateway.power();
        gateway.runs(NEW).await;
        gateway.cut();
        std::fs::remove_dir_all(&obstacle).unwrap();
    }
    gateway.power();
    gateway.runs(NEWER).await;
}

#[tokio::test]
async fn a_manifest_that_is_being_issued_again_is_fetched_once_more() {
    let mut gateway = Gateway::new().await;
    // Time for the publisher to write the second of its two objects.
    gateway.set_up(json!({"pause": 3000}));
    gateway.release(NEW, Build::Good).await;
    let binary = builds::built(NEW, Build::Good).await;
    let mut manifest = gateway.bucket.manifest(NEW, &binary);
    manifest["issued"] = json!("2026-02-01T00:00:00Z");
    let content = serde_json::to_vec(&manifest).unwrap();
    gateway.bucket.put(NEW, "reagent.manifest.json", &content);
    gateway.power();
    let publisher = async {
        wait::until_async("the old signature was fetched", SOON, || async {
            (gateway.server.sent("manifest.json.minisig") > 0).then_some(())
        })
        .await;
        let signature = gateway.signer.sign(&content);
        gateway
            .bucket
            .put(NEW, "reagent.manifest.json.minisig", &signature);
    };
    let (answer, ()) = tokio::join!(gateway.update(), publisher);
    assert_eq!(answer["DidUpdate"], true, "{answer}");
    assert_eq!(gateway.server.asked("manifest.json").len(), 2);
    assert_eq!(gateway.server.asked("manifest.json.minisig").len(), 2);
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn while_one_update_is_under_way_others_are_told_so() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    gateway.server.fault("/reagent", Fault::Stall(1_000_000));
    gateway.power();
    gateway.runs(OLD).await;
    let (first, second) = tokio::join!(gateway.call("update_agent", json!([])), async {
        wait::until_async("the download has begun", SOON, || async {
            (gateway.server.sent("/reagent") > 0).then_some(())
        })
        .await;
        let second = gateway.call("update_agent", json!([])).await.unwrap();
        gateway.server.heal();
        second
    });
    assert_eq!(second["InProgress"], true);
    assert_eq!(second["DidUpdate"], false);
    assert_eq!(first.unwrap()["DidUpdate"], true);
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_version_that_cannot_connect_is_replaced_by_the_next_one_although_nobody_can_ask_it_to() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"isolation": 500, "proof": 600_000}));
    gateway.release(NEW, Build::CannotConnect).await;
    gateway.power_with(&[]);
    gateway
        .remembers("that a version is tried", |state| state["phase"] == "probation")
        .await;
    gateway.release(NEWER, Build::Good).await;
    gateway.cut();
    gateway.power_with(&[]);
    gateway.runs(NEWER).await;
    let state = gateway
        .remembers("the proof", |state| state["active"]["version"] == NEWER)
        .await;
    assert_eq!(state["old_version"], OLD);
    assert_eq!(
        gateway.outcome().await,
        json!({"from": OLD, "to": NEWER, "result": "updated", "reason": ""})
    );
}

#[tokio::test]
async fn a_device_that_is_switched_on_and_off_out_of_coverage_blames_no_version() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"outage": 200, "activation": 3_600_000}));
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    gateway.runs(OLD).await;
    gateway.backend.status("CONNECTED").await;
    // It is staged, and the answer waits for its start.
    let asked = gateway.call("update_agent", json!([]));
    assert_eq!(asked.await.unwrap()["DidUpdate"], true);
    gateway.cut();
    let identity = std::fs::read_to_string(gateway.path("device.flock")).unwrap();
    let mut away: Value = serde_json::from_str(&identity).unwrap();
    away["device_endpoint_url"] = json!(format!("ws://127.0.0.1:{}/ws", wait::free_port()));
    std::fs::write(gateway.path("device.flock"), away.to_string()).unwrap();
    for _ in 0..5 {
        let mut state = gateway.state();
        state["excused"] = json!(false);
        std::fs::write(gateway.path("agent/update-state.json"), state.to_string()).unwrap();
        gateway.power();
        let state = gateway
            .remembers("that a start does not count", |state| state["excused"] == true)
            .await;
        assert_eq!(
            (&state["attempts"], &state["phase"]),
            (&json!(0), &json!("probation"))
        );
        gateway.cut();
    }
    std::fs::write(gateway.path("device.flock"), identity).unwrap();
    gateway.power();
    gateway.runs(NEW).await;
    assert_eq!(gateway.outcome().await["result"], "updated");
}

#[tokio::test]
async fn a_backend_that_is_away_is_not_blamed_on_a_good_build() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"proof": 1000}));
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    let away = Answer::Error("wamp.error.no_such_procedure");
    gateway.backend.does(UPDATE_DEVICE_STATUS, away);
    gateway.runs(NEW).await;
    gateway
        .remembers("that nobody answers", |state| state["backend_away"] == true)
        .await;
    let began = Instant::now();
    wait::until_async("several times its time has passed", SOON, || async {
        (began.elapsed() > Duration::from_secs(5)).then_some(())
    })
    .await;
    gateway.runs(NEW).await;
    gateway.backend.does(UPDATE_DEVICE_STATUS, Answer::Empty);
    assert_eq!(gateway.outcome().await["result"], "updated");
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_good_build_that_was_blamed_is_tried_again_when_somebody_insists() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    // It answers, and there is nothing that the version could be content with.
    let broken = Answer::Error("wamp.error.runtime_error");
    gateway.backend.does(UPDATE_DEVICE_STATUS, broken);
    gateway
        .remembers("its return", |state| state["phase"] == "rolledback")
        .await;
    gateway.backend.does(UPDATE_DEVICE_STATUS, Answer::Empty);
    assert_eq!(gateway.outcome().await["result"], "rolledback");
    gateway.runs(OLD).await;
    let refused = gateway
        .call("update_agent", json!([{"version": NEW}]))
        .await
        .unwrap();
    assert!(
        refused["Message"].as_str().unwrap().contains("blocked"),
        "{refused}"
    );
    let tried = gateway
        .call("update_agent", json!([{"version": NEW, "force": true}]))
        .await
        .unwrap();
    assert_eq!(tried["DidUpdate"], true, "{tried}");
    gateway.runs(NEW).await;
    assert_eq!(gateway.outcome().await["result"], "failed", "the refusal");
    assert_eq!(gateway.outcome().await["result"], "updated");
    assert_eq!(gateway.state()["blocked"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_router_has_not_missed_yet_does_not_count_against_a_new_version() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"proof": 60_000}));
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    // It keeps the place of the device, as a session does whose end nobody has noticed.
    let place = uri::device(
        "00000000-0000-4000-8000-00000000da7e",
        "wamp_connection_established",
    );
    let handler = wamp::client::handler(|_| async { Ok(wamp::Payload::Empty) });
    let options = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    let session = &gateway.backend.session;
    let held = session.register(&place, options, handler).await.unwrap();
    let agent = gateway.agent.as_mut().unwrap();
    tokio::task::block_in_place(|| {
        wait::until("four starts found the place taken", SOON, || {
            let output = agent.output();
            let starts = output
                .iter()
                .filter(|line| line.starts_with("reagent: another device"));
            (starts.count() >= 4).then_some(())
        });
    });
    session.unregister(held.id).await.unwrap();
    gateway.runs(NEW).await;
    assert_eq!(gateway.outcome().await["result"], "updated");
}
