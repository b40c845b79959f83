//! The new version does not work, or is none: the old one runs again within the stated time, the reason is told, and it
//! is not tried for ever.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::release::Signer;
use testkit::static_server::Fault;

use super::SOON;
use super::builds::{self, Build, NEW, OLD};
use super::gateway::Gateway;

/// Three starts with pauses of one to three seconds, or one proof of three seconds, and the machine's own time.
const RETURN: Duration = Duration::from_secs(60);

/// A build that is staged and fails when it runs.
async fn returns_from(build: Build, reason: &str) {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, build).await;
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    let began = Instant::now();
    gateway.told("rolledback", reason).await;
    assert!(began.elapsed() < RETURN, "{:?}", began.elapsed());
    eprintln!("{build:?}: back after {:?}", began.elapsed());
    gateway.runs(OLD).await;

    // It is not tried again, not even fetched, when somebody asks and when the power comes back.
    let fetched = gateway.server.sent("/reagent");
    gateway.takes_none("blocked").await;
    gateway.cut();
    gateway.power();
    gateway.runs(OLD).await;
    assert_eq!(gateway.server.sent("/reagent"), fetched);
    assert_eq!(gateway.state()["phase"], "rolledback");

    // A fixed build of the same number is free.
    let fixed = builds::built(NEW, Build::Good).await;
    gateway.bucket.publish(NEW, &fixed, &gateway.signer);
    gateway.takes_one().await;
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_build_that_crashes_at_its_start() {
    returns_from(Build::Crashes, "in 3 starts").await;
}

#[tokio::test]
async fn a_build_that_ends_with_an_error() {
    returns_from(Build::EndsEarly, "in 3 starts").await;
}

#[tokio::test]
async fn a_build_that_hangs() {
    returns_from(Build::Hangs, "did not prove its health within").await;
}

#[tokio::test]
async fn a_build_that_runs_and_cannot_connect() {
    returns_from(Build::CannotConnect, "did not prove its health within").await;
}

#[tokio::test]
async fn a_build_that_hangs_although_nothing_can_be_said_about_its_connection() {
    // It says nothing, or says that it lives and comes no further.
    for (build, bound) in [(Build::Hangs, "silence"), (Build::HangsOnItsWay, "isolation")] {
        let mut gateway = Gateway::new().await;
        // As while the router is away: the first span never passes.
        gateway.set_up(json!({"proof": 600_000, bound: 1500}));
        gateway.release(NEW, build).await;
        gateway.power();
        assert_eq!(gateway.update().await["DidUpdate"], true);
        gateway.told("rolledback", "in 3 starts").await;
        gateway.runs(OLD).await;
    }
}

#[tokio::test]
async fn a_version_that_a_device_takes_between_its_restart_and_its_connect_has_to_connect_all_the_same() {
    let mut gateway = Gateway::new().await;
    gateway.power();
    gateway.runs(OLD).await;
    gateway
        .remembers("that it is connected", |state| state["connected"] == true)
        .await;
    gateway.cut();
    // Somebody accepts connections there, and no more.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flock = gateway.path("device.flock");
    let mut identity: Value = serde_json::from_slice(&std::fs::read(&flock).unwrap()).unwrap();
    identity["device_endpoint_url"] = json!(format!("ws://{}/ws", deaf.local_addr().unwrap()));
    std::fs::write(&flock, identity.to_string()).unwrap();
    gateway.release(NEW, Build::Good).await;
    gateway.power_with(&[]);
    let state = gateway
        .remembers("that the version failed", |state| state["phase"] == "rolledback")
        .await;
    let reason = state["outcome"]["reason"].as_str().unwrap();
    assert!(reason.contains("within 3 s"), "{reason}");
}

#[tokio::test]
async fn a_version_that_failed_does_not_keep_out_what_was_issued_before_it() {
    let mut gateway = Gateway::new().await;
    let bad = builds::built("8.8.8", Build::Crashes).await;
    let mut manifest = gateway.bucket.manifest("8.8.8", &bad);
    manifest["issued"] = json!("2026-02-01T00:00:00Z");
    gateway
        .bucket
        .publish_with("8.8.8", &bad, &manifest, &gateway.signer);
    gateway.bucket.offer("8.8.8");
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    assert_eq!(gateway.outcome().await["result"], "rolledback");
    gateway.runs(OLD).await;
    gateway.release(NEW, Build::Good).await;
    gateway.takes_one().await;
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_signal_between_two_starts_of_a_version_under_test_is_not_lost() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Crashes).await;
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    let mut agent = gateway.agent.take().unwrap();
    let status = tokio::task::spawn_blocking(move || {
        // A pause of two seconds follows.
        agent.wait_for_line("start 2 of 3", SOON);
        agent.terminate(SOON)
    })
    .await
    .unwrap();
    assert_eq!(status.code(), Some(0));
    let state = gateway.state();
    assert_eq!(
        (&state["phase"], state["outcome"].is_null()),
        (&json!("probation"), true)
    );
}

