//! How an update ended can be asked for, by whoever was away when it was told.

use protocol::uri::backend::UPDATE_DEVICE_STATUS;
use serde_json::json;
use testkit::wait;

use super::SOON;
use super::backend::Answer;
use super::builds::{Build, NEW, OLD};
use super::gateway::Gateway;

#[tokio::test]
async fn an_outcome_can_be_asked_for_later_and_says_whose_question_led_to_it() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Crashes).await;
    gateway.power();
    gateway.runs(OLD).await;
    gateway.backend.status("CONNECTED").await;
    let fresh = gateway.call("get_agent_metadata", json!([])).await.unwrap();
    assert_eq!(fresh.get("lastUpdate"), None);
    let answer = gateway
        .call("update_agent", json!([{"version": NEW, "id": "7-1000"}]))
        .await
        .unwrap();
    assert_eq!(answer["DidUpdate"], true, "{answer}");
    let told = gateway.outcome().await;
    assert_eq!(
        told,
        json!({"from": OLD, "to": NEW, "result": "rolledback", "reason": "it did not prove its health in 3 starts",
            "id": "7-1000"})
    );
    gateway.runs(OLD).await;
    let metadata = gateway.call("get_agent_metadata", json!([])).await.unwrap();
    assert_eq!(metadata["lastUpdate"], told);

    // What the agent finds out by itself about the same version still belongs to that question; another one is another.
    gateway.takes_none("blocked").await;
    assert_eq!(gateway.outcome().await["id"], "7-1000");
    gateway
        .call("update_agent", json!([{"version": NEW, "id": "8-2000"}]))
        .await
        .unwrap();
    assert_eq!(gateway.outcome().await["id"], "8-2000");
}

/// A new version joins, and nobody accepts what it says of itself.
async fn stays_on_trial(gateway: &mut Gateway) {
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    gateway.runs(OLD).await;
    gateway.backend.status("CONNECTED").await;
    gateway
        .backend
        .does(UPDATE_DEVICE_STATUS, Answer::Error("wamp.error.runtime_error"));
    gateway.takes_one().await;
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn a_version_that_has_yet_to_prove_itself_is_named_to_whoever_asks() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"proof": 600_000}));
    stays_on_trial(&mut gateway).await;
    let tried = gateway.call("get_agent_metadata", json!([])).await.unwrap();
    assert_eq!(tried["trialVersion"], NEW);
    assert_eq!(tried.get("lastUpdate"), None);
    gateway.backend.does(UPDATE_DEVICE_STATUS, Answer::Empty);
    gateway.told("updated", "").await;
    let proven = gateway.call("get_agent_metadata", json!([])).await.unwrap();
    assert_eq!(
        (&proven["trialVersion"], &proven["lastUpdate"]["result"]),
        (&json!(""), &json!("updated"))
    );
}

#[tokio::test]
async fn a_version_that_has_lasted_without_proof_is_not_up_to_date() {
    let mut gateway = Gateway::new().await;
    gateway.set_up(json!({"proof": 600_000, "isolation": 2000}));
    stays_on_trial(&mut gateway).await;
    // By then it looks for others.
    gateway.bucket.offer(OLD);
    wait::until_async("it takes others again", SOON, || async {
        let answer = gateway.call("update_agent", json!([])).await?;
        (answer["LatestVersion"] == OLD).then_some(())
    })
    .await;
    let wanted = json!([{"version": NEW, "id": "7-1000"}]);
    let answer = gateway.call("update_agent", wanted).await.unwrap();
    assert_eq!(
        (&answer["DidUpdate"], &answer["Message"]),
        (
            &json!(false),
            &json!(format!("version {NEW} waits to prove itself"))
        )
    );
    gateway.backend.does(UPDATE_DEVICE_STATUS, Answer::Empty);
    assert_eq!(
        gateway.outcome().await,
        json!({"from": OLD, "to": NEW, "result": "updated", "reason": "", "id": "7-1000"})
    );
}

#[tokio::test]
async fn outcomes_that_nobody_heard_are_told_in_order_and_once_by_whatever_agent_they_were_written() {
    let mut gateway = Gateway::new().await;
    let outcome = |to: &str, id: &str| json!({"from": OLD, "to": to, "result": "rolledback", "reason": "it crashed", "id": id});
    let file = gateway.path("agent/update-state.json");
    let write = |state: &serde_json::Value| std::fs::write(&file, state.to_string()).unwrap();
    write(&json!({
        "phase": "rolledback", "untold": [outcome("7.7.5", "1-1000"), outcome("7.7.6", "2-2000")],
        "outcome": outcome(NEW, "3-3000"), "reported": false,
    }));
    gateway.power();
    for (to, id) in [("7.7.5", "1-1000"), ("7.7.6", "2-2000"), (NEW, "3-3000")] {
        assert_eq!(gateway.outcome().await, outcome(to, id));
    }
    let state = gateway
        .remembers("that all were told", |state| state["reported"] == true)
        .await;
    assert_eq!(state["untold"], json!(null));
    let metadata = gateway.call("get_agent_metadata", json!([])).await.unwrap();
    assert_eq!(metadata["lastUpdate"], outcome(NEW, "3-3000"));

    // An agent that knows one outcome only, which has no id.
    gateway.cut();
    let mut single = outcome("7.7.8", "");
    single.as_object_mut().unwrap().remove("id");
    write(&json!({"phase": "rolledback", "outcome": single, "reported": false}));
    gateway.power();
    assert_eq!(gateway.outcome().await, single);
}
