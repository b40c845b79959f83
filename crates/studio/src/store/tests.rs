use protocol::report::HostStats;
use protocol::{AppId, AppState, Privilege, Stage};
use serde_json::{Map, json};

use super::*;
use crate::install::{Wish, plan};
use crate::keys::{AccountKey, DeviceKey, ReleaseKey};

struct Fleet {
    store: Store,
    owner: AccountKey,
    device: Device,
    secret: String,
    app: App,
    _folder: tempfile::TempDir,
}

fn single(version: &str) -> NewRelease {
    NewRelease {
        version: version.to_owned(),
        docker_compose: None,
    }
}

async fn fleet() -> Fleet {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("studio.db")).await.unwrap();
    let owner = store.ensure_first_account("operator").await.unwrap().key;
    let swarm = store.first_swarm().await.unwrap();
    let NewDevice { device, secret } = store.add_device("press".to_owned(), swarm, owner).await.unwrap();
    let template = Map::from_iter([("MODE".to_owned(), json!({"defaultValue": "slow"}))]);
    let ports = vec![json!({"port": 8080})];
    let app = store
        .add_app("MyApp".to_owned(), owner, Some(single("1.4.0")), ports, template)
        .await
        .unwrap();
    Fleet {
        store,
        owner,
        device,
        secret,
        app,
        _folder: folder,
    }
}

impl Fleet {
    async fn wish(&self, wish: Wish) -> Install {
        let app = self.app.clone();
        self.store
            .change_install(self.device.key, app.key, self.owner, move |before| {
                plan(&app, before, wish)
            })
            .await
            .unwrap()
            .unwrap()
    }

    async fn install(&self, release: ReleaseKey) -> Install {
        self.wish(Wish::Install {
            release,
            start: true,
            environment: None,
        })
        .await
    }

    async fn report(&self, state: AppState, release: ReleaseKey) -> ReportOutcome {
        let app = AppId {
            key: self.app.key.0,
            stage: Stage::Prod,
        };
        let change = StateChange {
            app,
            state,
            release,
            update_status: String::new(),
        };
        self.store.report_state(self.device.key, change).await.unwrap()
    }

    fn release(&self) -> ReleaseKey {
        self.app.releases[0].key
    }
}

