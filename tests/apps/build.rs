//! Apps in development: building, publishing, canceling (`app-lifecycle.md` 3.5 "build", "publish").
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{
    Building, Built, Deleting, Failed, Present, Published, Publishing, Removed, Running, Starting, Stopping,
    Uninstalled,
};
use protocol::{AppId, AppRequest, AppState, Stage, naming};
use reagent::app::RequestError;
use reagent::system::platform::build_arch;
use serde_json::json;
use testkit::archive::tgz;
use testkit::docker;
use testkit::registry::Registry;
use testkit::wait;

use crate::device::{Device, FOREVER, SECRET, SOON, TOKEN};

/// Uploads what is built: `steps` on top of a base image that is here.
pub(crate) fn upload(device: &Device, steps: &str) {
    let base = format!("{}:latest", device.scope.name("base"));
    if docker::images_of(&base).is_empty() {
        docker::import_busybox(&base, FOREVER);
    }
    // Whatever is left of a build that was cut off bears the app's label.
    let dockerfile = format!("FROM {base}\nLABEL scope={}\n{steps}\n", device.app_name);
    let path = device.path(&format!("build/{}.tgz", device.app_name));
    std::fs::write(path, tgz(&[("Dockerfile", &dockerfile)])).unwrap();
}

pub(crate) fn remove_layers(device: &Device) {
    let filter = format!("label=scope={}", device.app_name);
    docker::docker(&["image", "prune", "-f", "--filter", &filter]).unwrap();
}

fn steps_running(device: &Device) -> usize {
    let filter = format!("label=scope={}", device.app_name);
    let found = docker::docker(&["ps", "-q", "--filter", &filter]).unwrap();
    found.lines().count()
}

pub(crate) fn publication(device: &Device, version: &str) -> AppRequest {
    device.wanted(Published, json!({"version": version}))
}

fn release(device: &Device, registry: &str, version: &str) -> String {
    let app = AppId {
        stage: Stage::Prod,
        ..device.app
    };
    let registry = format!("{registry}/");
    let name = naming::registry_image(&registry, "apps/", app, build_arch(), &device.app_name);
    format!("{name}:{version}")
}

async fn settled_as(device: &Device, state: AppState) {
    wait::until_async(&format!("it is {state}"), SOON, || async {
        (device.reported().await.last() == Some(&state)).then_some(())
    })
    .await;
    device.confirm().await;
}

#[tokio::test]
async fn an_uploaded_archive_is_built_run_and_built_again() {
    let mut device = Device::start(Stage::Dev).await;
    upload(&device, "RUN echo one > /version");
    device.request(Built).await;
    device.reports(&[Removed, Building, Built, Present]).await;
    device.logged("Image built successfully").await;
    device.logged("Step 1/3 : FROM").await;

    // Done once: neither time nor a restart builds it again.
    device.restart(|_| {}).await;
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let version =
        |device: &Device| docker::docker(&["exec", &device.container(), "cat", "/version"]).unwrap();
    assert_eq!(version(&device), "one");
    let images = || docker::docker(&["images", "-q", "--filter", "dangling=true"]).unwrap();
    let untagged = images();

    upload(&device, "RUN echo two > /version");
    device.request(Built).await;
    device
        .reports(&[Stopping, Present, Removed, Building, Built, Present])
        .await;
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    assert_eq!(version(&device), "two");
    let left: Vec<String> = images()
        .lines()
        .filter(|id| !untagged.contains(id))
        .map(|id| docker::docker(&["inspect", "-f", "{{json .Config.Labels}}", id]).unwrap_or_default())
        .filter(|labels| labels.contains(&device.app_name))
        .collect();
    assert!(
        left.is_empty(),
        "the image of the build before has gone: {left:?}"
    );
    remove_layers(&device);
}

#[tokio::test]
async fn a_build_that_fails_says_why_and_is_not_repeated_before_somebody_asks() {
    let mut device = Device::start(Stage::Dev).await;
    device.request(Built).await;
    device.reports(&[Removed, Building, Failed]).await;
    device.logged("Build files for app not found: ").await;
    upload(&device, "RUN exit 7");
    // What a failed build came to is looked at, the build itself is not repeated.
    device.restart(|_| {}).await;
    device.reports(&[Removed]).await;
    device.request(Built).await;
    device.reports(&[Removed, Building, Failed]).await;
    device.logged("returned a non-zero code: 7").await;
    let path = device.path(&format!("build/{}.tgz", device.app_name));
    std::fs::write(&path, tgz(&[("hello", "x")])).unwrap();
    device.request(Built).await;
    device.reports(&[Removed, Building, Failed]).await;
    device
        .logged("Could not find a Dockerfile, please create a Dockerfile in the root of your project")
        .await;
    std::fs::write(&path, tgz(&[("Dockerfile", "")])).unwrap();
    device.request(Built).await;
    device.reports(&[Removed, Building, Failed]).await;
    device
        .logged("The Dockerfile cannot be empty, please fill out your Dockerfile")
        .await;
    remove_layers(&device);
}

