//! The database: what the reference wrote is read, what we write the reference can read (`app-lifecycle.md` 9).

#[path = "store/files.rs"]
mod files;
#[path = "store/fixture.rs"]
mod fixture;
#[path = "store/marks.rs"]
mod marks;

use fixture::{APP, change, count, old_reference_file, open, report, request, text};
use protocol::request::parse_row;
use protocol::{AppRequest, AppState};
use reagent::store::{LogHistory, Opened, Recorded, Store, StoreError};
use rusqlite::Connection;
use serde_json::json;

#[tokio::test]
async fn a_file_of_the_reference_is_opened_and_carried_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    old_reference_file(&path);
    let (store, opened) = Store::open(&path).await.unwrap();
    assert_eq!(opened, Opened::Healthy { created: false });
    assert_eq!(store.fact(reagent::store::FACT_ADOPT).await.unwrap(), None);

    let apps = store.apps().await.unwrap();
    assert_eq!(apps[0].app, APP);
    assert_eq!(
        (apps[0].app_name.as_str(), apps[0].state),
        ("MyApp", AppState::Running)
    );
    // A state that no agent has must not make the app unknown.
    assert_eq!(apps[1].state, AppState::Failed);
    let requests = store.requests().await.unwrap();
    assert_eq!(requests.len(), 1, "the unreadable request is left alone");
    let found = &requests[0];
    assert_eq!((found.target, found.version.as_str()), (AppState::Running, "1.0"));
    assert_eq!(
        found.environment.as_ref().unwrap()["A"]["value"],
        json!(1_000_000)
    );
    assert_eq!(
        (found.ports.as_ref(), found.docker_compose.as_ref()),
        (None, None)
    );
    assert_eq!(count(&path, "SELECT count(*) FROM RequestedAppStates"), 2);

    store.set_state(change(AppState::Stopping)).await.unwrap();
    store.close().await;
    let store = open(&path).await;
    assert_eq!(store.apps().await.unwrap()[0].state, AppState::Stopping);
}

#[tokio::test]
async fn a_request_survives_with_everything_that_a_restart_needs() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    let stored = request(json!({}));
    store
        .commit_request(stored.clone(), AppState::Removed)
        .await
        .unwrap();
    // Neither the epoch nor the instance key is forgotten when a row does not tell them, and the epoch never falls.
    let again = request(
        json!({"app_cred_epoch": 1, "instance_key": 0, "device_owner_account_key": 0,
                               "target_state": "STARTING", "newest_version": "1.7.0"}),
    );
    store.commit_request(again, AppState::Removed).await.unwrap();
    store.close().await;

    let store = open(&path).await;
    let found = store.requests().await.unwrap();
    let expected = AppRequest {
        newest_version: "1.7.0".to_owned(),
        current: Some(AppState::Removed),
        ..stored
    };
    assert_eq!(found, [expected]);
    let apps = store.apps().await.unwrap();
    assert_eq!(
        (apps.len(), apps[0].state, apps[0].version.as_str()),
        (1, AppState::Removed, "1.4.0")
    );
}

#[tokio::test]
async fn the_reader_of_the_reference_never_meets_a_null() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    let bare = json!({"app_key": 9, "app_name": "bare", "stage": "DEV", "target_state": "PRESENT"});
    store
        .commit_request(parse_row(&bare).unwrap(), AppState::Removed)
        .await
        .unwrap();
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    store.set_state(change(AppState::Running)).await.unwrap();
    for column in [
        "version",
        "present_version",
        "newest_version",
        "environment_variables",
        "environment_template",
        "ports",
        "docker_compose",
        "new_docker_compose",
    ] {
        let nulls = format!("SELECT count(*) FROM RequestedAppStates WHERE {column} IS NULL");
        assert_eq!(count(&path, &nulls), 0, "{column}");
    }
    let absent =
        "SELECT environment_variables || ports || docker_compose FROM RequestedAppStates WHERE app_key = 9";
    assert_eq!(text(&path, absent), "nullnullnull");
    assert_eq!(count(&path, "PRAGMA user_version"), 0);
    let stamp = text(&path, "SELECT timestamp FROM AppStates WHERE app_key = 9");
    assert!(stamp.len() == 25 && stamp.as_bytes()[10] == b'T', "{stamp}");
    // The upgrade of the reference runs into existing columns only, which it expects.
    for column in [
        "docker_compose",
        "environment_template",
        "new_docker_compose",
        "ports",
    ] {
        let error = Connection::open(&path)
            .unwrap()
            .execute_batch(&format!(
                "ALTER TABLE RequestedAppStates ADD COLUMN {column} TEXT"
            ))
            .unwrap_err();
        assert!(error.to_string().contains("duplicate column"), "{error}");
    }
}

