//! Log lines from containers to a subscriber, through the agent as it is shipped, connected over TLS; beside `docker logs -f`
//! into files in the same run, of containers like those of the agent. Then with logs that are capped, as on devices, at a
//! Docker daemon of its own, for which this program is started again.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::docker;
use testkit::docker::daemon::Daemon;
use testkit::wait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wamp::client::{CallOptions, RegisterOptions, Session, Subscription, handler};
use wamp::{Dict, Payload};

use super::usage::{self, Usage};
use super::{Device, MINUTE, SECRET, config, percentile, promise, verdict};

const SERIAL: &str = "00000000-0000-4000-8000-000000000001";
/// Of one container alone, and of each of ten.
const LINES: u64 = 1_000_000;
const LINES_OF_TEN: u64 = 200_000;
/// What `docker logs` gives of a line: the number, and what a terminal makes of a line end.
const LINE: u64 = 42;

/// Beside the lines: as many as show how long one takes, and few enough to take no CPU from the lines.
const CALLS: u32 = 100;
/// MB of the resident set at most, whatever is printed.
const RESIDENT: f64 = 32.0;
/// How long a call takes at most, milliseconds, or what an idle callee takes so many times.
const CALL: f64 = 20.0;
const SLOWER: f64 = 1.5;
/// From a line of an app that prints ten in a second to its viewer, milliseconds, or so many after `docker logs -f` has it;
/// 250 of them are waiting for company.
const QUIET: f64 = 500.0;
const LATER: f64 = 300.0;
/// Tells the time ten times in a second.
const CLOCK: &str = r#"while read up rest < /proc/uptime; do echo "at $up"; sleep 0.1; done"#;
/// What the idle callee answers.
const ECHO: &str = "bench.echo";
/// Tells this program to answer calls at that router, beside the agent: how long they take on this machine.
pub(crate) const CALLEE: &str = "REAGENT_BENCH_CALLEE";
/// Tells this program that its Docker daemon caps logs.
const CAPPED: &str = "REAGENT_BENCH_CAPPED";
/// As on devices (`logs-terminal-tunnel.md` 2.15).
const CAPS: [&str; 4] = ["--log-opt", "max-size=10m", "--log-opt", "max-file=3"];
/// Of that daemon's disk.
const MEGABYTES: u32 = 500;

/// The figures.
pub(crate) async fn measure() {
    live("one_container", 1, LINES).await;
    live("ten_containers", 10, LINES_OF_TEN).await;
    backlog().await;
    at_a_daemon_that_caps();
}

/// Runs this program with a daemon of its own.
fn at_a_daemon_that_caps() {
    let daemon = match Daemon::start_with(MEGABYTES, &CAPS) {
        Ok(daemon) => daemon,
        Err(reason) => return eprintln!("bench: capped logs are not measured: {reason}"),
    };
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command
        .arg("--bench")
        .env(CAPPED, "")
        .env("DOCKER_HOST", daemon.host());
    let status = command.status().expect("it runs again");
    verdict(status.success());
}

/// Whether this process is the one that has a daemon with capped logs.
pub(crate) fn is_capped() -> bool {
    std::env::var_os(CAPPED).is_some()
}

/// One container that prints faster than it is read loses lines at the daemon. All that are missing are said to be.
pub(crate) async fn measure_capped() {
    let floor = Floor::start(1, LINES).measure_capped().await;
    println!("log_lines_capped_docker_logs_follow_missing {floor} 1 peer");
    let mut device = Device::with(1, &script(LINES, false)).await;
    let subscription = subscribe(&device.backend, 1).await.remove(0);
    let (mut agent, _) = device.start();
    device.all_run().await;
    let begin = Instant::now();
    go(&device.home.path().join("agent/apps/shared"));
    let seen = watch(subscription, LINES, CancellationToken::new()).await;
    let rate = seen.delivered as f64 / begin.elapsed().as_secs_f64();
    println!("log_lines_capped {rate:.0} 1/s measured");
    println!("log_lines_capped_said_to_be_missing {} 1 measured", seen.missing);
    promise(
        "log_peak_resident_capped",
        usage::peak(agent.pid()),
        "MB",
        RESIDENT,
    );
    agent.terminate(MINUTE);
    device.stop.cancel();
}

