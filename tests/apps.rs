//! Apps against a real Docker daemon: every story ends in containers seen from outside and in the states that a
//! client is told, in order (`app-lifecycle.md` 3.6).

#[path = "apps/build.rs"]
mod build;
#[path = "apps/change.rs"]
mod change;
#[path = "apps/compose.rs"]
mod compose;
#[path = "apps/compose_build.rs"]
mod compose_build;
#[path = "apps/compose_trouble.rs"]
mod compose_trouble;
#[path = "apps/compose_update.rs"]
mod compose_update;
#[path = "apps/device.rs"]
mod device;
#[path = "apps/pull.rs"]
mod pull;
#[path = "apps/trouble.rs"]
mod trouble;
#[path = "apps/update.rs"]
mod update;
#[path = "apps/viewer.rs"]
mod viewer;

use std::time::Duration;

use device::{Device, FOREVER, SECRET, SOON, TOKEN};
use protocol::AppState::{
    Deleting, Downloading, Failed, Present, Removed, Running, Starting, Stopping, Uninstalled,
};
use protocol::Stage;
use reagent::app::{RequestError, Sync};
use serde_json::json;
use testkit::registry::Registry;
use testkit::{docker, wait};

fn lines(device: &Device, log: &[String]) -> Vec<String> {
    log.iter()
        // Where Docker runs in a container itself, apps start with a concession.
        .filter(|line| !line.ends_with("Docker itself lacks capabilities here"))
        .map(|line| line.replace(&device.app_name, "App"))
        .collect()
}

