//! Apps that become something else under the same key: another kind, another name, another document.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{Deleting, Present, Removed, Running, Starting, Stopping, Uninstalled};
use protocol::{Stage, naming};
use serde_json::{Value, json};
use testkit::{docker, wait};

use crate::compose::{Stack, web};
use crate::device::{Device, FOREVER, LAST_WORDS, SOON};

/// Waits until the app runs as one container, and nothing of its project with it.
async fn runs_alone(stack: &Stack) {
    let device = &stack.device;
    wait::until_async("the app is one container", SOON, || async {
        let running = docker::inspect(&device.container(), "{{.State.Running}}")?;
        (running == "true").then_some(())
    })
    .await;
    assert_eq!(stack.leftovers()[0], 0, "the project is gone first");
}

/// A document whose service keeps something in a volume.
fn with_state(image: &str) -> Value {
    json!({
        "services": {"web": {"image": image, "volumes": ["state:/state"]}},
        "volumes": {"state": {}},
    })
}

#[tokio::test]
async fn a_compose_app_that_becomes_one_container_leaves_no_project_behind() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    let compose = with_state(&image);
    device.install("1.0", FOREVER);
    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;

    device.request(Running).await;
    device.reports(&[Present, Starting, Running]).await;
    runs_alone(&stack).await;
    assert_eq!(stack.leftovers(), [0, 1, 0], "what is in volumes may be missed");

    device.request(Uninstalled).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert_eq!(stack.leftovers(), [0, 0, 0]);
    assert!(!device.path(&format!("compose/{}", device.app_name)).exists());
}

#[tokio::test]
async fn a_compose_app_that_becomes_one_container_while_the_agent_is_away_leaves_no_project_behind() {
    let mut stack = Stack::start(Stage::Prod).await;
    let image = stack.image("web", FOREVER);
    stack.device.install("1.0", FOREVER);
    stack.request(Running, &web(&image)).await;
    stack.device.reports(&[Starting, Running]).await;
    stack.device.close().await;
    // As a power cut leaves it: the request is committed and nothing has come of it.
    let (store, _) = reagent::store::Store::open(&stack.device.database())
        .await
        .unwrap();
    let request = stack.device.wanted(Present, json!({}));
    store.commit_request(request, Running).await.unwrap();
    store.close().await;
    stack.device.restart(|_| {}).await;
    wait::until_async("the project is gone", SOON, || async {
        (stack.leftovers()[0] == 0).then_some(())
    })
    .await;
    stack.device.reports(&[Present]).await;
    assert_eq!(stack.device.container_id(), None);
}

#[tokio::test]
async fn a_compose_app_that_is_to_be_one_container_some_day_stops() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    device.install("1.0", FOREVER);
    stack.request(Running, &web(&image)).await;
    device.reports(&[Starting, Running]).await;
    device.request(Present).await;
    wait::until_async("the project is gone", SOON, || async {
        let stopped = device.reported().await.last() == Some(&Present);
        (stopped && stack.leftovers()[0] == 0).then_some(())
    })
    .await;
    assert_eq!(device.container_id(), None);
}

#[tokio::test]
async fn an_app_of_one_container_that_becomes_a_project_leaves_no_container_behind() {
    for target in [Running, Present] {
        let stack = Stack::start(Stage::Prod).await;
        let device = &stack.device;
        let image = stack.image("web", FOREVER);
        device.install("1.0", LAST_WORDS);
        device.request(Running).await;
        device.reports(&[Starting, Running]).await;

        stack.request(target, &web(&image)).await;
        wait::until_async("the container is gone", SOON, || async {
            device.container_id().is_none().then_some(())
        })
        .await;
        wait::until_async("the project is as wanted", SOON, || async {
            let runs = stack.leftovers()[0] == 1;
            let reported = device.reported().await.last() == Some(&target);
            (reported && runs == (target == Running)).then_some(())
        })
        .await;
        if target == Running {
            device.said_all_before("| up").await;
        }
    }
}

#[tokio::test]
async fn a_running_app_is_renamed_at_once_and_fetches_nothing_again() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    std::fs::write(
        device.path(&format!("prod/{}/kept", device.app_name.to_lowercase())),
        "x",
    )
    .unwrap();
    let (old, new_name) = (device.container(), format!("{}-renamed", device.app_name));
    let request = device.wanted(Running, json!({"app_name": new_name}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Present, Starting, Running]).await;
    assert_eq!(docker::inspect(&old, "{{.Id}}"), None);
    assert!(docker::images_of(&device.image("1.0")).is_empty());
    let new = naming::container(device.app, &new_name);
    assert_eq!(
        docker::inspect(&new, "{{.State.Running}}").as_deref(),
        Some("true")
    );
    assert!(
        device
            .path(&format!("prod/{}/kept", new_name.to_lowercase()))
            .exists()
    );
    docker::remove(&new);
}

#[tokio::test]
async fn a_name_that_differs_in_case_only_costs_the_app_nothing() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let id = device.container_id();
    let request = device.wanted(Running, json!({"app_name": device.app_name.to_uppercase()}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Running]).await;
    assert_eq!(device.container_id(), id);
    assert_eq!(docker::images_of(&device.image("1.0")).len(), 1);
    let names: Vec<String> = device
        .store
        .apps()
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.app_name)
        .collect();
    assert_eq!(names, [device.app_name.to_uppercase()]);
    // Nor is anything missing for the next start.
    let request = device.wanted(Present, json!({"app_name": device.app_name.to_lowercase()}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Stopping, Stopping, Present]).await;
    assert_eq!(docker::images_of(&device.image("1.0")).len(), 1);
}

#[tokio::test]
async fn a_project_whose_name_differs_in_case_only_moves_with_its_images_and_volumes() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    let compose = with_state(&image);
    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;
    let name = device.app_name.to_uppercase();
    let request = stack.wanted(Running, &compose, json!({"app_name": name}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Present, Starting, Running]).await;
    assert_eq!(stack.leftovers()[..2], [1, 1]);
    assert!(
        device
            .path(&format!("compose/{name}/docker-compose.json"))
            .exists()
    );
    assert!(!device.path(&format!("compose/{}", device.app_name)).exists());
}
