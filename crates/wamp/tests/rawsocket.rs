//! RawSocket: both ends against each other, and each against octets written by hand.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wamp::Codec;
use wamp::transport::{
    AcceptError, Connection, DialError, Incoming, Proxies, RawSocketError, TlsOptions, TransportError,
    accept, dial,
};

const ALL: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Cbor];
const LIMIT: usize = 1 << 20;

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rs://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn connect(url: &str, codecs: &[Codec], limit: usize) -> Result<Connection, DialError> {
    dial(url, codecs, &TlsOptions::default(), &Proxies::none(), limit).await
}

/// Our server, and a bare socket that has written this to it.
async fn bare(hello: &[u8]) -> (Result<Connection, AcceptError>, TcpStream) {
    let (listener, _) = listener().await;
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    client.write_all(hello).await.unwrap();
    (accept(tcp, &ALL, LIMIT).await, client)
}

async fn octets<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut octets = [0; N];
    stream.read_exact(&mut octets).await.unwrap();
    octets
}

#[tokio::test]
async fn both_ends_learn_what_the_other_takes() {
    let (listener, url) = listener().await;
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        // No power of two: the next lower one is announced.
        accept(tcp, &ALL, 100_000).await.unwrap()
    };
    let client = async { connect(&url, &[Codec::Cbor], 64 << 20).await.unwrap() };
    let (client, server) = tokio::join!(client, server);
    assert_eq!((client.codec, server.codec), (Codec::Cbor, Codec::Cbor));
    assert_eq!(client.max_sent, 1 << 16);
    // More than 24 bits can say is never sent.
    assert_eq!(server.max_sent, (1 << 24) - 1);
}

