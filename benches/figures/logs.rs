//! Log lines from containers to a subscriber, through the agent as it is shipped, connected over TLS; beside `docker logs -f`
//! into files in the same run, of containers like those of the agent.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use testkit::docker;
use testkit::wait;
use tokio_util::sync::CancellationToken;
use wamp::client::{CallOptions, Session, Subscription};
use wamp::{Dict, Payload};

use super::usage::{self, Usage};
use super::{Device, MINUTE, percentile};

const SERIAL: &str = "00000000-0000-4000-8000-000000000001";
/// Of one container alone, and of each of ten.
const LINES: u64 = 1_000_000;
const LINES_OF_TEN: u64 = 200_000;
/// What `docker logs` gives of a line: the number, and what a terminal makes of a line end.
const LINE: u64 = 42;

/// The figures.
pub(crate) async fn measure() {
    live("one_container", 1, LINES).await;
    live("ten_containers", 10, LINES_OF_TEN).await;
    backlog().await;
}

/// Waits until it is told to go, prints numbered lines of 40 characters as fast as it can, says so, and stays.
fn script(lines: u64) -> String {
    format!(
        "while ! [ -e /shared/go ]; do sleep 0.05; done
         awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf \"%040d\\n\", i }}'
         : > /shared/done
         while :; do sleep 3600; done"
    )
}

/// Lets all containers that have this directory print at once.
fn go(shared: &Path) {
    File::create(shared.join("go")).expect("the file is made");
}

/// Containers that print while they are followed.
async fn live(name: &str, containers: u64, lines: u64) {
    let floor = Floor::start(containers, lines).measure(lines);
    println!("log_lines_{name}_docker_logs_follow {floor:.0} 1/s peer");

    let mut device = Device::with(containers, &script(lines)).await;
    let subscriptions = subscribe(&device.backend, containers).await;
    let (mut agent, _) = device.start();
    device.all_run().await;
    let over = CancellationToken::new();
    let calls = tokio::spawn(call_until(device.backend.clone(), over.clone()));
    let before = Usage::of(agent.pid());
    let begin = Instant::now();
    go(&device.home.path().join("agent/apps/shared"));
    let watches = subscriptions
        .into_iter()
        .map(|viewer| tokio::spawn(watch(viewer, lines)));
    let (mut delivered, mut dropped) = (0, 0);
    for watch in watches.collect::<Vec<_>>() {
        let seen = watch.await.expect("every line is accounted for");
        delivered += seen.delivered;
        dropped += seen.dropped;
    }
    let rate = delivered as f64 / begin.elapsed().as_secs_f64();
    over.cancel();
    let mut times = calls.await.expect("calls are answered");
    at_least(&format!("log_lines_{name}"), rate, floor);
    println!("log_lines_{name}_dropped {dropped} 1 measured");
    let cpu = Usage::of(agent.pid()).cpu - before.cpu;
    println!(
        "log_cpu_per_million_lines_{name} {:.2} s measured",
        cpu.as_secs_f64() * 1e6 / (containers * lines) as f64
    );
    println!(
        "log_peak_resident_{name} {:.1} MB measured",
        usage::peak(agent.pid())
    );
    super::promise(
        &format!("rpc_p99_beside_{name}"),
        percentile(&mut times, 0.99) / 1e3,
        "ms",
        20.0,
    );
    agent.terminate(MINUTE);
    device.stop.cancel();
}

/// One container that has printed everything while the agent was down.
async fn backlog() {
    let mut device = Device::with(1, &script(LINES)).await;
    let subscription = subscribe(&device.backend, 1).await.remove(0);
    let (mut agent, _) = device.start();
    device.all_run().await;
    let ledger = device.home.path().join("agent/downloads/log-cursors.json");
    wait::until("the agent has noted that somebody listens", MINUTE, || {
        let text = std::fs::read_to_string(&ledger).ok()?;
        text.contains("prod_1_bench").then_some(())
    });
    agent.kill();
    let shared = device.home.path().join("agent/apps/shared");
    go(&shared);
    wait::until("all is printed", 2 * MINUTE, || {
        shared.join("done").exists().then_some(())
    });
    let container = "prod_1_bench";
    wait::until("the daemon has it", MINUTE, || {
        let last = docker::docker(&["logs", "--tail", "1", container]).ok()?;
        (last.trim().parse() == Ok(LINES)).then_some(())
    });

    let begin = Instant::now();
    let reader = Reader::start(container, device.home.path());
    reader.wait(LINES);
    let floor = LINES as f64 / begin.elapsed().as_secs_f64();
    drop(reader);
    println!("log_lines_backlog_docker_logs {floor:.0} 1/s peer");

    let (mut agent, _) = device.start();
    let seen = watch(subscription, LINES).await;
    at_least("log_lines_backlog", seen.rate(), floor);
    println!("log_lines_backlog_dropped {} 1 measured", seen.dropped);
    println!(
        "log_peak_resident_backlog {:.1} MB measured",
        usage::peak(agent.pid())
    );
    agent.terminate(MINUTE);
    device.stop.cancel();
}

