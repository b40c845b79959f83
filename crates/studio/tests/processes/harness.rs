//! Starts the studio, runs its command line, and plays a device: a WAMP client that joins with its identity file.

use std::ffi::OsStr;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use protocol::flock::{Flock, FlockDocument};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::wait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use wamp::client::{
    CallOptions, ClientConfig, ConnectError, Credentials, RegisterOptions, RequestError, Session, handler,
};
use wamp::{Dict, Payload};

/// Nothing here takes longer on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a condition, not for a time: running into the deadline is a failure with a name.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Asks again and again until the answer is there.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    wait::until_async(what, DEADLINE, ask).await
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Standard output as one JSON value.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard output as one JSON value per line.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A served studio in a folder of its own.
pub(crate) struct Studio {
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    pub(crate) registry: Option<String>,
    process: Process,
}

/// The served studio's process. One with a registry is ended in order when a test is over, also by a failure: killed,
/// it would leave the registry behind.
struct Process {
    child: Child,
    has_registry: bool,
}

impl Process {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.id().is_none() || !self.has_registry {
            return;
        }
        self.signal(rustix::process::Signal::TERM);
        let _ = wait::poll(DEADLINE, || self.child.try_wait().ok().flatten());
    }
}

/// The studio program with nothing of the developer's environment that could steer it.
pub(crate) fn studio_program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_studio"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STUDIO_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Studio {
    pub(crate) async fn start() -> Studio {
        Studio::start_with(tempfile::tempdir().unwrap(), &[]).await
    }

    /// Starts in a folder, which may hold the data of an earlier run.
    pub(crate) async fn start_with(folder: TempDir, flags: &[&str]) -> Studio {
        let mut command = studio_program();
        let log = std::fs::File::create(folder.path().join("serve.log")).unwrap();
        command
            .current_dir(folder.path())
            .args(["--json", "serve"])
            .args(flags)
            .stderr(log);
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within("studio ready", lines.next_line()).await.unwrap();
        let Some(line) = line else {
            panic!(
                "studio ended: {}",
                std::fs::read_to_string(folder.path().join("serve.log")).unwrap()
            );
        };
        let ready: Value = serde_json::from_str(&line).unwrap();
        Studio {
            url: ready["url"].as_str().unwrap().to_owned(),
            registry: ready["registry"].as_str().map(str::to_owned),
            folder,
            process: Process {
                child,
                has_registry: !ready["registry"].is_null(),
            },
        }
    }

    /// A command line in the studio's folder, not yet started.
    pub(crate) fn command<W: AsRef<OsStr>>(&self, words: &[W]) -> Command {
        let mut command = studio_program();
        command.current_dir(self.folder.path()).args(words);
        command
    }

    pub(crate) async fn run<W: AsRef<OsStr>>(&self, words: &[W]) -> Done {
        finish(self.command(words)).await
    }

    /// Runs with `--json` and expects success.
    pub(crate) async fn ok(&self, words: &[&str]) -> Value {
        self.run(&[&["--json"], words].concat()).await.json()
    }

    /// Adds a device and reads its identity file.
    pub(crate) async fn add_device(&self, name: &str) -> Flock {
        self.ok(&["device", "add", name]).await;
        self.flock(name)
    }

    pub(crate) fn flock(&self, name: &str) -> Flock {
        let text = std::fs::read_to_string(self.path(&format!("{name}.flock"))).unwrap();
        FlockDocument::parse(&text).unwrap().flock()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The status that the studio shows for a device.
    pub(crate) async fn status(&self, device: &str) -> String {
        self.ok(&["device", "show", device]).await["status"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Joins as the first account.
    pub(crate) async fn operator(&self) -> Session {
        let text = std::fs::read_to_string(self.path("studio-data/operator.json")).unwrap();
        let operator: Value = serde_json::from_str(&text).unwrap();
        let text = |name: &str| operator[name].as_str().unwrap().to_owned();
        join(&self.url, text("authid"), text("secret")).await.unwrap()
    }

    /// Ends it as a service manager does; answers the exit code and the folder.
    pub(crate) async fn stop(mut self) -> (i32, TempDir) {
        self.process.signal(rustix::process::Signal::TERM);
        let status = within("studio ends", self.process.child.wait()).await.unwrap();
        (status.code().unwrap(), self.folder)
    }

    /// Kills it without a chance to tidy up.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.process.child.kill().await.unwrap();
        self.folder
    }
}

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> Done {
    let output = within("command ends", command.output()).await.unwrap();
    Done {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A command that goes on: its lines one by one.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }

    /// Closes the reader's end of the command's standard output.
    pub(crate) fn hang_up(self) -> Child {
        self.child
    }

    pub(crate) async fn line(&mut self) -> String {
        match within("a line", self.lines.next_line()).await.unwrap() {
            Some(line) => line,
            None => {
                let mut stderr = String::new();
                self.child
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut stderr)
                    .await
                    .unwrap();
                panic!("the command ended: {stderr}");
            }
        }
    }
}

