//! Devices and the studio: what is delivered, what is believed, what is refused.

use serde_json::{Value, json};
use wamp::client::CloseReason;

use crate::harness::{Device, Running, Studio, call, eventually, finish, join, refusal, within};

/// A studio with the device "press", connected, and the app "dash" in versions 1.0.0 and 1.1.0.
pub(crate) async fn fleet() -> (Studio, Device) {
    let studio = Studio::start().await;
    let flock = studio.add_device("press").await;
    studio
        .ok(&[
            "app",
            "add",
            "dash",
            "--version",
            "1.0.0",
            "--port",
            "8080/http",
            "--env",
            "MODE=slow",
        ])
        .await;
    let device = Device::connect(flock).await;
    (studio, device)
}

#[tokio::test]
async fn an_install_reaches_the_device_and_waiting_shows_its_states() {
    let (studio, mut device) = fleet().await;
    let words = [
        "--json",
        "install",
        "press",
        "dash",
        "--env",
        "MODE=fast",
        "--wait",
    ];
    let install = tokio::spawn(finish(studio.command(&words)));
    let kwargs = device.request().await;
    let release = kwargs["release_key"].as_u64().unwrap();
    assert_eq!(
        kwargs,
        json!({
            "app_key": 1, "app_name": "dash", "stage": "PROD", "current_state": "REMOVED",
            "target_state": "RUNNING", "manually_requested_state": "RUNNING",
            "release_key": release, "new_release_key": release,
            "present_version": "1.0.0", "newest_version": "1.0.0", "request_update": false,
            "requestor_account_key": 1, "device_owner_account_key": 1, "app_cred_epoch": 1,
            "environment": {"MODE": {"value": "fast"}}, "environment_template": {"MODE": {"defaultValue": "slow"}},
            "ports": [{
                "main": true, "name": "http-8080", "active": false, "public": false, "port": 8080,
                "protocol": "http", "local_ip": "", "remote_port_environment": "", "remote_port": 0,
            }],
            "docker_compose": null, "new_docker_compose": null, "docker_credentials": {},
            "cancel_transition": false,
        })
    );
    for state in ["STARTING", "DOWNLOADING", "PRESENT", "RUNNING"] {
        device.report_state(1, state, release).await;
    }
    let done = install.await.unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    let lines = done.json_lines();
    assert_eq!(lines[0]["delivery"]["outcome"], "accepted");
    assert_eq!(lines.last().unwrap()["current_state"], "RUNNING", "{done:?}");
    let history = studio.ok(&["history", "press", "dash"]).await;
    let states: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|report| &report["state"])
        .collect();
    assert_eq!(states, ["STARTING", "DOWNLOADING", "PRESENT", "RUNNING"]);
    assert_eq!(history[3]["version"], "1.0.0");
}

#[tokio::test]
async fn waiting_ends_with_a_failure_of_the_app() {
    let (studio, mut device) = fleet().await;
    let install = tokio::spawn(finish(studio.command(&["install", "press", "dash", "--wait"])));
    let release = device.request().await["release_key"].as_u64().unwrap();
    device.report_state(1, "STARTING", release).await;
    device.report_state(1, "FAILED", release).await;
    let done = install.await.unwrap();
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stderr.contains("FAILED") && done.stderr.contains("studio logs press dash"),
        "{done:?}"
    );
}

#[tokio::test]
async fn what_was_asked_while_offline_is_delivered_at_the_next_connect() {
    let studio = Studio::start().await;
    let flock = studio.add_device("press").await;
    studio.ok(&["app", "add", "dash", "--version", "1.0.0"]).await;
    studio.ok(&["install", "press", "dash"]).await;
    let (code, folder) = studio.stop().await;
    assert_eq!(code, 0);

    let studio = Studio::start_with(folder, &[]).await;
    let mut flock = flock;
    flock.device_endpoint_url = studio.url.clone();
    let device = Device::connect(flock).await;
    let own = json!({"device_key": device.flock.device_key});
    let rows = device
        .call("reswarm.containers.get_requested_app_states", &[own])
        .await
        .unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 1);
    let request = protocol::request::parse_row(&rows[0]).unwrap();
    assert_eq!((request.app.key, request.app_name.as_str()), (1, "dash"));
    assert_eq!(request.target, protocol::AppState::Running);
    assert_eq!(request.newest_version, "1.0.0");
}