/// Waits until it is told to go, prints numbered lines of 40 characters as fast as it can, says so, and stays. One of
/// several is quiet if so wanted: it prints what the clock says ten times in a second.
fn script(lines: u64, one_is_quiet: bool) -> String {
    let quiet = match one_is_quiet {
        true => format!("if mkdir /shared/quiet 2>/dev/null; then {CLOCK}; fi"),
        false => String::new(),
    };
    format!(
        "while ! [ -e /shared/go ]; do sleep 0.05; done
         {quiet}
         awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf \"%040d\\n\", i }}'
         : > /shared/done
         while :; do sleep 3600; done"
    )
}

/// Lets all containers that have this directory print at once.
fn go(shared: &Path) {
    File::create(shared.join("go")).expect("the file is made");
}

/// Containers that print while they are followed; beside several a quiet one.
async fn live(name: &str, containers: u64, lines: u64) {
    let quiet = containers > 1;
    let floor = Floor::start(containers, lines);
    let beside = quiet.then(|| floor.quiet());
    let at_docker = floor.measure(lines);
    println!("log_lines_{name}_docker_logs_follow {at_docker:.0} 1/s peer");
    let delay_at_docker = beside.map_or(0.0, |beside| {
        let delay = percentile(&mut beside.end(), 0.99) / 1e3;
        println!("log_delay_p99_beside_{name}_docker_logs_follow {delay:.0} ms peer");
        delay
    });
    // With its image, which the one beside had, too.
    drop(floor);

    let apps = containers + u64::from(quiet);
    let mut device = Device::with(apps, &script(lines, quiet)).await;
    let subscriptions = subscribe(&device.backend, apps).await;
    let (mut agent, _) = device.start();
    device.all_run().await;
    let over = CancellationToken::new();
    let callee = Callee::start(&device).await;
    let calls = tokio::spawn(call_until(device.backend.clone(), over.clone()));
    let before = Usage::of(agent.pid());
    let begin = Instant::now();
    go(&device.home.path().join("agent/apps/shared"));
    let mut watches = JoinSet::new();
    for viewer in subscriptions {
        watches.spawn(watch(viewer, lines, over.clone()));
    }
    let mut all = Seen::default();
    for _ in 0..containers {
        let seen = watches.join_next().await.expect("it prints all its lines");
        let seen = seen.expect("every line is accounted for");
        all.delivered += seen.delivered;
        all.missing += seen.missing;
    }
    let rate = all.delivered as f64 / begin.elapsed().as_secs_f64();
    over.cancel();
    let [mut times, mut idle] = calls.await.expect("calls are answered");
    drop(callee);
    at_least(&format!("log_lines_{name}"), rate, at_docker);
    promise(&format!("log_lines_{name}_missing"), all.missing as f64, "1", 0.0);
    let cpu = Usage::of(agent.pid()).cpu_since(&before);
    println!(
        "log_cpu_per_million_lines_{name} {:.2} s measured",
        cpu.as_secs_f64() * 1e6 / (containers * lines) as f64
    );
    let resident = usage::peak(agent.pid());
    promise(&format!("log_peak_resident_{name}"), resident, "MB", RESIDENT);
    let [p99, p99_idle] = [&mut times, &mut idle].map(|times| percentile(times, 0.99) / 1e3);
    println!("rpc_p99_beside_{name}_of_an_idle_callee {p99_idle:.1} ms peer");
    let most = CALL.max(SLOWER * p99_idle);
    promise(&format!("rpc_p99_beside_{name}"), p99, "ms", most);
    if let Some(seen) = watches.join_next().await {
        let mut delays = seen.expect("every line is accounted for").delays;
        println!(
            "log_delay_p50_beside_{name} {:.0} ms measured",
            percentile(&mut delays, 0.5) / 1e3
        );
        let p99 = percentile(&mut delays, 0.99) / 1e3;
        let most = QUIET.max(delay_at_docker + LATER);
        promise(&format!("log_delay_p99_beside_{name}"), p99, "ms", most);
    }
    agent.terminate(MINUTE);
    device.stop.cancel();
}

