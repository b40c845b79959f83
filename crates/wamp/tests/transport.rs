//! Both ends of the transport against each other, and against raw sockets where the other end misbehaves.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wamp::Codec;
use wamp::transport::{
    AcceptError, Connection, DialError, Incoming, Proxies, TlsOptions, TransportError, accept, dial,
};

const ALL: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Cbor];
const LIMIT: usize = 1 << 20;

const SCHEMES: [&str; 2] = ["ws", "rs"];

async fn listener() -> (TcpListener, String) {
    listener_for("ws").await
}

async fn listener_for(scheme: &str) -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn pair(offered: &[Codec], known: &[Codec]) -> (Connection, Connection) {
    pair_over("ws", offered, known, LIMIT).await
}

async fn pair_over(
    scheme: &str,
    offered: &[Codec],
    known: &[Codec],
    limit: usize,
) -> (Connection, Connection) {
    let (listener, url) = listener_for(scheme).await;
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        accept(tcp, known, limit).await.unwrap()
    };
    let options = TlsOptions::default();
    let client = async {
        dial(&url, offered, &options, &Proxies::none(), limit)
            .await
            .unwrap()
    };
    tokio::join!(client, server)
}

async fn data(connection: &mut Connection) -> Bytes {
    match connection.stream.next().await.unwrap().unwrap() {
        Incoming::Data(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_server_picks_the_first_offer_that_it_knows() {
    let (client, server) = pair(&[Codec::Cbor, Codec::Json], &ALL).await;
    assert_eq!((client.codec, server.codec), (Codec::Cbor, Codec::Cbor));
    let (client, server) = pair(&[Codec::Cbor, Codec::Json], &[Codec::MessagePack, Codec::Json]).await;
    assert_eq!((client.codec, server.codec), (Codec::Json, Codec::Json));
}

#[tokio::test]
async fn a_client_without_a_known_subprotocol_gets_400() {
    for offers in ["", "Sec-WebSocket-Protocol: wamp.2.bogus\r\n"] {
        let (listener, _) = listener().await;
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offers}\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let refused = accept(tcp, &ALL, LIMIT).await.unwrap_err();
        assert!(matches!(refused, AcceptError::NoSubprotocol));
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn offers_spread_over_several_header_lines_count() {
    let (listener, _) = listener().await;
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: wamp.2.bogus\r\nSec-WebSocket-Protocol: x, wamp.2.cbor,wamp.2.json\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(accept(tcp, &ALL, LIMIT).await.unwrap().codec, Codec::Cbor);
}

#[tokio::test]
async fn compression_is_not_agreed_on() {
    let (listener, _) = listener().await;
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
        Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut server = accept(tcp, &ALL, LIMIT).await.unwrap();
    let mut answer = vec![0; 1024];
    let length = client.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(!answer.contains("sec-websocket-extensions"), "{answer}");
    // Who compresses all the same (RSV1) breaks the protocol.
    client
        .write_all(&[0xC1, 0x82, 0, 0, 0, 0, b'[', b']'])
        .await
        .unwrap();
    let refused = server.stream.next().await.unwrap().unwrap_err();
    assert!(matches!(refused, TransportError::Protocol(_)), "{refused:?}");
}

#[tokio::test]
async fn a_server_without_our_subprotocols_is_named_as_such() {
    let (listener, url) = listener().await;
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio_tungstenite::accept_async(tcp).await
    });
    let refused = dial(&url, &ALL, &TlsOptions::default(), &Proxies::none(), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(refused, DialError::NoSubprotocol), "{refused:?}");
    drop(server.await);
}

#[tokio::test]
async fn messages_of_every_size_arrive_whole_and_in_order() {
    for (scheme, codec) in SCHEMES.iter().flat_map(|scheme| ALL.map(|codec| (scheme, codec))) {
        let (mut client, mut server) = pair_over(scheme, &[codec], &ALL, LIMIT).await;
        // JSON travels as text: two bytes per character make a fragment end inside one.
        let messages: Vec<Bytes> = [0, 1, 125, 126, 65_535, 65_536, 65_537, 300_001, LIMIT]
            .iter()
            .map(|len| Bytes::from(["é".repeat(len / 2), "x".repeat(len % 2)].concat()))
            .collect();
        let sending = async {
            for message in &messages {
                client.sink.feed(message.clone()).await.unwrap();
            }
            client.sink.flush().await.unwrap();
        };
        let receiving = async {
            for message in &messages {
                assert_eq!(data(&mut server).await, message);
            }
        };
        tokio::join!(sending, receiving);
        assert!(server.activity.take());
        assert!(!server.activity.take());
    }
}

#[tokio::test]
async fn c_17_rule_23_a_ping_is_answered_while_a_long_message_is_being_sent() {
    const LONG: usize = 64 << 20;
    let (mut client, mut server) = pair_over("ws", &[Codec::Cbor], &ALL, LONG).await;
    let reader = tokio::spawn(async move { while let Some(Ok(_)) = client.stream.next().await {} });
    let writer = tokio::spawn(async move {
        client.sink.feed(Bytes::from(vec![0; LONG])).await.unwrap();
        client.sink.flush().await.unwrap();
        client.sink
    });
    server.sink.ping(Bytes::from_static(b"here?")).await.unwrap();
    // Frames come in the order in which they were sent.
    assert_eq!(
        server.stream.next().await.unwrap().unwrap(),
        Incoming::Pong(Bytes::from_static(b"here?"))
    );
    assert_eq!(data(&mut server).await.len(), LONG);
    drop(writer.await.unwrap());
    reader.abort();
}

#[tokio::test]
async fn the_wrong_kind_of_frame_is_refused() {
    let (listener, url) = listener().await;
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        accept(tcp, &ALL, LIMIT).await.unwrap()
    });
    let tcp = TcpStream::connect(url.trim_start_matches("ws://")).await.unwrap();
    let mut request =
        tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(&url).unwrap();
    let offer = "wamp.2.json".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let (mut client, _) = tokio_tungstenite::client_async(request, tcp).await.unwrap();
    let frame = tokio_tungstenite::tungstenite::Message::Binary(Bytes::from_static(b"[]"));
    futures_util::SinkExt::send(&mut client, frame).await.unwrap();
    let mut server = server.await.unwrap();
    let refused = server.stream.next().await.unwrap().unwrap_err();
    assert!(matches!(refused, TransportError::WrongFrame));
    assert_eq!(refused.close_code(), Some(1003));
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_with_1009() {
    for len in [LIMIT + 1, 4 * LIMIT] {
        let (mut client, mut server) = pair(&[Codec::Cbor], &ALL).await;
        let sending = tokio::spawn(async move {
            let _ = client.sink.feed(Bytes::from(vec![0; len])).await;
            let _ = client.sink.flush().await;
            client
        });
        let refused = server.stream.next().await.unwrap().unwrap_err();
        assert!(matches!(refused, TransportError::TooLarge), "{refused:?}");
        assert_eq!(refused.close_code(), Some(1009));
        sending.abort();
    }
}

#[tokio::test]
async fn closing_tells_the_peer_why_and_ends_in_good_order() {
    let (mut client, mut server) = pair(&[Codec::Json], &ALL).await;
    let second = Duration::from_secs(5);
    let closing = wamp::transport::close(&mut client.sink, &mut client.stream, 1002, "wrong", second);
    let told = async {
        let told = server.stream.next().await.unwrap().unwrap();
        assert_eq!(
            told,
            Incoming::Close {
                code: Some(1002),
                reason: "wrong".to_owned()
            }
        );
        assert!(server.stream.next().await.is_none());
        drop(server);
    };
    let start = std::time::Instant::now();
    tokio::join!(closing, told);
    assert!(start.elapsed() < second);
}

#[tokio::test]
async fn a_peer_that_vanishes_is_an_error() {
    let (client, mut server) = pair(&[Codec::Json], &ALL).await;
    drop(client);
    let lost = server.stream.next().await.unwrap().unwrap_err();
    assert!(matches!(lost, TransportError::Lost(_)), "{lost:?}");
    assert_eq!(lost.close_code(), None);
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let (listener, url) = listener().await;
    drop(listener);
    let refused = dial(&url, &ALL, &TlsOptions::default(), &Proxies::none(), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(refused, DialError::Connect { .. }), "{refused:?}");
    let unknown = dial(
        "ws://no-such-host.invalid",
        &ALL,
        &TlsOptions::default(),
        &Proxies::none(),
        LIMIT,
    )
    .await
    .unwrap_err();
    assert!(matches!(unknown, DialError::Resolve { .. }), "{unknown:?}");
}