#[tokio::test]
async fn an_update_is_asked_for_and_ends_with_the_report_of_the_new_release() {
    let (studio, mut device) = fleet().await;
    studio.ok(&["install", "press", "dash"]).await;
    let old = device.request().await["release_key"].as_u64().unwrap();
    device.report_state(1, "RUNNING", old).await;
    studio.ok(&["app", "release", "dash", "1.1.0"]).await;
    studio.ok(&["install", "press", "dash"]).await;
    let update = device.request().await;
    let new = update["new_release_key"].as_u64().unwrap();
    assert_eq!(
        (
            &update["present_version"],
            &update["newest_version"],
            &update["request_update"],
            &update["current_state"]
        ),
        (&json!("1.0.0"), &json!("1.1.0"), &json!(true), &json!("RUNNING"))
    );
    assert_eq!(update["release_key"], old);
    device.report_state(1, "UPDATING", old).await;
    assert_eq!(studio.ok(&["ps"]).await[0]["request_update"], true);
    device.report_state(1, "PRESENT", new).await;
    let shown = studio.ok(&["ps"]).await;
    assert_eq!(
        (&shown[0]["version"], &shown[0]["request_update"]),
        (&json!("1.1.0"), &json!(false))
    );
}

#[tokio::test]
async fn a_removed_app_is_gone_when_the_device_says_so() {
    let (studio, mut device) = fleet().await;
    studio.ok(&["install", "press", "dash"]).await;
    let release = device.request().await["release_key"].as_u64().unwrap();
    device.report_state(1, "RUNNING", release).await;
    let remove = tokio::spawn(finish(studio.command(&["remove", "press", "dash", "--wait"])));
    assert_eq!(device.request().await["target_state"], "UNINSTALLED");
    for state in ["DELETING", "REMOVED", "UNINSTALLED"] {
        device.report_state(1, state, release).await;
    }
    let done = remove.await.unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(studio.ok(&["ps"]).await, json!([]));
    studio.ok(&["app", "rm", "dash"]).await;
}

#[tokio::test]
async fn stop_and_keeping_data_ask_for_their_states() {
    let (studio, mut device) = fleet().await;
    studio.ok(&["install", "press", "dash", "--no-start"]).await;
    assert_eq!(device.request().await["target_state"], "PRESENT");
    studio.ok(&["start", "press", "dash"]).await;
    assert_eq!(device.request().await["target_state"], "RUNNING");
    studio.ok(&["stop", "press", "dash"]).await;
    assert_eq!(device.request().await["target_state"], "PRESENT");
    studio.ok(&["remove", "press", "dash", "--keep-data"]).await;
    assert_eq!(device.request().await["target_state"], "REMOVED");
}