#[tokio::test]
async fn the_version_of_the_first_insert_stays_for_the_reference() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    store
        .commit_request(request(json!({"version": "2.0"})), AppState::Removed)
        .await
        .unwrap();
    assert_eq!(text(&path, "SELECT version FROM RequestedAppStates"), "1.6.0");
    assert_eq!(store.requests().await.unwrap()[0].version, "2.0");
}

#[tokio::test]
async fn a_state_touches_only_the_columns_that_follow_from_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Present)
        .await
        .unwrap();
    let stopped = request(json!({"target_state": "PRESENT", "newest_version": "9"}));
    store.commit_request(stopped, AppState::Present).await.unwrap();
    assert_eq!(
        store.set_state(change(AppState::Starting)).await.unwrap(),
        Recorded::Kept
    );

    let found = &store.requests().await.unwrap()[0];
    assert_eq!(
        (found.target, found.newest_version.as_str()),
        (AppState::Present, "9")
    );
    assert_eq!(found.current, Some(AppState::Starting));
    // History holds the state that was left, with the new version.
    assert_eq!(text(&path, "SELECT state FROM AppStateHistory"), "PRESENT");
    store.set_state(change(AppState::Starting)).await.unwrap();
    assert_eq!(
        count(&path, "SELECT count(*) FROM AppStateHistory"),
        1,
        "nothing changed, nothing is written"
    );
    assert_eq!(
        store.pending_reports().await.unwrap().len(),
        2,
        "but it is reported"
    );
}

#[tokio::test]
async fn history_keeps_the_newest_thousand_rows_of_an_app() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
             INSERT INTO AppStateHistory (app_name, app_key, release_key, version, stage, state, timestamp)
             SELECT CASE WHEN i % 3 = 0 THEN 'other' ELSE 'MyApp' END, CASE WHEN i % 3 = 0 THEN 8 ELSE 6 END, 0, '',
                 'PROD', 'FAILED', '' FROM n",
        )
        .unwrap();
    store.set_state(change(AppState::Present)).await.unwrap();
    store.set_state(change(AppState::Starting)).await.unwrap();
    assert_eq!(
        count(&path, "SELECT count(*) FROM AppStateHistory WHERE app_key = 6"),
        1000
    );
    assert_eq!(
        count(&path, "SELECT count(*) FROM AppStateHistory WHERE app_key = 8"),
        500
    );
    assert_eq!(
        text(
            &path,
            "SELECT state FROM AppStateHistory ORDER BY id DESC LIMIT 1"
        ),
        "PRESENT"
    );
}

#[tokio::test]
async fn removed_deletes_the_rows_only_when_it_was_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Present)
        .await
        .unwrap();
    assert_eq!(
        store.set_state(change(AppState::Removed)).await.unwrap(),
        Recorded::Kept
    );

    store.set_target(APP, AppState::Uninstalled).await.unwrap();
    assert_eq!(
        store.set_state(change(AppState::Removed)).await.unwrap(),
        Recorded::Deleted
    );
    assert!(store.apps().await.unwrap().is_empty());
    assert!(store.requests().await.unwrap().is_empty());
    // As in the reference, UNINSTALLED comes back without a request.
    assert_eq!(
        store.set_state(change(AppState::Uninstalled)).await.unwrap(),
        Recorded::Kept
    );
    assert_eq!(store.apps().await.unwrap()[0].state, AppState::Uninstalled);
    assert!(store.requests().await.unwrap().is_empty());
    store.forget_app(APP).await.unwrap();
    assert!(store.apps().await.unwrap().is_empty());
    assert_eq!(
        count(&path, "SELECT count(*) FROM ReagentReports"),
        3,
        "reports outlive the rows"
    );
}

