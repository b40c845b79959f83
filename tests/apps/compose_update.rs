//! Updates of compose apps (`app-lifecycle.md` 3.5 "update – compose", W9, W13).
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{Deleting, Present, Removed, Running, Starting, Stopping, Uninstalled, Updating};
use protocol::{AppRequest, AppState, Stage};
use reagent::app::Sync;
use serde_json::{Value, json};
use testkit::registry::Registry;
use testkit::{docker, wait};

use crate::compose::Stack;
use crate::device::{Device, FOREVER, LAST_WORDS, SECRET, SOON, TOKEN};

/// A stack that runs version 1.0, and the documents of both versions; the newer one is in the registry only.
struct Update {
    _registry: Registry,
    stack: Stack,
    old: Value,
    new: Value,
}

async fn running(newer: &str) -> Update {
    replacing(FOREVER, newer).await
}

async fn replacing(older: &str, newer: &str) -> Update {
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let stack = Stack::of(Device::with(Stage::Prod, Some(&registry.address()), None).await);
    let reference = |version: &str| format!("{}/apps/web:{version}", registry.address());
    let local = stack.image("newer", newer);
    registry.push(&local, "apps/web:2.0", TOKEN, SECRET);
    docker::remove_image(&local);
    docker::import_busybox(&reference("1.0"), older);
    let document = |version: &str| {
        json!({
            "services": {"web": {"image": reference(version), "volumes": ["state:/state"]}},
            "volumes": {"state": {}},
        })
    };
    let (old, new) = (document("1.0"), document("2.0"));
    stack.device.connect().await;
    stack.request(Running, &old).await;
    stack.device.reports(&[Starting, Running]).await;
    Update {
        _registry: registry,
        stack,
        old,
        new,
    }
}

impl Update {
    fn wanted(&self, target: AppState, members: Value) -> AppRequest {
        let mut all = json!({
            "request_update": true, "newest_version": "2.0", "new_release_key": 101, "current_state": "RUNNING",
            "new_docker_compose": self.new,
        });
        let (Value::Object(all_of_them), Value::Object(members)) = (&mut all, members) else {
            unreachable!()
        };
        all_of_them.extend(members);
        self.stack.wanted(target, &self.old, all)
    }

    async fn update(&self) {
        let request = self.wanted(Running, json!({}));
        self.stack.device.apps.request(request).await.unwrap();
    }

    fn image(&self) -> Option<String> {
        let web = self.stack.container("web")?;
        docker::inspect(&web, "{{.State.Running}} {{.Config.Image}}")
    }

    async fn stored(&self) -> AppRequest {
        let requests = self.stack.device.store.requests().await.unwrap();
        requests.into_iter().next().unwrap()
    }
}

#[tokio::test]
async fn a_project_is_replaced_when_the_new_images_are_there_and_keeps_its_volumes() {
    let mut updating = replacing(LAST_WORDS, &format!("echo two; {FOREVER}")).await;
    updating.update().await;
    let device = &updating.stack.device;
    device.reports(&[Updating, Present, Starting, Running]).await;
    let image = updating.image().unwrap();
    assert!(image.starts_with("true ") && image.ends_with(":2.0"), "{image}");
    assert_eq!(updating.stack.leftovers()[..2], [1, 1]);
    let now = format!("Now running app {} (2.0)", device.app_name);
    device.said_all_before(&now).await;
    let stored = updating.stored().await;
    assert_eq!(
        (stored.present_version.as_str(), stored.release_key),
        ("2.0", 101)
    );
    assert_eq!(
        stored.docker_compose.map(Value::Object),
        Some(updating.new.clone())
    );
    let next = device.path(&format!("compose/{}/docker-compose.next.json", device.app_name));
    assert!(!next.exists());

    // A restart starts what is installed now.
    let web = updating.stack.container("web");
    updating.stack.device.restart(|_| {}).await;
    let request = updating.wanted(Uninstalled, json!({}));
    wait::until_async("the same project is known again", SOON, || async {
        (updating.stack.container("web") == web).then_some(())
    })
    .await;
    updating.stack.device.apps.request(request).await.unwrap();
    updating
        .stack
        .device
        .reports(&[Deleting, Removed, Uninstalled])
        .await;
    assert_eq!(updating.stack.leftovers(), [0, 0, 0]);
}

