//! Routers that misbehave before the session begins: the agent tells, waits and comes back.

use std::time::Duration;

use reagent::agent::Exit;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use futures_util::{SinkExt as _, StreamExt as _};

use super::SOON;
use super::backend::Backend;
use super::device::{Device, quick};
use super::plane::Plane;
use super::tap::Tap;

/// Ways to receive an agent.
#[derive(Clone, Debug)]
enum Manners {
    HangUpAtOnce,
    HangUpAfterRequest,
    NoHttp,
    NoWebSocket,
    NoSubprotocol,
    ForeignSubprotocol,
    /// Upgrades, reads HELLO, never answers.
    Silence,
    /// Upgrades, reads HELLO, hangs up.
    HangUpAfterHello,
    /// Upgrades, reads HELLO, says these texts.
    Say(Vec<String>),
    /// Says binary frames in a text protocol.
    Binary,
}

fn says(messages: &[Value]) -> Manners {
    Manners::Say(messages.iter().map(Value::to_string).collect())
}

async fn upgrade(tcp: TcpStream, subprotocol: &str) -> WebSocketStream<TcpStream> {
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let pick = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let name = subprotocol.parse().unwrap();
        response.headers_mut().insert("sec-websocket-protocol", name);
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(tcp, pick).await.unwrap()
}

async fn receive(mut tcp: TcpStream, manners: Manners) {
    match manners {
        Manners::HangUpAtOnce => drop(tcp),
        Manners::HangUpAfterRequest => {
            let _ = tcp.read(&mut [0; 4096]).await;
        }
        Manners::NoHttp => {
            let _ = tcp.read(&mut [0; 4096]).await;
            let _ = tcp.write_all(&[0xff; 512]).await;
        }
        Manners::NoWebSocket => {
            let _ = tcp.read(&mut [0; 4096]).await;
            let page = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\noops\n";
            let _ = tcp.write_all(page.as_bytes()).await;
        }
        Manners::NoSubprotocol => {
            let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        }
        Manners::ForeignSubprotocol => {
            let mut socket = upgrade(tcp, "mqtt").await;
            while let Some(Ok(_)) = socket.next().await {}
        }
        Manners::Silence => {
            let mut socket = upgrade(tcp, "wamp.2.json").await;
            while let Some(Ok(_)) = socket.next().await {}
        }
        Manners::HangUpAfterHello => {
            let mut socket = upgrade(tcp, "wamp.2.json").await;
            let _ = socket.next().await;
        }
        Manners::Say(texts) => {
            let mut socket = upgrade(tcp, "wamp.2.json").await;
            let _ = socket.next().await;
            for text in texts {
                let _ = socket.send(Frame::text(text)).await;
            }
            while let Some(Ok(_)) = socket.next().await {}
        }
        Manners::Binary => {
            let mut socket = upgrade(tcp, "wamp.2.json").await;
            let _ = socket.next().await;
            let _ = socket.send(Frame::binary(vec![0x93, 2, 1, 0x80])).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
    }
}

#[tokio::test]
async fn a_router_without_manners_is_tried_again_until_it_has_some() {
    let welcome = json!([2, 1, {"roles": {"dealer": {}, "broker": {}}}]);
    let manners = vec![
        Manners::HangUpAtOnce,
        Manners::HangUpAfterRequest,
        Manners::NoHttp,
        Manners::NoWebSocket,
        Manners::NoSubprotocol,
        Manners::ForeignSubprotocol,
        Manners::Silence,
        Manners::HangUpAfterHello,
        Manners::Binary,
        Manners::Say(vec!["no JSON".to_owned()]),
        Manners::Say(vec![String::new()]),
        Manners::Say(vec!["[".repeat(100_000)]),
        says(&[json!([])]),
        says(&[json!({"welcome": true})]),
        says(&[json!([2, -1, {}])]),
        says(&[json!([2, 1, {"roles": {}}])]),
        says(&[json!([50, 1, {}])]),
        says(&[json!([3, {"message": "starting"}, "wamp.error.no_such_realm"])]),
        says(&[json!([3, {}, "wamp.error.not_authorized"])]),
        says(&[json!([4, "wampcra", {}])]),
        says(&[json!([4, "wampcra", {"challenge": 5}])]),
        says(&[
            json!([4, "wampcra", {"challenge": "x", "salt": "y", "iterations": 4_000_000_000_u64, "keylen": 32}]),
        ]),
        says(&[json!([4, "ticket", {}])]),
        // Inside the session: the first REGISTER is never answered, answered with nonsense, or the session is ended.
        says(&[welcome.clone(), json!([3, {}, "wamp.error.protocol_violation"])]),
        says(&[welcome.clone(), json!([6, {}, "wamp.close.normal"])]),
        says(&[
            welcome.clone(),
            json!([8, 64, 1, {}, "wamp.error.not_authorized"]),
            json!([6, {}, "wamp.close.normal"]),
        ]),
        says(&[welcome.clone(), json!([1, "realm1", {}])]),
        says(&[welcome]),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut device = Device::new(&format!("ws://{address}/ws"));
    device.response_timeout = Duration::from_millis(400);
    let agent = device.start(quick());
    for manners in manners {
        let told = format!("{manners:?}").chars().take(80).collect::<String>();
        let next = tokio::time::timeout(SOON, listener.accept()).await;
        let (tcp, _) = next
            .unwrap_or_else(|_| panic!("no further attempt before {told}"))
            .unwrap();
        let one = tokio::time::timeout(SOON, receive(tcp, manners)).await;
        one.unwrap_or_else(|_| panic!("the agent never gives up on {told}"));
        assert!(agent.is_running(), "{told}");
    }
    drop(listener);
    let plane = Plane::own_at(&address).await;
    let backend = Backend::join(&plane).await;
    backend.status("CONNECTED").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_ends_a_device_that_has_nothing_to_supervise() {
    let plane = Plane::own().await;
    let device = Device::with(&plane.url, "wrong");
    let end = device.start(quick()).end().await;
    let text = "the router refused the device's secret; check `secret` in the .flock file";
    assert_eq!(end, Exit::Failure(text.to_owned()));
}

#[tokio::test]
async fn a_wrong_secret_does_not_end_a_device_with_apps() {
    let plane = Plane::own().await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::with(&tap.url, "wrong");
    device.knows(12, &[]).await;
    let agent = device.start(quick());
    tap.wait("a third attempt", 2, |wire| wire.closed).await;
    assert!(agent.is_running());
    agent.stop().await;
}

#[tokio::test]
async fn a_secret_that_becomes_wrong_does_not_end_a_device_that_was_connected() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    let address = plane.address();
    plane.stop();
    tap.wait("the agent hung up", 0, |wire| wire.closed).await;
    // A router that refuses everybody.
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(&address).await {
            break listener;
        }
        tokio::task::yield_now().await;
    };
    let refusal =
        json!([3, {"message": "WAMP-CRA client signature is invalid"}, "wamp.error.not_authorized"]);
    for _ in 0..3 {
        let (tcp, _) = tokio::time::timeout(SOON, listener.accept())
            .await
            .unwrap()
            .unwrap();
        receive(tcp, says(std::slice::from_ref(&refusal))).await;
        assert!(agent.is_running());
    }
    agent.stop().await;
}
