//! Updates: another version of an installed app (`app-lifecycle.md` 3.5 "update", W9).
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{Deleting, Present, Removed, Running, Starting, Stopping, Uninstalled, Updating};
use protocol::{AppRequest, AppState, Stage, UpdateStatus};
use reagent::app::Sync;
use serde_json::{Value, json};
use testkit::registry::Registry;
use testkit::{docker, wait};

use crate::device::{Device, FOREVER, LAST_WORDS, SECRET, SOON, TOKEN};

/// A device that runs version 1.0, and the registry that has `newer` as version 2.0.
async fn running(newer: Option<&str>) -> (Registry, Device) {
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let device = Device::with(Stage::Prod, Some(&registry.address()), None).await;
    if let Some(script) = newer {
        let local = device.scope.image("newer", script);
        let reference = device.image("2.0");
        let name = reference
            .strip_prefix(&format!("{}/", registry.address()))
            .unwrap();
        registry.push(&local, name, TOKEN, SECRET);
    }
    device.install("1.0", LAST_WORDS);
    device.connect().await;
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    (registry, device)
}

fn update(device: &Device, target: AppState, members: Value) -> AppRequest {
    let mut all = json!({
        "request_update": true, "newest_version": "2.0", "new_release_key": 101, "current_state": "RUNNING",
    });
    let (Value::Object(all_of_them), Value::Object(members)) = (&mut all, members) else {
        unreachable!()
    };
    all_of_them.extend(members);
    device.wanted(target, all)
}

/// The device accepts this request for the update.
async fn ask(device: &Device, target: AppState, members: Value) {
    device
        .apps
        .request(update(device, target, members))
        .await
        .unwrap();
}

/// The next reports, exactly these: state, release, status of the update.
async fn told(device: &Device, expected: &[(AppState, u64, UpdateStatus)]) {
    let found = wait::until_async(&format!("{expected:?}"), SOON, || async {
        let pending = device.store.pending_reports().await.unwrap();
        let reports: Vec<_> = pending.into_iter().map(|pending| pending.report).collect();
        (reports.len() >= expected.len()).then_some(reports)
    })
    .await;
    let found: Vec<_> = found
        .iter()
        .map(|report| (report.state, report.release_key, report.update_status))
        .collect();
    let log = device.logs.history(device.app, &device.app_name).await;
    assert_eq!(found, expected, "log {log:#?}");
    device.confirm().await;
}

fn image_of(device: &Device) -> Option<String> {
    docker::inspect(&device.container(), "{{.Config.Image}}")
}

#[tokio::test]
async fn the_new_version_replaces_the_old_one_and_counts_when_it_runs() {
    let (_registry, device) = running(Some(LAST_WORDS)).await;
    ask(&device, Running, json!({})).await;
    use UpdateStatus::{Completed, None, PendingRemoteConfirmation};
    told(
        &device,
        &[
            (Updating, 100, None),
            (Present, 101, PendingRemoteConfirmation),
            (Starting, 101, Completed),
            (Running, 101, Completed),
        ],
    )
    .await;
    assert_eq!(image_of(&device), Some(device.image("2.0")));
    let now = format!("Now running app {} (2.0)", device.app_name);
    device.said_all_before(&now).await;
    let id = device.container_id();

    // A list that was made before the backend heard of it asks for the update once more.
    let rows = vec![update(&device, Running, json!({}))];
    device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
    ask(&device, Running, json!({})).await;
    told(&device, &[(Running, 101, Completed)]).await;
    assert_eq!(device.container_id(), id);

    // What is stopped and started afterwards is the new version.
    ask(&device, Present, json!({})).await;
    device.reports(&[Stopping, Stopping, Present]).await;
    let stopped = format!("Successfully stopped {}", device.app_name);
    device.said_all_before(&stopped).await;
    ask(&device, Running, json!({})).await;
    device.reports(&[Starting, Running]).await;
    assert_eq!(image_of(&device), Some(device.image("2.0")));
}

#[tokio::test]
async fn a_stopped_app_is_updated_and_stays_stopped() {
    let (_registry, device) = running(Some(FOREVER)).await;
    device.request(Present).await;
    device.reports(&[Stopping, Stopping, Present]).await;
    ask(&device, Present, json!({})).await;
    device.reports(&[Updating, Present]).await;
    assert_eq!(docker::count(&device.container()), 0);
    let newer = json!({"present_version": "2.0", "newest_version": "2.0", "release_key": 101});
    device.apps.request(device.wanted(Running, newer)).await.unwrap();
    device.reports(&[Starting, Running]).await;
    assert_eq!(image_of(&device), Some(device.image("2.0")));
}

