//! The router over real sockets: with the crate's own client, and with a bare WebSocket where the wire itself matters.

#![allow(clippy::unwrap_used)]

mod admission;
mod authenticator;
mod burst;
mod calls;
mod carrier;
mod conformance;
mod lifetime;
mod logs;
mod malformed;
mod mutated;
mod peers;
mod rawsocket;
mod realms;
mod secure;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carrier::Carrier;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{self, Bytes, Message as Frame};
use tokio_util::sync::CancellationToken;
use wamp::Codec;
use wamp::auth::Salting;
use wamp::client::{ClientConfig, Credentials, Session};
use wamp::router::{JoinRequest, Limits, Permission, Principal, RealmsConfig, Router, RouterConfig};

/// Bound for everything that a test waits for.
const SOON: Duration = Duration::from_secs(20);

const SECRET: &str = "device secret";

/// A running router. Dropping it stops the router.
struct Running {
    router: Router,
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn start(limits: Limits) -> Running {
    run(RouterConfig {
        realm: "realm1".to_owned(),
        roles: roles(),
        authenticator: Arc::new(|request| Box::pin(async move { authenticate(&request) })),
        limits,
    })
    .await
}

/// `device` may do everything under its name, `backend` everything without it, `limited` everything below `re.` but
/// take things from others.
fn roles() -> HashMap<String, Vec<Permission>> {
    let everything = |uri: &str, disclose| Permission {
        uri: uri.to_owned(),
        prefix: true,
        call: true,
        register: true,
        publish: true,
        subscribe: true,
        force_register: true,
        disclose,
    };
    let below = Permission {
        force_register: false,
        ..everything("re.", true)
    };
    HashMap::from([
        ("device".to_owned(), vec![everything("", true)]),
        ("backend".to_owned(), vec![everything("", false)]),
        ("limited".to_owned(), vec![below]),
    ])
}

async fn run(config: impl Into<RealmsConfig>) -> Running {
    let router = Router::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn({
        let (router, stop) = (router.clone(), stop.clone());
        async move { router.serve(listener, stop).await }
    });
    Running {
        router,
        address,
        stop,
        served,
    }
}

fn authenticate(request: &JoinRequest) -> Result<Principal, Option<(String, String)>> {
    let cra = |salting| Principal::Cra {
        secret: SECRET.to_owned(),
        role: "device".to_owned(),
        salting,
        extra: wamp::Dict::from([("device_key".to_owned(), 42_u64.into())]),
    };
    match request.authid.as_deref() {
        None => Ok(Principal::Anonymous {
            authid: "guest".to_owned(),
            role: "device".to_owned(),
        }),
        Some("7-42") => Ok(cra(None)),
        Some("roleless") => Ok(Principal::Anonymous {
            authid: "roleless".to_owned(),
            role: "nobody".to_owned(),
        }),
        Some("ticket") => Ok(Principal::Ticket {
            ticket: "let me in".to_owned(),
            role: "backend".to_owned(),
            extra: wamp::Dict::new(),
        }),
        // `as-<role>-<name>`: whoever says so.
        Some(named) if named.starts_with("as-") => Ok(Principal::Anonymous {
            authid: named.to_owned(),
            role: named.split('-').nth(1).unwrap().to_owned(),
        }),
        Some("banned") => Err(Some(("app.error.banned".to_owned(), "not today".to_owned()))),
        Some(salted) if salted.starts_with("salted-") => Ok(cra(Some(Salting {
            salt: "salt123".to_owned(),
            iterations: 100,
            keylen: salted["salted-".len()..].parse().unwrap(),
        }))),
        Some(_) => Err(None),
    }
}

impl Running {
    fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    fn client_config(&self) -> ClientConfig {
        ClientConfig::new(self.url(), "realm1")
    }

    async fn client(&self) -> Session {
        Session::connect(&self.client_config()).await.unwrap()
    }

    async fn device(&self) -> Session {
        let mut config = self.client_config();
        config.credentials = Credentials::Cra {
            authid: "7-42".to_owned(),
            secret: SECRET.to_owned(),
        };
        Session::connect(&config).await.unwrap()
    }

    /// Waits until the router holds this many sessions.
    async fn holds(&self, sessions: usize) {
        until("the number of sessions", || {
            self.router.counters().sessions == sessions
        })
        .await;
    }

    async fn peer(&self) -> Peer {
        Peer::connect(self.address, "wamp.2.json").await.unwrap()
    }