pub(crate) async fn join(url: &str, authid: String, secret: String) -> Result<Session, ConnectError> {
    let mut config = ClientConfig::new(url, "realm1");
    config.credentials = Credentials::Cra { authid, secret };
    within("join", Session::connect(&config)).await
}

/// A device as the studio sees one.
pub(crate) struct Device {
    pub(crate) flock: Flock,
    pub(crate) session: Session,
    /// Keyword arguments of every `request_app_state`.
    pub(crate) requests: mpsc::UnboundedReceiver<Value>,
}

impl Device {
    /// Joins, leaves its testament, offers `request_app_state`, reports CONNECTED.
    pub(crate) async fn connect(flock: Flock) -> Device {
        let authid = format!("{}-{}", flock.swarm_key, flock.device_key);
        let session = join(&flock.device_endpoint_url, authid, flock.secret.clone())
            .await
            .unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let device = Device {
            flock,
            session,
            requests,
        };
        let testament = json!([{
            "swarm_key": device.flock.swarm_key, "device_key": device.flock.device_key,
            "serial_number": device.flock.serial_number, "wamp_session_id": device.session.id(),
        }]);
        let arguments = [json!("reswarm.api.testament_device"), testament, json!({})];
        device
            .call("wamp.session.add_testament", &arguments)
            .await
            .unwrap();
        device
            .offer("request_app_state", move |payload| {
                let kwargs = wamp::Value::Dict(payload.kwargs().unwrap()).to_json();
                sender.send(kwargs).unwrap();
                Payload::Empty
            })
            .await;
        device.report_status("CONNECTED").await.unwrap();
        device
    }

    /// Offers a procedure of the device.
    pub(crate) async fn offer(
        &self,
        name: &str,
        answer: impl Fn(Payload) -> Payload + Clone + Send + Sync + 'static,
    ) {
        let options = RegisterOptions {
            force_reregister: true,
            ..RegisterOptions::default()
        };
        let answer = handler(move |invocation| {
            let answer = answer.clone();
            async move { Ok(answer(invocation.payload)) }
        });
        let uri = protocol::uri::device(&self.flock.serial_number, name);
        within("register", self.session.register(&uri, options, answer))
            .await
            .unwrap();
    }

    /// Calls a procedure with positional arguments; answers args[0], null when there is none.
    pub(crate) async fn call(&self, procedure: &str, args: &[Value]) -> Result<Value, RequestError> {
        call(&self.session, procedure, args).await
    }

    pub(crate) async fn report_status(&self, status: &str) -> Result<Value, RequestError> {
        let payload = json!({
            "swarm_key": self.flock.swarm_key, "device_key": self.flock.device_key, "status": status,
            "wamp_session_id": self.session.id(), "tunnel_capable": true,
            "stats": {
                "cpu_count": 4, "cpu_usage": 12.5, "memory_total": 4096, "memory_used": 1024,
                "memory_available": 3072, "storage_total": 10, "storage_used": 4, "storage_free": 6,
                "docker_apps_total": 0, "docker_apps_used": 0, "docker_apps_free": 0, "docker_apps_mounted": false
            }
        });
        self.call("reswarm.devices.update_device_status", &[payload])
            .await
    }

    pub(crate) async fn report_state(&self, app_key: u64, state: &str, release_key: u64) {
        let payload = json!({
            "app_key": app_key, "device_key": self.flock.device_key, "swarm_key": self.flock.swarm_key,
            "serial_number": self.flock.serial_number, "stage": "PROD", "state": state, "device_to_app_key": 0,
            "requestor_account_key": 1, "release_key": release_key, "request_update": false,
            "release_build": false, "updateStatus": "",
        });
        self.call("reswarm.containers.update_app_on_device", &[payload])
            .await
            .unwrap();
    }

    /// The next request for an app.
    pub(crate) async fn request(&mut self) -> Value {
        within("request_app_state", self.requests.recv()).await.unwrap()
    }

    pub(crate) async fn publish(&self, topic: &str, message: Value) {
        let payload = Payload::one(&message).unwrap();
        within(
            "publish",
            self.session.publish_acknowledged(topic, Dict::new(), payload),
        )
        .await
        .unwrap();
    }
}

/// Calls with positional arguments; answers args[0], null when there is none.
pub(crate) async fn call(session: &Session, procedure: &str, args: &[Value]) -> Result<Value, RequestError> {
    let payload = Payload::from_args(args.iter().cloned().map(wamp::Value::from).collect());
    let result = session
        .call(procedure, payload, CallOptions::timeout(DEADLINE))
        .await?;
    Ok(result.payload.first::<Value>().unwrap().unwrap_or(Value::Null))
}

/// The error URI of a failed call.
pub(crate) fn refusal(result: Result<Value, RequestError>) -> String {
    match result {
        Err(RequestError::Peer(answer)) => answer.uri,
        other => panic!("not refused: {other:?}"),
    }
}