/// `docker logs -f` of one container into a file. Ends with this value.
struct Reader {
    child: Child,
    file: PathBuf,
}

impl Reader {
    fn start(container: &str, directory: &Path) -> Reader {
        let file = directory.join(format!("{container}.log"));
        let child = Command::new("docker")
            .args(["logs", "-f", container])
            .stdout(File::create(&file).expect("a file"))
            .spawn();
        Reader {
            child: child.expect("docker runs"),
            file,
        }
    }

    fn wait(&self, lines: u64) {
        wait::until("all lines are in the file", 2 * MINUTE, || {
            let size = std::fs::metadata(&self.file).ok()?.len();
            (size >= lines * LINE).then_some(())
        });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Containers without an agent, which `docker logs -f` follows.
struct Floor {
    image: String,
    names: Vec<String>,
    home: tempfile::TempDir,
}

impl Floor {
    fn start(containers: u64, lines: u64) -> Floor {
        let home = tempfile::tempdir().expect("a directory");
        let prefix = format!("reagent-bench-{}", std::process::id());
        let image = format!("{prefix}-floor:latest");
        docker::import_busybox(&image, &script(lines));
        let names: Vec<String> = (0..containers)
            .map(|number| format!("{prefix}-{number}"))
            .collect();
        let mount = format!("{}:/shared", home.path().display());
        for name in &names {
            let run = [
                "run", "--detach", "--tty", "--volume", &mount, "--name", name, &image,
            ];
            docker::docker(&run).unwrap_or_else(|error| panic!("{error}"));
        }
        Floor { image, names, home }
    }

    /// Lines per second.
    fn measure(self, lines: u64) -> f64 {
        let readers: Vec<Reader> = self
            .names
            .iter()
            .map(|name| Reader::start(name, self.home.path()))
            .collect();
        let begin = Instant::now();
        go(self.home.path());
        for reader in &readers {
            reader.wait(lines);
        }
        (readers.len() as u64 * lines) as f64 / begin.elapsed().as_secs_f64()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for name in &self.names {
            docker::remove(name);
        }
        docker::remove_image(&self.image);
    }
}

/// What a viewer got.
#[derive(Default)]
struct Seen {
    delivered: u64,
    dropped: u64,
    /// When the first lines came, and how many.
    first: Option<(Instant, u64)>,
    took: Duration,
}

impl Seen {
    /// Lines per second after the first ones.
    fn rate(&self) -> f64 {
        let before = self.first.map_or(0, |(_, lines)| lines);
        (self.delivered - before) as f64 / self.took.as_secs_f64()
    }
}

/// Counts what a viewer gets of one container until all of it is accounted for.
async fn watch(mut viewer: Subscription, lines: u64) -> Seen {
    let mut seen = Seen::default();
    while seen.delivered + seen.dropped < lines {
        let event = tokio::time::timeout(2 * MINUTE, viewer.events.recv()).await;
        let event = event.expect("lines go on").expect("the subscription is open");
        let message = event.payload.args().expect("readable");
        // The agent's own words are no output.
        let Some(text) = message[0].as_str() else {
            continue;
        };
        for line in text.split('\n') {
            match line.strip_prefix("… ").and_then(|rest| rest.split_once(' ')) {
                Some((count, _)) => seen.dropped += count.parse::<u64>().expect("a count"),
                None => {
                    seen.delivered += 1;
                    let number: u64 = line.parse().expect("a number");
                    let due = seen.delivered + seen.dropped;
                    assert_eq!(number, due, "in order, or said to be missing");
                }
            }
        }
        let (first, _) = *seen.first.get_or_insert((Instant::now(), seen.delivered));
        seen.took = first.elapsed();
    }
    seen
}

async fn subscribe(viewer: &Session, containers: u64) -> Vec<Subscription> {
    let mut subscriptions = Vec::new();
    for app in 1..=containers {
        let topic = protocol::uri::logs(SERIAL, &format!("prod_{app}_bench"));
        subscriptions.push(viewer.subscribe(&topic, Dict::new()).await.expect("subscribed"));
    }
    subscriptions
}

async fn call_until(caller: Session, over: CancellationToken) -> Vec<Duration> {
    let procedure = format!("re.mgmt.{SERIAL}.device_handshake");
    let mut times = Vec::new();
    while !over.is_cancelled() {
        let begin = Instant::now();
        caller
            .call(&procedure, Payload::Empty, CallOptions::default())
            .await
            .expect("answered");
        times.push(begin.elapsed());
    }
    times
}

/// A hundred thousand lines a second, or half of what `docker logs` manages on this machine.
fn at_least(name: &str, rate: f64, floor: f64) {
    let least = (0.5 * floor).min(100_000.0);
    let verdict = if rate >= least { "ok" } else { "short" };
    println!("{name} {rate:.0} 1/s promise >= {least:.0} {verdict}");
}
