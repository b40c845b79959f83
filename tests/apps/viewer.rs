//! What viewers see of a build and of its publication.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{Building, Built, Present, Published, Publishing, Removed};
use protocol::{Stage, naming};
use serde_json::{Value, json};
use testkit::registry::Registry;
use wamp::Dict;
use wamp::client::{Session, Subscription};

use crate::build::{publication, remove_layers, upload};
use crate::device::{Device, SECRET, SOON, TOKEN};

/// What is said on a topic, line by line, until one of the lines contains `last`.
async fn seen(topic: &mut Subscription, last: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    while !lines.iter().any(|line| line.contains(last)) {
        let event = tokio::time::timeout(SOON, topic.events.recv()).await;
        let event = event
            .unwrap_or_else(|_| panic!("{last:?} in time: {lines:#?}"))
            .unwrap();
        assert_eq!(event.missed, 0);
        match event.payload.args().unwrap()[0].to_json() {
            Value::String(text) => lines.extend(text.split('\n').map(str::to_owned)),
            message => {
                assert_eq!(message["type"], "build");
                lines.push(message["chunk"].as_str().unwrap().to_owned());
            }
        }
    }
    lines
}

/// The daemon's records among them.
fn records(lines: &[String]) -> impl Iterator<Item = Value> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok())
}

#[tokio::test]
async fn every_line_of_a_build_and_the_outcome_of_its_push_reach_viewers() {
    /// More than any queue between the daemon and a viewer holds.
    const LINES: u64 = 20_000;
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let device = Device::with(Stage::Dev, Some(&registry.address()), None).await;
    let router = device.connect().await;
    let viewer = Session::connect(&router).await.unwrap();
    let subscribe = async |channel: &str| {
        let topic = protocol::uri::logs(device.serial(), channel);
        viewer.subscribe(&topic, Dict::new()).await.unwrap()
    };
    let mut app = subscribe(&device.container()).await;
    let channel = naming::publish_channel(device.app.key, &device.app_name);
    let mut release = subscribe(&channel).await;
    device.logs.attach(Session::connect(&router).await.unwrap()).await;

    let count = format!("RUN i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo \"number $i\"; done");
    upload(&device, &count);
    device.request(Built).await;
    let lines = seen(&mut app, "Image built successfully").await;
    device.reports(&[Removed, Building, Built, Present]).await;
    assert_eq!(lines[0], "Starting image build...");
    let said: String = records(&lines)
        .filter_map(|record| record["stream"].as_str().map(str::to_owned))
        .collect();
    assert!(said.starts_with("Step 1/3 : FROM "), "{said:.300}");
    assert!(said.contains("Successfully built "));
    let numbers = said.lines().filter_map(|line| line.strip_prefix("number "));
    let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=LINES).collect::<Vec<_>>());

    upload(&device, "RUN echo released > /version");
    let wanted = publication(&device, "2.0.0");
    device.apps.request(wanted).await.unwrap();
    let lines = seen(&mut release, "2.0.0: digest: sha256:").await;
    device
        .reports(&[Removed, Building, Built, Publishing, Published])
        .await;
    let place = |text: &str| lines.iter().position(|line| line.contains(text));
    let order = [
        "Initializing publish process for ",
        "Starting image build...",
        "Successfully built ",
        "App build has finished, Starting to publish...",
        "The push refers to repository",
        "2.0.0: digest: sha256:",
    ];
    let places: Vec<_> = order.map(place).into();
    assert!(
        places.is_sorted() && places[0].is_some(),
        "{places:?}: {lines:#?}"
    );
    let pushed: Vec<Value> = records(&lines)
        .filter(|record| record["status"] == "Pushed")
        .collect();
    // The step, and the base that this registry has never seen.
    assert_eq!(pushed.len(), 2, "{lines:#?}");
    assert!(pushed.iter().all(|record| record["progressDetail"] == json!({})));
    remove_layers(&device);
}
