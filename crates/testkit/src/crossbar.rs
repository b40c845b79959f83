//! A real Crossbar.io node as the router under test, configured as `wamp-interop.md` 3.1 says: the roles `device`,
//! `backend` and `studio`, static WAMP-CRA users, and on request a second listener whose clients a component looks up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use wamp::auth::Salting;

use crate::process::Process;
use crate::wait;

/// The realm of every node.
pub const REALM: &str = "realm1";

/// The procedure that the dynamic listener asks for the secret of a client.
pub const AUTHENTICATOR: &str = "reswarm.auth.authenticate";

/// Names the executable; without it the virtual environment below `target/` is used.
const EXECUTABLE_VARIABLE: &str = "REAGENT_CROSSBAR";

/// Python starts slowly, above all on a busy machine.
const START: Duration = Duration::from_secs(90);

/// A user whom the node knows from its configuration.
#[derive(Clone, Debug)]
pub struct User {
    pub authid: String,
    /// The plain password, also when it is salted.
    pub secret: String,
    /// `device`, `backend` or `studio`.
    pub role: String,
    pub salting: Option<Salting>,
}

impl User {
    /// A user without salt.
    pub fn new(authid: &str, secret: &str, role: &str) -> User {
        User {
            authid: authid.to_owned(),
            secret: secret.to_owned(),
            role: role.to_owned(),
            salting: None,
        }
    }

    /// The same user with a salted secret.
    pub fn salted(self, salting: Salting) -> User {
        User {
            salting: Some(salting),
            ..self
        }
    }
}

/// Why there is no node.
#[derive(Debug)]
pub enum CrossbarError {
    /// The executable is not there.
    NotInstalled(PathBuf),
    /// It ended while starting; with everything it printed.
    Ended(Vec<String>),
}

impl std::fmt::Display for CrossbarError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CrossbarError::NotInstalled(path) => write!(
                formatter,
                "Crossbar.io is not installed at {}: `make test` installs it, or {EXECUTABLE_VARIABLE} names it",
                path.display()
            ),
            CrossbarError::Ended(output) => {
                write!(formatter, "Crossbar.io did not start:\n{}", output.join("\n"))
            }
        }
    }
}

impl std::error::Error for CrossbarError {}

/// A running node with a directory of its own. Killed and deleted on drop.
#[derive(Debug)]
pub struct Crossbar {
    // Before the directory: the node ends before its files go.
    process: Process,
    directory: TempDir,
    port: u16,
    dynamic_port: u16,
    raw_port: u16,
    /// Where it listens once it is up.
    awaited: [u16; 2],
}

impl Crossbar {
    /// Starts a node for these users and waits until it answers.
    pub fn start(users: &[User]) -> Result<Crossbar, CrossbarError> {
        Crossbar::launch(users, false)
    }

    /// The same with a second listener, on which a component that registers [`AUTHENTICATOR`] decides who gets in.
    pub fn start_with_dynamic_devices(users: &[User]) -> Result<Crossbar, CrossbarError> {
        Crossbar::launch(users, true)
    }

    fn launch(users: &[User], dynamic: bool) -> Result<Crossbar, CrossbarError> {
        let port = wait::free_port();
        let dynamic_port = wait::free_port();
        let raw_port = wait::free_port();
        let config = config(users, port, dynamic.then_some(dynamic_port), raw_port);
        let mut node = Crossbar::start_with(&config, port, if dynamic { dynamic_port } else { port })?;
        node.raw_port = raw_port;
        wait::until("Crossbar.io listens for RawSocket", START, || {
            TcpStream::connect(("127.0.0.1", raw_port)).ok()
        });
        Ok(node)
    }

    /// A node with a configuration of the caller's, which listens on these two ports of 127.0.0.1 at any path.
    pub fn start_with(config: &Value, port: u16, dynamic_port: u16) -> Result<Crossbar, CrossbarError> {
        let executable = executable();
        if !executable.exists() {
            return Err(CrossbarError::NotInstalled(executable));
        }
        let directory = tempfile::Builder::new()
            .prefix("reagent-crossbar-")
            .tempdir()
            .expect("a temporary directory");
        std::fs::write(directory.path().join("config.json"), config.to_string())
            .expect("a file in a directory of ours");
        let awaited = [port, dynamic_port];
        let process = run(directory.path(), awaited)?;
        Ok(Crossbar {
            process,
            directory,
            port,
            dynamic_port,
            raw_port: 0,
            awaited,
        })
    }

    /// The process id of the node's controller; its workers are its children.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All of it is killed, as by a power cut, and started anew. `meanwhile` runs in between.
    pub fn restart(&mut self, meanwhile: impl FnOnce()) -> Result<(), CrossbarError> {
        self.process.signal_all(Signal::KILL);
        self.process.kill();
        meanwhile();
        self.process = run(self.directory.path(), self.awaited)?;
        Ok(())
    }

    /// It hangs: connections stay, nothing is read or answered any more.
    pub fn freeze(&self) {
        self.process.signal_all(Signal::STOP);
    }

    /// It goes on where it was.
    pub fn thaw(&self) {
        self.process.signal_all(Signal::CONT);
    }

    /// The port of [`Crossbar::url`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the users of the configuration connect.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// Where the users of the configuration connect by RawSocket. Nobody listens there after [`Crossbar::start_with`].
    pub fn raw_url(&self) -> String {
        format!("rs://127.0.0.1:{}", self.raw_port)
    }

