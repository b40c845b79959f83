//! Compose apps in trouble: Docker that goes away, ports that are taken, names that change, a backend that forgets.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::net::TcpListener;

use protocol::AppState::{Deleting, Downloading, Failed, Present, Removed, Running, Starting, Uninstalled};
use protocol::{Stage, naming};
use reagent::app::Sync;
use serde_json::{Value, json};
use testkit::docker::proxy::Proxy;
use testkit::{docker, wait};

use crate::compose::{Stack, web};
use crate::device::{Device, FOREVER, SOON};

#[tokio::test]
async fn a_download_that_docker_goes_away_under_waits_for_it() {
    let proxy = Proxy::absent();
    proxy.appear();
    // Takes the connection and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = silent.local_addr().unwrap().to_string();
    let stack = Stack::of(Device::with(Stage::Prod, Some(&registry), Some(&proxy.host())).await);
    let device = &stack.device;
    device.connect().await;
    let image = format!("{registry}/apps/web:1.0");
    stack.request(Running, &web(&image)).await;
    device.reports(&[Downloading]).await;
    let (_connection, _) = tokio::time::timeout(SOON, silent.accept())
        .await
        .expect("the registry is asked")
        .unwrap();
    proxy.vanish();
    device.logged("waiting for Docker").await;
    docker::import_busybox(&image, FOREVER);
    proxy.appear();
    let reported = wait::until_async("it runs", SOON, || async {
        let reported = device.reported().await;
        (reported.last() == Some(&Running)).then_some(reported)
    })
    .await;
    assert!(!reported.contains(&Failed), "{reported:?}");
    assert!(stack.container("web").is_some());
}

#[tokio::test]
async fn a_host_port_that_somebody_else_holds_is_replaced() {
    let (taken, port) = (41_000..49_000)
        .rev()
        .find_map(|port| Some((TcpListener::bind(("0.0.0.0", port)).ok()?, port)))
        .unwrap();
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    let compose = json!({"services": {"web": {"image": image, "ports": ["8080:80"]}}});
    let rules = json!([{"port": 8080, "active": false, "host_port": port}]);
    let request = stack.wanted(Running, &compose, json!({"ports": rules}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Starting, Running]).await;
    let web = stack.container("web").unwrap();
    let found = docker::inspect(&web, "{{json .HostConfig.PortBindings}}").unwrap();
    assert!(!found.contains(&format!("\"{port}\"")), "{found}");
    assert!(found.contains("\"HostPort\":\"4"), "{found}");
    drop(taken);
}

#[tokio::test]
async fn a_renamed_app_leaves_nothing_under_its_old_name() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    stack.request(Running, &web(&image)).await;
    device.reports(&[Starting, Running]).await;
    let new_name = format!("{}-new_name", device.app_name);
    let renamed = Stack::of_name(&stack, &new_name);
    let members = json!({"app_name": new_name});
    let request = stack.wanted(Present, &web(&image), members.clone());
    device.apps.request(request).await.unwrap();
    device.reports(&[Present]).await;
    let request = stack.wanted(Running, &web(&image), members.clone());
    device.apps.request(request).await.unwrap();
    wait::until_async("it runs under its new name", SOON, || async {
        docker::docker(&["ps", "-q", "--filter", &renamed])
            .is_ok_and(|found| !found.is_empty())
            .then_some(())
    })
    .await;
    assert_eq!(stack.leftovers(), [0, 0, 0]);
    assert!(!device.path(&format!("compose/{}", device.app_name)).exists());
    device.confirm().await;
    let request = stack.wanted(Uninstalled, &web(&image), members);
    device.apps.request(request).await.unwrap();
    wait::until_async("it is gone", SOON, || async {
        (device.reported().await.last() == Some(&Uninstalled)).then_some(())
    })
    .await;
    let left = docker::docker(&["ps", "-aq", "--filter", &renamed]).unwrap();
    assert_eq!(left, "");
}

impl Stack {
    /// The filter for the project that the app has under another name.
    fn of_name(stack: &Stack, name: &str) -> String {
        let project = naming::compose_project(stack.device.app, name);
        format!("label=com.docker.compose.project={project}")
    }
}

#[tokio::test]
async fn a_compose_app_that_is_the_only_one_unlisted_is_uninstalled() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    let compose = json!({
        "services": {"web": {"image": image, "volumes": ["state:/state"]}}, "volumes": {"state": {}},
    });
    let others: Vec<_> = [1, 2]
        .map(|offset| {
            let key = device.app.key + (offset << 40);
            let members = json!({"app_key": key, "stage": "DEV", "current_state": "PRESENT"});
            device.wanted(Present, members)
        })
        .into();
    for other in &others {
        device.apps.request(other.clone()).await.unwrap();
    }
    let rows = [vec![stack.wanted(Running, &compose, json!({}))], others.clone()].concat();
    device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
    device.reports(&[Starting, Running]).await;
    let rows = others;
    device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
    wait::until_async("the app is gone", SOON, || async {
        let known = device.apps.known().await;
        known.iter().all(|(app, _)| *app != device.app).then_some(())
    })
    .await;
    assert_eq!(stack.leftovers(), [0, 0, 0]);
    assert!(!device.path(&format!("compose/{}", device.app_name)).exists());
}

#[tokio::test]
async fn a_pausing_service_is_woken_and_a_lost_project_is_a_crash() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    stack.request(Running, &web(&image)).await;
    device.reports(&[Starting, Running]).await;
    let id = stack.container("web").unwrap();
    docker::docker(&["pause", &id]).unwrap();
    wait::until_async("it is woken", SOON, || async {
        let status = docker::inspect(&id, "{{.State.Status}}");
        (status.as_deref() == Some("running")).then_some(())
    })
    .await;
    docker::remove(&id);
    device.reports(&[Present]).await;
    device
        .logged("Entered a crashloop (1st attempt), retrying in ")
        .await;
    device.reports(&[Starting, Running]).await;
    assert_ne!(stack.container("web").unwrap(), id);
}

#[tokio::test]
async fn a_service_that_ends_while_others_run_is_told_in_the_log() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    let compose: Value = json!({"services": {"web": {"image": image}, "db": {"image": image}}});
    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;
    docker::kill(&stack.container("db").unwrap());
    device.logged("service db exited with status code: 137").await;
    assert_eq!(device.reported().await, [], "the app runs on");
    stack.request(Removed, &compose).await;
    device.reports(&[Deleting, Removed]).await;
}
