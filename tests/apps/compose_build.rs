//! Compose apps in development: building and publishing (`app-lifecycle.md` 3.5 "build – compose", "publish – compose").
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{
    Building, Built, Deleting, Failed, Present, Published, Publishing, Removed, Running, Starting,
    Uninstalled,
};
use protocol::Stage;
use serde_json::{Value, json};
use testkit::archive::tgz;
use testkit::registry::Registry;
use testkit::{docker, wait};

use crate::compose::Stack;
use crate::device::{Device, FOREVER, SECRET, SOON, TOKEN};

/// Uploads a project with one service that is built by `steps` on top of an image that is here.
fn upload(stack: &Stack, steps: &str) {
    let base = format!("{}:latest", stack.device.scope.name("base"));
    if docker::images_of(&base).is_empty() {
        docker::import_busybox(&base, FOREVER);
    }
    let label = &stack.device.app_name;
    let dockerfile = format!("FROM {base}\nLABEL scope={label}\n{steps}\n");
    let files = [
        ("web/Dockerfile", dockerfile.as_str()),
        ("authored.env", "AUTHORED=yes\nENV=overridden\n"),
    ];
    let path = stack.device.path(&format!("build/{}.tgz", stack.device.app_name));
    std::fs::write(path, tgz(&files)).unwrap();
}

fn remove_layers(stack: &Stack) {
    let filter = format!("label=scope={}", stack.device.app_name);
    docker::docker(&["image", "prune", "-f", "--filter", &filter]).unwrap();
}

/// A document with a built service under `image`, and one whose image is there.
fn document(stack: &Stack, image: &str) -> Value {
    let other = format!("{}:latest", stack.device.scope.name("other"));
    docker::import_busybox(&other, FOREVER);
    json!({"services": {
        "web": {"build": "./web", "image": image, "env_file": "authored.env"},
        "other": {"image": other},
    }})
}

#[tokio::test]
async fn an_uploaded_project_is_built_run_and_built_again() {
    let stack = Stack::start(Stage::Dev).await;
    let device = &stack.device;
    let image = format!("{}:latest", device.scope.name("built"));
    let port = wait::free_port();
    let mut compose = document(&stack, &image);
    compose["services"]["web"]["ports"] = json!([format!("{port}:80")]);
    upload(&stack, "RUN echo one > /version");
    stack.request(Built, &compose).await;
    device.reports(&[Removed, Building, Built, Present]).await;
    device.logged("Compose Image built successfully").await;

    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;
    let version = || docker::docker(&["exec", &stack.container("web").unwrap(), "cat", "/version"]).unwrap();
    assert_eq!(version(), "one");
    let inspect = |format: &str| docker::inspect(&stack.container("web").unwrap(), format).unwrap();
    // A DEV app is reached where its author said.
    let bindings = inspect("{{json .HostConfig.PortBindings}}");
    assert!(
        bindings.contains(&format!("\"HostPort\":\"{port}\"")),
        "{bindings}"
    );
    let env = inspect("{{json .Config.Env}}");
    assert!(
        env.contains("\"AUTHORED=yes\"") && env.contains("\"ENV=DEV\""),
        "{env}"
    );

    upload(&stack, "RUN echo two > /version");
    stack.request(Built, &compose).await;
    wait::until_async("it is built again", SOON, || async {
        (device.reported().await.last() == Some(&Present) && device.reported().await.contains(&Built))
            .then_some(())
    })
    .await;
    device.confirm().await;
    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;
    assert_eq!(version(), "two");

    stack.request(Uninstalled, &compose).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert_eq!(stack.leftovers(), [0, 0, 0]);
    assert!(!device.path(&format!("build/{}", device.app_name)).exists());
    remove_layers(&stack);
}

#[tokio::test]
async fn a_build_that_fails_says_why_and_one_that_hangs_is_canceled() {
    let stack = Stack::start(Stage::Dev).await;
    let device = &stack.device;
    let image = format!("{}:latest", device.scope.name("built"));
    let compose = document(&stack, &image);
    stack.request(Built, &compose).await;
    device.reports(&[Removed, Building, Failed]).await;
    device.logged("Build files for app not found: ").await;

    upload(&stack, "RUN echo this goes wrong; exit 7");
    stack.request(Built, &compose).await;
    device.reports(&[Removed, Building, Failed]).await;
    device.logged("docker compose build failed: exit status ").await;

    let steps = format!("label=scope={}", device.app_name);
    let left = docker::docker(&["ps", "-aq", "--filter", &steps]).unwrap();
    assert_eq!(left, "", "a failed step leaves no container behind");

    upload(&stack, "RUN echo begun; while :; do sleep 1; done");
    stack.request(Built, &compose).await;
    device.reports(&[Removed, Building]).await;
    device.logged("begun").await;
    stack.request(Removed, &compose).await;
    device.reports(&[Removed]).await;
    assert!(
        device.store.apps().await.unwrap().is_empty(),
        "it is gone as asked"
    );
    remove_layers(&stack);
}

#[tokio::test]
async fn a_release_is_built_and_pushed_with_the_images_that_come_from_elsewhere() {
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let elsewhere = Registry::start();
    elsewhere.add_user("guest", "guests-secret");
    let stack = Stack::of(Device::with(Stage::Dev, Some(&registry.address()), None).await);
    let device = &stack.device;
    device.connect().await;
    let local = stack.image("source", FOREVER);
    let source = elsewhere.push(&local, "their/db:5", "guest", "guests-secret");
    docker::remove_image(&local);
    let (web, db) = (
        format!("{}/apps/web:2.0.0", registry.address()),
        format!("{}/apps/db:2.0.0", registry.address()),
    );
    let mut compose = document(&stack, &web);
    compose["services"]["db"] = json!({"image": db, "x-source-image": source});
    upload(&stack, "RUN echo released > /version");
    let credentials = json!({elsewhere.address(): {"username": "guest", "password": "guests-secret"}});
    let members = json!({"version": "2.0.0", "docker_credentials": credentials});
    let request = stack.wanted(Published, &compose, members);
    device.apps.request(request).await.unwrap();
    device
        .reports(&[Removed, Building, Built, Publishing, Published])
        .await;
    assert!(registry.has(&web), "what was built is in the registry");
    assert!(registry.has(&db), "what came from elsewhere is in the registry");
    remove_layers(&stack);
}
