//! A new version has to reach Docker where the one before did.

use protocol::uri::backend::UPDATE_DEVICE_STATUS;
use serde_json::json;
use testkit::docker::proxy::Proxy;
use testkit::process::Process;
use testkit::wait;

use super::SOON;
use super::builds::{self, Build, NEW, NEWER, OLD};
use super::gateway::Gateway;

/// A good build in all but one thing: it looks for Docker where there is none.
fn without_docker() -> Vec<u8> {
    let mut binary = builds::build(NEW, Build::Good);
    for (from, to) in [
        (&b"DOCKER_HOST"[..], &b"DXCKER_HXST"[..]),
        (b"/var/run/docker.sock", b"/var/run/dXcker.sXck"),
    ] {
        let places: Vec<usize> = binary
            .windows(from.len())
            .enumerate()
            .filter(|(_, window)| *window == from)
            .map(|(place, _)| place)
            .collect();
        assert!(!places.is_empty());
        for place in places {
            binary[place..place + from.len()].copy_from_slice(to);
        }
    }
    binary
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_loses_docker_is_returned_from_and_one_that_finds_it_stays() {
    let mut gateway = Gateway::new().await;
    let proxy = Proxy::absent();
    proxy.appear();
    gateway.bucket.publish(NEW, &without_docker(), &gateway.signer);
    gateway.bucket.offer(NEW);
    let mut command = gateway.command(&gateway.path("bin/reagent"), &["-update=false"]);
    command.env("DOCKER_HOST", proxy.host());
    gateway.agent = Some(Process::start("agent", &mut command));
    gateway.runs(OLD).await;
    wait::until_async("the old version reports Docker", SOON, || async {
        let updates = gateway.backend.calls(UPDATE_DEVICE_STATUS);
        let with_docker = |update: &serde_json::Value| {
            update["status"] == "CONNECTED" && update["stats"]["docker_available"] == true
        };
        updates.iter().any(with_docker).then_some(())
    })
    .await;
    gateway.backend.forget();
    let answer = gateway.call("update_agent", json!([])).await.unwrap();
    assert_eq!(answer["DidUpdate"], true, "{answer}");
    gateway
        .remembers("that a version is tried", |state| state["phase"] == "probation")
        .await;
    assert_eq!(gateway.state()["had_docker"], true);
    gateway
        .told("rolledback", "did not prove its health within 3 s")
        .await;
    // It was connected all the time, and its heartbeats were answered.
    let without_docker = gateway
        .backend
        .calls(UPDATE_DEVICE_STATUS)
        .into_iter()
        .filter(|update| update["status"] == "CONNECTED" && update["stats"]["docker_available"] == false);
    assert!(without_docker.count() >= 2);
    gateway.runs(OLD).await;

    gateway.release(NEWER, Build::Good).await;
    gateway.takes_one().await;
    gateway.runs(NEWER).await;
    assert_eq!(gateway.outcome().await["result"], "updated");
}
