//! The command line's own promises: exit codes, files, secrets.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::{Studio, finish, studio_program};

#[tokio::test]
async fn without_a_studio_a_command_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = studio_program();
    command.current_dir(folder.path()).args(["device", "list"]);
    let done = finish(command).await;
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.stderr.contains("studio serve"), "{done:?}");

    let studio = Studio::start().await;
    let (code, folder) = studio.stop().await;
    assert_eq!(code, 0);
    let mut command = studio_program();
    command
        .current_dir(folder.path())
        .args(["--json", "device", "list"]);
    let done = finish(command).await;
    assert_eq!(done.code, 4, "{done:?}");
    let error: serde_json::Value = serde_json::from_str(&done.stderr).unwrap();
    assert_eq!(error["exit_code"], 4);
}

#[tokio::test]
async fn an_identity_file_is_private_complete_and_the_only_place_of_the_secret() {
    let studio = Studio::start().await;
    let added = studio.run(&["device", "add", "press-07"]).await;
    assert_eq!(added.code, 0, "{added:?}");
    let flock = studio.flock("press-07");
    assert_eq!(flock.name, "press-07");
    assert_eq!(flock.device_endpoint_url, studio.url);
    assert_eq!(flock.docker_main_repository, "apps/");
    let mode = std::fs::metadata(studio.path("press-07.flock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for words in [
        vec!["device", "list"],
        vec!["device", "show", "press-07"],
        vec!["--json", "device", "list"],
    ] {
        let shown = studio.run(&words).await;
        assert_eq!(shown.code, 0, "{shown:?}");
        assert!(
            shown.stdout.contains(&flock.serial_number) && !shown.stdout.contains(&flock.secret),
            "{shown:?}"
        );
    }
    assert!(!added.stdout.contains(&flock.secret));
    let log = std::fs::read_to_string(studio.path("serve.log")).unwrap();
    assert!(log.contains("press-07") && !log.contains(&flock.secret));
}

#[tokio::test]
async fn a_refused_device_leaves_no_file_and_a_refused_file_no_device() {
    let studio = Studio::start().await;
    studio.add_device("press").await;
    let taken = studio
        .run(&["device", "add", "PRESS", "--out", "other.flock"])
        .await;
    assert_eq!(taken.code, 1, "{taken:?}");
    assert!(!studio.path("other.flock").exists());
    let exists = studio
        .run(&["device", "add", "second", "--out", "press.flock"])
        .await;
    assert_eq!(exists.code, 2, "{exists:?}");
    assert_eq!(studio.ok(&["device", "list"]).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_does_not_exist_is_exit_code_3() {
    let studio = Studio::start().await;
    studio.add_device("press").await;
    studio.ok(&["app", "add", "dash", "--version", "1.0.0"]).await;
    studio.ok(&["app", "add", "empty"]).await;
    for words in [
        &["device", "show", "nobody"][..],
        &["device", "rm", "nobody"],
        &["install", "nobody", "dash"],
        &["install", "press", "nothing"],
        &["install", "press", "dash", "--version", "9.9.9"],
        &["install", "press", "empty"],
        &["start", "press", "dash"],
        &["stop", "press", "dash"],
        &["remove", "press", "dash"],
        &["ps", "nobody"],
        &["logs", "press", "dash"],
        &["call", "nobody", "get_images"],
        &["app", "rm", "nothing"],
        &["account", "grant", "99", "press", "READ"],
    ] {
        let done = studio.run(words).await;
        assert_eq!(done.code, 3, "{words:?}: {done:?}");
        assert!(done.stderr.starts_with("error: "), "{done:?}");
    }
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    let studio = Studio::start().await;
    for words in [
        &["fly"][..],
        &["device", "add"],
        &["device", "add", "7"],
        &["device", "add", "a/b", "--out", "x.flock"],
        &["app", "add", "bad name"],
        &["app", "add", "dash", "--port", "http"],
        &["app", "add", "dash", "--env", "NAME"],
        &["app", "add", "dash", "--version", "1 0"],
        &["call", "press", "x", "--kwargs", "[]"],
        &["account", "grant", "1", "press", "FLY"],
        &["install", "a", "b", "--timeout", "5"],
        &["device", "list", "--authid", "1"],
        &["serve", "--registry", "http://registry"],
    ] {
        let done = studio.run(words).await;
        assert_eq!(done.code, 2, "{words:?}: {done:?}");
    }
    let help = studio.run(&["install", "--help"]).await;
    assert_eq!(help.code, 0);
    assert!(
        help.stdout.contains("Example: studio install") && help.stdout.contains("Exit codes: 0"),
        "{help:?}"
    );
}

#[tokio::test]
async fn an_offline_device_is_exit_code_5_and_the_request_is_kept() {
    let studio = Studio::start().await;
    studio.add_device("press").await;
    studio.ok(&["app", "add", "dash", "--version", "1.0.0"]).await;
    let installed = studio.run(&["install", "press", "dash"]).await;
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(
        installed.stdout.contains("offline") && installed.stdout.contains("stored"),
        "{installed:?}"
    );
    for words in [
        &["call", "press", "get_images"][..],
        &["logs", "press", "dash"],
        &["start", "press", "dash", "--wait", "--timeout", "1"],
    ] {
        let done = studio.run(words).await;
        assert_eq!(done.code, 5, "{words:?}: {done:?}");
    }
    let installs = studio.ok(&["ps"]).await;
    assert_eq!(installs[0]["target_state"], "RUNNING");
    assert_eq!(installs[0]["current_state"], "REMOVED");
}

#[tokio::test]
async fn wrong_credentials_and_missing_privileges_are_exit_code_6() {
    let studio = Studio::start().await;
    studio.add_device("press").await;
    studio.ok(&["app", "add", "dash", "--version", "1.0.0"]).await;
    std::fs::write(studio.path("wrong.secret"), "wrong").unwrap();
    for authid in ["1", "99", "nobody"] {
        let words = [
            "--authid",
            authid,
            "--secret-file",
            "wrong.secret",
            "device",
            "list",
        ];
        let done = studio.run(&words).await;
        assert_eq!(done.code, 6, "{authid}: {done:?}");
    }

    let alice = studio
        .ok(&["account", "add", "alice", "--out", "alice.secret"])
        .await["account"]
        .to_string();
    let as_alice = |words: &[&str]| {
        let words = [
            &["--json", "--authid", &alice, "--secret-file", "alice.secret"],
            words,
        ]
        .concat();
        let command = studio.command(&words);
        finish(command)
    };
    assert_eq!(as_alice(&["device", "list"]).await.json(), json!([]));
    assert_eq!(as_alice(&["device", "show", "press"]).await.code, 3);
    assert_eq!(as_alice(&["account", "list"]).await.code, 6);
    studio.ok(&["account", "grant", &alice, "press", "READ"]).await;
    assert_eq!(
        as_alice(&["device", "show", "press"]).await.json()["name"],
        "press"
    );
    for words in [
        &["install", "press", "dash"][..],
        &["device", "rm", "press"],
        &["call", "press", "request_app_state"],
        &["account", "grant", &alice, "press", "MAINTAIN"],
        &["app", "rm", "dash"],
    ] {
        let done = as_alice(words).await;
        assert_eq!(done.code, 6, "{words:?}: {done:?}");
    }
    studio
        .ok(&["account", "grant", &alice, "press", "MAINTAIN"])
        .await;
    assert_eq!(as_alice(&["install", "press", "dash"]).await.code, 0);
    studio
        .ok(&["account", "revoke", &alice, "press", "MAINTAIN"])
        .await;
    assert_eq!(as_alice(&["stop", "press", "dash"]).await.code, 6);
}

#[tokio::test]
async fn a_second_studio_on_the_same_data_or_port_is_refused() {
    let studio = Studio::start().await;
    let done = studio.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("another studio"), "{done:?}");
    let address = studio.url.strip_prefix("ws://").unwrap();
    let done = studio
        .run(&["--data", "second", "serve", "--listen", address])
        .await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("cannot listen"), "{done:?}");
}

#[tokio::test]
async fn tables_show_devices_apps_and_installs() {
    let studio = Studio::start().await;
    studio.add_device("press").await;
    studio
        .ok(&["app", "add", "dash", "--version", "1.0.0", "--port", "8080/http"])
        .await;
    studio.ok(&["app", "release", "dash", "1.1.0"]).await;
    studio
        .ok(&["install", "press", "dash", "--version", "1.0.0", "--no-start"])
        .await;
    let devices = studio.run(&["device", "list"]).await.stdout;
    assert!(devices.starts_with("KEY  NAME   STATUS"), "{devices}");
    let apps = studio.run(&["app", "list"]).await.stdout;
    assert!(apps.contains("dash  1.0.0 1.1.0  8080/http"), "{apps}");
    let installs = studio.run(&["ps", "press"]).await.stdout;
    assert!(
        installs.contains("press   dash  1.0.0    REMOVED  PRESENT  8080/http  offline"),
        "{installs}"
    );
    let again = studio.run(&["app", "release", "dash", "1.1.0"]).await;
    assert_eq!(again.code, 1, "{again:?}");
}
