//! Lines of an operation that come faster than they can be moved.

use super::super::batch::BUFFER;
use super::*;

#[tokio::test]
async fn who_waits_for_a_turn_loses_no_line_and_who_does_not_is_told_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, _store) = start(directory.path()).await;
    let lines = || (0..3 * super::super::QUEUE).map(|number| number.to_string());
    let newest: Vec<String> = lines().skip(3 * super::super::QUEUE - 100).collect();
    let mut operation = logs.operation(Channel::App, app(1), "x");
    for line in lines() {
        operation.line(line).await;
    }
    assert!(logs.lost.of().is_empty());
    assert_eq!(logs.history(app(1), "x").await, newest);

    for line in lines() {
        say(&logs, app(1), "x", line);
    }
    assert_eq!(logs.lost.of(), ["prod_1_x"]);

    // Nobody moves them any more.
    logs.close().await;
    for line in lines() {
        operation.line(line).await;
    }
}

/// Records as a build with much output makes them: far more than may wait.
#[tokio::test]
async fn of_an_operation_with_a_viewer_nothing_is_lost() {
    const LINES: usize = 20 * BUFFER / RECORD;
    const RECORD: usize = 32 << 10;
    let rig = rig().await;
    let mut viewer = rig.viewed(app(1), "x").await;
    let mut operation = rig.logs.operation(Channel::App, app(1), "x");
    let told = tokio::spawn(async move {
        for number in 0..LINES {
            operation.line(format!("{number:RECORD$}")).await;
        }
    });
    let lines = next_lines(&mut viewer, LINES).await;
    told.await.unwrap();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line.trim_start(), number.to_string());
    }
}