#[tokio::test]
async fn reports_wait_in_order_and_leave_one_by_one() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    let mut woken = store.outbox_changed();
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    assert!(!woken.has_changed().unwrap());
    let states = [
        AppState::Downloading,
        AppState::Present,
        AppState::Starting,
        AppState::Running,
    ];
    for state in states {
        store.set_state(change(state)).await.unwrap();
    }
    woken.changed().await.unwrap();
    store.close().await;

    let store = open(&path).await;
    let pending = store.pending_reports().await.unwrap();
    assert_eq!(
        pending
            .iter()
            .map(|pending| pending.report.state)
            .collect::<Vec<_>>(),
        states
    );
    store.confirm_report(pending[0].number).await.unwrap();
    store.set_state(change(AppState::Failed)).await.unwrap();
    store.confirm_report(pending[1].number).await.unwrap();
    let left = store.pending_reports().await.unwrap();
    assert_eq!(
        left.iter()
            .map(|pending| pending.report.state)
            .collect::<Vec<_>>(),
        [AppState::Starting, AppState::Running, AppState::Failed]
    );
}

#[tokio::test]
async fn an_app_that_flaps_offline_keeps_its_newest_reports_only() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home.path().join("reagent.db")).await;
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    for _ in 0..20 {
        store.set_state(change(AppState::Starting)).await.unwrap();
        store.set_state(change(AppState::Failed)).await.unwrap();
    }
    let pending = store.pending_reports().await.unwrap();
    assert_eq!(pending.len(), 32);
    assert_eq!(pending.last().unwrap().report.state, AppState::Failed);
}

#[tokio::test]
async fn a_repeated_report_tells_what_is_recorded() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home.path().join("reagent.db")).await;
    store.queue_report(report(AppState::Running)).await.unwrap();
    assert!(
        store.pending_reports().await.unwrap().is_empty(),
        "the app is not known"
    );
    store
        .commit_request(request(json!({"release_key": 5})), AppState::Stopping)
        .await
        .unwrap();
    store.queue_report(report(AppState::Running)).await.unwrap();
    let pending = store.pending_reports().await.unwrap();
    assert_eq!(
        (pending[0].report.state, pending[0].report.release_key),
        (AppState::Stopping, 5)
    );
}

#[tokio::test]
async fn a_renamed_app_stays_one_app() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Running)
        .await
        .unwrap();
    store
        .commit_request(request(json!({"app_name": "Other"})), AppState::Removed)
        .await
        .unwrap();
    // The old name is where things are until they have moved.
    assert_eq!(store.apps().await.unwrap()[0].app_name, "MyApp");
    assert_eq!(store.requests().await.unwrap()[0].app_name, "Other");
    store.rename_app(APP, "Other").await.unwrap();
    assert_eq!(store.apps().await.unwrap()[0].app_name, "Other");
    assert_eq!(count(&path, "SELECT count(*) FROM RequestedAppStates"), 1);
}

#[tokio::test]
async fn second_rows_left_by_the_reference_after_a_rename_are_merged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    old_reference_file(&path);
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "INSERT INTO AppStates (app_name, app_key, version, release_key, stage, state, timestamp)
                 SELECT 'New', app_key, version, release_key, stage, state, timestamp FROM AppStates WHERE app_key = 6;
             INSERT INTO RequestedAppStates (app_name, app_key, stage, version, present_version, newest_version,
                 environment_variables, release_key, new_release_key, request_update, current_state,
                 manually_requested_state, requestor_account_key, timestamp)
                 SELECT 'New', 6, 'PROD', '', '', '', 'null', 1, 1, 0, 'RUNNING', 'REMOVED', 1, ''",
        )
        .unwrap();
    let store = open(&path).await;
    let names: Vec<String> = store
        .apps()
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.app_name)
        .collect();
    assert_eq!(names, ["MyApp", "Odd"]);
    let requests = store.requests().await.unwrap();
    assert_eq!(
        (requests[0].app_name.as_str(), requests[0].target),
        ("New", AppState::Removed)
    );
}

