//! Logs that Docker rotates: what it threw away before it was read is said to be missing.

use reagent::engine::Engine;
use testkit::{docker, wait};

use super::SOON;
use super::plane::Plane;
use super::rig::{Run, Viewer, Writer, app, wait_until_confirmed};

const MISSING: &str = "… an unknown number of log line(s) dropped (log rotation)";

/// Prints `1` to 10, up to 4000 when it may go on, and one line more when it may end.
const SCRIPT: &str = "
    await() { while ! [ -e $1 ]; do sleep 0.05; done; }
    seq 1 10; await /tmp/on; seq 11 4000; await /tmp/end; echo 4001; while :; do sleep 1; done";

fn touch(writer: &Writer, file: &str) {
    let script = format!(": > {file}");
    docker::docker(&["exec", &writer.container, "/bin/sh", "-c", &script]).unwrap();
}

/// What viewers get until a last line.
async fn until(viewer: &mut Viewer, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.last().map(String::as_str) != Some(last) {
        lines.extend(viewer.next().await.expect("an open subscription"));
    }
    lines
}

fn numbers(lines: &[String]) -> Vec<u64> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_were_rotated_away_while_nobody_read_are_said_to_be_missing() {
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let writer = Writer::new(115, SCRIPT);
    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    let mut viewer = Viewer::of(&plane, &writer).await;
    run.logs.clear_history(app(writer.key), &writer.app_name);
    run.logs.attach(plane.join("system").await).await;
    // Some 25 lines each.
    writer.run_rotating(2000);
    run.follow(&writer);
    assert_eq!(
        numbers(&until(&mut viewer, "10").await),
        (1..=10).collect::<Vec<_>>()
    );
    wait_until_confirmed(&home.path().join("downloads"), &writer.container);
    run.close().await;

    touch(&writer, "/tmp/on");
    wait::until("the log is rotated", SOON, || {
        let end = docker::docker(&["logs", "--tail", "1", &writer.container]).ok()?;
        (end.trim() == "4000").then_some(())
    });
    let kept = docker::logs(&writer.container);
    let kept: Vec<String> = kept.lines().map(|line| line.trim().to_owned()).collect();
    assert!(kept.len() < 90, "{} lines are kept", kept.len());

    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    run.follow(&writer);
    run.logs.attach(plane.join("system").await).await;
    let lines = until(&mut viewer, "4000").await;
    assert_eq!(lines[0], MISSING);
    assert_eq!(lines[1..], kept);
    let history = run.logs.history(app(writer.key), &writer.app_name).await;
    let before: Vec<String> = (1..=10).map(|number| number.to_string()).collect();
    assert_eq!(history, [before, lines].concat());

    // Said once.
    touch(&writer, "/tmp/end");
    assert_eq!(until(&mut viewer, "4001").await, ["4001"]);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_log_that_is_rotated_while_it_is_followed_every_line_comes_once_or_is_said_to_be_missing() {
    const LINES: u64 = 20_000;
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let script = format!(
        "echo 1; while ! [ -e /tmp/on ]; do sleep 0.05; done
         i=1; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; done; while :; do sleep 1; done"
    );
    let writer = Writer::new(117, &script);
    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    let mut viewer = Viewer::of(&plane, &writer).await;
    run.logs.clear_history(app(writer.key), &writer.app_name);
    run.logs.attach(plane.join("system").await).await;
    // Some 650 lines each, far less than what comes in a second.
    writer.run_rotating(50_000);
    run.follow(&writer);
    until(&mut viewer, "1").await;
    touch(&writer, "/tmp/on");
    let lines = until(&mut viewer, &LINES.to_string()).await;
    let (mut last, mut missing, mut gaps) = (1, false, 0);
    for line in &lines {
        if line == MISSING {
            (missing, gaps) = (true, gaps + 1);
            continue;
        }
        let number: u64 = line.parse().unwrap();
        assert!(number > last, "{number} after {last}");
        assert!(
            missing || number == last + 1,
            "{number} after {last}, and nothing said"
        );
        (last, missing) = (number, false);
    }
    println!("{} lines came, {gaps} gaps", lines.len() - gaps);
    run.close().await;
}
