//! Histories of an earlier run, on a disk that is slow or cannot be read.

use std::path::Path;

use rusqlite::Connection;

use super::*;

fn database(directory: &Path) -> Connection {
    Connection::open(directory.join("reagent.db")).unwrap()
}

/// Leaves a history of one line.
async fn earlier_run(directory: &Path) {
    let (logs, store) = start(directory).await;
    logs.agent_line(app(1), "x", "of an earlier run");
    logs.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_disk_that_does_not_answer_keeps_nobody_from_live_lines_and_forgets_no_history() {
    let directory = tempfile::tempdir().unwrap();
    earlier_run(directory.path()).await;
    let url = router(None).await;
    let other = join(&url).await;
    let mut viewer = view(&other, "prod_1_x").await;
    let (store, _) = Store::open(&directory.path().join("reagent.db")).await.unwrap();

    // Somebody holds the database: this write waits, and all reads behind it.
    let holder = database(directory.path());
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.set_fact("held", "up").await }
    });
    tokio::task::yield_now().await;
    let engine = Engine::new().unwrap();
    let logs = Logs::start(SERIAL.to_owned(), store.clone(), engine, CancellationToken::new());
    logs.attach(join(&url).await).await;
    let began = std::time::Instant::now();
    logs.agent_line(app(1), "x", "of this run");
    say(&logs, app(2), "y", "of another app".to_owned());
    assert_eq!(next(&mut viewer).await["chunk"], "of this run");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(logs.history(app(1), "x").await, ["of this run"], "what there is");
    assert!(!write.is_finished(), "the disk was slow long enough");

    holder.execute_batch("ROLLBACK").unwrap();
    write.await.unwrap().unwrap();
    let both = ["of an earlier run", "of this run"];
    assert_eq!(logs.history(app(1), "x").await, both);
    logs.close().await;
    assert_eq!(store.log_history(app(1)).await.unwrap(), both);
}

#[tokio::test]
async fn a_history_that_could_not_be_read_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    earlier_run(directory.path()).await;
    let (store, _) = Store::open(&directory.path().join("reagent.db")).await.unwrap();
    let other = database(directory.path());
    other
        .execute_batch("ALTER TABLE LogHistory RENAME TO Away")
        .unwrap();
    assert!(store.log_history(app(1)).await.is_err());
    let engine = Engine::new().unwrap();
    let logs = Logs::start(SERIAL.to_owned(), store.clone(), engine, CancellationToken::new());
    logs.agent_line(app(1), "x", "of this run");
    assert_eq!(logs.history(app(1), "x").await, ["of this run"]);
    other
        .execute_batch("ALTER TABLE Away RENAME TO LogHistory")
        .unwrap();
    let both = ["of an earlier run", "of this run"];
    wait::until_async("the history is whole again", SOON, || async {
        (logs.history(app(1), "x").await == both).then_some(())
    })
    .await;
    logs.close().await;
    assert_eq!(store.log_history(app(1)).await.unwrap(), both);

    // Cleared while it cannot be read: what is stored is not wanted any more.
    let (logs, store) = start(directory.path()).await;
    logs.clear_history(app(1), "x");
    logs.agent_line(app(1), "x", "anew");
    logs.close().await;
    assert_eq!(store.log_history(app(1)).await.unwrap(), ["anew"]);
}

#[tokio::test]
async fn lines_of_a_history_that_was_not_saved_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let scope = Scope::new();
    let app_name = scope.name("app");
    let script = "seq 1 3; while ! [ -e /tmp/go ]; do sleep 0.1; done; seq 4 6; sleep 100";
    let name = run(&scope, 13, script);
    let _removed = Removed(name.clone());
    let read_until = async |logs: &Logs, last: &str| {
        wait::until_async("the log is read", SOON, || async {
            let history = logs.history(app(13), &app_name).await;
            (history.last().map(String::as_str) == Some(last)).then_some(history)
        })
        .await
    };
    let (logs, store) = start(directory.path()).await;
    logs.follow(app(13), &app_name);
    read_until(&logs, "3").await;
    logs.close().await;
    store.close().await;

    let other = database(directory.path());
    let (store, _) = Store::open(&directory.path().join("reagent.db")).await.unwrap();
    other
        .execute_batch("ALTER TABLE LogHistory RENAME TO Away")
        .unwrap();
    assert!(store.log_history(app(13)).await.is_err());
    let engine = Engine::new().unwrap();
    let logs = Logs::start(SERIAL.to_owned(), store.clone(), engine, CancellationToken::new());
    logs.follow(app(13), &app_name);
    docker::docker(&["exec", &name, "/bin/sh", "-c", ": > /tmp/go"]).unwrap();
    read_until(&logs, "6").await;
    logs.close().await;
    store.close().await;
    other
        .execute_batch("ALTER TABLE Away RENAME TO LogHistory")
        .unwrap();

    let (logs, _store) = start(directory.path()).await;
    logs.follow(app(13), &app_name);
    let history = read_until(&logs, "6").await;
    assert_eq!(history, ["1", "2", "3", "4", "5", "6"]);
    logs.close().await;
}