#[tokio::test]
async fn an_app_starts_crashes_is_retried_stops_and_leaves() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let log = device.logs.history(device.app, &device.app_name).await;
    let log = lines(&device, &log);
    assert!(
        log.starts_with(&[
            "Starting App...".to_owned(),
            "Now running app App (1.0)".to_owned()
        ]),
        "{log:?}"
    );

    // A target that is reached already is reported once more and touches nothing.
    let id = device.container_id().unwrap();
    device.request(Running).await;
    device.reports(&[Running]).await;
    assert_eq!(device.container_id(), Some(id.clone()));

    docker::kill(&device.container());
    device.reports(&[Failed]).await;
    device
        .logged(&format!(
            "{} (PROD) exited with status code: 137",
            device.app_name
        ))
        .await;
    device
        .logged("Entered a crashloop (1st attempt), retrying in ")
        .await;
    device.reports(&[Starting, Running]).await;
    assert_ne!(device.container_id(), Some(id));

    device.request(Present).await;
    device.reports(&[Stopping, Stopping, Present]).await;
    assert_eq!(docker::count(&device.container()), 0);
    assert!(
        device
            .path(&format!("prod/{}", device.app_name.to_lowercase()))
            .is_dir()
    );

    device.request(Removed).await;
    device.reports(&[Deleting, Removed]).await;
    let log = device.logs.history(device.app, &device.app_name).await;
    assert_eq!(
        lines(&device, &log),
        ["Starting removal process for App...", "Successfully removed App!"]
    );
    assert!(docker::images_of(&device.image("1.0")).is_empty());
    assert!(device.store.apps().await.unwrap().is_empty());
    wait::until_async("the app is forgotten", SOON, || async {
        device.apps.known().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_container_is_made_as_the_contract_says() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.apps.set_credential_key("a2V5".to_owned()).await;
    device.apps.set_base_url("https://studio".to_owned()).await;
    let request = device.wanted(
        Running,
        json!({
            "app_cred_epoch": 3, "environment": {"A": {"value": "x"}},
            "ports": [{"port": 8080, "active": false}, {"port": "bad"}, {"port": 9, "local_ip": "10.0.0.1"}],
        }),
    );
    device.apps.request(request).await.unwrap();
    device.reports(&[Starting, Running]).await;
    let inspect = |format: &str| docker::inspect(&device.container(), format).unwrap();
    assert_eq!(inspect("{{index .Config.Labels \"real\"}}"), "True");
    let env = inspect("{{json .Config.Env}}");
    for entry in [
        "ENV=PROD",
        "A=x",
        "RESWARM_URL=https://studio",
        "APP_AUTH_SECRET=",
        "DEVICE_PORT_FOR_8080=4",
        "ws://host.docker.internal:8080/ws-re-dev",
    ] {
        assert!(env.contains(entry), "{entry} in {env}");
    }
    let bindings = inspect("{{json .HostConfig.PortBindings}}");
    assert!(
        bindings.starts_with("{\"8080/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"4"),
        "{bindings}"
    );
    let data = format!("prod/{}", device.app_name.to_lowercase());
    let mounts = inspect("{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}");
    assert!(
        mounts.contains(&format!("{}:/data", device.path(&data).display())),
        "{mounts}"
    );
    assert!(
        mounts.contains(&format!("{}:/shared", device.path("shared").display())),
        "{mounts}"
    );
    let file = device.path(&format!("{data}/env/APP_AUTH_ID.txt"));
    assert!(
        std::fs::read_to_string(file)
            .unwrap()
            .starts_with(&format!("app-{}-prod-e3@", device.app.key))
    );
}

#[tokio::test]
async fn host_ports_are_told_to_the_backend_and_survive() {
    let mut device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.connect().await;
    let declared = wait::free_port();
    let bad = json!({"port": "bad"});
    let elsewhere = json!({"port": 9, "local_ip": "10.0.0.1"});
    let ports = json!([{"port": declared, "name": "web", "colour": "red"}, bad, elsewhere]);
    let wanted = |device: &Device, ports: &serde_json::Value| device.wanted(Running, json!({"ports": ports}));
    device.apps.request(wanted(&device, &ports)).await.unwrap();
    device.reports(&[Starting, Running]).await;
    let host_port = |device: &Device| {
        let format =
            format!("{{{{(index (index .HostConfig.PortBindings \"{declared}/tcp\") 0).HostPort}}}}");
        docker::inspect(&device.container(), &format).unwrap()
    };
    let bound = host_port(&device);
    let report = wait::until_async("the bound port is told", SOON, || async {
        let reports = device.ports_reported().await;
        reports
            .into_iter()
            .find(|report| report["ports"][0]["host_port"].as_u64() == bound.parse().ok())
    })
    .await;
    assert_eq!(report["app_key"], json!(device.app.key));
    assert_eq!(report["stage"], json!("PROD"));
    assert!(report.get("state").is_none(), "{report}");
    let rules = &report["ports"];
    assert_eq!(
        (&rules[0]["name"], &rules[0]["colour"]),
        (&json!("web"), &json!("red"))
    );
    assert_eq!(rules[0]["remote_port"], json!(0), "every member is there");
    assert_eq!(rules[1], bad, "what cannot be read is not lost");
    assert!(rules[2].get("host_port").is_none(), "{rules}");

    // A new agent finds the port at the container and tells it once after the connect.
    device.restart(|_| {}).await;
    device.connect().await;
    device.apps.report_all().await.unwrap();
    let again = device.ports_reported().await;
    assert_eq!(again.last().unwrap()["ports"], *rules);

    // Stopped and forgotten, the rule of the backend brings it back.
    device.confirm().await;
    device.request(Present).await;
    wait::until_async("it is stopped", SOON, || async {
        (device.reported().await.last() == Some(&Present)).then_some(())
    })
    .await;
    device.restart(|_| {}).await;
    device.apps.request(wanted(&device, rules)).await.unwrap();
    wait::until_async("it runs again", SOON, || async {
        (device.reported().await.last() == Some(&Running)).then_some(())
    })
    .await;
    assert_eq!(host_port(&device), bound);
}

#[tokio::test]
async fn a_missing_image_is_fetched_with_the_token_of_the_backend() {
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let device = Device::with(Stage::Prod, Some(&registry.address()), None).await;
    let local = device.scope.image("source", FOREVER);
    let reference = device.image("1.0");
    let name = reference
        .strip_prefix(&format!("{}/", registry.address()))
        .unwrap();
    registry.push(&local, name, TOKEN, SECRET);
    device.connect().await;

    device.request(Present).await;
    device.reports(&[Downloading, Present]).await;
    let log = device.logs.history(device.app, &device.app_name).await;
    assert!(
        log.contains(&format!(
            "Succesfully installed the app: {} (Version: 1.0)",
            device.app_name
        )),
        "{log:?}"
    );
    docker::remove_image(&reference);
    device.request(Running).await;
    device.reports(&[Starting, Downloading, Present, Running]).await;

    // The image is here, so a start needs neither registry nor backend.
    drop(registry);
    docker::import_busybox(&reference, FOREVER);
    device.request(Present).await;
    device.request(Running).await;
    wait::until_async("it runs again", SOON, || async {
        (device.reported().await.last() == Some(&Running)).then_some(())
    })
    .await;
    device.confirm().await;
    device.request(Uninstalled).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert!(
        !device
            .path(&format!("prod/{}", device.app_name.to_lowercase()))
            .exists()
    );
}

#[tokio::test]
async fn a_version_that_the_registry_does_not_have_fails_and_is_tried_again() {
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let device = Device::with(Stage::Prod, Some(&registry.address()), None).await;
    device.request(Running).await;
    device.reports(&[Starting, Failed]).await;
    device.logged("no registry token").await;
    // Connected: a sync is reason enough to try at once what failed for lack of a connection.
    device.connect().await;
    let rows = vec![device.wanted(Running, json!({}))];
    device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
    device.reports(&[Starting, Failed]).await;
    device
        .logged("Error occured while trying to pull the image: ")
        .await;
    // A newer request is acted on at once, without waiting for the back-off.
    device.request(Removed).await;
    device.reports(&[Deleting, Removed]).await;
}

#[tokio::test]
async fn a_download_that_hangs_is_given_up_when_the_app_shall_go() {
    // Accepts connections and never says anything.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let device = Device::with(Stage::Prod, Some(&address), None).await;
    device.connect().await;
    device.request(Running).await;
    device.reports(&[Starting]).await;
    let _connection = tokio::time::timeout(SOON, silent.accept())
        .await
        .expect("Docker asks the registry");
    device.request(Uninstalled).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert_eq!(docker::count(&device.container()), 0);
}

#[tokio::test]
async fn an_app_whose_program_ends_at_once_fails_with_its_reason() {
    let device = Device::start(Stage::Dev).await;
    device.install("", "exit 3");
    device.request(Running).await;
    wait::until_async("it failed", SOON, || async {
        (device.reported().await.last() == Some(&Failed)).then_some(())
    })
    .await;
    // A developer's app is not restarted by itself.
    device.request(Present).await;
    wait::until_async("it rests", SOON, || async {
        (device.reported().await.last() == Some(&Present)).then_some(())
    })
    .await;
    assert_eq!(docker::count(&device.container()), 0);
}

#[tokio::test]
async fn an_app_with_nothing_to_do_rests() {
    // A developer's app has no image to fetch, so REMOVED is as good as PRESENT: told once, then silence.
    let device = Device::start(Stage::Dev).await;
    device.request(Present).await;
    device.reports(&[Removed]).await;
    let log = device.database().with_extension("db-wal");
    // The first round may still carry what the request left to be written; one that writes for ever has no quiet one.
    wait::until_async("a report that writes nothing", SOON, || async {
        let written = std::fs::metadata(&log).unwrap().len();
        device.apps.report_all().await.unwrap();
        device.reports(&[Removed]).await;
        (std::fs::metadata(&log).unwrap().len() == written).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dev_app_without_image_says_so() {
    let device = Device::start(Stage::Dev).await;
    device.request(Running).await;
    device.reports(&[Starting, Failed]).await;
    device
        .logged("was not found on the device, try building the app again...")
        .await;
}

#[tokio::test]
async fn a_restarted_agent_leaves_a_running_app_alone() {
    let mut device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let id = device.container_id();
    device.restart(|_| {}).await;
    device.apps.report_all().await.unwrap();
    device.reports(&[Running]).await;
    assert_eq!(device.container_id(), id);
}

#[tokio::test]
async fn a_restarted_agent_goes_on_listening_to_a_running_app() {
    let mut device = Device::start(Stage::Prod).await;
    device.install(
        "1.0",
        "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done",
    );
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    device.logged("line 3").await;
    device.restart(|_| {}).await;
    let heard = device.logs.history(device.app, &device.app_name).await;
    let newest = |log: &[String]| {
        let number = |line: &String| line.strip_prefix("line ")?.parse::<u32>().ok();
        log.iter().filter_map(number).max()
    };
    let before = newest(&heard).expect("what was heard before the restart is kept");
    wait::until_async("what it says now is heard", SOON, || async {
        let log = device.logs.history(device.app, &device.app_name).await;
        (newest(&log)? > before + 3).then_some(())
    })
    .await;
    let log = device.logs.history(device.app, &device.app_name).await;
    let lines: Vec<&String> = log.iter().filter(|line| line.starts_with("line ")).collect();
    let distinct: std::collections::BTreeSet<&&String> = lines.iter().collect();
    assert_eq!(lines.len(), distinct.len(), "every line once: {log:?}");
}

#[tokio::test]
async fn an_app_that_stopped_while_the_agent_was_away_is_started_at_once() {
    let mut device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    device.restart(|device| docker::stop(&device.container())).await;
    // Nobody is connected: the store knows what to do.
    device.reports(&[Failed, Starting, Running]).await;
    device.restart(|device| docker::remove(&device.container())).await;
    device.reports(&[Present, Starting, Running]).await;
}

#[tokio::test]
async fn a_paused_app_is_continued() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    docker::docker(&["pause", &device.container()]).unwrap();
    wait::until_async("it is continued", SOON, || async {
        let state = docker::inspect(&device.container(), "{{.State.Status}}");
        (state.as_deref() == Some("running")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_this_version_cannot_do_is_refused_and_the_app_stays() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let id = device.container_id();
    let refused = device
        .apps
        .request(device.wanted(protocol::AppState::Built, json!({})))
        .await
        .unwrap_err();
    assert!(matches!(refused, RequestError::Unsupported(_)), "{refused}");
    assert_eq!(device.container_id(), id);
}

#[tokio::test]
async fn an_app_that_the_backend_does_not_list_goes_only_with_proof() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    let row = device.wanted(Running, json!({}));
    let answer = |rows, unreadable| Sync { rows, unreadable };
    device.apps.sync(answer(vec![row.clone()], 0)).await.unwrap();
    device.reports(&[Starting, Running]).await;
    // A container of an app that nobody knows, and a foreign one.
    let orphan = format!("prod_{}_orphan", device.app.key);
    let foreign = format!("db_{}_main", device.app.key);
    let serial = format!("reagent.serial_number={}", device.serial());
    let image = device.image("1.0");
    for name in [&orphan, &foreign] {
        docker::docker(&[
            "create",
            "--name",
            name,
            "--label",
            "real=True",
            "--label",
            &serial,
            &image,
        ])
        .unwrap();
    }
    // An unreadable row may be this app's, and an answer that takes everything must be repeated later.
    device.apps.sync(answer(Vec::new(), 1)).await.unwrap();
    assert!(device.apps.confirmation_due().borrow().is_none());
    device.apps.sync(answer(Vec::new(), 0)).await.unwrap();
    let due = device
        .apps
        .confirmation_due()
        .borrow()
        .expect("a second answer is wanted");
    assert!(due > tokio::time::Instant::now() + Duration::from_secs(60));
    assert_eq!(device.reported().await, []);
    // Nor does the orphan go by an answer that is not confirmed: it would have in the time that this takes.
    device.request(Present).await;
    device.reports(&[Stopping, Stopping, Present]).await;
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    assert_eq!(docker::count(&orphan), 1);
    // A complete answer is proof: the orphan goes, the foreign one stays.
    device.apps.sync(answer(vec![row], 0)).await.unwrap();
    wait::until_async("the orphan is gone", SOON, || async {
        (docker::count(&orphan) == 0).then_some(())
    })
    .await;
    let kept = (docker::count(&foreign), docker::count(&device.container()));
    docker::remove(&foreign);
    assert_eq!(kept, (1, 1));
}

#[tokio::test]
async fn an_app_that_is_the_only_one_unlisted_is_uninstalled_without_a_word() {
    let device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    let row = device.wanted(Running, json!({}));
    let others: Vec<_> = [1, 2]
        .map(|offset| {
            let key = device.app.key + (offset << 40);
            device.wanted(
                Present,
                json!({"app_key": key, "stage": "DEV", "current_state": "PRESENT"}),
            )
        })
        .into();
    for other in &others {
        device.apps.request(other.clone()).await.unwrap();
    }
    let rows = [vec![row], others.clone()].concat();
    device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
    device.reports(&[Starting, Running]).await;
    let data = device.path(&format!("prod/{}", device.app_name.to_lowercase()));
    assert!(data.is_dir());

    device
        .apps
        .sync(Sync {
            rows: others,
            unreadable: 0,
        })
        .await
        .unwrap();
    wait::until_async("the app is gone", SOON, || async {
        let known = device.apps.known().await;
        known.iter().all(|(app, _)| *app != device.app).then_some(())
    })
    .await;
    assert_eq!((docker::count(&device.container()), data.exists()), (0, false));
    assert_eq!(device.reported().await, []);
    let rows = device.store.apps().await.unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
}

#[tokio::test]
async fn a_lost_database_is_rebuilt_from_the_containers() {
    let mut device = Device::start(Stage::Prod).await;
    device.install("1.0", FOREVER);
    device.request(Running).await;
    device.reports(&[Starting, Running]).await;
    let id = device.container_id();
    device
        .restart(|device| std::fs::write(device.database(), "not a database any more").unwrap())
        .await;
    wait::until_async("the app is known again", SOON, || async {
        (device.apps.known().await == [(device.app, device.app_name.clone())]).then_some(())
    })
    .await;
    // Not listed, but the list is no proof against a lost database.
    device
        .apps
        .sync(Sync {
            rows: Vec::new(),
            unreadable: 0,
        })
        .await
        .unwrap();
    device.apps.report_all().await.unwrap();
    device.reports(&[Running]).await;
    assert_eq!(device.container_id(), id);
    device.request(Removed).await;
    device.reports(&[Deleting, Removed]).await;
}

#[tokio::test]
async fn without_docker_a_request_waits_and_nothing_fails() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = format!("unix://{}/docker.sock", home.path().display());
    let device = Device::with(Stage::Prod, None, Some(&nowhere)).await;
    device.request(Running).await;
    device.apps.report_all().await.unwrap();
    device.reports(&[Removed]).await;
    let stored = device.store.requests().await.unwrap();
    assert_eq!(stored[0].target, Running);
    // What needs no Docker is done all the same.
    device.close().await;
}