/// One container that has printed everything while the agent was down.
async fn backlog() {
    let mut device = Device::with(1, &script(LINES, false)).await;
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
    let seen = watch(subscription, LINES, CancellationToken::new()).await;
    at_least("log_lines_backlog", seen.rate(), floor);
    promise("log_lines_backlog_missing", seen.missing as f64, "1", 0.0);
    promise(
        "log_peak_resident_backlog",
        usage::peak(agent.pid()),
        "MB",
        RESIDENT,
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
        docker::import_busybox(&image, &script(lines, false));
        let names: Vec<String> = (0..containers)
            .map(|number| format!("{prefix}-{number}"))
            .collect();
        let floor = Floor { image, names, home };
        for name in &floor.names {
            floor.run(name, &[]);
        }
        floor
    }

    fn run(&self, name: &str, command: &[&str]) {
        let mount = format!("{}:/shared", self.home.path().display());
        let mut run = vec![
            "run",
            "--detach",
            "--tty",
            "--volume",
            &mount,
            "--name",
            name,
            &self.image,
        ];
        run.extend(command);
        docker::docker(&run).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Beside them one that tells the time.
    fn quiet(&self) -> Quiet {
        let name = format!("reagent-bench-{}-quiet", std::process::id());
        self.run(&name, &["/bin/sh", "-c", CLOCK]);
        Quiet::follow(name)
    }

    /// Lines per second.
    fn measure(&self, lines: u64) -> f64 {
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

    /// How many lines of the first one are missing, without a word.
    async fn measure_capped(self) -> u64 {
        let reader = Reader::start(&self.names[0], self.home.path());
        go(self.home.path());
        wait::until("all is printed", 2 * MINUTE, || {
            self.home.path().join("done").exists().then_some(())
        });
        let mut size = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = std::fs::metadata(&reader.file).expect("it writes").len();
            if std::mem::replace(&mut size, now) == now {
                break;
            }
        }
        let text = std::fs::read_to_string(&reader.file).expect("it is read");
        let seen: HashSet<&str> = text.lines().map(str::trim_end).collect();
        LINES - seen.len() as u64
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

/// A container that tells the time, and `docker logs -f` of it.
struct Quiet {
    name: String,
    child: Child,
    delays: JoinHandle<Vec<Duration>>,
}

impl Quiet {
    fn follow(name: String) -> Quiet {
        let mut child = Command::new("docker")
            .args(["logs", "-f", &name])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker runs");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let lines = output.lines().map_while(Result::ok);
        let delays = std::thread::spawn(|| lines.filter_map(|line| age(line.trim_end())).collect());
        Quiet { name, child, delays }
    }

    /// How old its lines were.
    fn end(mut self) -> Vec<Duration> {
        docker::remove(&self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.delays.join().expect("it reads to the end")
    }
}

/// An idle callee at the router of the agent: what calls take on this machine, whoever answers them.
struct Callee(Child);

impl Callee {
    async fn start(device: &Device) -> Callee {
        let this = std::env::current_exe().expect("this program has a path");
        let child = Command::new(this)
            .arg("--bench")
            .env(CALLEE, &device.url)
            .env("SSL_CERT_FILE", device.home.path().join("roots.pem"))
            .spawn()
            .expect("it runs again");
        let callee = Callee(child);
        wait::until_async("the idle callee answers", MINUTE, || async {
            let call = device.backend.call(ECHO, Payload::Empty, CallOptions::default());
            call.await.ok()
        })
        .await;
        callee
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers calls until it is killed.
pub(crate) async fn answer(url: &str) {
    let callee = Session::connect(&config(url, "callee", SECRET))
        .await
        .expect("it joins");
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    let registered = callee.register(ECHO, RegisterOptions::default(), echo).await;
    registered.expect("registered");
    std::future::pending::<()>().await;
}

/// What a viewer got.
#[derive(Default)]
struct Seen {
    delivered: u64,
    /// Lines that were said to be missing.
    missing: u64,
    /// When the first lines came, and how many.
    first: Option<(Instant, u64)>,
    took: Duration,
    /// How old the lines that tell the time were.
    delays: Vec<Duration>,
}

impl Seen {
    /// Lines per second after the first ones.
    fn rate(&self) -> f64 {
        let before = self.first.map_or(0, |(_, lines)| lines);
        (self.delivered - before) as f64 / self.took.as_secs_f64()
    }

    /// A line, or the agent's word about lines that are missing. `gap`: some are before the next, nobody knows how many.
    fn take(&mut self, line: &str, gap: &mut bool) {
        if let Some(age) = age(line) {
            return self.delays.push(age);
        }
        if let Some(rest) = line.strip_prefix("… ") {
            let (count, _) = rest.split_once(' ').expect("a count");
            match count {
                "an" => *gap = true,
                count => self.missing += count.parse::<u64>().expect("a count"),
            }
            return;
        }
        let number: u64 = line.parse().expect("a number");
        let due = self.delivered + self.missing + 1;
        if std::mem::take(gap) && number > due {
            self.missing += number - due;
        } else {
            assert_eq!(number, due, "in order, or said to be missing");
        }
        self.delivered += 1;
    }
}

/// Takes what a viewer gets of one container until all of it is accounted for, or it is over.
async fn watch(mut viewer: Subscription, lines: u64, over: CancellationToken) -> Seen {
    let mut seen = Seen::default();
    let mut gap = false;
    while seen.delivered + seen.missing < lines {
        let event = tokio::select! {
            event = tokio::time::timeout(2 * MINUTE, viewer.events.recv()) => event,
            () = over.cancelled() => break,
        };
        let event = event.expect("lines go on").expect("the subscription is open");
        let message = event.payload.args().expect("readable");
        // The agent's own words are no output.
        let Some(text) = message[0].as_str() else {
            continue;
        };
        for line in text.split('\n') {
            seen.take(line, &mut gap);
        }
        let (first, _) = *seen.first.get_or_insert((Instant::now(), seen.delivered));
        seen.took = first.elapsed();
    }
    seen
}

/// Of a line that tells the time.
fn age(line: &str) -> Option<Duration> {
    let time = line.strip_prefix("at ")?;
    Some(since_boot().saturating_sub(seconds(time)))
}

/// By the clock of /proc/uptime, which containers share.
fn since_boot() -> Duration {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc is mounted");
    seconds(uptime.split(' ').next().unwrap_or_default())
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().expect("seconds"))
}

async fn subscribe(viewer: &Session, containers: u64) -> Vec<Subscription> {
    let mut subscriptions = Vec::new();
    for app in 1..=containers {
        let topic = protocol::uri::logs(SERIAL, &format!("prod_{app}_bench"));
        subscriptions.push(viewer.subscribe(&topic, Dict::new()).await.expect("subscribed"));
    }
    subscriptions
}

/// How long calls take that come [`CALLS`] in a second: of the agent, and of the idle callee in turns.
async fn call_until(caller: Session, over: CancellationToken) -> [Vec<Duration>; 2] {
    let agent = format!("re.mgmt.{SERIAL}.device_handshake");
    let mut times = [Vec::new(), Vec::new()];
    let mut due = tokio::time::interval(Duration::from_secs(1) / CALLS);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !over.is_cancelled() {
        for (procedure, times) in [&agent, ECHO].into_iter().zip(&mut times) {
            due.tick().await;
            let begin = Instant::now();
            let call = caller.call(procedure, Payload::Empty, CallOptions::default());
            call.await.expect("answered");
            times.push(begin.elapsed());
        }
    }
    times
}

/// A hundred thousand lines a second, or half of what `docker logs` manages on this machine.
fn at_least(name: &str, rate: f64, floor: f64) {
    let least = (0.5 * floor).min(100_000.0);
    println!(
        "{name} {rate:.0} 1/s promise >= {least:.0} {}",
        verdict(rate >= least)
    );
}
