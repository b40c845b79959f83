//! `studio logs` against devices that know when lines were printed, that do not, and that are not there.

use std::process::Stdio;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use protocol::moment::Bound;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Notify;
use wamp::Payload;
use wamp::client::{RegisterOptions, WampError, handler};

use crate::harness::{Device, Running, Studio, within};

const APP: &str = "prod_1_dash";

/// What a device answers to `query_app_logs`: its clock begins in 1970, and each line takes a
/// millisecond.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<(i64, String)>>>,
    now: Arc<AtomicI64>,
    /// An answer was made.
    answered: Arc<Notify>,
}

impl Log {
    fn print(&self, lines: &[&str]) {
        let mut all = self.lines.lock().unwrap();
        all.extend(lines.iter().map(|line| (self.pass(1), (*line).to_owned())));
    }

    /// So many milliseconds pass. Gives back what time it was.
    fn pass(&self, time: i64) -> i64 {
        self.now.fetch_add(time, Ordering::SeqCst)
    }

    async fn offer(&self, device: &Device) {
        let log = self.clone();
        device
            .offer("query_app_logs", move |payload| {
                let query: Value = payload.first().unwrap().unwrap();
                let at = |time: i64| jiff::Timestamp::from_millisecond(time).unwrap();
                let now = at(log.pass(0));
                let bound = |name: &str| Some(Bound::parse(query[name].as_str()?, now)?.moment());
                let lines = log.lines.lock().unwrap();
                let inside = |(time, _): &&(i64, String)| {
                    bound("since").is_none_or(|since| at(*time) >= since)
                        && bound("until").is_none_or(|until| at(*time) <= until)
                };
                let all: Vec<String> = lines
                    .iter()
                    .filter(inside)
                    .map(|(time, line)| format!("{} {line}", at(*time)))
                    .collect();
                let tail = usize::try_from(query["tail"].as_u64().unwrap()).unwrap();
                let newest = &all[all.len().saturating_sub(tail)..];
                log.answered.notify_one();
                Payload::one(&json!({
                    "lines": newest, "returned": newest.len(), "source": "docker", "truncated": false,
                    "device_time": now, "oldest_available": at(0),
                }))
                .unwrap()
            })
            .await;
    }
}

async fn keep(device: &Device, history: Vec<String>) {
    device
        .offer("get_app_log_history", move |_| Payload::one(&history).unwrap())
        .await;
}

async fn installed() -> (Studio, Device) {
    let studio = Studio::start().await;
    let flock = studio.add_device("press").await;
    studio.ok(&["app", "add", "dash", "--version", "1.0.0"]).await;
    let mut device = Device::connect(flock).await;
    studio.ok(&["install", "press", "dash"]).await;
    device.request().await;
    (studio, device)
}

fn follow(studio: &Studio) -> Running {
    let mut command = studio.command(&["logs", "press", "dash", "-f"]);
    command.stderr(Stdio::null());
    Running::start(command)
}

async fn publish(device: &Device, lines: &[String]) {
    let topic = protocol::uri::logs(&device.flock.serial_number, APP);
    device.publish(&topic, json!(lines.join("\n"))).await;
}

