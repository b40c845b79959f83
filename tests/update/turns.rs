//! Which devices take a version by themselves, and when.

use serde_json::json;
use testkit::static_server::Fault;
use testkit::wait;

use super::SOON;
use super::builds::{self, Build, NEW, NEWER, OLD};
use super::gateway::Gateway;

/// Puts a schedule into the bucket, issued in that year.
fn schedule(gateway: &Gateway, year: u32, pace: &serde_json::Value) {
    let mut rollout = json!({"version": NEW, "channel": "all"});
    rollout
        .as_object_mut()
        .unwrap()
        .extend(pace.as_object().unwrap().clone());
    let content = json!({
        "issued": format!("{year}-01-01T00:00:00Z"), "expires": "2099-01-01T00:00:00Z", "rollouts": [rollout],
    })
    .to_string();
    let place = gateway.path("bucket/re-agent");
    std::fs::write(
        place.join("rollouts.json.minisig"),
        gateway.signer.sign(content.as_bytes()),
    )
    .unwrap();
    std::fs::write(place.join("rollouts.json"), content).unwrap();
}

/// Waits until the agent has looked at the schedule several times more.
async fn looks(gateway: &Gateway) {
    let name = "rollouts.json.minisig";
    let size = std::fs::metadata(gateway.path("bucket/re-agent").join(name))
        .unwrap()
        .len();
    let before = gateway.server.sent(name);
    wait::until_async("the agent looks for its turn", SOON, || async {
        (gateway.server.sent(name) >= before + 3 * size).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_device_waits_for_its_turn_unless_somebody_asks() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"period": 100}));
    gateway.release(NEW, Build::Good).await;
    schedule(&gateway, 2025, &json!({"stopped": {}}));
    gateway.power_with(&[]);
    gateway.runs(OLD).await;
    looks(&gateway).await;
    schedule(&gateway, 2026, &json!({"percent": 0}));
    looks(&gateway).await;
    // Somebody replays the day when all was well.
    schedule(&gateway, 2025, &json!({"percent": 100}));
    looks(&gateway).await;
    // Somebody takes away what holds it back.
    for name in ["rollouts.json", "rollouts.json.minisig"] {
        std::fs::remove_file(gateway.path("bucket/re-agent").join(name)).unwrap();
    }
    gateway
        .remembers("that the schedule is gone", |state| {
            let reason = state["outcome"]["reason"].as_str().unwrap_or_default();
            reason.contains("is gone from the bucket")
        })
        .await;
    assert_eq!(gateway.server.sent("manifest.json"), 0);
    assert_eq!(gateway.running().await.as_deref(), Some(OLD));
    assert_eq!(gateway.update().await["DidUpdate"], true);
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_device_whose_turn_has_come_updates_by_itself() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"period": 100}));
    gateway.release(NEW, Build::Good).await;
    schedule(&gateway, 2026, &json!({"percent": 0}));
    gateway.power_with(&[]);
    looks(&gateway).await;
    let over = json!({"over": {"start": "2026-01-01T00:00:00Z", "seconds": 1}});
    schedule(&gateway, 2026, &over);
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_bucket_that_was_away_at_the_start_is_asked_again_soon() {
    let mut gateway = Gateway::new().await;
    // The next regular check is hours away.
    gateway.set_up(json!({"retry": 100}));
    gateway.release(NEW, Build::Good).await;
    gateway.server.fault("availableVersions.json", Fault::Status(503));
    gateway.power_with(&[]);
    gateway.runs(OLD).await;
    gateway.server.heal();
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_device_that_somebody_took_back_stays_there_until_something_newer_is_offered() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"period": 100}));
    let older = "0.0.1";
    let binary = builds::built(older, Build::Good).await;
    gateway.release(NEW, Build::Good).await;
    gateway.power_with(&[]);
    gateway.runs(NEW).await;
    let mut manifest = gateway.bucket.manifest(older, &binary);
    manifest["allow_downgrade"] = json!(true);
    gateway
        .bucket
        .publish_with(older, &binary, &manifest, &gateway.signer);
    gateway
        .remembers("the proof", |state| state["active"]["version"] == NEW)
        .await;
    let answer = gateway.call("update_agent", json!([{"version": older}])).await;
    assert_eq!(answer.unwrap()["DidUpdate"], true);
    gateway.runs(older).await;
    gateway
        .remembers("the proof", |state| state["active"]["version"] == older)
        .await;
    // A version under test does not look for others soon.
    gateway.cut();
    gateway.power_with(&[]);
    gateway.runs(older).await;
    let list = "availableVersions.json";
    let before = gateway.server.sent(list);
    wait::until_async("it has looked for updates", SOON, || async {
        (gateway.server.sent(list) > before + 1000).then_some(())
    })
    .await;
    assert_eq!(gateway.running().await.as_deref(), Some(older));
    gateway.release(NEWER, Build::Good).await;
    gateway.runs(NEWER).await;
}
