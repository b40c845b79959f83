//! Less than a whole binary has to come.

use protocol::uri;
use serde_json::{Value, json};
use testkit::static_server::Fault;
use wamp::Dict;
use wamp::client::Subscription;

use super::SOON;
use super::builds::{self, Build, NEW, OLD};
use super::gateway::{Gateway, install};

async fn progress(gateway: &Gateway) -> Subscription {
    let topic = uri::device("00000000-0000-4000-8000-00000000da7e", "agent_update_progress");
    let session = &gateway.backend.session;
    session.subscribe(&topic, Dict::new()).await.unwrap()
}

/// What is said up to the end of a binary of `size` bytes.
async fn heard(progress: &mut Subscription, size: usize) -> Vec<Value> {
    let mut heard: Vec<Value> = Vec::new();
    while heard.last().is_none_or(|last| last["currentBytes"] != size) {
        let event = tokio::time::timeout(SOON, progress.events.recv()).await.unwrap();
        heard.push(event.unwrap().payload.args().unwrap()[0].to_json());
    }
    heard
}

#[tokio::test]
async fn a_binary_that_is_here_already_is_not_fetched_again_and_said_to_be_complete() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    let new = builds::build(NEW, Build::Good);
    let mut progress = progress(&gateway).await;
    gateway.power();
    gateway.runs(OLD).await;
    install(&gateway.path(&format!("agent/reagent-v{NEW}")), &new);
    assert_eq!(gateway.update().await["DidUpdate"], true);
    assert_eq!(gateway.server.sent("/reagent"), 0);
    let complete = json!({"increment": 0, "currentBytes": new.len(), "fileSize": new.len()});
    assert_eq!(heard(&mut progress, new.len()).await, [complete]);
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn progress_is_that_of_the_binary_whether_a_patch_makes_it_or_not() {
    for broken in [false, true] {
        let mut gateway = Gateway::new().await;
        let (old, new) = (builds::agent(), builds::build(NEW, Build::Good));
        gateway
            .bucket
            .publish_with_patch(NEW, &new, &old, &gateway.signer);
        gateway.bucket.offer(NEW);
        if broken {
            gateway.server.fault("patch.zst", Fault::Corrupt(100));
        }
        let mut progress = progress(&gateway).await;
        gateway.power();
        gateway.runs(OLD).await;
        assert_eq!(gateway.update().await["DidUpdate"], true);
        let heard = heard(&mut progress, new.len()).await;
        assert!(heard.iter().all(|one| one["fileSize"] == new.len()), "{heard:?}");
        let counts: Vec<_> = heard.iter().map(|one| one["currentBytes"].as_u64()).collect();
        assert!(counts.is_sorted(), "{heard:?}");
    }
}
