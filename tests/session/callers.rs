//! Who may call what (`session-and-api.md` 6.2 and section 10), over the wire.

use protocol::uri::backend::CHECK_PRIVILEGE;
use serde_json::{Value, json};
use testkit::wait;
use wamp::client::Session;

use super::SOON;
use super::backend::Answer;
use super::device::{Device, refusal};
use super::plane::Plane;
use super::procedures::connected;

/// Procedure, arguments with which it gets past its parser, privilege, denial.
const GATED: [(&str, &str, &str, &str); 11] = [
    (
        "write_data",
        r#"["BEGIN", "x.tgz", "dev_1_x", 1, "1"]"#,
        "DEVELOP",
        "insufficient privileges write data to device",
    ),
    (
        "get_images",
        "[]",
        "READ",
        "insufficient privileges to read docker images",
    ),
    (
        "prune_images",
        "[{}]",
        "MAINTAIN",
        "insufficient privileges to prune images",
    ),
    (
        "list_containers",
        "[]",
        "READ",
        "insufficient privileges to list containers",
    ),
    (
        "get_app_log_history",
        r#"[{"containerName": "prod_1_x"}]"#,
        "READ",
        "insufficient privileges to get app log history",
    ),
    (
        "query_app_logs",
        r#"[{"containerName": "prod_1_x"}]"#,
        "READ",
        "insufficient privileges to query app logs",
    ),
    (
        "query_device_logs",
        "[]",
        "READ",
        "insufficient privileges to query device logs",
    ),
    (
        "get_storage_data",
        "[]",
        "READ",
        "insufficient privileges to get storage data",
    ),
    (
        "get_agent_metadata",
        "[]",
        "READ",
        "insufficient privileges to get agent metadata",
    ),
    // It decides which code runs here.
    (
        "update_agent",
        "[]",
        "MAINTAIN",
        "insufficient privileges to update reagent",
    ),
    (
        "system_restart_agent",
        "[]",
        "MAINTAIN",
        "insufficient privileges to restart agent",
    ),
];

async fn denied(
    device: &Device,
    caller: &Session,
    name: &str,
    args: Value,
    kwargs: Value,
) -> (String, String) {
    let answer = device.call(caller, name, args, kwargs).await;
    refusal(&answer.expect_err(name))
}

fn denial(text: &str) -> (String, String) {
    (text.to_owned(), "denied".to_owned())
}

#[tokio::test]
async fn each_gate_asks_for_its_privilege_and_denies_in_its_words() {
    each_gate_asks_for_its_privilege_and_denies_in_its_words_on(&Plane::own().await).await;
}

pub(crate) async fn each_gate_asks_for_its_privilege_and_denies_in_its_words_on(plane: &Plane) {
    let (backend, device, agent) = connected(plane).await;
    let person = plane.join("4711").await;
    backend.answers(CHECK_PRIVILEGE, json!(false));
    for (name, args, privilege, text) in GATED {
        backend.forget();
        let args: Value = serde_json::from_str(args).unwrap();
        assert_eq!(
            denied(&device, &person, name, args, json!({})).await,
            denial(text)
        );
        assert_eq!(
            backend.calls(CHECK_PRIVILEGE),
            [
                json!({"privilege": privilege, "entity": "DEVICE", "entity_key": 7, "requestor_account_key": 4711,
                "swarm_key": 42})
            ],
            "{name}"
        );
    }
    // A denial is not remembered.
    backend.answers(CHECK_PRIVILEGE, json!(true));
    device
        .call(&person, "get_storage_data", json!([]), json!({}))
        .await
        .unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn people_may_not_do_what_is_the_backends() {
    people_may_not_do_what_is_the_backends_on(&Plane::own().await).await;
}

pub(crate) async fn people_may_not_do_what_is_the_backends_on(plane: &Plane) {
    let (backend, device, agent) = connected(plane).await;
    let person = plane.join("4711").await;
    let request = json!({"app_key": 12, "app_name": "App", "stage": "PROD", "current_state": "PRESENT",
        "target_state": "PRESENT"});
    for (name, kwargs) in [("request_app_state", request), ("device_handshake", json!({}))] {
        let found = denied(&device, &person, name, json!([]), kwargs).await;
        assert_eq!(found, denial("insufficient privileges"), "{name}");
    }
    assert_eq!(backend.calls(CHECK_PRIVILEGE), Vec::<Value>::new());
    agent.stop().await;
    assert_eq!(device.store().await.apps().await.unwrap(), []);
}

#[tokio::test]
async fn callers_without_a_usable_identity_are_refused_without_a_question() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    for authid in ["bob", "hidden", "0", "007x", "1e6", "System"] {
        let caller = plane.join(authid).await;
        for (name, args, _, text) in GATED {
            let args: Value = serde_json::from_str(args).unwrap();
            let kwargs = json!({"requestor_account_key": 4711});
            assert_eq!(
                denied(&device, &caller, name, args, kwargs).await,
                denial(text),
                "{authid}"
            );
        }
    }
    assert_eq!(backend.calls(CHECK_PRIVILEGE), Vec::<Value>::new());
    agent.stop().await;
}

