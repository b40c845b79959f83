//! Docker and the registry in trouble: each ends in the right state, is said in the app's log, and heals by itself.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::io::Read as _;
use std::net::TcpListener;

use protocol::AppState::{Deleting, Downloading, Failed, Present, Removed, Running, Starting, Uninstalled};
use protocol::{AppState, Stage};
use serde_json::json;
use testkit::docker::daemon::Daemon;
use testkit::docker::proxy::Proxy;
use testkit::registry::Registry;
use testkit::{docker, wait};

use crate::device::{Device, FOREVER, SECRET, SOON, TOKEN};

/// Waits until this is the newest report; returns all that came before it.
async fn ends_as(device: &Device, state: AppState) -> Vec<AppState> {
    let reported = wait::until_async(&format!("{state} is reported"), 2 * SOON, || async {
        let reported = device.reported().await;
        (reported.last() == Some(&state)).then_some(reported)
    })
    .await;
    device.confirm().await;
    reported
}

#[tokio::test]
async fn what_was_asked_for_without_docker_is_done_when_it_comes() {
    let proxy = Proxy::absent();
    let device = Device::with(Stage::Prod, None, Some(&proxy.host())).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    proxy.appear();
    assert!(!ends_as(&device, Running).await.contains(&Failed));
    assert_eq!(docker::count(&device.container()), 1);
}

#[tokio::test]
async fn a_docker_that_goes_away_takes_its_apps_along_and_brings_them_back() {
    let proxy = Proxy::absent();
    proxy.appear();
    let device = Device::with(Stage::Prod, None, Some(&proxy.host())).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let id = device.container_id();

    proxy.vanish();
    docker::stop(&device.container());
    proxy.appear();
    // At once, without the back-off of a crash, and not counted as one.
    assert_eq!(ends_as(&device, Running).await, [Failed, Starting, Running]);
    let log = device.logs.history(device.app, &device.app_name).await;
    assert!(!log.iter().any(|line| line.contains("crashloop")), "{log:?}");
    assert_ne!(device.container_id(), id);

    proxy.vanish();
    device.request(Present).await;
    proxy.appear();
    assert!(!ends_as(&device, Present).await.contains(&Failed));
    assert_eq!(docker::count(&device.container()), 0);
}

#[tokio::test]
async fn a_docker_that_hangs_is_waited_for() {
    let proxy = Proxy::absent();
    proxy.appear();
    let device = Device::with(Stage::Prod, None, Some(&proxy.host())).await;
    device.install("1.0", FOREVER);
    device.request(Present).await;
    assert_eq!(ends_as(&device, Present).await.last(), Some(&Present));

    proxy.freeze();
    device.request(Running).await;
    // Known without Docker.
    device.logged("Starting").await;
    device.logged("waiting for Docker").await;
    proxy.thaw();
    let reported = ends_as(&device, Running).await;
    assert!(!reported.contains(&Failed), "{reported:?}");
    assert_eq!(docker::count(&device.container()), 1);
}

#[tokio::test]
async fn a_registry_that_refuses_the_login_is_asked_again_later() {
    let registry = Registry::start();
    registry.add_user("publisher", "p");
    let device = Device::with(Stage::Prod, Some(&registry.address()), None).await;
    let local = device.scope.image("source", FOREVER);
    let reference = device.image("1.0");
    let name = reference
        .strip_prefix(&format!("{}/", registry.address()))
        .unwrap();
    registry.push(&local, name, "publisher", "p");
    device.connect().await;
    device.request(Running).await;
    device.reports(&[Starting, Failed]).await;
    device
        .logged("Error occured while trying to pull the image: ")
        .await;
    let log = device.logs.history(device.app, &device.app_name).await;
    assert!(!log.iter().any(|line| line.contains(SECRET)), "{log:?}");
    registry.add_user(TOKEN, SECRET);
    assert_eq!(ends_as(&device, Running).await.last(), Some(&Running));
}

#[tokio::test]
async fn a_host_port_that_somebody_else_holds_is_replaced_by_the_next_free_one() {
    let (taken, port) = (41_000..49_000)
        .rev()
        .find_map(|port| Some((TcpListener::bind(("0.0.0.0", port)).ok()?, port)))
        .unwrap();
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    let rule = json!({"port": 8080, "host_port": port});
    let request = device.wanted(Running, json!({"ports": [rule]}));
    device.apps.request(request).await.unwrap();
    let reported = ends_as(&device, Running).await;
    assert!(!reported.contains(&Failed), "{reported:?}");
    let bound = docker::inspect(&device.container(), "{{json .HostConfig.PortBindings}}").unwrap();
    assert!(bound.contains("\"HostPort\":\"4"), "{bound}");
    assert!(!bound.contains(&port.to_string()), "{bound}");
    drop(taken);
}

