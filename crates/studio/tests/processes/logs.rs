//! `studio logs` against devices that know when lines were printed, that do not, and that are not there.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Notify;
use wamp::Payload;

use crate::harness::{Device, Running, Studio, within};

const APP: &str = "prod_1_dash";

/// What a device answers to `query_app_logs`: these lines, of one second each from 1970 on.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// An answer was made.
    answered: Arc<Notify>,
}

impl Log {
    fn print(&self, lines: &[&str]) {
        let mut all = self.lines.lock().unwrap();
        all.extend(lines.iter().map(|line| (*line).to_owned()));
    }

    async fn offer(&self, device: &Device) {
        let log = self.clone();
        device
            .offer("query_app_logs", move |payload| {
                let query: Value = payload.first().unwrap().unwrap();
                let bound = |name: &str| query[name].as_str()?.parse::<jiff::Timestamp>().ok();
                let stamp =
                    |index: usize| jiff::Timestamp::from_second(i64::try_from(index).unwrap()).unwrap();
                let lines = log.lines.lock().unwrap();
                let inside = |index: &usize| {
                    bound("since").is_none_or(|since| stamp(*index) >= since)
                        && bound("until").is_none_or(|until| stamp(*index) <= until)
                };
                let all: Vec<String> = (0..lines.len())
                    .filter(inside)
                    .map(|index| format!("{} {}", stamp(index), lines[index]))
                    .collect();
                let tail = usize::try_from(query["tail"].as_u64().unwrap()).unwrap();
                let newest = &all[all.len().saturating_sub(tail)..];
                let now = stamp(lines.len());
                log.answered.notify_one();
                Payload::one(&json!({
                    "lines": newest, "returned": newest.len(), "source": "docker", "truncated": false,
                    "device_time": now, "oldest_available": stamp(0),
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
    let folder = studio.kill().await;
    print(numbers(501, 900));
    let studio = Studio::start_with(folder, &[]).await;
    let mut flock = device.flock.clone();
    flock.device_endpoint_url = studio.url.clone();
    let device = Device::connect(flock).await;
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
    let folder = studio.kill().await;
    let studio = Studio::start_with(folder, &[]).await;
    let mut flock = device.flock.clone();
    flock.device_endpoint_url = studio.url.clone();
    // Connected, and without its procedures.
    let device = Device::connect(flock).await;
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
    let words = ["logs", "press", "dash", "--since", "1970-01-01T00:00:10Z"];
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
    assert_eq!((done.code, done.stdout.as_str()), (0, "kept\n"));
    assert!(done.stderr.contains("only what the device keeps"), "{done:?}");
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