#[tokio::test]
async fn a_running_app_that_is_to_stop_with_its_update_says_its_last_words() {
    let (_registry, device) = running(Some(FOREVER)).await;
    ask(&device, Present, json!({})).await;
    device.reports(&[Updating, Present]).await;
    assert_eq!(docker::count(&device.container()), 0);
    device.said_all().await;
}

#[tokio::test]
async fn a_version_that_does_not_run_gives_way_to_the_old_one() {
    let (_registry, device) = running(Some("echo no; exit 3")).await;
    ask(&device, Running, json!({})).await;
    use UpdateStatus::None;
    // With its own release, so that the update is still open for the backend.
    told(
        &device,
        &[
            (Updating, 100, None),
            (Present, 100, None),
            (Starting, 100, None),
            (Running, 100, None),
        ],
    )
    .await;
    assert_eq!(image_of(&device), Some(device.image("1.0")));
    // The start of the old version has not wiped out why.
    device
        .logged("The app failed to start, reason: the container has exited")
        .await;
    device.logged("version 1.0 stays").await;
}

#[tokio::test]
async fn what_a_version_said_before_it_ended_stays_in_the_log() {
    // At once, and while it is being proved.
    for pause in [0, 1] {
        let script = format!("sleep {pause}; seq 1 60; echo the port is gone; exit 3");
        let (_registry, device) = running(Some(&script)).await;
        ask(&device, Running, json!({})).await;
        device.reports(&[Updating, Present, Starting, Running]).await;
        let log = device.logs.history(device.app, &device.app_name).await;
        let mut said: Vec<String> = (1..=60).map(|number| number.to_string()).collect();
        said.push("the port is gone".to_owned());
        let begin = log.iter().position(|line| line == "1");
        let begin = begin.unwrap_or_else(|| panic!("nothing of what it said: {log:#?}"));
        assert_eq!(log[begin..begin + said.len()], said);
        let after = &log[begin + said.len()..];
        assert!(
            after[0].starts_with("The app failed to start, reason: "),
            "{after:#?}"
        );
        assert!(!after.contains(&"1".to_owned()), "twice: {after:#?}");
    }
}

#[tokio::test]
async fn an_update_that_cannot_be_fetched_leaves_the_app_alone_even_over_a_restart() {
    let (_registry, mut device) = running(None).await;
    let id = device.container_id();
    ask(&device, Running, json!({})).await;
    device.reports(&[Updating, Running]).await;
    device.logged("The update to version 2.0 failed").await;
    assert_eq!(device.container_id(), id, "it has never stopped");

    // Without a connection the installed version starts as if nothing else was wanted.
    device.restart(|device| docker::remove(&device.container())).await;
    wait::until_async("it runs again", SOON, || async {
        (device.reported().await.last() == Some(&Running)).then_some(())
    })
    .await;
    assert_eq!(image_of(&device), Some(device.image("1.0")));
}

/// A device that runs version 1.0 and whose registry takes connections and never says anything.
async fn hanging() -> (tokio::net::TcpListener, Device, tokio::net::TcpStream) {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let device = Device::with(Stage::Prod, Some(&address), None).await;
    device.connect().await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    ask(&device, Running, json!({})).await;
    device.reports(&[Updating]).await;
    let (connection, _) = tokio::time::timeout(SOON, silent.accept())
        .await
        .expect("Docker asks the registry")
        .unwrap();
    (silent, device, connection)
}

#[tokio::test]
async fn a_canceled_update_ends_at_once_and_is_not_tried_again_by_itself() {
    let (_silent, mut device, _connection) = hanging().await;
    let id = device.container_id();
    let cancel = json!({"cancel_transition": true});
    ask(&device, Running, cancel).await;
    told(
        &device,
        &[
            (Running, 100, UpdateStatus::Canceled),
            // The answer to whoever asked.
            (Running, 100, UpdateStatus::Canceled),
        ],
    )
    .await;
    device.logged("The update was canceled").await;
    assert_eq!(device.container_id(), id);
    // Neither a restart nor the backend's list, which still has it, brings it back.
    device.restart(|_| {}).await;
    device.connect().await;
    let rows = vec![update(&device, Running, json!({}))];
    device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
    device.apps.report_all().await.unwrap();
    device.reports(&[Running]).await;
    assert_eq!(device.container_id(), id);
    // Only who asks again gets it.
    ask(&device, Running, json!({})).await;
    device.reports(&[Updating]).await;
}

#[tokio::test]
async fn an_app_that_shall_go_does_not_wait_for_its_update() {
    let (_silent, device, _connection) = hanging().await;
    device.request(Uninstalled).await;
    device.reports(&[Running, Deleting, Removed, Uninstalled]).await;
    assert_eq!(docker::count(&device.container()), 0);
}