#[tokio::test]
async fn what_a_device_held_comes_once_and_in_order_although_it_comes_after_the_history() {
    let numbers = |from: usize, to: usize| (from..=to).map(|n| n.to_string()).collect::<Vec<_>>();
    let (studio, device) = installed().await;
    let log = Log::default();
    let print = |lines: Vec<String>| log.print(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    print(numbers(1, 500));
    log.offer(&device).await;
    keep(&device, numbers(401, 500)).await;
    let mut follow = follow(&studio);
    for number in numbers(401, 500) {
        assert_eq!(follow.line().await, number);
    }
    print(numbers(501, 900));
    let (_studio, device) = restarted(studio, &device).await;
    log.offer(&device).await;
    keep(&device, numbers(801, 900)).await;
    for number in numbers(501, 900) {
        assert_eq!(follow.line().await, number);
    }
    // Its gate opens only now.
    for message in numbers(495, 900).chunks(50) {
        publish(&device, message).await;
    }
    print(numbers(901, 904));
    publish(&device, &numbers(901, 902)).await;
    publish(&device, &numbers(903, 904)).await;
    for number in numbers(901, 904) {
        assert_eq!(follow.line().await, number);
    }
}

#[tokio::test]
async fn a_line_before_the_gate_of_the_device_opened_is_shown() {
    let (studio, device) = installed().await;
    let log = Log::default();
    log.offer(&device).await;
    keep(&device, Vec::new()).await;
    let mut follow = follow(&studio);
    // It was asked for all that there was by then.
    within("a question", log.answered.notified()).await;
    log.print(&["the only one"]);
    assert_eq!(follow.line().await, "the only one");
}

/// A studio in place of the one that is killed, and the device at it.
async fn restarted(studio: Studio, device: &Device) -> (Studio, Device) {
    let studio = Studio::start_with(studio.kill().await, &[]).await;
    let mut flock = device.flock.clone();
    flock.device_endpoint_url = studio.url.clone();
    (studio, Device::connect(flock).await)
}

#[tokio::test]
async fn an_interruption_shows_nothing_again_of_an_app_that_was_quiet() {
    let (studio, device) = installed().await;
    let log = Log::default();
    log.print(&["one"]);
    log.pass(600_000);
    log.offer(&device).await;
    keep(&device, vec!["one".to_owned()]).await;
    let mut follow = follow(&studio);
    assert_eq!(follow.line().await, "one");
    let (_studio, device) = restarted(studio, &device).await;
    log.offer(&device).await;
    keep(&device, vec!["one".to_owned(), "exited".to_owned()]).await;
    assert_eq!(
        follow.line().await,
        "exited",
        "what its agent said is not in its log"
    );
    within("an answer", log.answered.notified()).await;
    within("the look after it", log.answered.notified()).await;
    log.print(&["two"]);
    publish(&device, &["two".to_owned()]).await;
    assert_eq!(follow.line().await, "two");
}

#[tokio::test]
async fn live_lines_of_a_device_that_cannot_be_asked_any_more_are_shown() {
    let (studio, device) = installed().await;
    let log = Log::default();
    log.print(&["one"]);
    log.offer(&device).await;
    keep(&device, vec!["one".to_owned()]).await;
    let mut follow = follow(&studio);
    assert_eq!(follow.line().await, "one");
    let answer = handler(|_| async {
        Err(WampError {
            uri: "wamp.error.canceled".to_owned(),
            payload: Payload::one(&json!({"error": "Docker does not answer"})).unwrap(),
        })
    });
    let uri = protocol::uri::device(&device.flock.serial_number, "query_app_logs");
    let options = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    let registered = device.session.register(&uri, options, answer);
    within("register", registered).await.unwrap();
    for line in ["two", "three"] {
        publish(&device, &[line.to_owned()]).await;
    }
    // That it may miss some is said once, wherever.
    let mut lines = Vec::new();
    while !lines.contains(&"three".to_owned()) {
        lines.push(follow.line().await);
    }
    let doubts = lines
        .iter()
        .filter(|line| line.contains("Docker does not answer"))
        .count();
    assert_eq!((doubts, lines.len()), (1, 3), "{lines:?}");
}

#[tokio::test]
async fn lines_that_were_still_to_come_long_after_they_were_printed_are_asked_for() {
    let (studio, device) = installed().await;
    let log = Log::default();
    log.print(&["begin"]);
    log.offer(&device).await;
    keep(&device, vec!["begin".to_owned()]).await;
    let mut follow = follow(&studio);
    assert_eq!(follow.line().await, "begin");
    log.print(&["live"]);
    publish(&device, &["live".to_owned()]).await;
    assert_eq!(follow.line().await, "live");
    // Printed while the device was away, which has sent the first half.
    let lines: Vec<String> = (1..=300).map(|number| format!("held {number}")).collect();
    log.print(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    log.pass(300_000);
    publish(&device, &lines[..150]).await;
    for line in &lines[..150] {
        assert_eq!(follow.line().await, *line);
    }
    let (_studio, device) = restarted(studio, &device).await;
    log.offer(&device).await;
    keep(&device, lines[200..].to_vec()).await;
    for line in &lines[150..] {
        assert_eq!(follow.line().await, *line);
    }
    log.print(&["end"]);
    publish(&device, &["end".to_owned()]).await;
    assert_eq!(follow.line().await, "end");
}

/// The router keeps only so much for a viewer that does not read.
#[tokio::test]
async fn what_the_router_drops_for_a_slow_viewer_is_asked_for_although_nothing_follows() {
    const LINES: usize = 9000;
    let line = |number: usize| format!("{number} {}", "x".repeat(2000));
    let (studio, device) = installed().await;
    let log = Log::default();
    log.print(&["begin"]);
    log.offer(&device).await;
    keep(&device, vec!["begin".to_owned()]).await;
    let mut follow = follow(&studio);
    assert_eq!(follow.line().await, "begin");
    log.print(&["live"]);
    publish(&device, &["live".to_owned()]).await;
    assert_eq!(follow.line().await, "live");

    let process = follow.child.id().unwrap().to_string();
    let signal = async |name: &str| {
        let sent = tokio::process::Command::new("kill")
            .args([name, &process])
            .status();
        assert!(sent.await.unwrap().success());
    };
    signal("-STOP").await;
    let all: Vec<String> = (1..=LINES).map(line).collect();
    log.print(&all.iter().map(String::as_str).collect::<Vec<_>>());
    for message in all.chunks(100) {
        publish(&device, message).await;
    }
    signal("-CONT").await;
    for expected in &all {
        let line = follow.line().await;
        assert_eq!(line[..line.len().min(40)], expected[..40]);
    }
    log.print(&["end"]);
    publish(&device, &["end".to_owned()]).await;
    assert_eq!(follow.line().await, "end");
}

#[tokio::test]
async fn an_app_that_is_installed_later_is_followed() {
    let (studio, device) = installed().await;
    keep(&device, vec!["one".to_owned()]).await;
    let mut command = studio.command(&["logs", "press", "-f"]);
    command.stderr(Stdio::null());
    let mut follow = Running::start(command);
    assert_eq!(follow.line().await, "one");
    studio.ok(&["app", "add", "gauge", "--version", "1.0.0"]).await;
    studio.ok(&["install", "press", "gauge"]).await;
    assert_eq!(follow.line().await, "press gauge | one");
}

#[tokio::test]
async fn lines_that_look_alike_are_all_shown() {
    let (studio, device) = installed().await;
    let log = Log::default();
    log.print(&["tick"; 100]);
    log.offer(&device).await;
    keep(&device, vec!["tick".to_owned(); 100]).await;
    let mut follow = follow(&studio);
    for _ in 0..100 {
        assert_eq!(follow.line().await, "tick");
    }
    for _ in 0..3 {
        log.print(&["tick"]);
        publish(&device, &["tick".to_owned()]).await;
        assert_eq!(follow.line().await, "tick");
    }
    log.print(&["end"]);
    publish(&device, &["end".to_owned()]).await;
    assert_eq!(follow.line().await, "end");
}

#[tokio::test]
async fn a_device_that_cannot_answer_yet_does_not_end_it() {
    let (studio, device) = installed().await;
    keep(&device, vec!["one".to_owned()]).await;
    let mut command = studio.command(&["logs", "press", "dash", "-f"]);
    command.stderr(Stdio::piped());
    let mut follow = Running::start(command);
    assert_eq!(follow.line().await, "one");
    let mut said = BufReader::new(follow.child.stderr.take().unwrap()).lines();
    // Connected, and without its procedures.
    let (_studio, device) = restarted(studio, &device).await;
    loop {
        let line = within("a complaint", said.next_line()).await.unwrap();
        if line.expect("it goes on").contains("offers no procedure") {
            break;
        }
    }
    keep(&device, vec!["one".to_owned(), "two".to_owned()]).await;
    assert_eq!(follow.line().await, "two");
}

#[tokio::test]
async fn since_reads_back_all_pages_and_says_what_it_could_not() {
    let (studio, device) = installed().await;
    let log = Log::default();
    let numbers: Vec<String> = (0..12_000).map(|number| number.to_string()).collect();
    log.print(&numbers.iter().map(String::as_str).collect::<Vec<_>>());
    log.offer(&device).await;
    let words = ["logs", "press", "dash", "--since", "1970-01-01T00:00:00.01Z"];
    let done = studio.run(&words).await;
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(done.stdout.lines().eq(&numbers[10..]), "all of them, in order");

    keep(&device, vec!["kept".to_owned()]).await;
    device
        .offer("query_app_logs", move |_| {
            Payload::one(&json!({"lines": ["kept"], "source": "history", "truncated": false})).unwrap()
        })
        .await;
    let done = studio.run(&words).await;
    let note = "only what the device keeps is shown: it does not know since when";
    assert_eq!((done.code, done.stdout), (0, format!("({note})\nkept\n")));
    let done = studio.run(&[&words[..], &["--json"]].concat()).await;
    let first: Value = serde_json::from_str(done.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({"note": note, "device": "press", "app": "dash"}));
}

#[tokio::test]
async fn of_several_devices_one_that_is_offline_is_a_failure() {
    let (studio, device) = installed().await;
    keep(&device, vec!["one".to_owned()]).await;
    studio.add_device("drill").await;
    studio.ok(&["install", "drill", "dash"]).await;
    let done = studio.run(&["logs", "--app", "dash"]).await;
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (5, "press dash | one\n"),
        "{done:?}"
    );
    assert!(done.stderr.contains("1 of 2 logs cannot be read"), "{done:?}");
}
