//! What viewers of an app's log see of a download.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{Downloading, Present};
use serde_json::{Value, json};
use testkit::registry::Registry;
use wamp::Dict;
use wamp::client::Session;

use crate::device::SOON;
use crate::trouble::published;

#[tokio::test]
async fn viewers_are_cleared_and_see_the_daemons_progress_word_by_word() {
    let registry = Registry::start();
    let device = published(&registry, None).await;
    let router = device.connect().await;
    let viewer = Session::connect(&router).await.unwrap();
    let topic = protocol::uri::logs(device.serial(), &device.container());
    let mut seen = viewer.subscribe(&topic, Dict::new()).await.unwrap();
    device.logs.attach(Session::connect(&router).await.unwrap()).await;
    device.request(Present).await;
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let event = tokio::time::timeout(SOON, seen.events.recv()).await;
        let payload = event.expect("a message in time").unwrap().payload;
        assert!(payload.kwargs().unwrap().is_empty());
        let args = payload.args().unwrap();
        assert_eq!(args.len(), 1);
        messages.push(args[0].to_json());
        if args[0].to_json()["chunk"]
            .as_str()
            .is_some_and(|text| text.starts_with("Succesfully"))
        {
            break;
        }
    }
    device.reports(&[Downloading, Present]).await;

    let build = |chunk: &str| json!({"type": "build", "chunk": chunk});
    let name = &device.app_name;
    assert_eq!(messages[0], build("LOGGER_CLEAR"));
    let first = build(&format!("Initialising download for the app: {name}..."));
    assert_eq!(messages[1], first);
    let output: Vec<&str> = messages[2..messages.len() - 1]
        .iter()
        .flat_map(|message| message.as_str().unwrap().split('\n'))
        .collect();
    let records: Vec<Value> = output
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let says = |status: &str| records.iter().any(|record| record["status"] == status);
    assert!(says("Pulling fs layer") && says("Pull complete"), "{output:?}");
    let history = device.logs.history(device.app, name).await;
    let (last, progress) = history.split_last().unwrap();
    assert_eq!(progress, output, "cleared with the first line, then kept");
    assert!(last.starts_with("Succesfully installed the app: "), "{last}");
}
