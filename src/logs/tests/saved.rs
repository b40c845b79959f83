//! How often a history is written, and how much of it a kill takes along.

use rusqlite::Connection;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_chatty_app_costs_one_write_in_thirty_seconds_and_a_kill_what_came_since() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, _store) = start(directory.path()).await;
    let witness = Connection::open(directory.path().join("reagent.db")).unwrap();
    witness
        .execute_batch(
            "CREATE TABLE Written (id INTEGER);
             CREATE TRIGGER inserted AFTER INSERT ON LogHistory BEGIN INSERT INTO Written VALUES (NEW.id); END;
             CREATE TRIGGER updated AFTER UPDATE ON LogHistory BEGIN INSERT INTO Written VALUES (NEW.id); END;",
        )
        .unwrap();
    let written = || -> u32 {
        let count = "SELECT count(*) FROM Written";
        witness.query_row(count, [], |row| row.get(0)).unwrap()
    };
    // What a kill would leave.
    let stored = || -> Vec<String> {
        let log = "SELECT log FROM LogHistory WHERE app_key = 1";
        let text: String = witness.query_row(log, [], |row| row.get(0)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let is_written = async |times: u32| {
        wait::until_async(&format!("{times} writes"), SOON, || async {
            (written() == times).then_some(())
        })
        .await;
    };
    logs.agent_line(app(1), "x", "hello");
    is_written(1).await;
    assert_eq!(stored(), ["hello"]);

    for second in 0..29 {
        for number in 0..100 {
            say(&logs, app(1), "x", format!("{second} {number}"));
        }
        // All of it has been taken.
        assert_eq!(logs.history(app(1), "x").await.len(), 100);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!((written(), stored()), (1, vec!["hello".to_owned()]));
    tokio::time::advance(Duration::from_secs(1)).await;
    is_written(2).await;
    let newest: Vec<String> = (0..100).map(|number| format!("28 {number}")).collect();
    assert_eq!(stored(), newest);

    say(&logs, app(1), "x", "too young".to_owned());
    assert_eq!(logs.history(app(1), "x").await.last().unwrap(), "too young");
    assert_eq!((written(), stored()), (2, newest));
}
