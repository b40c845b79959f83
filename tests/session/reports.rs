//! Reports and the backend's list: what reaches the backend in which order, and what its answers may not do here.

use std::time::Duration;

use protocol::AppState::{Downloading, Failed, Present, Running, Starting};
use protocol::uri::backend::{GET_REQUESTED_APP_STATES, UPDATE_APP_ON_DEVICE};
use serde_json::{Value, json};
use testkit::wait;

use super::SOON;
use super::backend::{Answer, Backend};
use super::device::{Device, quick};
use super::plane::Plane;

#[tokio::test]
async fn waiting_reports_survive_a_kill_and_an_absent_backend_and_keep_their_order() {
    let plane = Plane::own().await;
    let device = Device::new(&plane.url);
    device.knows(12, &[Downloading, Present, Starting, Failed]).await;
    device.knows(13, &[Starting, Running]).await;
    // The backend is away: nothing may be lost by trying.
    let person = plane.join("system").await;
    let mut agent = device.spawn(&[]);
    wait::until_async("the device answers", SOON, || async {
        let answer = device
            .call(&person, "device_handshake", json!([]), json!({}))
            .await;
        answer.is_ok().then_some(())
    })
    .await;
    agent.kill();
    person.leave().await;

    let backend = Backend::join(&plane).await;
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    let reported = wait::until_async("all is reported", SOON, || async {
        let (one, other) = (backend.reported(12), backend.reported(13));
        (one.len() >= 4 && other.len() >= 2).then_some((one, other))
    })
    .await;
    assert_eq!(reported.0[..4], ["DOWNLOADING", "PRESENT", "STARTING", "FAILED"]);
    assert_eq!(reported.1[..2], ["STARTING", "RUNNING"]);
    agent.stop().await;

    // Once accepted they are forgotten: another start says no more than where the apps are.
    backend.forget();
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    wait::until_async("both apps are reported", SOON, || async {
        (!backend.reported(12).is_empty() && !backend.reported(13).is_empty()).then_some(())
    })
    .await;
    for state in ["DOWNLOADING", "STARTING"] {
        assert!(
            !backend.reported(12).contains(&state.to_owned()),
            "{:?}",
            backend.reported(12)
        );
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_report_has_every_member_and_the_identity_of_the_session() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    device.knows(12, &[Running]).await;
    let agent = device.start(quick());
    let report = &backend.called(UPDATE_APP_ON_DEVICE, 1).await[0];
    let expected = json!({"app_key": 12, "device_key": 7, "swarm_key": 42, "serial_number": device.serial,
        "stage": "PROD", "state": "RUNNING", "device_to_app_key": 0, "requestor_account_key": 1, "release_key": 1,
        "request_update": false, "release_build": false, "updateStatus": ""});
    assert_eq!(*report, expected);
    agent.stop().await;
}

#[tokio::test]
async fn a_report_that_is_refused_for_ever_is_dropped_and_never_holds_up_other_apps() {
    for uri in [
        "wamp.error.runtime_error",
        "wamp.error.canceled",
        "wamp.error.not_authorized",
    ] {
        let plane = Plane::own().await;
        let backend = Backend::join(&plane).await;
        let device = Device::new(&plane.url);
        device.knows(12, &[Downloading, Present]).await;
        device.knows(13, &[Starting, Running]).await;
        backend.decides(UPDATE_APP_ON_DEVICE, move |report| {
            match report["state"].as_str() {
                Some("DOWNLOADING") => Answer::Error(uri),
                _ => Answer::Empty,
            }
        });
        let mut timing = quick();
        // The refused app waits for ever, as far as this test is concerned.
        timing.report.first = Duration::from_secs(3600);
        timing.report.cap = timing.report.first;
        let agent = device.start(timing);
        wait::until_async("the other app is reported", SOON, || async {
            backend
                .reported(13)
                .starts_with(&["STARTING".into(), "RUNNING".into()])
                .then_some(())
        })
        .await;
        assert_eq!(
            backend.reported(12),
            ["DOWNLOADING"],
            "later reports of the app wait behind the refused one"
        );
        agent.stop().await;

        backend.forget();
        let agent = device.start(quick());
        wait::until_async("the refused report is given up", SOON, || async {
            backend.reported(12).contains(&"PRESENT".to_owned()).then_some(())
        })
        .await;
        assert_eq!(
            backend.reported(12)[..6],
            [
                "DOWNLOADING",
                "DOWNLOADING",
                "DOWNLOADING",
                "DOWNLOADING",
                "DOWNLOADING",
                "PRESENT"
            ]
        );
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_report_that_is_never_answered_does_not_hold_up_other_apps() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    device.knows(12, &[Downloading]).await;
    device.knows(13, &[Starting, Running]).await;
    backend.decides(UPDATE_APP_ON_DEVICE, |report| match report["app_key"].as_u64() {
        Some(12) => Answer::Silence,
        _ => Answer::Empty,
    });
    let mut timing = quick();
    timing.backend_call = Duration::from_millis(300);
    let agent = device.start(timing);
    wait::until_async("the other app is reported", SOON, || async {
        backend
            .reported(13)
            .starts_with(&["STARTING".into(), "RUNNING".into()])
            .then_some(())
    })
    .await;
    agent.stop().await;
    let store = device.store().await;
    let waiting = store.pending_reports().await.unwrap();
    assert_eq!(waiting[0].report.state, Downloading);
    store.close().await;
}

#[tokio::test]
async fn a_report_is_kept_as_long_as_nobody_takes_it() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    backend.does(
        UPDATE_APP_ON_DEVICE,
        Answer::Error("wamp.error.no_such_procedure"),
    );
    let device = Device::new(&plane.url);
    device.knows(12, &[Running]).await;
    let agent = device.start(quick());
    backend.called(UPDATE_APP_ON_DEVICE, 12).await;
    backend.does(UPDATE_APP_ON_DEVICE, Answer::Silence);
    backend.forget();
    backend.called(UPDATE_APP_ON_DEVICE, 1).await;
    agent.stop().await;
    let store = device.store().await;
    let waiting = store.pending_reports().await.unwrap();
    assert_eq!(waiting[0].report.state, Running);
    store.close().await;
}

#[tokio::test]
async fn an_unusable_list_of_the_backend_changes_nothing_and_deletes_nothing() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    device.knows(12, &[]).await;
    device.knows(13, &[]).await;
    let answers = [
        Answer::One(Value::Null),
        Answer::One(json!({})),
        Answer::One(json!("[]")),
        Answer::One(json!(0)),
        Answer::One(json!(false)),
        Answer::Empty,
        Answer::Error("wamp.error.runtime_error"),
        Answer::One(json!([null])),
        Answer::One(json!([[]])),
        Answer::One(json!([{}])),
        Answer::One(json!([{"app_key": 0, "app_name": "App12", "stage": "PROD", "target_state": "REMOVED"}])),
        Answer::One(json!([{"app_key": 12, "app_name": 5, "stage": "PROD", "target_state": "REMOVED"}])),
        Answer::One(
            json!([{"app_key": 12, "app_name": "App12", "stage": "TEST", "target_state": "REMOVED"}]),
        ),
        Answer::One(json!([{"app_key": 12, "app_name": "App12", "stage": "PROD", "target_state": "FLYING"}])),
        Answer::One(
            json!([{"app_key": 12, "app_name": "App12", "stage": "PROD", "target_state": "REMOVED", "ports": {}}]),
        ),
    ];
    let before = known(&device).await;
    assert_eq!(before.len(), 2);
    for answer in answers {
        backend.does(GET_REQUESTED_APP_STATES, answer.clone());
        backend.forget();
        let agent = device.start(quick());
        backend.status("CONNECTED").await;
        for app in [12, 13] {
            wait::until_async(&format!("{app} is reported after {answer:?}"), SOON, || async {
                // A report that was under way when the last agent stopped comes once more.
                let reported = backend.reported(app);
                let present = reported.iter().all(|state| state == "PRESENT");
                (present && !reported.is_empty()).then_some(())
            })
            .await;
        }
        agent.stop().await;
        assert_eq!(known(&device).await, before, "{answer:?}");
    }
}

async fn known(device: &Device) -> Vec<String> {
    let store = device.store().await;
    let requests = store.requests().await.unwrap();
    let apps = store.apps().await.unwrap();
    store.close().await;
    let rows = requests.iter().zip(&apps);
    rows.map(|(request, app)| format!("{request:?} {app:?}"))
        .collect()
}
