//! The binary itself: exit codes, signals at every stage, what it prints and what it never writes down.

use std::time::{Duration, Instant};

use protocol::uri;
use protocol::uri::backend::GET_REQUESTED_APP_STATES;
use serde_json::{Value, json};
use testkit::forward_proxy::ForwardProxy;
use testkit::process::Process;
use testkit::wait;
use tokio::net::TcpListener;
use wamp::Codec;
use wamp::Dict;
use wamp::client::{RegisterOptions, handler};
use wamp::message::Message;
use wamp::payload::Payload;
use wamp::transport::{Connection, Incoming, accept};

use super::SOON;
use super::backend::{Answer, Backend};
use super::device::Device;
use super::plane::{DEVICE_SECRET, Plane};

/// GOODBYE may take two seconds; the rest is the machine's.
const PROMPTLY: Duration = Duration::from_secs(7);

/// Waits for the end off the runtime's threads, on which the routers run.
async fn end(
    mut process: Process,
    how: fn(&mut Process) -> std::process::ExitStatus,
) -> (Option<i32>, Vec<String>) {
    let ended = tokio::task::spawn_blocking(move || {
        let status = how(&mut process);
        (status.code(), process.output())
    });
    ended.await.unwrap()
}

async fn terminate(process: Process) {
    let began = Instant::now();
    let (code, output) = end(process, |process| process.terminate(SOON)).await;
    assert_eq!(code, Some(0), "{output:#?}");
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}

