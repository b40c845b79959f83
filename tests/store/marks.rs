//! What is remembered of a request beside the reference's columns: whether a build has ended, which update was canceled.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::path::Path;

use protocol::{AppId, AppRequest, AppState, Stage};
use reagent::store::{StateChange, Store};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::fixture::{change, open, request};

const DEV: AppId = AppId {
    key: 6,
    stage: Stage::Dev,
};

fn asked(target: AppState) -> AppRequest {
    request(json!({"stage": "DEV", "target_state": target.as_str()}))
}

fn ended(number: u64) -> StateChange {
    StateChange {
        app: DEV,
        finishes: Some(number),
        report: None,
        ..change(AppState::Present)
    }
}

async fn commit(store: &Store, request: AppRequest) -> u64 {
    store.commit_request(request, AppState::Removed).await.unwrap()
}

async fn restarted(store: Store, path: &Path) -> Store {
    store.close().await;
    open(path).await
}

#[tokio::test]
async fn the_end_of_an_older_build_does_not_end_a_newer_one() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    let first = commit(&store, asked(AppState::Built)).await;
    // Something else in between: numbers are not given twice.
    commit(&store, asked(AppState::Present)).await;
    assert!(store.unfinished().await.unwrap().is_empty());
    let second = commit(&store, asked(AppState::Built)).await;
    store.set_state(ended(first)).await.unwrap();
    let store = restarted(store, &path).await;
    assert_eq!(store.unfinished().await.unwrap(), [(DEV, second)]);
    store.set_state(ended(second)).await.unwrap();
    let store = restarted(store, &path).await;
    assert!(store.unfinished().await.unwrap().is_empty());
    let third = commit(&store, asked(AppState::Published)).await;
    assert!(third > second && second > first, "{first} {second} {third}");
    store.close().await;
}

#[tokio::test]
async fn a_build_that_the_reference_has_worked_on_since_is_not_repeated() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    let number = commit(&store, asked(AppState::Built)).await;
    // Our own states do not make the mark a stale one.
    for state in [AppState::Building, AppState::Failed] {
        let change = StateChange {
            finishes: None,
            ..ended(0)
        };
        store.set_state(StateChange { state, ..change }).await.unwrap();
    }
    assert_eq!(store.unfinished().await.unwrap(), [(DEV, number)]);
    store.close().await;
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "INSERT INTO AppStateHistory (app_name, app_key, release_key, version, stage, state, timestamp)
                 VALUES ('MyApp', 6, 100, '1.4.0', 'DEV', 'BUILDING', '2026-03-01T14:05:09+01:00');
             UPDATE AppStates SET state = 'BUILT' WHERE app_key = 6",
        )
        .unwrap();
    let store = open(&path).await;
    assert!(store.unfinished().await.unwrap().is_empty());
    commit(&store, asked(AppState::Built)).await;
    assert_eq!(store.unfinished().await.unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_canceled_update_is_remembered_until_the_next_request() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let mut store = open(&path).await;
    for (members, canceled) in [
        (json!({"cancel_transition": true}), true),
        (json!({}), false),
        (json!({"cancel_transition": true, "newest_version": ""}), false),
    ] {
        let mut all = json!({"request_update": true});
        let (Value::Object(all_of_them), Value::Object(members)) = (&mut all, members) else {
            unreachable!()
        };
        all_of_them.extend(members);
        commit(&store, request(all.clone())).await;
        store = restarted(store, &path).await;
        let stored = store.requests().await.unwrap();
        assert_eq!(stored[0].cancel_transition, canceled, "{all}");
    }
    store.close().await;
}

#[tokio::test]
async fn numbers_of_variables_read_the_same_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let mut environment = serde_json::Map::new();
    for text in [
        "1000000",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1",
        "3.0",
        "1.7976931348623157e+308",
        "2.2250738585072014e-308",
        "123456789.12345679",
    ] {
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(value.to_string(), text, "as the container is told it");
        environment.insert(format!("N{}", environment.len()), json!({"value": value}));
    }
    let store = open(&path).await;
    let asked = request(json!({"environment": environment}));
    commit(&store, asked).await;
    let store = restarted(store, &path).await;
    let stored = store.requests().await.unwrap().remove(0);
    let text = |map: &serde_json::Map<String, Value>| serde_json::to_string(map).unwrap();
    assert_eq!(text(&stored.environment.unwrap()), text(&environment));
    store.close().await;
}
