//! Requests, states and files of the reference for the database's tests.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::path::Path;

use protocol::report::StateReport;
use protocol::request::parse_row;
use protocol::{AppId, AppRequest, AppState, Stage, UpdateStatus};
use reagent::store::{StateChange, Store};
use rusqlite::Connection;
use serde_json::{Value, json};

pub(crate) const APP: AppId = AppId {
    key: 6,
    stage: Stage::Prod,
};

pub(crate) async fn open(path: &Path) -> Store {
    Store::open(path).await.unwrap().0
}

pub(crate) fn request(members: Value) -> AppRequest {
    let mut row = json!({
        "app_key": 6, "app_name": "MyApp", "stage": "PROD", "current_state": "PRESENT", "target_state": "RUNNING",
        "release_key": 100, "new_release_key": 101, "present_version": "1.4.0", "newest_version": "1.5.0",
        "requestor_account_key": 12, "device_owner_account_key": 9, "app_cred_epoch": 2, "instance_key": 7,
        "version": "1.6.0",
        "environment": {"MQTT_HOST": {"value": "broker.local"}},
        "ports": [{"name": "web", "port": 8080}],
    });
    let (Value::Object(row), Value::Object(members)) = (&mut row, members) else {
        unreachable!()
    };
    row.extend(members);
    parse_row(&Value::Object(row.clone())).unwrap()
}

pub(crate) fn report(state: AppState) -> StateReport {
    StateReport {
        app_key: APP.key,
        device_key: 3,
        swarm_key: 2,
        serial_number: "abc".to_owned(),
        stage: APP.stage,
        state,
        device_to_app_key: 0,
        requestor_account_key: 12,
        release_key: 100,
        request_update: false,
        release_build: false,
        update_status: UpdateStatus::None,
    }
}

pub(crate) fn change(state: AppState) -> StateChange {
    StateChange {
        app: APP,
        app_name: "MyApp".to_owned(),
        state,
        version: "1.4.0".to_owned(),
        release_key: 100,
        finishes: None,
        document: None,
        report: Some(report(state)),
    }
}

pub(crate) fn count(path: &Path, sql: &str) -> i64 {
    Connection::open(path)
        .unwrap()
        .query_row(sql, [], |row| row.get(0))
        .unwrap()
}

pub(crate) fn text(path: &Path, sql: &str) -> String {
    Connection::open(path)
        .unwrap()
        .query_row(sql, [], |row| row.get(0))
        .unwrap()
}

/// The file as a first release of the reference made it: later columns missing, so that ALTERs put them last.
pub(crate) fn old_reference_file(path: &Path) {
    let states = "'PRESENT','REMOVED','UNINSTALLED','FAILED','BUILDING','BUILT','TRANSFERED','TRANSFERING',\
        'PUBLISHING','PUBLISHED','DOWNLOADING','STARTING','STOPPING','UPDATING','DELETING','RUNNING','INHERIT'";
    Connection::open(path)
        .unwrap()
        .execute_batch(&format!(
            "CREATE TABLE AppStates (id INTEGER PRIMARY KEY AUTOINCREMENT, app_name TEXT NOT NULL,
                 app_key INTEGER NOT NULL, version TEXT NOT NULL, release_key INTEGER NOT NULL,
                 stage TEXT CHECK(stage IN ('DEV','PROD')) NOT NULL,
                 state TEXT CHECK(state IN ({states})) NOT NULL, timestamp TEXT NOT NULL);
             CREATE UNIQUE INDEX app_states_unique ON AppStates (app_name, app_key, stage);
             CREATE TABLE RequestedAppStates (id INTEGER PRIMARY KEY AUTOINCREMENT, app_name TEXT NOT NULL,
                 app_key INTEGER NOT NULL, stage TEXT CHECK(stage IN ('DEV','PROD')) NOT NULL, version TEXT,
                 present_version TEXT, newest_version TEXT, environment_variables TEXT, release_key INTEGER NOT NULL,
                 new_release_key INTEGER NOT NULL, request_update BOOLEAN NOT NULL CHECK (request_update IN (0,1)),
                 current_state TEXT CHECK(current_state IN ({states})) NOT NULL,
                 manually_requested_state TEXT CHECK(manually_requested_state IN ({states})) NOT NULL,
                 requestor_account_key INTEGER NOT NULL, timestamp TEXT NOT NULL);
             CREATE UNIQUE INDEX requested_app_states_unique ON RequestedAppStates (app_name, app_key, stage);
             INSERT INTO AppStates (app_name, app_key, version, release_key, stage, state, timestamp) VALUES
                 ('MyApp', 6, '1.4.0', 100, 'PROD', 'RUNNING', '2026-03-01T14:05:09+01:00'),
                 ('Odd', 7, '', 0, 'DEV', 'INHERIT', '2026-03-01T14:05:09+01:00');
             INSERT INTO RequestedAppStates (app_name, app_key, stage, version, present_version, newest_version,
                 environment_variables, release_key, new_release_key, request_update, current_state,
                 manually_requested_state, requestor_account_key, timestamp) VALUES
                 ('MyApp', 6, 'PROD', '1.0', '1.4.0', '1.4.0', '{{\"A\":{{\"value\":1000000}}}}', 100, 100, 0, 'RUNNING',
                  'RUNNING', 12, '2026-03-01T14:05:09+01:00'),
                 ('Odd', 7, 'DEV', NULL, NULL, '', 'null', 0, 0, 0, 'INHERIT', 'INHERIT', 12,
                  '2026-03-01T14:05:09+01:00');"
        ))
        .unwrap();
}