/// A release that is never started: `spoil` does something to a good one.
async fn refuses(spoil: impl AsyncFnOnce(&mut Gateway), reason: &str) -> Gateway {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    spoil(&mut gateway).await;
    gateway.power();
    let answer = gateway.update().await;
    assert_eq!(answer["DidUpdate"], false, "{answer}");
    assert_eq!(answer["LatestVersion"], NEW, "{answer}");
    let message = answer["Message"].as_str().unwrap();
    assert!(message.contains(reason), "{message}");
    gateway.told("failed", reason).await;
    assert_eq!(gateway.visible(), [""; 0], "nothing that anybody would start");
    gateway.runs(OLD).await;
    // Told once, however often it is tried.
    gateway
        .remembers("that the studio knows", |state| state["reported"] == true)
        .await;
    gateway.call("update_agent", json!([])).await.unwrap();
    assert_eq!(gateway.state()["reported"], true);
    gateway
}

async fn publish(gateway: &Gateway, change: impl FnOnce(&mut Value)) {
    let binary = builds::built(NEW, Build::Good).await;
    let mut manifest = gateway.bucket.manifest(NEW, &binary);
    change(&mut manifest);
    gateway
        .bucket
        .publish_with(NEW, &binary, &manifest, &gateway.signer);
}

#[tokio::test]
async fn a_page_in_place_of_the_binary() {
    let page = Fault::Instead(b"<html><h1>404 Not Found</h1></html>".to_vec());
    refuses(
        async |gateway: &mut Gateway| gateway.server.fault("/reagent", page),
        "another content",
    )
    .await;
}

#[tokio::test]
async fn a_missing_binary() {
    let remove = async |gateway: &mut Gateway| {
        std::fs::remove_file(gateway.bucket.place(NEW).join("reagent")).unwrap();
    };
    refuses(remove, "status 404").await;
}

#[tokio::test]
async fn a_truncated_binary() {
    let truncate = async |gateway: &mut Gateway| {
        let path = gateway.bucket.place(NEW).join("reagent");
        let content = std::fs::read(&path).unwrap();
        std::fs::write(path, &content[..content.len() / 2]).unwrap();
    };
    refuses(truncate, "another content").await;
}

#[tokio::test]
async fn a_binary_of_which_one_byte_is_another() {
    let corrupt = async |gateway: &mut Gateway| gateway.server.fault("/reagent", Fault::Corrupt(123_456));
    refuses(corrupt, "another content").await;
}

#[tokio::test]
async fn a_binary_for_another_kind_of_machine() {
    let other = async |gateway: &mut Gateway| {
        let mut binary = builds::built(NEW, Build::Good).await;
        // The machine in the ELF header: SPARC.
        (binary[18], binary[19]) = (2, 0);
        gateway.bucket.publish(NEW, &binary, &gateway.signer);
    };
    refuses(other, "another kind of machine").await;
}

#[tokio::test]
async fn a_signed_file_that_is_no_program() {
    let text = async |gateway: &mut Gateway| {
        gateway
            .bucket
            .publish(NEW, b"#!/bin/sh\necho 7.7.7\n", &gateway.signer);
    };
    refuses(text, "no executable").await;
}

#[tokio::test]
async fn a_build_that_prints_another_version() {
    let other = async |gateway: &mut Gateway| gateway.release(NEW, Build::OtherVersion).await;
    refuses(other, "in place of its version").await;
}

#[tokio::test]
async fn a_build_that_cannot_be_started_as_this_device_starts_it() {
    let lacks = async |gateway: &mut Gateway| gateway.release(NEW, Build::LacksAFlag).await;
    refuses(lacks, "-dbFileName").await;
}

#[tokio::test]
async fn a_build_that_hangs_when_it_is_asked_for_its_version() {
    let hangs = async |gateway: &mut Gateway| gateway.release(NEW, Build::VersionHangs).await;
    refuses(hangs, "did not print its version").await;
}

