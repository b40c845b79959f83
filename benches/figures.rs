//! The figures of docs/SPECIFICATION.md: one line each, `<name> <value> <unit> promise <op> <value> ok|short`, and the
//! peer's value of the same run as a line without a promise. Ends with status 1 when a promise was not kept. Run with
//! `make bench`.

#[path = "figures/logs.rs"]
mod logs;
#[path = "figures/query.rs"]
mod query;
#[path = "figures/update.rs"]
mod update;
#[path = "figures/usage.rs"]
mod usage;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use testkit::crossbar::{Crossbar, User};
use testkit::docker;
use testkit::process::Process;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use usage::{Trace, Usage};
use wamp::client::{CallOptions, ClientConfig, Credentials, RegisterOptions, Session, handler};
use wamp::router::{JoinRequest, Limits, Listener, Permission, Principal, Router, RouterConfig, ServerTls};
use wamp::{Dict, Payload};

const SECRET: &str = "bench secret";
const APPS: u64 = 5;
/// A gateway that has much to do.
const MANY: u64 = 50;
const STARTS: usize = 15;
const CALLS: usize = 5_000;
/// How long the agent is watched doing nothing.
const IDLE: Duration = Duration::from_secs(30);
const TRANSITIONS: usize = 5;
/// Starts of an app, and of a container by Docker's own command line.
const RUNS: usize = 15;
/// Starts of an agent that knows many apps.
const FULL_STARTS: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// A promise was not kept.
static SHORT: AtomicBool = AtomicBool::new(false);

/// The agent that is measured: `AGENT` in the environment (`make bench` names the static build), or cargo's own.
fn agent() -> String {
    std::env::var("AGENT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_reagent").to_owned())
}