#[tokio::test]
async fn codecs_are_offered_one_after_the_other() {
    let (listener, url) = listener().await;
    let server = async {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            match accept(tcp, &[Codec::MessagePack], LIMIT).await {
                Ok(connection) => return connection,
                Err(AcceptError::RawSocket(RawSocketError::Codec(_))) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let client = async {
        connect(&url, &[Codec::Json, Codec::MessagePack], LIMIT)
            .await
            .unwrap()
    };
    let (client, server) = tokio::join!(client, server);
    assert_eq!(
        (client.codec, server.codec),
        (Codec::MessagePack, Codec::MessagePack)
    );
}

#[tokio::test]
async fn the_server_refuses_with_the_octet_of_the_reason() {
    for (hello, refusal) in [([0x7F, 0xF4, 0, 0], 0x10), ([0x7F, 0xF1, 0, 1], 0x30)] {
        let (refused, mut client) = bare(&hello).await;
        assert!(matches!(refused, Err(AcceptError::RawSocket(_))), "{refused:?}");
        assert_eq!(octets::<4>(&mut client).await, [0x7F, refusal, 0, 0]);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn every_refusal_of_a_server_has_a_name() {
    type Is = fn(&RawSocketError) -> bool;
    let cases: [(&[u8], Is); 8] = [
        (&[0x7F, 0x10, 0, 0], |error| {
            matches!(error, RawSocketError::Codec("wamp.2.cbor"))
        }),
        (&[0x7F, 0x20, 0, 0], |error| {
            matches!(error, RawSocketError::Limit)
        }),
        (&[0x7F, 0x30, 0, 0], |error| {
            matches!(error, RawSocketError::Reserved)
        }),
        (&[0x7F, 0x40, 0, 0], |error| matches!(error, RawSocketError::Full)),
        (&[0x7F, 0x90, 0, 0], |error| {
            matches!(error, RawSocketError::Refused(9))
        }),
        // Another codec than the one that was asked for.
        (&[0x7F, 0xF1, 0, 0], |error| {
            matches!(error, RawSocketError::NotRawSocket)
        }),
        (b"HTTP/1.1 400", |error| {
            matches!(error, RawSocketError::NotRawSocket)
        }),
        (&[], |error| matches!(error, RawSocketError::Lost(_))),
    ];
    for (answer, is) in cases {
        let (listener, url) = listener().await;
        let server = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            octets::<4>(&mut tcp).await;
            tcp.write_all(answer).await.unwrap();
        };
        let (refused, ()) = tokio::join!(connect(&url, &[Codec::Cbor], LIMIT), server);
        match refused {
            Err(DialError::RawSocket(error)) => assert!(is(&error), "{answer:?}: {error:?}"),
            other => panic!("{answer:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn pings_are_answered_with_their_payload_and_pongs_shown() {
    let (server, mut client) = bare(&[0x7F, 0xF1, 0, 0]).await;
    let mut server = server.unwrap();
    assert_eq!(octets::<4>(&mut client).await, [0x7F, 0xB1, 0, 0]);
    client.write_all(&[1, 0, 0, 2, b'h', b'i']).await.unwrap();
    client.write_all(&[2, 0, 0, 1, b'!']).await.unwrap();
    client.write_all(&[0, 0, 0, 2, b'[', b']']).await.unwrap();
    let next = server.stream.next().await.unwrap().unwrap();
    assert_eq!(next, Incoming::Pong(Bytes::from_static(b"!")));
    let next = server.stream.next().await.unwrap().unwrap();
    assert_eq!(next, Incoming::Data(Bytes::from_static(b"[]")));
    assert_eq!(octets::<6>(&mut client).await, [2, 0, 0, 2, b'h', b'i']);
    server.sink.ping(Bytes::from_static(b"you?")).await.unwrap();
    assert_eq!(octets::<8>(&mut client).await, *b"\x01\0\0\x04you?");
    assert!(server.activity.take());
}

/// A message cannot be interrupted: the answer follows it, and the one that asks need not wait for more.
#[tokio::test]
async fn a_ping_during_a_long_message_is_answered_behind_it() {
    const LONG: usize = 16 << 20;
    let (listener, url) = listener().await;
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        accept(tcp, &ALL, LONG).await.unwrap()
    };
    let client = async { connect(&url, &[Codec::Cbor], LONG).await.unwrap() };
    let (mut client, mut server) = tokio::join!(client, server);
    let long = client.max_sent;
    let reader = tokio::spawn(async move { while let Some(Ok(_)) = client.stream.next().await {} });
    let writer = tokio::spawn(async move {
        client.sink.feed(Bytes::from(vec![0; long])).await.unwrap();
        client.sink.flush().await.unwrap();
        client.sink
    });
    server.sink.ping(Bytes::from_static(b"here?")).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(match server.stream.next().await.unwrap().unwrap() {
            Incoming::Data(message) => message.len(),
            Incoming::Pong(payload) => payload.len(),
            closed @ Incoming::Close { .. } => panic!("{closed:?}"),
        });
    }
    seen.sort_unstable();
    assert_eq!(seen, [b"here?".len(), long]);
    drop(writer.await.unwrap());
    reader.abort();
}

#[tokio::test]
async fn a_frame_that_is_too_long_or_unknown_is_refused_at_its_header() {
    type Is = fn(&TransportError) -> bool;
    let too_large: Is = |error| matches!(error, TransportError::TooLarge);
    let unknown: Is = |error| matches!(error, TransportError::Protocol(_));
    for (header, is) in [
        // One octet above the limit, of which nothing follows.
        ([0, 0x10, 0, 1], too_large),
        ([0, 0xFF, 0xFF, 0xFF], too_large),
        // A ping is short.
        ([1, 0, 0x10, 0], too_large),
        ([3, 0, 0, 1], unknown),
        ([0x80, 0, 0, 1], unknown),
    ] {
        let (server, mut client) = bare(&[0x7F, 0xF1, 0, 0]).await;
        let mut server = server.unwrap();
        client.write_all(&header).await.unwrap();
        let refused = server.stream.next().await.unwrap().unwrap_err();
        assert!(is(&refused), "{header:?}: {refused:?}");
        assert!(server.stream.next().await.is_none(), "nothing is read after that");
    }
}

#[tokio::test]
async fn the_end_between_messages_is_good_and_inside_one_it_is_not() {
    for (last, good) in [
        (&b"\0\0\0\x02[]"[..], true),
        (b"\0\0\0\x03[]", false),
        (b"\0\0", false),
    ] {
        let (server, mut client) = bare(&[0x7F, 0xF1, 0, 0]).await;
        let mut server = server.unwrap();
        client.write_all(last).await.unwrap();
        client.shutdown().await.unwrap();
        if good {
            assert!(matches!(server.stream.next().await, Some(Ok(Incoming::Data(_)))));
            assert!(server.stream.next().await.is_none());
        } else {
            let lost = server.stream.next().await.unwrap().unwrap_err();
            assert!(matches!(lost, TransportError::Lost(_)), "{lost:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_at_once_is_named_as_such() {
    let (listener, _) = listener().await;
    drop(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let (tcp, _) = listener.accept().await.unwrap();
    let refused = accept(tcp, &ALL, LIMIT).await.unwrap_err();
    assert!(matches!(refused, AcceptError::Silent(_)), "{refused:?}");
}
