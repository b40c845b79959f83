//! What a restart of the agent has to know about logs that went on meanwhile.

use reagent::engine::Engine;
use testkit::{docker, wait};

use super::SOON;
use super::plane::Plane;
use super::rig::{Run, Tally, Viewer, Writer, app, wait_until_confirmed};

/// Numbers from one to another, then nothing.
fn counting(from: u64, to: u64) -> String {
    format!("seq {from} {to}; while :; do sleep 1; done")
}

async fn wait_until_read(run: &Run, writer: &Writer, last: &str) {
    wait::until_async(&format!("line {last} is read"), SOON, || async {
        let history = run.logs.history(app(writer.key), &writer.app_name).await;
        (history.last().map(String::as_str) == Some(last)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_container_that_was_replaced_without_a_link_reach_viewers_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let writer = Writer::new(111, &counting(1, 20));
    let later = Writer::new(112, &counting(21, 320));
    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    let mut viewer = Viewer::of(&plane, &writer).await;
    run.logs.clear_history(app(111), &writer.app_name);
    let session = plane.join("system").await;
    run.logs.attach(session.clone()).await;
    writer.run();
    run.follow(&writer);
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 20).await;
    wait_until_confirmed(&home.path().join("downloads"), &writer.container);
    session.abort();
    let _ = session.closed().await;
    docker::remove(&writer.container);
    writer.run_image_of(&later);
    run.follow(&writer);
    wait_until_read(&run, &writer, "320").await;
    run.close().await;

    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    run.follow(&writer);
    run.logs.attach(plane.join("system").await).await;
    tally.watch(&mut viewer, 320).await;
    assert_eq!((tally.delivered, tally.dropped), (320, 0));
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_no_hole_in_a_history_because_another_one_was_saved() {
    let home = tempfile::tempdir().unwrap();
    let long = Writer::new(113, &counting(1, 50));
    let short = Writer::new(114, "echo done");
    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    run.logs.clear_history(app(113), &long.app_name);
    long.run();
    run.follow(&long);
    wait_until_read(&run, &long, "50").await;
    // Its end has its history saved at once, and with it how far every log was read.
    short.run();
    run.follow(&short);
    wait_until_read(&run, &short, "done").await;
    wait::until("the cursors are stored", SOON, || {
        stored(home.path(), &long.container)
    });
    run.kill().await;

    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    run.follow(&long);
    wait_until_read(&run, &long, "50").await;
    let history = run.logs.history(app(113), &long.app_name).await;
    let expected: Vec<String> = (1..=50).map(|number| number.to_string()).collect();
    assert_eq!(history, expected);
    run.close().await;
}

/// Whether the database knows where a container's log was read to its 50th line.
fn stored(home: &std::path::Path, container: &str) -> Option<()> {
    let text = docker::docker(&["logs", "--timestamps", "--tail", "1", container]).ok()?;
    let moment: jiff::Timestamp = text.split_once(' ')?.0.parse().ok()?;
    let database = rusqlite::Connection::open(home.join("reagent.db")).ok()?;
    let query = "SELECT value FROM ReagentFacts WHERE name = 'log_cursors'";
    let cursors: String = database.query_row(query, [], |row| row.get(0)).ok()?;
    let cursors: serde_json::Value = serde_json::from_str(&cursors).ok()?;
    let noted = cursors[container]["nanoseconds"].as_u64()?;
    (i128::from(noted) >= moment.as_nanosecond()).then_some(())
}