    /// A bare peer that has joined under this name (see [`authenticate`]) and speaks `codec`; its session id.
    async fn joined_as(&self, codec: Codec, authid: Option<&str>) -> (Peer, u64) {
        let peer = Peer::connect(self.address, codec.subprotocol()).await.unwrap();
        join(peer, authid).await
    }

    /// The same over RawSocket.
    async fn joined_raw_as(&self, codec: Codec, authid: Option<&str>) -> (Peer, u64) {
        join(Peer::connect_raw(self.address, codec).await, authid).await
    }

    /// A bare peer that has joined.
    async fn joined(&self) -> Peer {
        self.joined_as(Codec::Json, None).await.0
    }
}

async fn join(mut peer: Peer, authid: Option<&str>) -> (Peer, u64) {
    let welcome = peer.ask(hello(json!({"authid": authid}))).await;
    assert_eq!(welcome[0], 2, "{welcome}");
    let session = welcome[1].as_u64().unwrap();
    (peer, session)
}

/// Looks again and again until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let watch = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            tick.tick().await;
        }
    };
    soon(what, watch).await;
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

fn hello(mut details: Value) -> Value {
    if details.get("roles").is_none() {
        let features = json!({"features": {
            "call_canceling": true, "caller_identification": true, "progressive_call_invocations": true
        }});
        details["roles"] = json!({"caller": features, "callee": features, "publisher": {}, "subscriber": {}});
    }
    json!([1, "realm1", details])
}

/// A client without any knowledge of WAMP: arrays in frames. Tests write and read them as JSON, whatever is on the wire.
struct Peer {
    socket: Carrier,
    codec: Codec,
}

const CODECS: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Cbor];

impl Peer {
    async fn connect(address: SocketAddr, protocols: &str) -> tungstenite::Result<Peer> {
        let socket = Carrier::upgrade(address, protocols).await?;
        let codec = CODECS.into_iter().find(|codec| codec.subprotocol() == protocols);
        let codec = codec.unwrap_or(Codec::Json);
        Ok(Peer { socket, codec })
    }

    async fn connect_raw(address: SocketAddr, codec: Codec) -> Peer {
        let socket = Carrier::raw(address, codec).await;
        Peer { socket, codec }
    }

    async fn send(&mut self, message: Value) {
        self.try_send(message).await.unwrap();
    }

    /// Sends to somebody who may have hung up.
    async fn try_send(&mut self, message: Value) -> tungstenite::Result<()> {
        let text = message.to_string();
        let frame = match self.codec {
            Codec::Json => Frame::text(text),
            binary => {
                let message = Codec::Json.decode(&text.into()).unwrap();
                Frame::Binary(binary.encode(&message).unwrap())
            }
        };
        self.socket.send(frame).await
    }

    async fn send_frame(&mut self, frame: Frame) {
        self.socket.send(frame).await.unwrap();
    }

    async fn next_frame(&mut self) -> Option<tungstenite::Result<Frame>> {
        soon("a frame", self.socket.next()).await
    }

    /// The next message; pings are answered meanwhile.
    #[track_caller]
    fn next(&mut self) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                match self.next_frame().await {
                    Some(Ok(Frame::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(Frame::Binary(bytes))) => {
                        let text = Codec::Json.encode(&self.codec.decode(&bytes).unwrap());
                        return serde_json::from_slice(&text.unwrap()).unwrap();
                    }
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                    other => panic!("no message at {caller}: {other:?}"),
                }
            }
        }
    }

    async fn ask(&mut self, message: Value) -> Value {
        self.send(message).await;
        self.next().await
    }

    /// The close code that has to come: RawSocket has none.
    fn closes_with(&self, code: u16) -> Option<u16> {
        (!self.socket.is_raw()).then_some(code)
    }

    /// Reads until the router closes; the close code, if it said one.
    async fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(Ok(frame)) = self.next_frame().await {
            match frame {
                Frame::Close(Some(frame)) => code = Some(frame.code.into()),
                Frame::Text(text) => panic!("a message in place of the close: {text}"),
                _ => {}
            }
        }
        code
    }

    /// The router has to answer with ABORT `protocol_violation` and close with 1002.
    #[track_caller]
    fn violated(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let abort = self.next().await;
            assert_eq!(
                (&abort[0], &abort[2]),
                (&json!(3), &json!("wamp.error.protocol_violation")),
                "at {caller}: {abort}"
            );
            assert!(abort[1]["message"].is_string(), "at {caller}: {abort}");
            let code = self.closed().await;
            assert_eq!(code, self.closes_with(1002), "at {caller}");
        }
    }
}

fn binary(bytes: &[u8]) -> Frame {
    Frame::Binary(Bytes::copy_from_slice(bytes))
}