#[tokio::test]
async fn a_row_that_is_older_than_the_update_does_not_bring_the_old_document_back() {
    let mut updating = running(FOREVER).await;
    updating.update().await;
    let reports = [Updating, Present, Starting, Running];
    updating.stack.device.reports(&reports).await;
    // Twice: what the first one leaves in the database is what the second start knows.
    for _ in 0..2 {
        let device = &updating.stack.device;
        let rows = vec![updating.wanted(Present, json!({}))];
        device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
        device.reports(&[Stopping, Present]).await;
        let stored = updating.stored().await;
        assert_eq!(
            stored.docker_compose.map(Value::Object).as_ref(),
            Some(&updating.new)
        );
        updating.stack.device.restart(|_| {}).await;
        updating.stack.device.connect().await;
        let device = &updating.stack.device;
        let rows = vec![updating.wanted(Running, json!({}))];
        device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
        device.reports(&[Starting, Running]).await;
        let image = updating.image().unwrap();
        assert!(image.starts_with("true ") && image.ends_with(":2.0"), "{image}");
    }
}

#[tokio::test]
async fn a_version_that_does_not_run_gives_way_to_the_one_before() {
    let updating = running("echo broken; exit 7").await;
    updating.update().await;
    let device = &updating.stack.device;
    device.reports(&[Updating, Present, Starting, Running]).await;
    let image = updating.image().unwrap();
    assert!(image.starts_with("true ") && image.ends_with(":1.0"), "{image}");
    device
        .logged("The update to version 2.0 failed: service web exited with status code: 7; version 1.0 stays")
        .await;
    let stored = updating.stored().await;
    assert_eq!(
        (stored.present_version.as_str(), stored.release_key),
        ("1.0", 100)
    );
    assert_eq!(
        stored.docker_compose.map(Value::Object),
        Some(updating.old.clone())
    );
}

#[tokio::test]
async fn what_a_version_said_before_it_ended_stays_in_the_log() {
    // At once, and while it is being proved; more than the end of its log.
    for pause in [0, 2] {
        let updating = running(&format!("sleep {pause}; seq 1 60; echo the port is gone; exit 7")).await;
        updating.update().await;
        let device = &updating.stack.device;
        device.reports(&[Updating, Present, Starting, Running]).await;
        let log = device.logs.history(device.app, &device.app_name).await;
        let of_web = |line: String| {
            let (service, text) = line.split_once(" | ")?;
            service.starts_with("web").then(|| text.trim().to_owned())
        };
        let said: Vec<String> = log.iter().cloned().filter_map(of_web).collect();
        let mut expected: Vec<String> = (1..=60).map(|number| number.to_string()).collect();
        expected.push("the port is gone".to_owned());
        let begin = said.iter().position(|line| line == "1");
        let begin = begin.unwrap_or_else(|| panic!("nothing of what it said: {log:#?}"));
        assert_eq!(said[begin..begin + expected.len()], expected, "{log:#?}");
        let after = &said[begin + expected.len()..];
        assert!(!after.contains(&"1".to_owned()), "twice: {log:#?}");
    }
}

#[tokio::test]
async fn a_version_that_cannot_be_fetched_leaves_the_running_one_alone() {
    let mut updating = running(FOREVER).await;
    let missing = json!({"services": {"web": {"image": updating.new["services"]["web"]["image"]
        .as_str().unwrap().replace(":2.0", ":3.0")}}});
    updating.new = missing;
    let web = updating.stack.container("web");
    updating.update().await;
    let device = &updating.stack.device;
    device.reports(&[Updating, Running]).await;
    device.logged("The update to version 2.0 failed: ").await;
    assert_eq!(updating.stack.container("web"), web);
}

#[tokio::test]
async fn an_update_that_is_canceled_leaves_the_running_version_alone() {
    // Takes the connection and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut updating = running(FOREVER).await;
    let image = format!("{}/apps/web:2.0", silent.local_addr().unwrap());
    updating.new = json!({"services": {"web": {"image": image}}});
    let web = updating.stack.container("web");
    updating.update().await;
    let device = &updating.stack.device;
    device.reports(&[Updating]).await;
    let (_connection, _) = tokio::time::timeout(SOON, silent.accept())
        .await
        .expect("the registry is asked")
        .unwrap();
    let cancel = updating.wanted(Running, json!({"cancel_transition": true}));
    device.apps.request(cancel).await.unwrap();
    device.logged("The update was canceled").await;
    device.reports(&[Running, Running]).await;
    assert_eq!(updating.stack.container("web"), web);
}
