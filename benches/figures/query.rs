//! Windows of a hundred lines in the log of a container that has printed a gigabyte. The queries run in a process of their
//! own, this program started again, so that its memory is its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use reagent::engine::Engine;
use reagent::logs::{Logs, Window};
use reagent::store::Store;
use serde_json::{Value, json};
use testkit::docker::{self, Scope};
use tokio_util::sync::CancellationToken;

use super::promise;
use super::usage::peak;

/// Names the container to a process that is to ask.
const ROLE: &str = "REAGENT_BENCH_QUERY";
/// Of 100 characters; with what the daemon writes around each, some 170 bytes.
const LINES: u64 = 6_000_000;
const WINDOW: u32 = 100;
/// The figure is the median.
const TIMES: usize = 5;

/// Runs as the one who asks when this process is started as one. `true`: it was.
pub(crate) fn is_query() -> bool {
    let Ok(container) = std::env::var(ROLE) else {
        return false;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(answer(&container));
    true
}

/// Answers every line of its input, `{"lines", "since", "until"}`, with what was found and how long it took, seconds.
async fn answer(container: &str) {
    let home = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(&home.path().join("reagent.db"))
        .await
        .expect("a database");
    let engine = Engine::new().expect("Docker");
    let logs = Logs::start("bench".to_owned(), store, engine, CancellationToken::new());
    for line in std::io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line.expect("text")).expect("a window");
        let window = Window {
            lines: WINDOW,
            since: asked["since"].as_u64(),
            until: asked["until"].as_u64(),
        };
        let begin = Instant::now();
        let found = logs.query(container, &window).await.expect("an answer");
        let seconds = begin.elapsed().as_secs_f64();
        let texts: Vec<String> = found.lines.into_iter().map(|line| line.shown(false)).collect();
        println!("{}", json!({"seconds": seconds, "lines": texts}));
    }
}

struct Asker {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Asker {
    fn start(container: &str) -> Asker {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("--bench")
            .env(ROLE, container)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let answers = BufReader::new(child.stdout.take().expect("piped above"));
        Asker { child, answers }
    }

    /// The median time, and the number of the last line, which must be the last of a whole window.
    fn ask(&mut self, window: &Value) -> (f64, u64) {
        let mut times = Vec::new();
        let mut last = 0;
        for _ in 0..TIMES {
            let input = self.child.stdin.as_mut().expect("piped above");
            writeln!(input, "{window}").expect("it listens");
            let mut line = String::new();
            self.answers.read_line(&mut line).expect("it answers");
            let answer: Value = serde_json::from_str(&line).expect("an answer");
            times.push(answer["seconds"].as_f64().expect("a number"));
            let lines = answer["lines"].as_array().expect("lines");
            assert_eq!(lines.len(), WINDOW as usize, "{window}");
            let number = |line: &Value| line.as_str()?.split(' ').next()?.parse::<u64>().ok();
            last = lines.last().and_then(number).expect("a number");
            assert_eq!(
                number(&lines[0]),
                Some(last + 1 - u64::from(WINDOW)),
                "no line between"
            );
        }
        times.sort_by(f64::total_cmp);
        (times[TIMES / 2], last)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes the container, whatever happens.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        docker::remove(&self.0);
    }
}

/// The figures.
pub(crate) fn measure() {
    let scope = Scope::new();
    let name = scope.name("gigabyte");
    let script = format!(
        "awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) printf \"%d {}\\n\", i }}'",
        "x".repeat(92)
    );
    let image = scope.image("gigabyte", &script);
    let run = ["run", "--detach", "--network", "none", "--name", &name, &image];
    let removed = Removed(name.clone());
    docker::docker(&run).expect("it starts");
    docker::docker(&["wait", &name]).expect("it ends");
    let file = docker::inspect(&name, "{{.LogPath}}").and_then(|path| std::fs::metadata(path).ok());
    if let Some(file) = file {
        println!("log_query_log {:.2} GB measured", file.len() as f64 / 1e9);
    }

    let moment = |tail: u64| {
        let tail = tail.to_string();
        let mut logs = Command::new("docker");
        logs.args(["logs", "--timestamps", "--tail", &tail, &name]);
        let mut logs = logs.stdout(Stdio::piped()).spawn().expect("docker runs");
        let mut line = String::new();
        let mut output = BufReader::new(logs.stdout.take().expect("piped above"));
        output.read_line(&mut line).expect("a line");
        let _ = logs.kill();
        let _ = logs.wait();
        let stamp = line.split(' ').next().expect("a timestamp");
        let moment: jiff::Timestamp = stamp.parse().expect("a timestamp");
        u64::try_from(moment.as_nanosecond()).expect("after 1970")
    };
    let mut asker = Asker::start(&name);
    let (seconds, last) = asker.ask(&json!({}));
    assert_eq!(last, LINES);
    promise("log_query_newest", seconds, "s", 1.0);
    let (seconds, last) = asker.ask(&json!({"since": moment(LINES / 2)}));
    assert_eq!(last, LINES);
    promise("log_query_since_the_middle", seconds, "s", 1.0);
    let (seconds, last) = asker.ask(&json!({"until": moment(5000)}));
    assert!(last > LINES - 5010 && last < LINES - 4990, "{last}");
    promise("log_query_until_5000_lines_ago", seconds, "s", 1.0);
    for (name, back) in [("a_tenth", LINES / 10), ("half", LINES / 2)] {
        let (seconds, last) = asker.ask(&json!({"until": moment(back)}));
        assert!(last.abs_diff(LINES - back) < 10, "{last}");
        println!("log_query_until_{name}_back {seconds:.2} s measured");
    }
    promise("log_query_peak_resident", peak(asker.child.id()), "MB", 16.0);
    drop(removed);
}