#[tokio::test]
async fn uninstalling_an_app_leaves_the_data_of_its_namesake() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    // Directories bear the app's name alone, in lower case.
    let key = device.app.key + (1 << 40);
    let namesake = |target| {
        let name = device.app_name.to_uppercase();
        device.wanted(
            target,
            json!({"app_key": key, "app_name": name, "current_state": "PRESENT"}),
        )
    };
    let image = device
        .image("1.0")
        .replace(&device.app.key.to_string(), &key.to_string());
    docker::tag(
        &device.image("1.0"),
        &image.replace(&format!("app{key}"), &device.app_name.to_lowercase()),
    );
    device.apps.request(namesake(Present)).await.unwrap();
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let data = device.path(&format!("prod/{}", device.app_name.to_lowercase()));
    std::fs::write(data.join("precious"), "shared by name").unwrap();
    device.request(Uninstalled).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert!(data.join("precious").exists(), "its namesake is still here");
    device.apps.request(namesake(Uninstalled)).await.unwrap();
    wait::until_async("the last of them takes the data along", SOON, || async {
        (!data.exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_foreign_container_with_the_apps_name_is_never_touched() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    let foreign = device.container();
    docker::docker(&["run", "--detach", "--name", &foreign, &device.image("1.0")]).unwrap();
    let id = device.container_id();
    device.request(Running).await;
    let reported = ends_as(&device, Failed).await;
    assert!(!reported.contains(&Running), "{reported:?}");
    device.logged("is already in use by container").await;
    for target in [Present, Running, Removed] {
        device.request(target).await;
        let end = if target == Running { Failed } else { target };
        ends_as(&device, end).await;
    }
    let now = docker::inspect(&foreign, "{{.Id}}");
    assert_eq!(now, id);
    let state = docker::inspect(&foreign, "{{.State.Running}} {{.State.StartedAt}}").unwrap();
    assert!(state.starts_with("true"), "{state}");
    assert_eq!(docker::images_of(&device.image("1.0")).len(), 1, "it is in use");
}

/// Pushes the app's image and returns the device that shall have it.
pub(crate) async fn published(registry: &Registry, docker_host: Option<&str>) -> Device {
    registry.add_user(TOKEN, SECRET);
    let device = Device::with(Stage::Prod, Some(&registry.address()), docker_host).await;
    let local = device.scope.image("source", FOREVER);
    let reference = device.image("1.0");
    let name = reference
        .strip_prefix(&format!("{}/", registry.address()))
        .unwrap();
    registry.push(&local, name, TOKEN, SECRET);
    docker::remove_image(&local);
    device.connect().await;
    device
}

#[tokio::test]
async fn a_damaged_layer_is_named_and_fetched_again_when_it_is_mended() {
    let mut daemon = match Daemon::start(100) {
        Ok(daemon) => daemon,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let registry = Registry::start();
    let device = published(&registry, Some(&daemon.host())).await;
    let (layer, before) = registry.damage_a_layer();
    device.request(Present).await;
    assert_eq!(ends_as(&device, Failed).await, [Downloading, Failed]);
    device.logged("verification failed").await;
    std::fs::write(layer, before).unwrap();
    // By itself, after the first back-off.
    assert!(ends_as(&device, Present).await.contains(&Downloading));
    assert!(daemon.docker(&["images", "-q"]).unwrap().lines().count() == 1);
    daemon.kill();
}

#[tokio::test]
async fn a_full_disk_is_named_and_the_image_fetched_when_there_is_space() {
    let daemon = match Daemon::start(100) {
        Ok(daemon) => daemon,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let registry = Registry::start();
    let device = published(&registry, Some(&daemon.host())).await;
    let filler = daemon.data().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let full = std::io::copy(&mut std::io::repeat(0).take(1 << 30), &mut file);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    device.request(Present).await;
    assert_eq!(ends_as(&device, Failed).await.last(), Some(&Failed));
    device.logged("no space left on device").await;
    std::fs::remove_file(filler).unwrap();
    assert_eq!(ends_as(&device, Present).await.last(), Some(&Present));
}

#[tokio::test]
async fn a_docker_that_is_killed_during_a_download_goes_on_with_it() {
    let mut daemon = match Daemon::start(100) {
        Ok(daemon) => daemon,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    // Accepts connections and never says anything.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let device = Device::with(Stage::Prod, Some(&address), Some(&daemon.host())).await;
    device.connect().await;
    device.request(Present).await;
    let asked = async || {
        let accepted = tokio::time::timeout(SOON, silent.accept()).await;
        accepted.expect("Docker asks the registry").unwrap()
    };
    let first = asked().await;
    daemon.kill();
    device.logged("waiting for Docker").await;
    drop(first);
    daemon.up();
    let _second = asked().await;
    assert!(
        !device.reported().await.contains(&Failed),
        "nothing is wrong with the app"
    );
}

#[tokio::test]
async fn a_health_check_that_fails_and_one_that_is_fulfilled_again_are_said() {
    let device = Device::start(Stage::Prod).await;
    let script = serde_json::json!(["/bin/sh", "-c", ": > /well; while :; do sleep 0.1; done"]);
    docker::import(
        &device.image("1.0"),
        &[
            &format!("CMD {script}"),
            "HEALTHCHECK --interval=1s --retries=1 CMD [ -e /well ] || { echo feeling bad; exit 1; }",
        ],
    );
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    docker::docker(&["exec", &device.container(), "busybox", "rm", "/well"]).unwrap();
    device
        .logged(&format!("{} (PROD) is unhealthy: feeling bad", device.app_name))
        .await;
    docker::docker(&["exec", &device.container(), "busybox", "touch", "/well"]).unwrap();
    device
        .logged(&format!("{} (PROD) is healthy again", device.app_name))
        .await;
    assert_eq!(device.reported().await, [], "it runs all the time");
}

#[tokio::test]
async fn an_app_that_runs_out_of_memory_is_said_to_have() {
    let device = Device::start(Stage::Prod).await;
    device.install(
        "1.0",
        "while [ ! -e /greedy ]; do sleep 0.1; done; exec busybox tail /dev/zero",
    );
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let limit = ["update", "--memory", "8m", "--memory-swap", "8m"];
    docker::docker(&[&limit[..], &[&device.container()]].concat()).unwrap();
    docker::docker(&["exec", &device.container(), "busybox", "touch", "/greedy"]).unwrap();
    device
        .logged(&format!("{} (PROD) ran out of memory", device.app_name))
        .await;
    device
        .logged(&format!(
            "{} (PROD) exited with status code: 137",
            device.app_name
        ))
        .await;
}
