//! The file itself: damage, journals, power cuts.

use super::fixture::{count, old_reference_file, open, request, text};
use protocol::AppState;
use reagent::store::{Opened, Store, StoreError};
use serde_json::json;

#[tokio::test]
async fn a_damaged_file_is_renamed_aside_and_replaced() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    store.close().await;
    let whole = std::fs::read(&path).unwrap();
    let mut scribbled = whole.clone();
    scribbled[4096..12_288].fill(0xa5);
    for (name, content) in [
        ("garbage", vec![0x5a; 9000]),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("scribbled", scribbled),
    ] {
        let path = home.path().join(format!("{name}.db"));
        std::fs::write(&path, &content).unwrap();
        std::fs::write(home.path().join(format!("{name}.db-journal")), "not a journal").unwrap();
        let (store, opened) = Store::open(&path).await.unwrap();
        let Opened::Rebuilt { damaged } = opened else {
            panic!("{name}: {opened:?}")
        };
        let prefix = format!("{name}.db.damaged-");
        assert!(
            damaged
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&prefix),
            "{damaged:?}"
        );
        assert_eq!(
            std::fs::read(&damaged).unwrap(),
            content,
            "{name}: kept as it was"
        );
        assert!(store.apps().await.unwrap().is_empty());
        store
            .commit_request(request(json!({})), AppState::Removed)
            .await
            .unwrap();
        assert_eq!(
            store.fact(reagent::store::FACT_ADOPT).await.unwrap().as_deref(),
            Some("pending")
        );
        store.close().await;
        assert!(matches!(
            Store::open(&path).await.unwrap().1,
            Opened::Healthy { created: false }
        ));
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error_not_damage() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("reagent.db");
    std::fs::create_dir(&directory).unwrap();
    assert!(matches!(
        Store::open(&directory).await,
        Err(StoreError::Sqlite { .. })
    ));
    assert!(directory.is_dir());
}

#[tokio::test]
async fn a_file_with_a_rollback_journal_keeps_its_data_and_gets_a_write_ahead_log() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    old_reference_file(&path);
    assert_eq!(text(&path, "PRAGMA journal_mode"), "delete");
    let before = count(&path, "SELECT count(*) FROM AppStates");
    let store = open(&path).await;
    store
        .commit_request(request(json!({"app_key": 77})), AppState::Removed)
        .await
        .unwrap();
    assert!(home.path().join("reagent.db-wal").exists());
    store.close().await;
    assert!(
        !home.path().join("reagent.db-wal").exists(),
        "after a clean end everything is in the one file"
    );
    assert_eq!(text(&path, "PRAGMA journal_mode"), "wal");
    assert_eq!(count(&path, "SELECT count(*) FROM AppStates"), before + 1);
}

#[tokio::test]
async fn what_was_committed_before_a_power_cut_is_in_the_write_ahead_log() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reagent.db");
    let store = open(&path).await;
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    // What a power cut leaves: the files as they are, nobody has closed anything; the index in memory is lost.
    let cut = tempfile::tempdir().unwrap();
    for name in ["reagent.db", "reagent.db-wal"] {
        std::fs::copy(home.path().join(name), cut.path().join(name)).unwrap();
    }
    store.close().await;
    let found = open(&cut.path().join("reagent.db")).await;
    assert_eq!(found.requests().await.unwrap().len(), 1);
    // A torn end of the log is not damage: what was committed before it counts.
    found.close().await;
    let torn = tempfile::tempdir().unwrap();
    let store = open(&torn.path().join("reagent.db")).await;
    store
        .commit_request(request(json!({})), AppState::Removed)
        .await
        .unwrap();
    let log = std::fs::read(torn.path().join("reagent.db-wal")).unwrap();
    let cut = tempfile::tempdir().unwrap();
    std::fs::copy(torn.path().join("reagent.db"), cut.path().join("reagent.db")).unwrap();
    let mut half = log.clone();
    half.extend_from_slice(&log[32..log.len() / 3]);
    std::fs::write(cut.path().join("reagent.db-wal"), half).unwrap();
    let (found, opened) = Store::open(&cut.path().join("reagent.db")).await.unwrap();
    assert_eq!(opened, Opened::Healthy { created: false });
    assert_eq!(found.requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_no_write_ahead_log_is_possible_the_rollback_journal_serves() {
    let home = tempfile::tempdir().unwrap();
    for (name, wal) in [("fresh.db", false), ("wal.db", true)] {
        let path = home.path().join(name);
        if wal {
            let store = open(&path).await;
            store
                .commit_request(request(json!({"app_key": 5})), AppState::Removed)
                .await
                .unwrap();
            store.close().await;
        }
        // Shared memory cannot be had where its file would be.
        std::fs::create_dir(home.path().join(format!("{name}-shm"))).unwrap();
        let (store, opened) = Store::open(&path).await.unwrap();
        assert_eq!(opened, Opened::Healthy { created: !wal });
        store
            .commit_request(request(json!({})), AppState::Removed)
            .await
            .unwrap();
        store.close().await;
        assert_eq!(text(&path, "PRAGMA journal_mode"), "delete");
        assert_eq!(
            count(&path, "SELECT count(*) FROM RequestedAppStates"),
            1 + i64::from(wal)
        );
    }
}
