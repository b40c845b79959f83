//! Queries over what containers printed (`logs-terminal-tunnel.md` 2.12).

use std::time::Instant;

use reagent::engine::{Engine, EngineError};
use reagent::logs::{Answer, Logs, Origin, Window};
use reagent::store::Store;
use testkit::docker::{self, Scope};
use testkit::wait;
use tokio_util::sync::CancellationToken;

use super::SOON;
use super::rig::{SERIAL, Writer, app};

async fn logs(home: &std::path::Path, engine: Engine) -> Logs {
    let (store, _) = Store::open(&home.join("reagent.db")).await.unwrap();
    Logs::start(SERIAL.to_owned(), store, engine, CancellationToken::new())
}

fn run_to_the_end(writer: &Writer) {
    writer.run();
    wait::until("the container has ended", SOON * 4, || {
        let state = docker::inspect(&writer.container, "{{.State.Status}}");
        (state.as_deref() == Some("exited")).then_some(())
    });
}

fn newest(lines: u32) -> Window {
    Window {
        lines,
        ..Window::default()
    }
}

fn texts(answer: &Answer) -> Vec<&str> {
    answer.lines.iter().map(|line| line.text.as_str()).collect()
}

/// When a found line was printed, nanoseconds since 1970.
fn moment(answer: &Answer, index: usize) -> u64 {
    let stamp = answer.lines[index].timestamp.as_deref().unwrap();
    let moment: jiff::Timestamp = stamp.parse().unwrap();
    u64::try_from(moment.as_nanosecond()).unwrap()
}