#[tokio::test]
async fn the_backend_may_name_the_account_that_it_acts_for() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    backend.answers(CHECK_PRIVILEGE, json!(false));
    let text = "insufficient privileges to get storage data";
    for (args, kwargs, account) in [
        (json!([]), json!({"requestor_account_key": 12}), 12),
        (json!([]), json!({"requestor_account_key": "13"}), 13),
        (json!([]), json!({"requestor_account_key": 14.0}), 14),
        (json!([{"requestor_account_key": 15}]), json!({}), 15),
        (
            json!([{"requestor_account_key": 16}]),
            json!({"requestor_account_key": 17}),
            17,
        ),
        (
            json!([{"requestor_account_key": "18"}, 5]),
            json!({"other": 1}),
            18,
        ),
    ] {
        backend.forget();
        let found = denied(&device, &backend.session, "get_storage_data", args, kwargs).await;
        assert_eq!(found, denial(text), "{account}");
        assert_eq!(
            backend.calls(CHECK_PRIVILEGE)[0]["requestor_account_key"],
            account
        );
    }
    // Present but unusable: nobody's call, and no question.
    backend.forget();
    for key in [
        json!(null),
        json!(0),
        json!(-5),
        json!("x"),
        json!(" 42"),
        json!(1.5),
        json!([]),
        json!(true),
        json!(""),
    ] {
        for (args, kwargs) in [
            (json!([]), json!({"requestor_account_key": key})),
            (json!([{"requestor_account_key": key}]), json!({})),
        ] {
            let found = denied(&device, &backend.session, "get_storage_data", args, kwargs).await;
            assert_eq!(found, denial(text), "{key}");
        }
    }
    assert_eq!(backend.calls(CHECK_PRIVILEGE), Vec::<Value>::new());
    // Nobody named: the backend itself.
    for args in [
        json!([]),
        json!([{}]),
        json!(["requestor_account_key"]),
        json!([[{"requestor_account_key": 1}]]),
    ] {
        let answer = device
            .call(&backend.session, "get_storage_data", args, json!({}))
            .await;
        answer.unwrap();
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_failed_check_is_an_error_that_is_no_denial() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    let person = plane.join("4711").await;
    let not_bool = "type of argument is not bool";
    for (answer, text) in [
        (
            Answer::Error("app.error.database"),
            "app.error.database: as scripted",
        ),
        (
            Answer::Error("wamp.error.canceled"),
            "wamp.error.canceled: as scripted",
        ),
        (Answer::Empty, not_bool),
        (Answer::One(json!(null)), not_bool),
        (Answer::One(json!("true")), not_bool),
        (Answer::One(json!(1)), not_bool),
        (Answer::One(json!([true])), not_bool),
    ] {
        backend.does(CHECK_PRIVILEGE, answer.clone());
        let found = denied(&device, &person, "get_storage_data", json!([]), json!({})).await;
        assert_eq!(found, (text.to_owned(), "unavailable".to_owned()), "{answer:?}");
    }
    // None of that is remembered.
    backend.answers(CHECK_PRIVILEGE, json!(true));
    device
        .call(&person, "get_storage_data", json!([]), json!({}))
        .await
        .unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_granted_privilege_is_believed_for_some_seconds_and_for_nobody_else() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    let person = plane.join("4711").await;
    let ask =
        async |caller: &Session, name: &str| device.call(caller, name, json!([]), json!({})).await.is_ok();
    for _ in 0..5 {
        assert!(ask(&person, "get_storage_data").await);
        assert!(ask(&person, "get_agent_metadata").await);
    }
    assert_eq!(
        backend.calls(CHECK_PRIVILEGE).len(),
        1,
        "one privilege, one question"
    );
    backend.answers(CHECK_PRIVILEGE, json!(false));
    assert!(
        !ask(&plane.join("4712").await, "get_storage_data").await,
        "somebody else"
    );
    assert!(!ask(&person, "system_restart_agent").await, "another privilege");
    // Taken away, it is gone a few seconds later.
    wait::until_async("the privilege is asked for again", SOON, || async {
        (!ask(&person, "get_storage_data").await).then_some(())
    })
    .await;
    agent.stop().await;
}