    /// Where the clients connect whom the component knows. Nobody listens there after [`Crossbar::start`].
    pub fn dynamic_url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.dynamic_port)
    }

    /// The port of [`Crossbar::dynamic_url`].
    pub fn dynamic_port(&self) -> u16 {
        self.dynamic_port
    }
}

/// Starts the node of a directory and waits until it answers at these ports.
fn run(directory: &Path, ports: [u16; 2]) -> Result<Process, CrossbarError> {
    let mut process = Process::start(
        "crossbar",
        Command::new(executable())
            .args(["start", "--color", "false", "--loglevel", "info", "--cbdir"])
            .arg(directory)
            .current_dir(directory),
    );
    let up = wait::until("Crossbar.io answers", START, || {
        if !process.is_running() {
            return Some(false);
        }
        ports.into_iter().all(answers).then_some(true)
    });
    match up {
        true => Ok(process),
        false => Err(CrossbarError::Ended(process.output())),
    }
}

fn executable() -> PathBuf {
    match std::env::var_os(EXECUTABLE_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/crossbar-venv/bin/crossbar"),
    }
}

/// Whether the listener switches to WebSocket, which it does only when the realm behind it is up.
fn answers(port: u16) -> bool {
    let second = Duration::from_secs(1);
    let upgrade = || {
        let mut tcp = TcpStream::connect(("127.0.0.1", port))?;
        tcp.set_read_timeout(Some(second))?;
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n"
        );
        tcp.write_all(request.as_bytes())?;
        let mut answer = [0; 12];
        tcp.read_exact(&mut answer)?;
        Ok::<bool, std::io::Error>(answer == *b"HTTP/1.1 101")
    };
    upgrade().unwrap_or(false)
}

fn config(users: &[User], port: u16, dynamic_port: Option<u16>, raw_port: u16) -> Value {
    let mut principals = serde_json::Map::new();
    for user in users {
        let mut principal = json!({"secret": user.secret, "role": user.role});
        if let Some(salting) = &user.salting {
            principal["salt"] = json!(salting.salt);
            principal["iterations"] = json!(salting.iterations);
            principal["keylen"] = json!(salting.keylen);
        }
        principals.insert(user.authid.clone(), principal);
    }
    let known = json!({"type": "static", "users": principals});
    let mut transports = vec![
        transport("ws_static", port, &known),
        json!({
            "type": "rawsocket",
            "id": "rs_static",
            "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": raw_port},
            "serializers": ["msgpack", "cbor", "json"],
            "options": {"max_message_size": 16 << 20},
            "auth": {"wampcra": known},
        }),
    ];
    if let Some(port) = dynamic_port {
        transports.push(transport(
            "ws_dynamic",
            port,
            &json!({"type": "dynamic", "authenticator": AUTHENTICATOR}),
        ));
    }
    json!({
        "version": 2,
        "controller": {"id": "node1"},
        "workers": [{
            "type": "router",
            "id": "router1",
            "realms": [{"name": REALM, "roles": roles()}],
            "transports": transports,
        }],
    })
}

fn transport(id: &str, port: u16, cra: &Value) -> Value {
    json!({
        "type": "websocket",
        "id": id,
        "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": port, "backlog": 1024},
        "serializers": ["msgpack", "cbor", "json"],
        "options": {
            "auto_ping_interval": 10000,
            "auto_ping_timeout": 5000,
            "auto_ping_size": 12,
            "auto_ping_restart_on_any_traffic": true,
            "open_handshake_timeout": 5000,
            "max_frame_size": 1 << 20,
            "max_message_size": 16 << 20,
            "fail_by_drop": false,
        },
        "auth": {"wampcra": cra},
    })
}

fn roles() -> Value {
    let prefix = |uri: &str, allow: Value| {
        json!({
            "uri": uri,
            "match": "prefix",
            "allow": allow,
            "disclose": {"caller": true, "publisher": true},
            "cache": true,
        })
    };
    let exact =
        |uri: &str, allow: Value| json!({"uri": uri, "match": "exact", "allow": allow, "cache": true});
    let call = json!({"call": true});
    let call_and_subscribe = json!({"call": true, "subscribe": true});
    json!([
        {"name": "device", "permissions": [
            prefix("re.mgmt.", json!({"register": true, "publish": true, "subscribe": true, "call": false})),
            prefix("reswarm.", json!({"call": true, "publish": true, "subscribe": true})),
            // It answers secrets: for the router itself only.
            exact(AUTHENTICATOR, json!({"call": false})),
            exact("wamp.session.add_testament", call.clone()),
            exact("wamp.session.flush_testaments", call),
            prefix("wamp.subscription.", call_and_subscribe.clone()),
            exact("wamp.registration.on_unregister", json!({"subscribe": true})),
        ]},
        {"name": "backend", "permissions": [
            prefix("", json!({"call": true, "register": true, "publish": true, "subscribe": true})),
        ]},
        {"name": "studio", "permissions": [
            prefix("re.mgmt.", call_and_subscribe.clone()),
            prefix("reswarm.", call_and_subscribe.clone()),
            exact(AUTHENTICATOR, json!({"call": false})),
        ]},
        {"name": "operator", "permissions": [
            prefix("studio.", call_and_subscribe.clone()),
            prefix("reswarm.logs.", json!({"subscribe": true})),
        ]},
    ])
}
