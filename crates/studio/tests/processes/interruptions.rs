//! What the command line and the studio do when something is cut off: a studio that is killed, a reader that goes away,
//! a Ctrl-C, a port or a program that is not there.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::Child;
use wamp::client::CallOptions;
use wamp::{Dict, Payload};

use crate::harness::{Device, Running, Studio, finish, within};

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A studio whose device "press" has the app "dash", with these lines in its log.
async fn installed(history: &'static [&'static str]) -> (Studio, Device) {
    let studio = Studio::start().await;
    let flock = studio.add_device("press").await;
    studio.ok(&["app", "add", "dash", "--version", "1.0.0"]).await;
    let mut device = Device::connect(flock).await;
    studio.ok(&["install", "press", "dash"]).await;
    device.request().await;
    keep_log(&device, history).await;
    (studio, device)
}

async fn keep_log(device: &Device, history: &'static [&'static str]) {
    device
        .offer("get_app_log_history", move |_| {
            Payload::one(&json!(history)).unwrap()
        })
        .await;
}

fn topic(device: &Device) -> String {
    protocol::uri::logs(&device.flock.serial_number, "prod_1_dash")
}

#[tokio::test]
async fn following_a_log_goes_on_where_it_was_after_a_killed_studio_comes_back() {
    let (studio, device) = installed(&["one", "two"]).await;
    let mut command = studio.command(&["logs", "press", "dash", "-f"]);
    command.stderr(Stdio::null());
    let mut follow = Running::start(command);
    assert_eq!(follow.line().await, "one");
    assert_eq!(follow.line().await, "two");
    device.publish(&topic(&device), json!("three")).await;
    assert_eq!(follow.line().await, "three");

    let folder = studio.kill().await;
    let studio = Studio::start_with(folder, &[]).await;
    let mut flock = device.flock.clone();
    flock.device_endpoint_url = studio.url.clone();
    let device = Device::connect(flock).await;
    // What happened meanwhile is in the device's history.
    keep_log(&device, &["two", "three", "four"]).await;
    assert_eq!(follow.line().await, "four");
    device.publish(&topic(&device), json!("five")).await;
    assert_eq!(follow.line().await, "five");
    signal(&follow.child, Signal::INT);
    let status = within("logs end", follow.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn following_a_log_ends_when_nobody_reads_it_any_more() {
    let (studio, device) = installed(&["one"]).await;
    let mut follow = Running::start(studio.command(&["logs", "press", "dash", "-f"]));
    assert_eq!(follow.line().await, "one");
    let mut child = follow.hang_up();
    device.publish(&topic(&device), json!("two")).await;
    let status = within("logs end", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn ctrl_c_while_waiting_ends_the_waiting_and_says_that_the_request_stands() {
    let (studio, mut device) = installed(&[]).await;
    let mut wait = Running::start(studio.command(&["--json", "start", "press", "dash", "--wait"]));
    let requested: Value = serde_json::from_str(&wait.line().await).unwrap();
    assert_eq!(requested["delivery"]["outcome"], "accepted");
    device.request().await;
    device.report_state(1, "STARTING", 1).await;
    let state: Value = serde_json::from_str(&wait.line().await).unwrap();
    assert_eq!(state["current_state"], "STARTING");
    signal(&wait.child, Signal::INT);
    let output = within("the end", wait.child.wait_with_output()).await.unwrap();
    let complaint: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &complaint["exit_code"]),
        (Some(130), &json!(130))
    );
    assert!(
        complaint["hint"].as_str().unwrap().contains("studio ps"),
        "{complaint}"
    );
    let installs = studio.ok(&["ps", "press"]).await;
    assert_eq!(installs[0]["target_state"], "RUNNING");
}

#[tokio::test]
async fn waiting_shows_how_far_a_download_is() {
    let (studio, mut device) = installed(&[]).await;
    let mut wait = Running::start(studio.command(&["start", "press", "dash", "--wait"]));
    assert!(wait.line().await.contains("RUNNING wanted"));
    device.request().await;
    device.report_state(1, "DOWNLOADING", 1).await;
    assert_eq!(wait.line().await, "  DOWNLOADING");
    let record = json!({
        "status": "Downloading", "id": "9f1c", "progressDetail": {"current": 1_048_576, "total": 4_194_304},
    });
    // The waiting command has subscribed before it showed the state.
    device.publish(&topic(&device), json!(record.to_string())).await;
    assert_eq!(wait.line().await, "  downloaded 25 % of 4.0 MiB");
    device.report_state(1, "RUNNING", 1).await;
    assert_eq!(wait.line().await, "  RUNNING");
    let status = within("the end", wait.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn waiting_ends_with_its_own_code_when_time_is_up_or_the_studio_goes() {
    let (studio, _device) = installed(&[]).await;
    let done = studio
        .run(&["stop", "press", "dash", "--wait", "--timeout", "1"])
        .await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("still"), "{done:?}");
    let mut wait = Running::start(studio.command(&["start", "press", "dash", "--wait"]));
    assert!(wait.line().await.contains("RUNNING wanted"));
    let _folder = studio.kill().await;
    let output = within("the end", wait.child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the request stands"));
}

#[tokio::test]
async fn what_a_killed_studio_has_confirmed_is_there_when_it_comes_back() {
    let studio = Studio::start().await;
    let operator = studio.operator().await;
    let (count, mut counted) = tokio::sync::watch::channel(0);
    let adding = async {
        let mut confirmed = Vec::new();
        loop {
            let name = format!("device-{}", confirmed.len());
            let request = Payload::from_kwargs(Dict::from([("name".to_owned(), name.as_str().into())]));
            let answer = operator.call("studio.device.add", request, CallOptions::default());
            if answer.await.is_err() {
                return confirmed;
            }
            confirmed.push(name);
            count.send_replace(confirmed.len());
        }
    };
    // In the middle of the next one.
    let killing = async {
        within("twenty devices", counted.wait_for(|count| *count >= 20))
            .await
            .unwrap();
        studio.kill().await
    };
    let (confirmed, folder) = tokio::join!(adding, killing);
    assert!(confirmed.len() >= 20);
    let studio = Studio::start_with(folder, &[]).await;
    let devices = studio.ok(&["device", "list"]).await;
    let names: Vec<_> = devices
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["name"].as_str().unwrap())
        .collect();
    for name in &confirmed {
        assert!(
            names.contains(&name.as_str()),
            "{name} is lost of {}",
            confirmed.len()
        );
    }
    studio.add_device("press").await;
}

#[tokio::test]
async fn without_a_registry_program_the_studio_goes_on_and_a_taken_port_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let serve = |path: Option<&str>| {
        let mut command = crate::harness::studio_program();
        command.current_dir(folder.path()).args([
            "--json",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--with-registry",
            &port,
        ]);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        command
    };
    let done = finish(serve(None)).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stderr.contains("choose another with --with-registry"),
        "{done:?}"
    );

    let mut running = Running::start(serve(Some("/nonexistent")));
    let ready: Value = serde_json::from_str(&running.line().await).unwrap();
    assert!(ready["registry"].is_null(), "{ready}");
    signal(&running.child, Signal::TERM);
    let output = within("the end", running.child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("apt-get install docker-registry"), "{log}");
}

#[tokio::test]
async fn unusable_files_and_numbers_are_refused_with_a_sentence() {
    let studio = Studio::start().await;
    std::fs::create_dir(studio.path("folder")).unwrap();
    std::fs::create_dir(studio.path("damaged")).unwrap();
    std::fs::write(studio.path("damaged/operator.json"), "{").unwrap();
    std::fs::write(studio.path("empty"), "").unwrap();
    for (words, code, said) in [
        (vec!["--data", "damaged", "device", "list"], 2, "operator.json"),
        (
            vec!["--authid", "1", "--secret-file", "folder", "device", "list"],
            2,
            "cannot read folder",
        ),
        (
            vec!["--authid", "1", "--secret-file", "empty", "device", "list"],
            2,
            "empty",
        ),
        (vec!["--url", "nonsense", "device", "list"], 2, "nonsense"),
        (
            vec!["device", "add", "press", "--out", "missing/press.flock"],
            2,
            "cannot create",
        ),
        (
            vec!["call", "press", "ping", "--timeout", "18446744073709551615"],
            2,
            "3600",
        ),
        (vec!["call", "press", "ping", "--timeout", "0"], 2, "3600"),
        (
            vec![
                "start",
                "press",
                "dash",
                "--wait",
                "--timeout",
                "18446744073709551615",
            ],
            2,
            "31536000",
        ),
        (
            vec![
                "serve",
                "--router",
                "ws://127.0.0.1:1",
                "--router-secret-file",
                "absent",
            ],
            2,
            "cannot read absent",
        ),
        (vec!["call", "press", "ping", "--kwargs", "[1]"], 2, "--kwargs"),
    ] {
        let done = studio.run(&words).await;
        assert_eq!(done.code, code, "{words:?}: {done:?}");
        assert!(done.stderr.contains(said), "{words:?}: {done:?}");
        assert!(!done.stderr.contains("panicked"), "{words:?}: {done:?}");
    }
}