fn stored(outcome: ReportOutcome) -> Install {
    match outcome {
        ReportOutcome::Stored(install) => *install,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_first_account_is_made_once_and_administers() {
    let fleet = fleet().await;
    let again = fleet.store.ensure_first_account("operator").await.unwrap();
    assert_eq!((again.key, again.admin), (fleet.owner, true));
    assert_eq!(fleet.store.accounts().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_device_is_found_by_name_key_and_serial_and_its_secret_only_in_its_swarm() {
    let fleet = fleet().await;
    for text in [
        "press",
        "PRESS",
        &fleet.device.key.to_string(),
        &fleet.device.serial,
    ] {
        let found = fleet.store.find_device(text.to_owned()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&fleet.device), "{text}");
    }
    assert_eq!(fleet.store.find_device("other".to_owned()).await.unwrap(), None);
    let secret = async |swarm, device| {
        let found = fleet.store.device_secret(swarm, device).await;
        found.map(|found| found.map(|(secret, _)| secret))
    };
    assert_eq!(
        secret(fleet.device.swarm, fleet.device.key).await.unwrap(),
        Some(fleet.secret.clone())
    );
    assert_eq!(
        secret(crate::keys::SwarmKey(99), fleet.device.key).await.unwrap(),
        None
    );
    assert_eq!(
        secret(fleet.device.swarm, DeviceKey(u64::MAX)).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_name_is_given_once_and_a_key_never_again() {
    let fleet = fleet().await;
    let again = fleet
        .store
        .add_device("Press".to_owned(), fleet.device.swarm, fleet.owner)
        .await;
    assert!(matches!(again, Err(StoreError::Taken { what: "device", .. })));
    fleet.store.remove_device(fleet.device.key).await.unwrap();
    let next = fleet
        .store
        .add_device("press".to_owned(), fleet.device.swarm, fleet.owner)
        .await
        .unwrap();
    assert!(next.device.key > fleet.device.key);
}

#[tokio::test]
async fn a_testament_ends_only_the_session_it_names() {
    let fleet = fleet().await;
    let (store, key, serial) = (&fleet.store, fleet.device.key, fleet.device.serial.clone());
    let stats = HostStats {
        cpu_count: 4,
        ..HostStats::default()
    };
    let change = |session| StatusChange {
        status: "CONNECTED",
        session,
        stats: Some(stats),
        tunnel_capable: None,
    };
    assert_eq!(
        store.set_status(key, change(1 << 53)).await.unwrap(),
        "DISCONNECTED"
    );
    assert_eq!(store.disconnect(key, serial.clone(), 7).await.unwrap(), None);
    assert_eq!(
        store
            .disconnect(key, "another".to_owned(), 1 << 53)
            .await
            .unwrap(),
        None
    );
    let device = store.device(key).await.unwrap().unwrap();
    assert!(device.is_online());
    assert_eq!((device.session, device.stats), (Some(1 << 53), Some(stats)));
    let ended = store.disconnect(key, serial, 1 << 53).await.unwrap().unwrap();
    assert_eq!((ended.status.as_str(), ended.session), ("DISCONNECTED", None));
    assert_eq!(store.sessions().await.unwrap(), []);

    store.set_status(key, change(8)).await.unwrap();
    assert_eq!(store.sessions().await.unwrap(), [(key, 8)]);
    assert_eq!(store.disconnect_gone(vec![(key, 7)]).await.unwrap(), []);
    let [gone] = &store.disconnect_gone(vec![(key, 8), (key, 8)]).await.unwrap()[..] else {
        panic!("one device had that session")
    };
    assert_eq!((gone.status.as_str(), gone.session), ("DISCONNECTED", None));
}

#[tokio::test]
async fn a_request_and_its_reports_make_the_install() {
    let fleet = fleet().await;
    let asked = fleet.install(fleet.release()).await;
    assert_eq!(
        (asked.target, asked.current),
        (AppState::Running, AppState::Removed)
    );
    assert_eq!(
        (asked.present_version.as_str(), asked.newest_version.as_str()),
        ("1.4.0", "1.4.0")
    );
    assert_eq!(asked.environment_template["MODE"]["defaultValue"], "slow");
    let running = stored(fleet.report(AppState::Running, fleet.release()).await);
    assert_eq!(
        (running.current, running.reports, running.revision),
        (AppState::Running, 1, 1)
    );
    let app = AppId {
        key: fleet.app.key.0,
        stage: Stage::Prod,
    };
    assert!(
        fleet
            .store
            .report_ports(fleet.device.key, app, vec![json!({"port": 8080, "host_port": 1})])
            .await
            .unwrap()
    );
    let now = fleet
        .store
        .install(fleet.device.key, fleet.app.key, Stage::Prod)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now.ports, [json!({"port": 8080, "host_port": 1})]);
}

#[tokio::test]
async fn an_update_ends_when_the_device_reports_the_new_release() {
    let fleet = fleet().await;
    fleet.install(fleet.release()).await;
    fleet.report(AppState::Running, fleet.release()).await;
    let app = fleet
        .store
        .add_release(fleet.app.key, single("1.5.0"), false)
        .await
        .unwrap();
    let newer = app.releases[1].key;
    let asked = fleet.install(newer).await;
    assert!(asked.request_update);
    assert_eq!(
        (asked.present_version.as_str(), asked.newest_version.as_str()),
        ("1.4.0", "1.5.0")
    );
    let updating = stored(fleet.report(AppState::Updating, fleet.release()).await);
    assert!(updating.request_update);
    let done = stored(fleet.report(AppState::Present, newer).await);
    assert_eq!(
        (done.release, done.request_update, done.present_version.as_str()),
        (newer, false, "1.5.0")
    );
}

#[tokio::test]
async fn the_last_report_of_a_removal_ends_the_install() {
    let fleet = fleet().await;
    fleet.install(fleet.release()).await;
    fleet.report(AppState::Running, fleet.release()).await;
    fleet.wish(Wish::Remove { keep_data: false }).await;
    stored(fleet.report(AppState::Removed, fleet.release()).await);
    assert!(matches!(
        fleet.report(AppState::Uninstalled, fleet.release()).await,
        ReportOutcome::Removed(_)
    ));
    assert_eq!(
        fleet.report(AppState::Uninstalled, fleet.release()).await,
        ReportOutcome::Unknown
    );
    assert_eq!(fleet.store.installs(None).await.unwrap(), []);
    fleet.store.remove_app(fleet.app.key).await.unwrap();
}

#[tokio::test]
async fn an_installed_app_cannot_be_removed_from_the_studio() {
    let fleet = fleet().await;
    fleet.install(fleet.release()).await;
    assert!(matches!(
        fleet.store.remove_app(fleet.app.key).await,
        Err(StoreError::InUse(_))
    ));
}

#[tokio::test]
async fn the_history_of_reports_is_bounded() {
    let fleet = fleet().await;
    fleet.install(fleet.release()).await;
    for _ in 0..REPORTS_KEPT + 5 {
        fleet.report(AppState::Starting, fleet.release()).await;
    }
    fleet.report(AppState::Running, fleet.release()).await;
    let reports = fleet
        .store
        .reports(fleet.device.key, fleet.app.key, Stage::Prod)
        .await
        .unwrap();
    assert_eq!(reports.len(), REPORTS_KEPT as usize);
    assert_eq!(reports.last().unwrap().state, "RUNNING");
}

#[tokio::test]
async fn privileges_come_from_ownership_or_a_grant() {
    let fleet = fleet().await;
    let (store, device) = (&fleet.store, fleet.device.key);
    let (alice, secret) = store.add_account("alice".to_owned(), false).await.unwrap();
    assert_eq!(store.account_secret(alice.key).await.unwrap(), Some(secret));
    let allowed = |account, privilege| store.is_allowed(account, device, privilege);
    assert!(allowed(fleet.owner, Privilege::Maintain).await.unwrap());
    assert!(!allowed(alice.key, Privilege::Read).await.unwrap());
    store.grant(alice.key, device, Privilege::Read).await.unwrap();
    store.grant(alice.key, device, Privilege::Read).await.unwrap();
    assert!(allowed(alice.key, Privilege::Read).await.unwrap());
    assert!(!allowed(alice.key, Privilege::Maintain).await.unwrap());
    assert!(!allowed(AccountKey(99), Privilege::Read).await.unwrap());
    assert!(store.revoke(alice.key, device, Privilege::Read).await.unwrap());
    assert!(!store.revoke(alice.key, device, Privilege::Read).await.unwrap());
}

#[tokio::test]
async fn everything_survives_closing_and_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("studio.db");
    let store = Store::open(&path).await.unwrap();
    let owner = store.ensure_first_account("operator").await.unwrap().key;
    let swarm = store.first_swarm().await.unwrap();
    let device = store
        .add_device("press".to_owned(), swarm, owner)
        .await
        .unwrap()
        .device;
    drop(store);
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.devices().await.unwrap(), [device]);
    assert_eq!(store.setting_or("x", "first".to_owned()).await.unwrap(), "first");
    assert_eq!(store.setting_or("x", "second".to_owned()).await.unwrap(), "first");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("studio.db");
    std::fs::write(&path, "this is not a database, and long enough to be noticed").unwrap();
    assert!(matches!(Store::open(&path).await, Err(StoreError::Open { .. })));
}
