//! Log lines from containers to a subscriber, beside `docker logs -f` into a file in the same run. The pipeline runs in a
//! process of its own, this program started again, so that its CPU and memory are its own.

use std::io::{BufRead as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::{AppId, Stage};
use reagent::engine::Engine;
use reagent::logs::Logs;
use reagent::store::Store;
use testkit::docker::{self, Scope};
use testkit::wait;
use tokio_util::sync::CancellationToken;
use wamp::client::{CallOptions, RegisterOptions, Session, Subscription, handler};
use wamp::{Dict, Payload};

use super::usage::{Usage, memory};
use super::{MINUTE, SECRET, config, percentile, router, serve_plain};

const SERIAL: &str = "bench";
const ECHO: &str = "bench.logs.echo";
/// Names the router to a process that is to be the pipeline.
const ROLE: &str = "REAGENT_BENCH_LOGS";
/// Of one container alone, and of each of ten.
const LINES: u64 = 1_000_000;
const LINES_OF_TEN: u64 = 100_000;

/// Runs as the pipeline when this process is started as one. `true`: it was.
pub(crate) fn is_pipeline() -> bool {
    let Ok(url) = std::env::var(ROLE) else {
        return false;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(pipeline(&url));
    true
}

/// Follows what the lines of its input name, `clear|follow <key> <name>`, until there are no more.
async fn pipeline(url: &str) {
    let home = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(&home.path().join("reagent.db"))
        .await
        .expect("a database");
    let engine = Engine::new().expect("Docker");
    let place = Some(home.path().to_owned());
    let logs = Logs::start_in(place, SERIAL.to_owned(), store, engine, CancellationToken::new());
    let session = Session::connect(&config(url, "system", SECRET))
        .await
        .expect("it joins");
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    session
        .register(ECHO, RegisterOptions::default(), echo)
        .await
        .expect("registered");
    logs.attach(session).await;
    let input = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines() {
            let line = line.expect("text");
            let words: Vec<&str> = line.split(' ').collect();
            let [order, key, name] = words[..] else {
                panic!("not an order: {line}")
            };
            let app = app(key.parse().expect("a key"));
            match order {
                "clear" => logs.clear_history(app, name),
                "follow" => logs.follow(app, name),
                other => panic!("not an order: {other}"),
            }
        }
    });
    input.await.expect("the orders are read");
}

fn app(key: u64) -> AppId {
    AppId {
        key,
        stage: Stage::Prod,
    }
}

struct Pipeline(Child);

impl Pipeline {
    fn start(url: &str) -> Pipeline {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .arg("--bench")
            .env(ROLE, url)
            .stdin(Stdio::piped())
            .spawn();
        Pipeline(child.expect("it starts"))
    }

