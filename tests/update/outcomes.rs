//! How an update ended can be asked for, by whoever was away when it was told.

use serde_json::json;

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