#[tokio::test]
async fn a_build_is_canceled_at_once_when_the_app_shall_go() {
    let device = Device::start(Stage::Dev).await;
    upload(&device, "RUN echo begun; while :; do sleep 1; done");
    device.request(Built).await;
    wait::until_async("the step runs", SOON, || async {
        (steps_running(&device) == 1).then_some(())
    })
    .await;
    device.request(Removed).await;
    device.reports(&[Removed, Building, Removed]).await;
    wait::until_async("nothing of the build runs on", SOON, || async {
        (steps_running(&device) == 0).then_some(())
    })
    .await;
    assert!(
        device.store.apps().await.unwrap().is_empty(),
        "it is gone as asked"
    );

    // The same by the word: the newer wish is what counts then.
    upload(&device, "RUN while :; do sleep 1; done");
    device.request(Built).await;
    wait::until_async("the step runs", SOON, || async {
        (steps_running(&device) == 1).then_some(())
    })
    .await;
    device.confirm().await;
    let wanted = device.wanted(Present, json!({"cancel_transition": true}));
    device.apps.request(wanted).await.unwrap();
    settled_as(&device, Removed).await;
    wait::until_async("nothing of the build runs on", SOON, || async {
        (steps_running(&device) == 0).then_some(())
    })
    .await;
    remove_layers(&device);
}

#[tokio::test]
async fn a_build_that_its_own_kind_of_request_cancels_is_not_begun_again() {
    let mut device = Device::start(Stage::Dev).await;
    upload(&device, "RUN echo begun; while :; do sleep 1; done");
    device.request(Built).await;
    wait::until_async("the step runs", SOON, || async {
        (steps_running(&device) == 1).then_some(())
    })
    .await;
    device.confirm().await;
    let wanted = device.wanted(Built, json!({"cancel_transition": true}));
    device.apps.request(wanted).await.unwrap();
    settled_as(&device, Removed).await;
    wait::until_async("nothing of the build runs on", SOON, || async {
        (steps_running(&device) == 0).then_some(())
    })
    .await;
    device.restart(|_| {}).await;
    device.request(Removed).await;
    settled_as(&device, Removed).await;
    assert_eq!(steps_running(&device), 0);
    remove_layers(&device);
}

#[tokio::test]
async fn what_a_developer_uploaded_stays_when_the_released_app_goes() {
    let device = Device::start(Stage::Prod).await;
    let archive = device.path(&format!("build/{}.tgz", device.app_name));
    std::fs::write(&archive, "archive").unwrap();
    device.install("1.0", FOREVER);
    device.request(Present).await;
    settled_as(&device, Present).await;
    device.request(Uninstalled).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert!(archive.exists());
}

#[tokio::test]
async fn a_build_that_a_restart_cut_off_is_done_after_it() {
    let mut device = Device::start(Stage::Dev).await;
    upload(&device, "RUN while :; do sleep 1; done");
    device.request(Built).await;
    wait::until_async("the step runs", SOON, || async {
        (steps_running(&device) == 1).then_some(())
    })
    .await;
    device
        .restart(|device| upload(device, "RUN echo fine > /version"))
        .await;
    settled_as(&device, Present).await;
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    device.request(Removed).await;
    device.reports(&[Deleting, Removed]).await;
    remove_layers(&device);
}

#[tokio::test]
async fn a_release_is_built_and_pushed() {
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let device = Device::with(Stage::Dev, Some(&registry.address()), None).await;
    device.connect().await;
    upload(&device, "RUN echo released > /version");
    device.apps.request(publication(&device, "2.0.0")).await.unwrap();
    device
        .reports(&[Removed, Building, Built, Publishing, Published])
        .await;
    let release = release(&device, &registry.address(), "2.0.0");
    assert!(registry.has(&release), "{release} is in the registry");
    assert_eq!(device.reported().await, [], "told once");

    // A running app is taken down for it, as the reference does.
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    device.apps.request(publication(&device, "2.0.1")).await.unwrap();
    device
        .reports(&[Deleting, Removed, Removed, Building, Built, Publishing, Published])
        .await;
    remove_layers(&device);
}

#[tokio::test]
async fn a_release_that_the_registry_does_not_take_fails_and_a_hanging_one_is_canceled() {
    let registry = Registry::start();
    let device = Device::with(Stage::Dev, Some(&registry.address()), None).await;
    device.connect().await;
    upload(&device, "RUN echo released > /version");
    // The registry knows no user.
    device.apps.request(publication(&device, "2.0.0")).await.unwrap();
    device
        .reports(&[Removed, Building, Built, Publishing, Failed])
        .await;
    let error = device.apps.request(publication(&device, "")).await.unwrap_err();
    assert!(matches!(error, RequestError::Unsupported(_)), "{error}");
    drop(registry);

    // Accepts connections and never says anything.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let device = Device::with(Stage::Dev, Some(&address), None).await;
    device.connect().await;
    upload(&device, "RUN echo released > /version");
    device.apps.request(publication(&device, "2.0.0")).await.unwrap();
    let _connection = tokio::time::timeout(SOON, silent.accept())
        .await
        .expect("Docker asks the registry");
    device.request(Removed).await;
    device
        .reports(&[Removed, Building, Built, Publishing, Removed])
        .await;
    remove_layers(&device);
}

#[tokio::test]
async fn only_apps_in_development_are_built_and_published() {
    let device = Device::start(Stage::Prod).await;
    for (target, text) in [
        (Built, "can only build dev apps"),
        (Published, "can only publish dev apps"),
    ] {
        let error = device.apps.request(device.wanted(target, json!({}))).await;
        assert_eq!(error.unwrap_err().to_string(), text);
    }
    assert!(device.store.apps().await.unwrap().is_empty());
}