async fn printed(process: &Process, text: &str) {
    wait::until_async(&format!("{text:?} is printed"), SOON, || async {
        process
            .output()
            .iter()
            .any(|line| line.contains(text))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rejected_signature_on_the_very_first_connection_ends_in_the_words_of_the_contract() {
    let plane = Plane::own().await;
    let device = Device::with(&plane.url, "wrong");
    let (code, output) = end(device.spawn(&[]), |process| process.wait(SOON)).await;
    assert_eq!(code, Some(1));
    let text = "The IronFlock device connect authentication failed";
    assert!(output.iter().any(|line| line == text), "{output:#?}");
}

#[tokio::test]
async fn a_second_device_with_the_same_serial_says_so_and_docker_is_said_to_be_late() {
    let plane = Plane::own().await;
    let device = Device::new(&plane.url);
    let other = plane.join("other").await;
    let place = uri::device(&device.serial, "wamp_connection_established");
    let hello = handler(|_| async { Ok(Payload::Empty) });
    other
        .register(&place, RegisterOptions::default(), hello)
        .await
        .unwrap();
    let (code, output) = end(device.spawn(&[]), |process| process.wait(Duration::from_secs(40))).await;
    assert_eq!(code, Some(1));
    let line = |text: &str| {
        let position = output.iter().position(|line| line == text);
        position.unwrap_or_else(|| panic!("no {text:?} in {output:#?}"))
    };
    let attempt = line("Attempting to establish a socket connection...");
    let late = line(
        "Docker daemon is not reachable yet, continuing startup; container features become available once Docker is up",
    );
    let refused = line(&format!("a WAMP connection for {} already exists", device.serial));
    assert!(attempt < late && late < refused, "{output:#?}");
}

#[tokio::test]
async fn the_lines_of_a_start_are_those_of_the_contract() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    let agent = device.spawn(&[]);
    backend.status("CONNECTED").await;
    let (_, output) = end(agent, |process| process.terminate(SOON)).await;
    assert!(output[0].starts_with("Starting... Reagent initialization sequence (OOS: linux, ARCH: "));
    assert_eq!(
        output[1..],
        [
            "Attempting to establish a socket connection...",
            "Connected!",
            "Running onConnect handler"
        ]
    );
}

/// A router by hand, up to the point that a test wants.
struct Hand(Connection);

impl Hand {
    async fn accept(listener: &TcpListener) -> Hand {
        let (tcp, _) = tokio::time::timeout(SOON, listener.accept())
            .await
            .unwrap()
            .unwrap();
        Hand(accept(tcp, &[Codec::Json], 1 << 20).await.unwrap())
    }

    async fn hear(&mut self) -> Message {
        loop {
            match tokio::time::timeout(SOON, self.0.stream.next()).await.unwrap() {
                Some(Ok(Incoming::Data(frame))) => return Codec::Json.decode(&frame).unwrap(),
                Some(Ok(Incoming::Pong(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn say(&mut self, message: &Message) {
        self.0
            .sink
            .feed(Codec::Json.encode(message).unwrap())
            .await
            .unwrap();
        self.0.sink.flush().await.unwrap();
    }

    /// HELLO, WELCOME, and the first REGISTER heard.
    async fn welcome(&mut self) {
        assert!(matches!(self.hear().await, Message::Hello { .. }));
        let roles = wamp::Value::from(json!({"dealer": {}, "broker": {}}));
        self.say(&Message::Welcome {
            session: 1,
            details: Dict::from([("roles".to_owned(), roles)]),
        })
        .await;
        assert!(matches!(self.hear().await, Message::Register { .. }));
    }
}

async fn listener() -> (TcpListener, Device) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = Device::new(&format!("ws://{}/ws", listener.local_addr().unwrap()));
    (listener, device)
}

#[tokio::test]
async fn sigterm_ends_the_agent_before_there_is_a_session() {
    // As early as anybody can know that it runs.
    let (_listener, device) = listener().await;
    let agent = device.spawn(&[]);
    printed(&agent, "Starting...").await;
    terminate(agent).await;

    // The upgrade is not answered.
    let (listener, device) = self::listener().await;
    let agent = device.spawn(&["-connTimeout=0"]);
    let _tcp = tokio::time::timeout(SOON, listener.accept())
        .await
        .unwrap()
        .unwrap();
    terminate(agent).await;

    // HELLO is not answered.
    let agent = device.spawn(&[]);
    let mut router = Hand::accept(&listener).await;
    assert!(matches!(router.hear().await, Message::Hello { .. }));
    terminate(agent).await;

    // Between two attempts.
    drop(listener);
    let agent = device.spawn(&["-prettyLogging"]);
    printed(&agent, "could not join the router").await;
    terminate(agent).await;
}

#[tokio::test]
async fn sigterm_says_goodbye_to_a_router_that_answers_nothing_and_does_not_wait_for_it() {
    let (listener, device) = listener().await;
    let agent = device.spawn(&[]);
    let mut router = Hand::accept(&listener).await;
    router.welcome().await;
    let (goodbye, ()) = tokio::join!(router.hear(), terminate(agent));
    assert!(matches!(goodbye, Message::Goodbye { .. }), "{goodbye:?}");

    // In its place, but the testament is not answered.
    let agent = device.spawn(&[]);
    let mut router = Hand::accept(&listener).await;
    router.welcome().await;
    router
        .say(&Message::Registered {
            request: 1,
            registration: 9,
        })
        .await;
    assert!(matches!(router.hear().await, Message::Call { .. }));
    let heard = async {
        loop {
            // Cancels of what is under way may come before.
            if let goodbye @ Message::Goodbye { .. } = router.hear().await {
                return goodbye;
            }
        }
    };
    let (_goodbye, ()) = tokio::join!(heard, terminate(agent));
}

#[tokio::test]
async fn sigterm_while_configuring_and_when_connected_ends_the_session_at_the_router() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let mut left = backend
        .session
        .subscribe(uri::TESTAMENT_TOPIC, Dict::new())
        .await
        .unwrap();
    let device = Device::new(&plane.url);
    backend.does(GET_REQUESTED_APP_STATES, Answer::Silence);
    let agent = device.spawn(&[]);
    backend.called(GET_REQUESTED_APP_STATES, 1).await;
    terminate(agent).await;
    tokio::time::timeout(SOON, left.events.recv())
        .await
        .unwrap()
        .unwrap();

    backend.answers(GET_REQUESTED_APP_STATES, json!([]));
    let agent = device.spawn(&[]);
    backend.status("CONNECTED").await;
    terminate(agent).await;
    tokio::time::timeout(SOON, left.events.recv())
        .await
        .unwrap()
        .unwrap();
}

/// The host of the `.flock` is one that only the proxy knows.
#[tokio::test]
async fn the_proxy_of_the_environment_leads_to_the_router() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let proxy = ForwardProxy::start(plane.address().parse().unwrap(), Some("user:pass"))
        .await
        .unwrap();
    let device = Device::new("ws://router.invalid:8080/ws");
    let mut command = device.command(&[]);
    command.env("HTTP_PROXY", format!("http://user:pass@{}", proxy.address));
    command.env("NO_PROXY", "other.invalid");
    let process = Process::start("reagent", &mut command);
    backend.status("CONNECTED").await;
    assert_eq!(proxy.asked(), ["router.invalid:8080"]);
    terminate(process).await;
}

#[tokio::test]
async fn offline_means_that_nobody_is_dialled() {
    let (listener, device) = listener().await;
    let agent = device.spawn(&["-offline", "-prettyLogging"]);
    printed(
        &agent,
        "Started in offline mode, will not establish a socket connection!",
    )
    .await;
    terminate(agent).await;
    let listener = listener.into_std().unwrap();
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_restart_without_systemd_ends_the_agent_so_that_its_supervisor_starts_it_again() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    // No systemctl to be found, whatever this machine runs.
    let agent = Process::start("reagent", device.command(&[]).env("PATH", "/nonexistent"));
    backend.status("CONNECTED").await;
    let mut left = backend
        .session
        .subscribe(uri::TESTAMENT_TOPIC, Dict::new())
        .await
        .unwrap();
    device
        .call(&backend.session, "system_restart_agent", json!([]), json!({}))
        .await
        .unwrap();
    let (code, output) = end(agent, |process| process.wait(SOON)).await;
    assert_eq!(code, Some(1), "{output:#?}");
    tokio::time::timeout(SOON, left.events.recv())
        .await
        .unwrap()
        .unwrap();
}

/// Words that only secrets hold.
const SECRETS: [&str; 6] = [
    DEVICE_SECRET,
    "hush-credential-key",
    "hush-environment",
    "hush-registry-password",
    "hush-wifi",
    "hush-private-key",
];

#[tokio::test]
async fn no_line_of_a_full_run_holds_a_secret() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    let mut flock = device.flock();
    flock["password"] = json!("hush-wifi");
    flock["authentication"] = json!({"key": "hush-private-key", "certificate": "x"});
    std::fs::write(device.path("device.flock"), flock.to_string()).unwrap();
    let row = |changes: Value| {
        let mut row = json!({
            "app_key": 12, "app_name": "App", "stage": "PROD", "current_state": "PRESENT", "target_state": "RUNNING",
            "present_version": "1", "newest_version": "1", "requestor_account_key": 1,
            "environment": {"PASSWORD": {"value": "hush-environment"}},
            "environment_template": {"PASSWORD": {"defaultValue": "hush-environment"}},
            "docker_credentials": {"r.example": {"username": "u", "password": "hush-registry-password"}},
        });
        let Value::Object(changes) = changes else {
            unreachable!()
        };
        row.as_object_mut().unwrap().extend(changes);
        row
    };
    let odd = [
        json!({"environment": "hush-environment"}),
        json!({"environment": {"PASSWORD": "hush-environment"}}),
        json!({"docker_credentials": {"r.example": {"username": 1, "password": "hush-registry-password"}}}),
        json!({"docker_credentials": ["hush-registry-password"]}),
        json!({"docker_compose": {"environment": "hush-environment"}}),
        json!({"stage": 5}),
    ];
    backend.answers(uri::backend::GET_APP_CRED_KEY, json!("hush-credential-key"));
    let rows: Vec<_> = std::iter::once(json!({})).chain(odd.clone()).map(&row).collect();
    backend.answers(GET_REQUESTED_APP_STATES, json!(rows));
    let agent = device.spawn(&["-prettyLogging", "-debug", "-debugMessaging"]);
    backend.status("CONNECTED").await;
    device
        .call(
            &backend.session,
            "request_app_state",
            json!([]),
            row(json!({"app_key": 13})),
        )
        .await
        .unwrap();
    for changes in odd {
        let refused = device
            .call(&backend.session, "request_app_state", json!([]), row(changes))
            .await;
        let text = format!("{refused:?}");
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
    }
    backend.called(uri::backend::UPDATE_APP_ON_DEVICE, 1).await;
    let (_, mut lines) = end(agent, |process| process.terminate(SOON)).await;
    let log = std::fs::read_to_string(device.path("reagent.log")).unwrap();
    assert!(log.lines().count() > 10, "{log}");
    lines.extend(log.lines().map(str::to_owned));
    for line in lines {
        for secret in SECRETS {
            assert!(!line.contains(secret), "{line}");
        }
    }
}
