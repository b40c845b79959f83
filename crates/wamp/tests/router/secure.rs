//! The router behind TLS and behind a Unix socket, with both transports on each.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::UnixListener;
use wamp::client::{CallOptions, TlsOptions, handler};
use wamp::router::{Listener, ServerTls};
use wamp::transport::{Proxies, dial};
use wamp::{Dict, Payload};

use super::*;

/// A certificate for `localhost`, and the authority behind it in PEM.
fn certificate() -> (ServerTls, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let tls = ServerTls::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap();
    (tls, authority.pem())
}

/// Serves a second listener of the same router.
fn serve(running: &Running, listener: impl Into<Listener>) {
    let (router, stop, listener) = (running.router.clone(), running.stop.clone(), listener.into());
    tokio::spawn(async move { router.serve(listener, stop).await });
}

/// Joins at each of the URLs and has the sessions call one another.
async fn speak(urls: &[String], tls: TlsOptions) {
    let mut sessions = Vec::new();
    for url in urls {
        let mut config = ClientConfig::new(url, "realm1");
        config.tls = tls.clone();
        let session = Session::connect(&config)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        let echo = handler(|invocation| async move { Ok(invocation.payload) });
        let procedure = format!("echo.{}", sessions.len());
        session
            .register(&procedure, Default::default(), echo)
            .await
            .unwrap();
        sessions.push(session);
    }
    // Long enough for many TLS records.
    let payload = Payload::from_args(vec!["x".repeat(1 << 20).into()]);
    for caller in &sessions {
        for callee in 0..sessions.len() {
            let result = caller
                .call(
                    &format!("echo.{callee}"),
                    payload.clone(),
                    CallOptions::timeout(SOON),
                )
                .await
                .unwrap();
            assert_eq!(
                result.payload.first::<String>().unwrap().map(|text| text.len()),
                Some(1 << 20)
            );
        }
    }
    for session in sessions {
        session.leave().await;
    }
}

#[tokio::test]
async fn websocket_and_rawsocket_share_a_tls_port() {
    let running = start(Limits::default()).await;
    let (tls, authority) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(&running, Listener::Tls(listener, tls));
    let trusting = TlsOptions {
        extra_roots_pem: Some(authority),
        ..TlsOptions::default()
    };
    let urls = ["wss", "rss"].map(|scheme| format!("{scheme}://localhost:{port}"));
    speak(&urls, trusting).await;
    running.holds(0).await;
}

#[tokio::test]
async fn websocket_and_rawsocket_share_a_unix_socket() {
    let running = start(Limits::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("router.sock");
    serve(&running, UnixListener::bind(&path).unwrap());
    let urls = ["ws+unix", "rs+unix"].map(|scheme| format!("{scheme}://{}", path.display()));
    speak(&urls, TlsOptions::default()).await;
    running.holds(0).await;
}

#[tokio::test]
async fn a_shutdown_says_goodbye_on_every_transport() {
    let running = start(Limits::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("router.sock");
    serve(&running, UnixListener::bind(&path).unwrap());
    let mut sessions = Vec::new();
    for url in [
        format!("rs://{}", running.address),
        format!("ws+unix://{}", path.display()),
        format!("rs+unix://{}", path.display()),
    ] {
        let config = ClientConfig::new(url, "realm1");
        sessions.push(Session::connect(&config).await.unwrap());
    }
    running.stop.cancel();
    for session in sessions {
        match soon("the end", session.closed()).await {
            wamp::client::CloseReason::Goodbye(reason) => assert_eq!(reason, "wamp.close.system_shutdown"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_finish_the_tls_handshake_keeps_nobody_waiting() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let limits = Limits {
        opening_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = start(limits).await;
    let (tls, _) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(&running, Listener::Tls(listener, tls));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    for stream in [&mut plain, &mut silent] {
        // An alert at most, then the end.
        let mut said = Vec::new();
        let ended = soon("the end", stream.read_to_end(&mut said)).await;
        assert!(said.len() < 64, "{said:?} {ended:?}");
    }
    running.holds(0).await;
}

/// TLS takes a little more when the socket takes nothing; a session that waits for that alone is as stuck as any other.
#[tokio::test]
async fn r_s20_a_tls_peer_that_sends_and_does_not_read_is_gone_after_two_intervals() {
    const INTERVAL: Duration = Duration::from_millis(300);
    let limits = Limits {
        ping_interval: INTERVAL,
        ..Limits::default()
    };
    let running = start(limits).await;
    let (tls, authority) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rss://localhost:{}", listener.local_addr().unwrap().port());
    serve(&running, Listener::Tls(listener, tls));
    let trusting = TlsOptions {
        extra_roots_pem: Some(authority),
        ..TlsOptions::default()
    };
    let mut deaf = dial(&url, &[Codec::Json], &trusting, &Proxies::none(), 16 << 20)
        .await
        .unwrap();
    for message in [hello(json!({})), json!([32, 1, {}, "a.flood"])] {
        deaf.sink.feed(message.to_string().into()).await.unwrap();
        deaf.sink.flush().await.unwrap();
    }
    running.holds(1).await;
    until("the subscription", || {
        running.router.counters().subscriptions == 1
    })
    .await;
    // Shows life all the time, and reads nothing.
    let chatter = tokio::spawn(async move {
        let mut tick = tokio::time::interval(INTERVAL / 4);
        while deaf.sink.ping(Bytes::new()).await.is_ok() {
            tick.tick().await;
        }
    });
    let publisher = running.client().await;
    let payload = Payload::from_args(vec!["x".repeat(8 << 10).into()]);
    let options = Dict::from([("acknowledge".to_owned(), true.into())]);
    while running.router.counters().queues.messages < 4 && running.router.counters().sessions == 2 {
        publisher
            .publish_acknowledged("a.flood", options.clone(), payload.clone())
            .await
            .unwrap();
    }
    running.holds(1).await;
    chatter.abort();
    assert_eq!(running.router.counters().dropped_events.queue_full, 0);
}