fn main() -> ExitCode {
    // `cargo test --benches` runs this with a filter; figures are only for `cargo bench`.
    if !std::env::args().any(|argument| argument == "--bench") || query::is_query() {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(figures());
    if SHORT.load(Ordering::Relaxed) {
        eprintln!("bench: not every promise was kept; the lines that end with `short` say which");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn figures() {
    if let Ok(url) = std::env::var(logs::CALLEE) {
        return logs::answer(&url).await;
    }
    if logs::is_capped() {
        return logs::measure_capped().await;
    }
    // `cargo bench --bench figures -- logs` measures that group alone.
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |group: &str| named.is_empty() || named.iter().any(|name| name == group);
    if wanted("size") {
        binary_size();
    }
    if wanted("calls") {
        round_trips().await;
    }
    if wanted("logs") {
        logs::measure().await;
    }
    if wanted("query") {
        query::measure();
    }
    if wanted("update") {
        update::measure().await;
    }
    if wanted("device") {
        Device::new(APPS).await.measure().await;
    }
    if wanted("many") {
        Device::new(MANY).await.measure_many().await;
    }
}

fn promise(name: &str, value: f64, unit: &str, most: f64) {
    let digits = if most < 10.0 { 2 } else { 1 };
    println!(
        "{name} {value:.digits$} {unit} promise <= {most} {}",
        verdict(value <= most)
    );
}

/// The last word of a line.
fn verdict(kept: bool) -> &'static str {
    if kept {
        return "ok";
    }
    SHORT.store(true, Ordering::Relaxed);
    "short"
}

fn peer(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.1} {unit} peer");
}

fn binary_size() {
    let bytes = std::fs::metadata(agent()).expect("the agent was built").len();
    promise("agent_binary", bytes as f64 / 1e6, "MB", 7.0);
}

async fn round_trips() {
    let (router, stop) = router();
    let url = serve_plain(&router, &stop).await;
    let (p50, p99) = round_trip(&config(&url, "system", SECRET)).await;
    promise("rpc_round_trip_p50", p50, "us", 160.0);
    promise("rpc_round_trip_p99", p99, "us", 300.0);
    stop.cancel();

    let crossbar =
        Crossbar::start(&[User::new("system", SECRET, "backend")]).unwrap_or_else(|error| panic!("{error}"));
    let (p50, p99) = round_trip(&config(&crossbar.url(), "system", SECRET)).await;
    peer("rpc_round_trip_p50_crossbar", p50, "us");
    peer("rpc_round_trip_p99_crossbar", p99, "us");
}

/// One call at a time between two sessions, microseconds.
async fn round_trip(config: &ClientConfig) -> (f64, f64) {
    let callee = Session::connect(config).await.expect("the callee joins");
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    callee
        .register("bench.echo", RegisterOptions::default(), echo)
        .await
        .expect("registered");
    let caller = Session::connect(config).await.expect("the caller joins");
    let payload = Payload::from_args(vec!["sixteen bytes...".into()]);
    let mut times = Vec::with_capacity(CALLS);
    for call in 0..CALLS + 200 {
        let begin = Instant::now();
        caller
            .call("bench.echo", payload.clone(), CallOptions::default())
            .await
            .expect("the call succeeds");
        if call >= 200 {
            times.push(begin.elapsed());
        }
    }
    caller.leave().await;
    callee.leave().await;
    (percentile(&mut times, 0.5), percentile(&mut times, 0.99))
}

fn percentile(times: &mut [Duration], fraction: f64) -> f64 {
    times.sort_unstable();
    let index = ((times.len() - 1) as f64 * fraction) as usize;
    times[index].as_secs_f64() * 1e6
}

fn config(url: &str, authid: &str, secret: &str) -> ClientConfig {
    let mut config = ClientConfig::new(url, "realm1");
    config.credentials = Credentials::Cra {
        authid: authid.to_owned(),
        secret: secret.to_owned(),
    };
    config
}

fn router() -> (Router, CancellationToken) {
    let everything = Permission {
        uri: String::new(),
        prefix: true,
        call: true,
        register: true,
        publish: true,
        subscribe: true,
        force_register: true,
        disclose: true,
    };
    let router = Router::new(RouterConfig {
        realm: "realm1".to_owned(),
        roles: HashMap::from([("all".to_owned(), vec![everything])]),
        authenticator: Arc::new(|_: JoinRequest| {
            Box::pin(async {
                Ok(Principal::Cra {
                    secret: SECRET.to_owned(),
                    role: "all".to_owned(),
                    salting: None,
                    extra: Dict::new(),
                })
            })
        }),
        limits: Limits::default(),
    });
    (router, CancellationToken::new())
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("loopback has free ports");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

async fn serve_plain(router: &Router, stop: &CancellationToken) -> String {
    let (listener, port) = listener().await;
    let (router, until) = (router.clone(), stop.clone());
    tokio::spawn(async move { router.serve(listener, until).await });
    format!("ws://127.0.0.1:{port}/ws")
}

/// Serves TLS as well, with a certificate of an authority that is added to the system's own in the file `trusted`.
async fn serve_tls(router: &Router, stop: &CancellationToken, trusted: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(params, key));
    let authority = authority.expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let tls = ServerTls::from_pem(&certificate.pem(), &key.serialize_pem()).expect("usable");
    // A device has those, too, and reads them when it connects.
    let mut roots = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    roots.push_str(&authority.pem());
    std::fs::write(trusted, roots).expect("the roots are written");
    let (listener, port) = listener().await;
    let (router, until) = (router.clone(), stop.clone());
    tokio::spawn(async move { router.serve(Listener::Tls(listener, tls), until).await });
    format!("wss://localhost:{port}/ws")
}

/// A device, connected over TLS, with five running apps, and a backend that answers from memory.
struct Device {
    home: tempfile::TempDir,
    /// Where the agent connects.
    url: String,
    image: String,
    connected: mpsc::Receiver<Instant>,
    running: mpsc::Receiver<u64>,
    /// States of the first app.
    reported: mpsc::Receiver<String>,
    backend: Session,
    stop: CancellationToken,
    apps: u64,
}

impl Device {
    async fn new(apps: u64) -> Device {
        Device::with(apps, "while :; do sleep 3600; done").await
    }

    /// Each app is a container that runs `script`.
    async fn with(apps: u64, script: &str) -> Device {
        let home = tempfile::Builder::new()
            .prefix("reagent-bench-")
            .tempdir()
            .expect("a directory");
        let (router, stop) = router();
        let inside = serve_plain(&router, &stop).await;
        let url = serve_tls(&router, &stop, &home.path().join("roots.pem")).await;
        let flock = json!({
            "name": "bench", "secret": SECRET, "swarm_key": 1, "device_key": 1, "swarm_name": "s", "swarm_owner_name": "o",
            "serial_number": "00000000-0000-4000-8000-000000000001", "device_endpoint_url": &url,
            "docker_registry_url": "127.0.0.1:9/", "docker_main_repository": "bench/"
        });
        std::fs::write(home.path().join("device.flock"), flock.to_string()).expect("the .flock is written");
        let image = format!("reagent-bench-{}:latest", std::process::id());
        docker::import_busybox(&image, script);
        for app in 1..=apps {
            docker::tag(&image, &format!("127.0.0.1:9/bench/prod_amd64_{app}_bench:1.0.0"));
        }
        let backend = Session::connect(&config(&inside, "system", SECRET))
            .await
            .expect("the backend joins");
        let (connected_sender, connected) = mpsc::channel(1024);
        let (running_sender, running) = mpsc::channel(1024);
        let (reported_sender, reported) = mpsc::channel(1024);
        serve(&backend, "reswarm.devices.update_device_status", move |args| {
            if args["status"] == "CONNECTED" {
                let _ = connected_sender.try_send(Instant::now());
            }
            json!({})
        })
        .await;
        serve(&backend, "reswarm.containers.update_app_on_device", move |args| {
            if args["state"] == "RUNNING" {
                let _ = running_sender.try_send(args["app_key"].as_u64().unwrap_or_default());
            }
            if args["app_key"] == 1 {
                let _ = reported_sender.try_send(args["state"].as_str().unwrap_or_default().to_owned());
            }
            json!(null)
        })
        .await;
        serve(
            &backend,
            "reswarm.containers.get_requested_app_states",
            move |_| {
                (1..=apps)
                .map(|app| {
                    json!({"app_key": app, "app_name": "bench", "stage": "PROD", "current_state": "PRESENT",
                        "target_state": "RUNNING", "present_version": "1.0.0", "newest_version": "1.0.0",
                        "release_key": 1, "requestor_account_key": 1})
                })
                .collect()
            },
        )
        .await;
        serve(
            &backend,
            "reswarm.devices.read_device_metadata",
            |_| json!({"swarm_key": 1}),
        )
        .await;
        serve(&backend, "reswarm.devices.get_app_cred_key", |_| json!("key")).await;
        serve(&backend, "reswarm.devices.update_device_architecture", |_| {
            json!(null)
        })
        .await;
        Device {
            home,
            url,
            image,
            connected,
            running,
            reported,
            backend,
            stop,
            apps,
        }
    }

    fn start(&self) -> (Process, Instant) {
        let path = |name: &str| self.home.path().join(name);
        let mut command = Command::new(agent());
        command
            .arg("-config")
            .arg(path("device.flock"))
            .arg("-agentDir")
            .arg(path("agent"));
        command
            .arg("-appsDir")
            .arg(path("agent/apps"))
            .arg("-dbFileName")
            .arg(path("agent/reagent.db"));
        command
            .arg("-logFile")
            .arg(path("reagent.log"))
            .args(["-nmw=false", "-update=false"]);
        command
            .env("REAGENT_LOCK_FILE", path("lock"))
            .env("SSL_CERT_FILE", path("roots.pem"));
        let begin = Instant::now();
        (Process::start("agent", &mut command), begin)
    }

    /// Waits until every app is reported to run.
    async fn all_run(&mut self) {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < self.apps as usize {
            let app = tokio::time::timeout(MINUTE, self.running.recv())
                .await
                .expect("all apps run")
                .expect("open");
            seen.insert(app);
        }
    }

    /// Memory and start of an agent that knows many apps, all of them running.
    async fn measure_many(mut self) {
        let (mut agent, _) = self.start();
        self.all_run().await;
        agent.terminate(MINUTE);
        let mut times = Vec::new();
        for _ in 0..FULL_STARTS {
            while self.running.try_recv().is_ok() {}
            let (mut agent, begin) = self.start();
            self.all_run().await;
            times.push(begin.elapsed());
            agent.terminate(MINUTE);
        }
        let reconciled = percentile(&mut times, 0.5) / 1e3;
        promise("start_to_50_apps_reported_p50", reconciled, "ms", 1000.0);
        while self.connected.try_recv().is_ok() {}
        let (mut agent, _) = self.start();
        for _ in 0..2 {
            let _ = tokio::time::timeout(MINUTE, self.connected.recv()).await;
        }
        let (resident, dirty) = usage::memory(agent.pid());
        promise("agent_resident_50_apps", resident, "MB", 12.0);
        promise("agent_private_dirty_50_apps", dirty, "MB", 6.0);
        agent.terminate(MINUTE);
        self.stop.cancel();
    }

    async fn measure(mut self) {
        let (mut agent, _) = self.start();
        self.all_run().await;
        agent.terminate(MINUTE);
        while self.connected.try_recv().is_ok() {}

        let mut times = Vec::new();
        for _ in 0..STARTS {
            let (mut agent, begin) = self.start();
            let at = tokio::time::timeout(MINUTE, self.connected.recv())
                .await
                .expect("connected")
                .expect("open");
            times.push(at.duration_since(begin));
            agent.terminate(MINUTE);
        }
        promise(
            "start_to_connected_p50",
            percentile(&mut times, 0.5) / 1e3,
            "ms",
            100.0,
        );

        let (mut agent, _) = self.start();
        let _ = tokio::time::timeout(MINUTE, self.connected.recv()).await;
        // Idle means: a heartbeat later, when everything of the start is done and freed.
        let _ = tokio::time::timeout(MINUTE, self.connected.recv()).await;
        let (resident, dirty) = usage::memory(agent.pid());
        promise("agent_resident_idle", resident, "MB", 8.0);
        promise("agent_private_dirty_idle", dirty, "MB", 3.0);

        let before = Usage::of(agent.pid());
        tokio::time::sleep(IDLE).await;
        let after = Usage::of(agent.pid());
        let cpu = after.cpu_since(&before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        promise("agent_idle_cpu", cpu, "%", 0.1);
        promise(
            "agent_idle_written",
            (after.written - before.written) as f64,
            "B",
            0.0,
        );

        let trace = Trace::start(agent.pid(), "all", self.home.path());
        tokio::time::sleep(IDLE).await;
        let wakeups = trace.stop().bursts();
        promise(
            "agent_idle_wakeups",
            wakeups as f64 / IDLE.as_secs_f64(),
            "1/s",
            1.0,
        );

        // The first write since the start begins the log file, which costs a sync of its own.
        self.request("PRESENT").await;
        self.request("RUNNING").await;
        let before = Usage::of(agent.pid());
        let trace = Trace::start(agent.pid(), "fsync,fdatasync", self.home.path());
        for _ in 0..TRANSITIONS {
            for target in ["PRESENT", "RUNNING"] {
                self.request(target).await;
            }
        }
        let transitions = 2.0 * TRANSITIONS as f64;
        let fsyncs = trace.stop().count("reagent.db") as f64 / transitions;
        promise("database_fsyncs_per_transition", fsyncs, "1", 3.0);
        let written = (Usage::of(agent.pid()).written - before.written) as f64 / transitions;
        promise("bytes_written_per_transition", written / 1024.0, "KiB", 128.0);
        self.starts_of_an_app().await;
        agent.terminate(MINUTE);
        self.stop.cancel();
    }

    /// From the request to RUNNING, beside what Docker's own command line takes for a container like it, in turns.
    async fn starts_of_an_app(&mut self) {
        let (mut ours, mut docker) = (Vec::new(), Vec::new());
        let peer_name = format!("reagent-bench-{}", std::process::id());
        let data = self.home.path().join("peer");
        std::fs::create_dir(&data).expect("a directory");
        let mount = format!("{}:/data", data.display());
        for _ in 0..RUNS {
            self.request("PRESENT").await;
            let begin = Instant::now();
            self.request("RUNNING").await;
            ours.push(begin.elapsed());
            let begin = Instant::now();
            let run = [
                "run",
                "--detach",
                "--tty",
                "--name",
                &peer_name,
                "--volume",
                &mount,
                &self.image,
            ];
            docker::docker(&run).unwrap_or_else(|error| panic!("{error}"));
            docker.push(begin.elapsed());
            docker::remove(&peer_name);
        }
        let (ours, docker) = (percentile(&mut ours, 0.5), percentile(&mut docker, 0.5));
        promise("request_to_running_p50", ours / docker, "x docker run", 1.3);
        peer("docker_run_p50", docker / 1e3, "ms");
    }

    /// Wants the first app in a state and waits until it is reported.
    async fn request(&mut self, target: &str) {
        let kwargs = json!({
            "app_key": 1, "app_name": "bench", "stage": "PROD", "current_state": "PRESENT", "target_state": target,
            "present_version": "1.0.0", "newest_version": "1.0.0", "release_key": 1, "requestor_account_key": 1
        });
        let Value::Object(kwargs) = kwargs else {
            unreachable!("an object was written above")
        };
        let kwargs = kwargs
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        let procedure = "re.mgmt.00000000-0000-4000-8000-000000000001.request_app_state";
        let payload = Payload::from_parts(Vec::new(), kwargs);
        self.backend
            .call(procedure, payload, CallOptions::default())
            .await
            .expect("the request is accepted");
        let reported = async { while self.reported.recv().await.expect("open") != target {} };
        tokio::time::timeout(MINUTE, reported)
            .await
            .expect("the state is reported");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for app in 1..=self.apps {
            docker::remove(&format!("prod_{app}_bench"));
            docker::remove_image(&format!("127.0.0.1:9/bench/prod_amd64_{app}_bench:1.0.0"));
        }
        docker::remove_image(&self.image);
    }
}

async fn serve(session: &Session, uri: &str, answer: impl Fn(Value) -> Value + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    let function = handler(move |invocation| {
        let answer = Arc::clone(&answer);
        async move {
            let args = invocation.payload.args().unwrap_or_default();
            let first = args.first().map(wamp::Value::to_json).unwrap_or_default();
            Ok(Payload::from_args(vec![answer(first).into()]))
        }
    });
    session
        .register(uri, RegisterOptions::default(), function)
        .await
        .expect("registered");
}