#[tokio::test]
async fn confirmations_and_repeated_reports_write_nothing_by_themselves() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    store.set_state(change(AppState::Starting)).await.unwrap();
    store.set_state(change(AppState::Running)).await.unwrap();
    let written = || {
        std::fs::metadata(home.path().join("reagent.db-wal"))
            .unwrap()
            .len()
    };
    let before = written();
    // The newest report that waits says it already.
    store.queue_report(report(AppState::Running)).await.unwrap();
    let pending = store.pending_reports().await.unwrap();
    assert_eq!(pending.len(), 2);
    for pending in pending {
        store.confirm_report(pending.number).await.unwrap();
    }
    assert!(store.pending_reports().await.unwrap().is_empty());
    for _ in 0..3 {
        store.queue_report(report(AppState::Running)).await.unwrap();
    }
    let repeated = store.pending_reports().await.unwrap();
    assert_eq!(repeated.len(), 1, "one repeat per app: {repeated:?}");
    store.confirm_report(repeated[0].number).await.unwrap();
    assert!(store.pending_reports().await.unwrap().is_empty());
    // Nor does looking again, when nothing has changed.
    let again = reagent::store::StateChange {
        report: None,
        ..change(AppState::Running)
    };
    store.set_state(again).await.unwrap();
    assert_eq!(written(), before);

    // A repeat that a change overtakes is not sent any more; the confirmed rows go with that change.
    store.queue_report(report(AppState::Running)).await.unwrap();
    store.set_state(change(AppState::Failed)).await.unwrap();
    let pending = store.pending_reports().await.unwrap();
    assert_eq!(
        pending
            .iter()
            .map(|pending| pending.report.state)
            .collect::<Vec<_>>(),
        [AppState::Failed]
    );
    assert_eq!(count(&path, "SELECT count(*) FROM ReagentReports"), 1);
    store.confirm_report(pending[0].number).await.unwrap();
    store.close().await;
    assert_eq!(count(&path, "SELECT count(*) FROM ReagentReports"), 0);
}

#[tokio::test]
async fn states_that_follow_at_once_are_one_transaction_and_all_reported() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(
            request(json!({"target_state": "UNINSTALLED"})),
            AppState::Deleting,
        )
        .await
        .unwrap();
    let both = vec![change(AppState::Removed), change(AppState::Uninstalled)];
    assert_eq!(store.set_states(both).await.unwrap(), Recorded::Kept);
    let pending = store.pending_reports().await.unwrap();
    assert_eq!(
        pending
            .iter()
            .map(|pending| pending.report.state)
            .collect::<Vec<_>>(),
        [AppState::Removed, AppState::Uninstalled]
    );
    assert_eq!(text(&path, "SELECT state FROM AppStates"), "UNINSTALLED");
    assert_eq!(count(&path, "SELECT count(*) FROM RequestedAppStates"), 0);
}

async fn save_history(store: &Store, lines: &[&str]) {
    let history = LogHistory {
        app: APP,
        app_name: "MyApp".to_owned(),
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    store
        .save_log_histories(vec![history], None)
        .await
        .expect("the database takes it");
}

#[tokio::test]
async fn log_history_follows_the_rules_of_the_reference() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    save_history(&store, &[]).await;
    assert_eq!(
        count(&path, "SELECT count(*) FROM LogHistory"),
        0,
        "clearing never inserts"
    );
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "INSERT INTO LogHistory (app_name, app_key, stage, log_type, log) VALUES ('MyApp', 6, 'PROD', 'PULL', 'null')",
        )
        .unwrap();
    assert!(store.log_history(APP).await.unwrap().is_empty());
    let lines = ["one", "zwei \"2\""];
    save_history(&store, &lines).await;
    assert_eq!(store.log_history(APP).await.unwrap(), lines);
    assert_eq!(
        count(&path, "SELECT count(DISTINCT log) FROM LogHistory"),
        1,
        "all rows of an app tell the same"
    );
    save_history(&store, &[]).await;
    assert!(store.log_history(APP).await.unwrap().is_empty());
    assert_eq!(text(&path, "SELECT log FROM LogHistory"), "[]");
}

#[tokio::test]
async fn facts_are_remembered() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    assert_eq!(store.fact("base_url").await.unwrap(), None);
    store.set_fact("base_url", "https://a").await.unwrap();
    store.set_fact("base_url", "https://b").await.unwrap();
    store.close().await;
    assert!(matches!(store.fact("base_url").await, Err(StoreError::Closed)));
    assert_eq!(
        open(&path).await.fact("base_url").await.unwrap().as_deref(),
        Some("https://b")
    );
}

#[tokio::test]
async fn an_adopted_app_is_quarantined_until_somebody_asks() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home.path().join("reagent.db")).await;
    store.adopt(request(json!({})), AppState::Running).await.unwrap();
    assert_eq!(store.adopted().await.unwrap(), [APP]);
    store
        .commit_request(request(json!({})), AppState::Running)
        .await
        .unwrap();
    store
        .adopt(request(json!({"target_state": "REMOVED"})), AppState::Running)
        .await
        .unwrap();
    assert!(store.adopted().await.unwrap().is_empty());
    assert_eq!(
        store.requests().await.unwrap()[0].target,
        AppState::Running,
        "a known app is not adopted again"
    );
}
