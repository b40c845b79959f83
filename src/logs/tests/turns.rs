//! Lines of an operation that come faster than they can be moved.

use super::*;

#[tokio::test]
async fn who_waits_for_a_turn_loses_no_line_and_who_does_not_is_told_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, _store) = start(directory.path()).await;
    let lines = || (0..3 * super::super::QUEUE).map(|number| number.to_string());
    let newest: Vec<String> = lines().skip(3 * super::super::QUEUE - 100).collect();
    for line in lines() {
        logs.output_line_in_turn(Channel::App, app(1), "x", line).await;
    }
    assert!(logs.lost.of().is_empty());
    assert_eq!(logs.history(app(1), "x").await, newest);

    for line in lines() {
        logs.output_line(app(1), "x", line);
    }
    assert_eq!(logs.lost.of(), ["prod_1_x"]);

    // Nobody moves them any more.
    logs.close().await;
    for line in lines() {
        logs.output_line_in_turn(Channel::App, app(1), "x", line).await;
    }
}