#[tokio::test]
async fn a_lost_device_shows_as_disconnected_and_an_older_session_changes_nothing() {
    let (studio, old) = fleet().await;
    assert_eq!(studio.status("press").await, "CONNECTED");
    let new = Device::connect(old.flock.clone()).await;
    old.session.abort();
    // The testament of the old session arrives, and a status report of the new one after it.
    eventually("the old session is gone", || async {
        let listed = call(&old.session, "wamp.session.count", &[]).await;
        listed.is_err().then_some(())
    })
    .await;
    new.report_status("EMERGENCY").await.unwrap();
    assert_eq!(studio.status("press").await, "EMERGENCY");
    new.session.abort();
    eventually("disconnected", || async {
        (studio.status("press").await == "DISCONNECTED").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_wrong_secret_and_a_removed_device_are_refused_at_the_door() {
    let (studio, device) = fleet().await;
    let flock = device.flock.clone();
    let authid = format!("{}-{}", flock.swarm_key, flock.device_key);
    let refused = join(&studio.url, authid.clone(), "wrong".to_owned())
        .await
        .unwrap_err();
    assert!(refused.is_credential_failure(), "{refused}");
    let elsewhere = format!("{}-{}", flock.swarm_key + 1, flock.device_key);
    let refused = join(&studio.url, elsewhere, flock.secret.clone())
        .await
        .unwrap_err();
    assert!(refused.is_credential_failure(), "{refused}");

    studio.ok(&["device", "rm", "press"]).await;
    within("its session is ended", device.session.closed()).await;
    let refused = join(&studio.url, authid, flock.secret).await.unwrap_err();
    assert!(refused.is_credential_failure(), "{refused}");
}

#[tokio::test]
async fn a_device_speaks_for_itself_only() {
    let (studio, device) = fleet().await;
    let other = studio.add_device("other").await;
    let foreign = json!({
        "device_key": other.device_key, "swarm_key": other.swarm_key, "serial_number": other.serial_number,
        "status": "CONNECTED", "wamp_session_id": 1, "architecture": "amd64", "app_key": 1, "stage": "PROD",
        "state": "RUNNING", "privilege": "READ", "entity": "DEVICE", "entity_key": other.device_key,
        "requestor_account_key": 1,
    });
    for procedure in [
        "reswarm.devices.read_device_metadata",
        "reswarm.devices.update_device_status",
        "reswarm.devices.update_device_architecture",
        "reswarm.devices.check_privilege",
        "reswarm.containers.get_requested_app_states",
        "reswarm.containers.update_app_on_device",
    ] {
        let refused = refusal(device.call(procedure, std::slice::from_ref(&foreign)).await);
        assert_eq!(refused, "wamp.error.not_authorized", "{procedure}");
    }
    assert_eq!(studio.status("other").await, "DISCONNECTED");
    // Nor may a device act as an account, or an account as a device.
    assert_eq!(
        refusal(device.call("studio.device.list", &[]).await),
        "wamp.error.not_authorized"
    );
    let operator = studio.operator().await;
    let refused = refusal(call(&operator, "reswarm.devices.get_app_cred_key", &[]).await);
    assert_eq!(refused, "wamp.error.not_authorized");
}

#[tokio::test]
async fn every_backend_procedure_answers_in_the_shape_of_the_contract() {
    let studio = Studio::start_with(
        tempfile::tempdir().unwrap(),
        &["--base-url", "https://studio.example"],
    )
    .await;
    let device = Device::connect(studio.add_device("press").await).await;
    let own = json!({"device_key": device.flock.device_key, "swarm_key": device.flock.swarm_key});
    let with = |more: Value| {
        let mut members = own.as_object().unwrap().clone();
        members.extend(more.as_object().unwrap().clone());
        Value::Object(members)
    };

    let metadata = device
        .call("reswarm.devices.read_device_metadata", std::slice::from_ref(&own))
        .await
        .unwrap();
    assert_eq!(
        metadata,
        json!({"device_key": 1, "device_name": "press", "swarm_key": 1, "swarm_name": "fleet", "ownername": "operator"})
    );
    let key = device
        .call("reswarm.devices.get_app_cred_key", &[])
        .await
        .unwrap();
    assert_eq!(key.as_str().unwrap().len(), 44);
    assert_eq!(
        device
            .call("reswarm.devices.get_app_cred_key", &[])
            .await
            .unwrap(),
        key
    );
    let beat = device.report_status("CONNECTED").await.unwrap();
    assert_eq!(beat, json!({"reswarmBaseURL": "https://studio.example"}));
    let facts = with(json!({
        "architecture": "armv7", "os": "linux debian", "arch": "arm", "variant": "v7", "agent_version": "0.1.0",
    }));
    device
        .call("reswarm.devices.update_device_architecture", &[facts])
        .await
        .unwrap();
    let shown = studio.ok(&["device", "show", "press"]).await;
    assert_eq!(
        (&shown["architecture"], &shown["stats"]["cpu_count"]),
        (&json!("armv7"), &json!(4))
    );
    let token = device
        .call("reswarm.containers.get_registry_token", &[json!({"callerID": 1})])
        .await
        .unwrap();
    assert_eq!(token, "device-1");
    assert_eq!(
        device
            .call(
                "reswarm.containers.get_requested_app_states",
                std::slice::from_ref(&own)
            )
            .await
            .unwrap(),
        json!([])
    );

    let alice = studio
        .ok(&["account", "add", "alice", "--out", "alice.secret"])
        .await["account"]
        .clone();
    studio
        .ok(&["account", "grant", &alice.to_string(), "press", "READ"])
        .await;
    for (account, privilege, expected) in [
        (json!(1), "MAINTAIN", true),
        (alice.clone(), "READ", true),
        (alice.clone(), "MAINTAIN", false),
        (json!(99), "READ", false),
        (json!("1"), "READ", true),
    ] {
        let question = with(json!({
            "privilege": privilege, "entity": "DEVICE", "entity_key": device.flock.device_key,
            "requestor_account_key": account,
        }));
        let answer = device
            .call("reswarm.devices.check_privilege", &[question])
            .await
            .unwrap();
        assert_eq!(answer, json!(expected), "{account} {privilege}");
    }
}

#[tokio::test]
async fn bad_input_is_refused_with_a_sentence_and_the_studio_goes_on() {
    let (studio, device) = fleet().await;
    let own = device.flock.device_key;
    for (procedure, args) in [
        ("reswarm.devices.read_device_metadata", vec![]),
        ("reswarm.devices.read_device_metadata", vec![json!("7")]),
        (
            "reswarm.devices.read_device_metadata",
            vec![json!({"device_key": "seven"})],
        ),
        (
            "reswarm.devices.update_device_status",
            vec![json!({"device_key": own, "status": "FLYING"})],
        ),
        (
            "reswarm.devices.update_device_status",
            vec![json!({"device_key": own, "status": "DISCONNECTED"})],
        ),
        (
            "reswarm.devices.update_device_status",
            vec![json!({"status": "CONNECTED", "stats": 5})],
        ),
        (
            "reswarm.devices.update_device_status",
            vec![json!({"status": "CONNECTED", "tunnel_capable": "yes"})],
        ),
        (
            "reswarm.devices.update_device_architecture",
            vec![json!({"architecture": 5})],
        ),
        ("reswarm.devices.update_device_architecture", vec![json!({})]),
        (
            "reswarm.devices.check_privilege",
            vec![json!({"entity": "SWARM"})],
        ),
        (
            "reswarm.devices.check_privilege",
            vec![json!({"entity": "DEVICE", "entity_key": own, "privilege": "FLY"})],
        ),
        (
            "reswarm.devices.check_privilege",
            vec![json!({"entity": "DEVICE", "entity_key": own, "privilege": "READ"})],
        ),
        (
            "reswarm.containers.update_app_on_device",
            vec![json!({"app_key": 0, "stage": "PROD", "state": "RUNNING"})],
        ),
        (
            "reswarm.containers.update_app_on_device",
            vec![json!({"app_key": 1, "stage": "TEST", "state": "RUNNING"})],
        ),
        (
            "reswarm.containers.update_app_on_device",
            vec![json!({"app_key": 1, "stage": "PROD", "state": "FLYING"})],
        ),
        (
            "reswarm.containers.update_app_on_device",
            vec![json!({"app_key": 1, "stage": "PROD", "state": 5})],
        ),
        (
            "reswarm.containers.update_app_on_device",
            vec![json!({"app_key": 1, "stage": "PROD"})],
        ),
        (
            "reswarm.containers.update_app_on_device",
            vec![json!({"app_key": 1, "stage": "PROD", "ports": [{}]})],
        ),
        (
            "reswarm.containers.update_app_on_device",
            vec![json!({"app_key": 1, "stage": "PROD", "ports": 5})],
        ),
    ] {
        let refused = refusal(device.call(procedure, &args).await);
        assert_eq!(refused, "wamp.error.invalid_argument", "{procedure} {args:?}");
    }
    // A report about an app that the studio did not install is taken and changes nothing.
    device.report_state(77, "RUNNING", 1).await;
    assert_eq!(studio.ok(&["ps"]).await, json!([]));
    assert_eq!(studio.status("press").await, "CONNECTED");
}

#[tokio::test]
async fn ports_that_the_device_reports_are_shown() {
    let (studio, mut device) = fleet().await;
    studio.ok(&["install", "press", "dash"]).await;
    let mut ports = device.request().await["ports"].clone();
    ports[0]["host_port"] = json!(40000);
    let report = json!({"app_key": 1, "device_key": device.flock.device_key, "swarm_key": 1, "stage": "PROD", "ports": ports});
    device
        .call("reswarm.containers.update_app_on_device", &[report])
        .await
        .unwrap();
    let shown = studio.run(&["ps"]).await.stdout;
    assert!(shown.contains("8080→40000/http"), "{shown}");
}

#[tokio::test]
async fn a_call_is_made_for_the_account_and_its_answer_comes_back() {
    let (studio, device) = fleet().await;
    device
        .offer("echo", |payload| {
            let seen = json!({
                "args": wamp::Value::List(payload.args().unwrap()).to_json(),
                "kwargs": wamp::Value::Dict(payload.kwargs().unwrap()).to_json(),
            });
            wamp::Payload::one(&seen).unwrap()
        })
        .await;
    let answer = studio
        .ok(&[
            "call",
            "press",
            "echo",
            "5",
            "text",
            r#"{"a":[1]}"#,
            "--kwargs",
            r#"{"b":true}"#,
        ])
        .await;
    assert_eq!(
        answer["args"],
        json!([{"args": [5, "text", {"a": [1]}], "kwargs": {"b": true, "requestor_account_key": 1}}])
    );
    // Whom the call is made for is not the caller's to choose.
    let answer = studio
        .ok(&[
            "call",
            "press",
            "echo",
            "--kwargs",
            r#"{"requestor_account_key":7}"#,
        ])
        .await;
    assert_eq!(answer["args"][0]["kwargs"], json!({"requestor_account_key": 1}));
    let missing = studio.run(&["call", "press", "no_such_thing"]).await;
    assert_eq!(missing.code, 3, "{missing:?}");
    // An account may also call the device directly.
    let operator = studio.operator().await;
    let uri = protocol::uri::device(&device.flock.serial_number, "echo");
    assert_eq!(
        call(&operator, &uri, &[json!(1)]).await.unwrap()["args"],
        json!([1])
    );
}

#[tokio::test]
async fn logs_show_the_history_once_and_then_what_comes() {
    let (studio, mut device) = fleet().await;
    studio.ok(&["install", "press", "dash"]).await;
    device.request().await;
    device
        .offer("get_app_log_history", |payload| {
            let asked: Value = payload.first().unwrap().unwrap();
            assert_eq!(asked, json!({"containerName": "prod_1_dash"}));
            wamp::Payload::one(&json!(["first", "second"])).unwrap()
        })
        .await;
    let history = studio.run(&["logs", "press", "dash"]).await;
    assert_eq!(
        (history.code, history.stdout.as_str()),
        (0, "first\nsecond\n"),
        "{history:?}"
    );

    let mut follow = Running::start(studio.command(&["logs", "press", "dash", "-f"]));
    assert_eq!(follow.line().await, "first");
    assert_eq!(follow.line().await, "second");
    let topic = protocol::uri::logs(&device.flock.serial_number, "prod_1_dash");
    for message in [
        json!("third\nfourth"),
        json!({"type": "build", "chunk": "LOGGER_CLEAR"}),
        json!({"type": "build", "chunk": "Starting dash..."}),
    ] {
        device.publish(&topic, message).await;
    }
    for line in ["third", "fourth", "--------", "Starting dash..."] {
        assert_eq!(follow.line().await, line);
    }
    let pid = i32::try_from(follow.child.id().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    let status = within("logs end", follow.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_stopping_studio_says_goodbye_and_ends_with_0() {
    let (studio, device) = fleet().await;
    let (code, _folder) = studio.stop().await;
    assert_eq!(code, 0);
    let reason = within("the device hears of it", device.session.closed()).await;
    assert_eq!(
        reason,
        CloseReason::Goodbye("wamp.close.system_shutdown".to_owned())
    );
}

#[tokio::test]
async fn events_reach_only_accounts_that_may_see_the_device() {
    let (studio, device) = fleet().await;
    let alice = studio
        .ok(&["account", "add", "alice", "--out", "alice.secret"])
        .await["account"]
        .to_string();
    let secret = std::fs::read_to_string(studio.path("alice.secret")).unwrap();
    let stranger = join(&studio.url, alice, secret.trim().to_owned()).await.unwrap();
    let owner = studio.operator().await;
    let topic = "studio.events.device";
    let mut seen = within("subscribe", owner.subscribe(topic, wamp::Dict::new()))
        .await
        .unwrap();
    let mut unseen = within("subscribe", stranger.subscribe(topic, wamp::Dict::new()))
        .await
        .unwrap();
    device.report_status("EMERGENCY").await.unwrap();
    let event = within("the event", seen.events.recv()).await.unwrap();
    let event: Value = event.payload.first().unwrap().unwrap();
    assert_eq!(
        event,
        json!({"device_key": 1, "device": "press", "status": "EMERGENCY"})
    );
    // The stranger's session has answered a call after the event went out, so the event would be here.
    assert_eq!(
        call(&stranger, "studio.device.list", &[]).await.unwrap(),
        json!([])
    );
    assert!(unseen.events.try_recv().is_err());
}
