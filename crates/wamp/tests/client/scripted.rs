//! A router that says exactly what a test wants.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use wamp::Codec;
use wamp::client::{
    ClientConfig, Credentials, Handler, RegisterOptions, Registration, Session, Subscription, handler,
};
use wamp::value::Dict;

/// Bound for what must happen by itself.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The reply timeout of the tests that let it pass.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

/// A listener that waits for its one client.
pub(crate) struct Script {
    listener: TcpListener,
}

/// The router's end of a connection.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Script {
    pub(crate) async fn new() -> (Script, ClientConfig) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let config = ClientConfig {
            codecs: vec![Codec::Json],
            ..ClientConfig::new(url, "realm1")
        };
        (Script { listener }, config)
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (tcp, _) = self.listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let pick = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let name = "wamp.2.json".parse().unwrap();
            response.headers_mut().insert("sec-websocket-protocol", name);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(tcp, pick).await.unwrap();
        Peer { socket }
    }

    /// Accepts, reads HELLO, says WELCOME.
    pub(crate) async fn welcome(&self) -> Peer {
        self.welcome_with(json!([])).await
    }

    /// The same of a router whose dealer announces these features.
    pub(crate) async fn welcome_with(&self, features: Json) -> Peer {
        let mut peer = self.accept().await;
        assert_eq!(peer.hear().await[0], 1);
        let features = features.as_array().unwrap().iter();
        let features: serde_json::Map<_, _> = features
            .map(|feature| (feature.as_str().unwrap().to_owned(), json!(true)))
            .collect();
        peer.say(json!([2, 77, {"roles": {"broker": {}, "dealer": {"features": features}}}]))
            .await;
        peer
    }
}

impl Peer {
    pub(crate) async fn say(&mut self, message: Json) {
        self.socket.send(Frame::text(message.to_string())).await.unwrap();
    }

    /// The next frame, or the first one that is no ping.
    pub(crate) async fn next(&mut self, pings: bool) -> Option<Frame> {
        let next = async {
            loop {
                match self.socket.next().await.transpose().ok().flatten() {
                    Some(Frame::Ping(_)) if !pings => {}
                    frame => return frame,
                }
            }
        };
        match tokio::time::timeout(SOON, next).await {
            Ok(frame) => frame,
            Err(_) => panic!("the client says nothing"),
        }
    }

    /// The next message of the client.
    pub(crate) async fn hear(&mut self) -> Json {
        match self.next(false).await {
            Some(Frame::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} in place of a message"),
        }
    }

    pub(crate) async fn ping(&mut self, payload: u8) {
        self.socket.send(Frame::Ping(vec![payload].into())).await.unwrap();
    }

    /// The next frame, whatever it is.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.socket.next().await.unwrap().unwrap()
    }

    /// The TCP connection itself, which answers nothing.
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// Nothing but pings comes for this long.
    pub(crate) async fn is_silent_for(&mut self, time: Duration) {
        let next = tokio::time::timeout(time, self.next(false)).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// The client's close frame, with its code.
    pub(crate) async fn hear_close(&mut self) -> u16 {
        match self.next(false).await {
            Some(Frame::Close(Some(close))) => close.code.into(),
            other => panic!("{other:?} in place of a close frame"),
        }
    }
}

/// A joined session and the router's end of it.
pub(crate) async fn joined(change: impl FnOnce(&mut ClientConfig)) -> (Session, Peer) {
    let (script, mut config) = Script::new().await;
    change(&mut config);
    let (session, peer) = tokio::join!(Session::connect(&config), script.welcome());
    (session.unwrap(), peer)
}

pub(crate) fn cra(secret: &str) -> Credentials {
    Credentials::Cra {
        authid: "7-42".to_owned(),
        secret: secret.to_owned(),
    }
}

/// Registers `procedure`; the router gives it the id `id`.
pub(crate) async fn registered(
    session: &Session,
    peer: &mut Peer,
    id: u64,
    handler: Handler,
) -> Registration {
    let router = async {
        let register = peer.hear().await;
        assert_eq!(register[0], 64);
        peer.say(json!([65, register[1], id])).await;
    };
    let registering = session.register("a.procedure", RegisterOptions::default(), handler);
    let (registration, ()) = tokio::join!(registering, router);
    registration.unwrap()
}

pub(crate) async fn subscribed(session: &Session, peer: &mut Peer, id: u64) -> Subscription {
    let router = async {
        let subscribe = peer.hear().await;
        assert_eq!(subscribe[0], 32);
        peer.say(json!([33, subscribe[1], id])).await;
    };
    let (subscription, ()) = tokio::join!(session.subscribe("a.topic", Dict::new()), router);
    subscription.unwrap()
}

pub(crate) fn echo() -> Handler {
    handler(|invocation| async move { Ok(invocation.payload) })
}