    fn order(&mut self, order: &str, key: u64, name: &str) {
        let input = self.0.stdin.as_mut().expect("piped above");
        writeln!(input, "{order} {key} {name}").expect("it listens");
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Containers that print numbered lines of 40 characters and end.
struct Writers {
    scope: Scope,
    image: String,
    names: Vec<(u64, String)>,
}

impl Writers {
    fn new(count: u64, lines: u64) -> Writers {
        let scope = Scope::new();
        let script = format!("awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf \"%040d\\n\", i }}'");
        let image = scope.image("writer", &script);
        let names = (0..count)
            .map(|number| (900 + number, scope.name("writer")))
            .collect();
        Writers { scope, image, names }
    }

    fn containers(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|(key, name)| format!("prod_{key}_{name}"))
    }

    fn run(&self) {
        for name in self.containers() {
            docker::docker(&[
                "run",
                "--detach",
                "--network",
                "none",
                "--name",
                &name,
                &self.image,
            ])
            .unwrap_or_else(|error| panic!("{}: {error}", self.scope.name("")));
        }
    }

    fn wait(&self) {
        for name in self.containers() {
            docker::docker(&["wait", &name]).expect("it ends");
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for name in self.containers() {
            docker::remove(&name);
        }
    }
}

/// Counts what a viewer gets of one container until all of it is accounted for.
async fn watch(mut viewer: Subscription, lines: u64) -> (u64, u64) {
    let (mut delivered, mut dropped) = (0, 0);
    while delivered + dropped < lines {
        let event = tokio::time::timeout(2 * MINUTE, viewer.events.recv()).await;
        let event = event.expect("lines go on").expect("the subscription is open");
        let message = event.payload.args().expect("readable");
        let text = message[0].as_str().expect("output");
        for line in text.split('\n') {
            match line.strip_prefix("… ").and_then(|rest| rest.split_once(' ')) {
                Some((count, _)) => dropped += count.parse::<u64>().expect("a count"),
                None => {
                    delivered += 1;
                    let number: u64 = line.parse().expect("a number");
                    assert_eq!(number, delivered + dropped, "in order, or said to be missing");
                }
            }
        }
    }
    (delivered, dropped)
}

/// The figures.
pub(crate) async fn measure() {
    let floor = one().await;
    ten(floor).await;
}

async fn subscribe(viewer: &Session, writers: &Writers) -> Vec<Subscription> {
    let mut subscriptions = Vec::new();
    for name in writers.containers() {
        let topic = protocol::uri::logs(SERIAL, &name);
        subscriptions.push(viewer.subscribe(&topic, Dict::new()).await.expect("subscribed"));
    }
    subscriptions
}

/// One container that has printed everything. Gives back the floor, lines per second.
async fn one() -> f64 {
    let (router, stop) = router();
    let url = serve_plain(&router, &stop).await;
    let viewer = Session::connect(&config(&url, "system", SECRET))
        .await
        .expect("the viewer joins");
    let writers = Writers::new(1, LINES);
    let mut pipeline = Pipeline::start(&url);
    wait_for(&viewer).await;
    let (key, name) = writers.names[0].clone();
    let subscription = subscribe(&viewer, &writers).await.remove(0);
    pipeline.order("clear", key, &name);
    writers.run();
    writers.wait();

    let container = writers.containers().next().expect("one");
    let begin = Instant::now();
    let file = tempfile::tempfile().expect("a file");
    let status = Command::new("docker")
        .args(["logs", "-f", &container])
        .stdout(file)
        .status();
    assert!(status.expect("docker runs").success());
    let floor = LINES as f64 / begin.elapsed().as_secs_f64();
    println!("log_lines_docker_logs_follow {floor:.0} 1/s peer");

    let before = Usage::of(pipeline.0.id());
    let begin = Instant::now();
    pipeline.order("follow", key, &name);
    let (delivered, dropped) = watch(subscription, LINES).await;
    let rate = delivered as f64 / begin.elapsed().as_secs_f64();
    let cpu = Usage::of(pipeline.0.id()).cpu - before.cpu;
    at_least(
        "log_lines_one_container",
        rate,
        "1/s",
        (0.5 * floor).min(100_000.0),
    );
    println!("log_lines_one_container_dropped {dropped} 1 measured");
    println!(
        "log_cpu_per_million_lines {:.2} s measured",
        cpu.as_secs_f64() * 1e6 / LINES as f64
    );
    let (resident, _) = memory(pipeline.0.id());
    println!("log_pipeline_resident {resident:.1} MB measured");
    stop.cancel();
    floor
}

/// Ten containers that print as fast as they can, while procedures are called.
async fn ten(floor: f64) {
    let (router, stop) = router();
    let url = serve_plain(&router, &stop).await;
    let viewer = Session::connect(&config(&url, "system", SECRET))
        .await
        .expect("the viewer joins");
    let writers = Writers::new(10, LINES_OF_TEN);
    let mut pipeline = Pipeline::start(&url);
    wait_for(&viewer).await;
    let subscriptions = subscribe(&viewer, &writers).await;
    for (key, name) in &writers.names {
        pipeline.order("clear", *key, name);
    }
    let caller = Session::connect(&config(&url, "system", SECRET))
        .await
        .expect("the caller joins");
    let begin = Instant::now();
    writers.run();
    for (key, name) in &writers.names {
        pipeline.order("follow", *key, name);
    }
    let over = CancellationToken::new();
    let calls = tokio::spawn(call_until(caller, over.clone()));
    let watches = subscriptions
        .into_iter()
        .map(|viewer| tokio::spawn(watch(viewer, LINES_OF_TEN)));
    let (mut delivered, mut dropped) = (0, 0);
    for watch in watches.collect::<Vec<_>>() {
        let (some, lost) = watch.await.expect("every line is accounted for");
        delivered += some;
        dropped += lost;
    }
    let rate = delivered as f64 / begin.elapsed().as_secs_f64();
    over.cancel();
    let mut times = calls.await.expect("calls are answered");
    at_least(
        "log_lines_ten_containers",
        rate,
        "1/s",
        (0.5 * floor).min(100_000.0),
    );
    println!("log_lines_ten_containers_dropped {dropped} 1 measured");
    super::promise(
        "rpc_p99_beside_ten_floods",
        percentile(&mut times, 0.99) / 1e3,
        "ms",
        20.0,
    );
    let (resident, _) = memory(pipeline.0.id());
    println!("log_pipeline_resident_ten {resident:.1} MB measured");
    stop.cancel();
}

async fn call_until(caller: Session, over: CancellationToken) -> Vec<Duration> {
    let mut times = Vec::new();
    while !over.is_cancelled() {
        let begin = Instant::now();
        let payload = Payload::from_args(vec!["x".into()]);
        caller
            .call(ECHO, payload, CallOptions::default())
            .await
            .expect("answered");
        times.push(begin.elapsed());
    }
    times
}

/// Waits until the pipeline answers.
async fn wait_for(session: &Session) {
    wait::until_async("the pipeline answers", MINUTE, || async {
        let call = session.call(ECHO, Payload::Empty, CallOptions::default()).await;
        call.ok().map(drop)
    })
    .await;
}

fn at_least(name: &str, value: f64, unit: &str, least: f64) {
    let verdict = if value >= least { "ok" } else { "short" };
    println!("{name} {value:.0} {unit} promise >= {least:.0} {verdict}");
}