#[tokio::test]
async fn a_signature_of_somebody_else_and_none_at_all() {
    let foreign = async |gateway: &mut Gateway| {
        let binary = builds::built(NEW, Build::Good).await;
        gateway.bucket.publish(NEW, &binary, &Signer::new());
    };
    refuses(foreign, "not signed by a known key").await;
    let unsigned = async |gateway: &mut Gateway| {
        std::fs::remove_file(gateway.bucket.place(NEW).join("reagent.manifest.json.minisig")).unwrap();
    };
    refuses(unsigned, "signature could not be fetched").await;
}

#[tokio::test]
async fn a_manifest_that_was_changed_after_signing() {
    let change = async |gateway: &mut Gateway| {
        let path = gateway.bucket.place(NEW).join("reagent.manifest.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace("2099", "2098")).unwrap();
    };
    refuses(change, "not signed by a known key").await;
}

#[tokio::test]
async fn an_expired_manifest() {
    let expired = async |gateway: &mut Gateway| {
        publish(gateway, |manifest| {
            manifest["expires"] = json!("2026-01-02T00:00:00Z");
        })
        .await;
    };
    refuses(expired, "expired").await;
}

#[tokio::test]
async fn a_release_for_another_channel_or_beyond_a_barrier() {
    let channel = async |gateway: &mut Gateway| {
        publish(gateway, |manifest| manifest["channels"] = json!(["test"])).await;
    };
    refuses(channel, "not meant for the environment").await;
    let barrier = async |gateway: &mut Gateway| {
        publish(gateway, |manifest| manifest["minimum_version"] = json!("5.0.0")).await;
    };
    refuses(barrier, "needs at least version 5.0.0").await;
}

#[tokio::test]
async fn a_build_without_release_keys_installs_nothing() {
    let keyless = async |gateway: &mut Gateway| gateway.set_up(json!({"keys": ["untrusted comment: none"]}));
    let gateway = refuses(keyless, "no release keys").await;
    let log = std::fs::read_to_string(gateway.path("reagent.log")).unwrap();
    assert!(log.contains("this build carries no release key"), "{log}");
    let metadata = gateway.call("get_agent_metadata", json!([])).await.unwrap();
    assert_eq!(metadata["canUpdate"], false);
}

#[tokio::test]
async fn an_old_list_that_is_replayed() {
    // The device has seen the manifest of 8.8.8, which then was withdrawn by an attacker in favour of 7.7.7.
    let mut gateway = Gateway::new().await;
    let newest = builds::built("8.8.8", Build::Good).await;
    let mut manifest = gateway.bucket.manifest("8.8.8", &newest);
    manifest["issued"] = json!("2026-02-01T00:00:00Z");
    gateway
        .bucket
        .publish_with("8.8.8", &newest, &manifest, &gateway.signer);
    gateway.bucket.offer("8.8.8");
    gateway.server.fault("/reagent", Fault::Status(404));
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], false);
    assert_eq!(gateway.outcome().await["to"], "8.8.8");
    gateway.server.heal();
    gateway.release(NEW, Build::Good).await;
    gateway.takes_none("older than one seen before").await;
    // A list from before the running version offers nothing at all.
    gateway.bucket.offer("0.0.1");
    gateway.takes_none("up to date").await;
    gateway.runs(OLD).await;
}

#[tokio::test]
async fn a_bucket_that_is_away_says_nothing_about_a_release() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    gateway
        .server
        .fault("availableVersions.json", Fault::Instead(b"<html>".to_vec()));
    gateway.power();
    let answer = gateway.update().await;
    assert!(
        answer["Message"].as_str().unwrap().contains("not a JSON object"),
        "{answer}"
    );
    gateway.server.fault("availableVersions.json", Fault::Status(503));
    gateway.takes_none("status 503").await;
    assert_eq!(gateway.state()["outcome"], Value::Null, "nothing to tell");
    gateway.server.heal();
    gateway.takes_one().await;
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_second_start_by_hand_does_not_count_as_one_of_the_version_under_test() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"proof": 600_000}));
    gateway.release(NEW, Build::Hangs).await;
    gateway.power();
    gateway.update().await;
    gateway
        .remembers("that the version is tried", |state| state["phase"] == "probation")
        .await;
    for _ in 0..5 {
        let mut command = gateway.command(&gateway.path("bin/reagent"), &["-update=false"]);
        let mut second = testkit::process::Process::start("second", &mut command);
        let status = tokio::task::spawn_blocking(move || second.wait(SOON))
            .await
            .unwrap();
        assert_eq!(status.code(), Some(1));
    }
    assert_eq!(gateway.state()["attempts"], 1);
}