#[tokio::test]
async fn the_newest_lines_inside_the_bounds_are_found() {
    let home = tempfile::tempdir().unwrap();
    let logs = logs(home.path(), Engine::new().unwrap()).await;
    // With pauses, because several lines may be of one moment.
    let writer = Writer::new(201, "for i in $(seq 0 9); do echo $i; sleep 0.02; done");
    run_to_the_end(&writer);
    let all = logs.query(&writer.container, &newest(5000)).await.unwrap();
    assert_eq!(texts(&all), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(all.origin, Origin::Docker);
    assert_eq!(all.oldest_available, Some(moment(&all, 0)));
    let few = logs.query(&writer.container, &newest(3)).await.unwrap();
    assert_eq!(texts(&few), ["7", "8", "9"]);
    assert_eq!(few.oldest_available, Some(moment(&all, 0)));

    let window = |lines, since: Option<usize>, until: Option<usize>| Window {
        lines,
        since: since.map(|index| moment(&all, index)),
        until: until.map(|index| moment(&all, index)),
    };
    for (window, expected) in [
        (window(100, Some(7), None), vec!["7", "8", "9"]),
        (window(100, Some(2), Some(4)), vec!["2", "3", "4"]),
        (window(2, Some(0), Some(4)), vec!["3", "4"]),
        // The daemon alone would find nothing here: its newest three lines are all too new.
        (window(3, None, Some(4)), vec!["2", "3", "4"]),
        (window(3, None, Some(0)), vec!["0"]),
    ] {
        let answer = logs.query(&writer.container, &window).await.unwrap();
        assert_eq!(texts(&answer), expected, "{window:?}");
    }
    let before = Window {
        lines: 10,
        since: None,
        until: Some(moment(&all, 0) - 1),
    };
    let answer = logs.query(&writer.container, &before).await.unwrap();
    assert!(answer.lines.is_empty());
    assert!(
        answer.oldest_available.is_some(),
        "there are lines, but not there"
    );
}

#[tokio::test]
async fn a_window_far_back_in_a_large_log_is_found_without_reading_it_whole() {
    const LINES: u64 = 300_000;
    let home = tempfile::tempdir().unwrap();
    let logs = logs(home.path(), Engine::new().unwrap()).await;
    let script = format!(
        "awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) printf \"%d {}\\n\", i }}'",
        "x".repeat(80)
    );
    let writer = Writer::new(202, &script);
    run_to_the_end(&writer);
    let began = Instant::now();
    let end = logs.query(&writer.container, &newest(100)).await.unwrap();
    println!("newest 100 of {LINES} lines in {:?}", began.elapsed());
    assert_eq!(end.lines.len(), 100);
    assert!(end.lines[99].text.starts_with(&format!("{LINES} ")));

    let range = logs.query(&writer.container, &newest(5000)).await.unwrap();
    let window = Window {
        lines: 100,
        since: None,
        until: Some(moment(&range, 0)),
    };
    let began = Instant::now();
    let answer = logs.query(&writer.container, &window).await.unwrap();
    println!("100 lines before the newest 5000 in {:?}", began.elapsed());
    assert_eq!(answer.lines.len(), 100);
    let numbers: Vec<u64> = answer
        .lines
        .iter()
        .map(|line| line.text.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(answer.lines[99].timestamp, range.lines[0].timestamp);
}

#[tokio::test]
async fn services_of_a_project_are_put_together_in_order_of_time() {
    let home = tempfile::tempdir().unwrap();
    let logs = logs(home.path(), Engine::new().unwrap()).await;
    let scope = Scope::new();
    let app_name = scope.name("app");
    let container = format!("prod_203_{app_name}");
    let project = format!("{container}_compose");
    let image = scope.image("app", "echo $WORD; sleep 0.3; echo $WORD again");
    let mut made = Vec::new();
    for service in ["web", "db"] {
        let name = scope.name(service);
        let label = |key: &str, value: &str| format!("com.docker.compose.{key}={value}");
        let labels = [
            label("project", &project),
            label("service", service),
            label("container-number", "1"),
        ];
        let word = format!("WORD={service}");
        let mut arguments = vec!["run", "--network", "none", "--name", &name, "--env", &word];
        for label in &labels {
            arguments.extend(["--label", label]);
        }
        arguments.push(&image);
        docker::docker(&arguments).unwrap();
        made.push(name);
    }
    let answer = logs.query(&container, &newest(3)).await.unwrap();
    assert_eq!(answer.origin, Origin::Compose);
    // From the first line of the service that spoke last.
    assert_eq!(answer.oldest_available, Some(moment(&answer, 1)));
    let shown: Vec<String> = answer.lines.into_iter().map(|line| line.shown(false)).collect();
    assert_eq!(shown, ["web-1  | web again", "db-1  | db", "db-1  | db again"]);
    assert_eq!(
        logs.history_of(&container).await.unwrap(),
        [
            "web-1  | web",
            "web-1  | web again",
            "db-1  | db",
            "db-1  | db again"
        ]
    );
}

#[tokio::test]
async fn without_a_container_the_history_answers_and_without_docker_nobody() {
    let home = tempfile::tempdir().unwrap();
    let here = logs(home.path(), Engine::new().unwrap()).await;
    here.agent_line(app(204), "gone", "Starting gone...");
    let answer = here.query("prod_204_gone", &newest(10)).await.unwrap();
    assert_eq!(
        (answer.origin, texts(&answer)),
        (Origin::History, vec!["Starting gone..."])
    );
    assert_eq!(answer.oldest_available, None);
    let answer = here.query("prod_205_never", &newest(10)).await.unwrap();
    assert!(answer.lines.is_empty());
    let foreign = here.query("not-there", &newest(10)).await.unwrap_err();
    assert_eq!(foreign, EngineError::NoSuchContainer("not-there".to_owned()));

    let other = tempfile::tempdir().unwrap();
    let nowhere = Engine::at("unix:///nonexistent/docker.sock").unwrap();
    let blind = logs(other.path(), nowhere).await;
    blind.agent_line(app(204), "gone", "Starting gone...");
    let error = blind.query("prod_204_gone", &newest(10)).await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable(_)), "{error}");
}
