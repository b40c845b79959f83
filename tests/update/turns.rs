//! Which devices take a version by themselves, and when.

use serde_json::json;
use testkit::wait;

use super::SOON;
use super::builds::{Build, NEW, OLD};
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
    gateway.release(NEW, Build::Good);
    schedule(&gateway, 2025, &json!({"stopped": {}}));
    gateway.power_with(&[]);
    gateway.runs(OLD).await;
    looks(&gateway).await;
    schedule(&gateway, 2026, &json!({"percent": 0}));
    looks(&gateway).await;
    // Somebody replays the day when all was well.
    schedule(&gateway, 2025, &json!({"percent": 100}));
    looks(&gateway).await;
    assert_eq!(gateway.server.sent("manifest.json"), 0);
    assert_eq!(gateway.running().await.as_deref(), Some(OLD));
    assert_eq!(gateway.update().await["DidUpdate"], true);
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_device_whose_turn_has_come_updates_by_itself() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"period": 100}));
    gateway.release(NEW, Build::Good);
    schedule(&gateway, 2026, &json!({"percent": 0}));
    gateway.power_with(&[]);
    looks(&gateway).await;
    let over = json!({"over": {"start": "2026-01-01T00:00:00Z", "seconds": 1}});
    schedule(&gateway, 2026, &over);
    gateway.runs(NEW).await;
}
