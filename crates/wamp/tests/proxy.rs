//! Ways out through a proxy: HTTP CONNECT, SOCKS5, credentials, and what is said when it does not work.

// A test may panic, and so may what it calls.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use testkit::forward_proxy::ForwardProxy;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::client::{ClientConfig, ConnectError, Proxies, Session};
use wamp::router::{JoinRequest, Limits, Principal, Router, RouterConfig};

/// A name that nobody resolves but the proxy.
const URL: &str = "ws://router.invalid:8080/ws";

async fn router() -> SocketAddr {
    let router = Router::new(RouterConfig {
        realm: "realm1".to_owned(),
        roles: HashMap::from([("guest".to_owned(), Vec::new())]),
        authenticator: Arc::new(|_: JoinRequest| {
            Box::pin(async {
                Ok(Principal::Anonymous {
                    authid: "guest".to_owned(),
                    role: "guest".to_owned(),
                })
            })
        }),
        limits: Limits::default(),
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { router.serve(listener, CancellationToken::new()).await });
    address
}

async fn join(url: &str, proxy: &str) -> Result<Session, ConnectError> {
    let mut config = ClientConfig::new(url, "realm1");
    config.proxies = Proxies::through(proxy);
    Session::connect(&config).await
}

#[tokio::test]
async fn a_session_goes_through_an_http_and_a_socks5_proxy() {
    let proxy = ForwardProxy::start(router().await, None).await.unwrap();
    for scheme in ["http", "socks5", "socks5h"] {
        let session = join(URL, &format!("{scheme}://{}", proxy.address)).await.unwrap();
        session.leave().await;
    }
    assert_eq!(proxy.asked(), ["router.invalid:8080"; 3]);
}

#[tokio::test]
async fn credentials_of_the_url_are_given_to_the_proxy_and_never_told() {
    let proxy = ForwardProxy::start(router().await, Some("user:p ss"))
        .await
        .unwrap();
    for (scheme, refusal) in [
        ("http", "proxy authorization required"),
        ("socks5", "credentials not accepted"),
    ] {
        let session = join(URL, &format!("{scheme}://user:p%20ss@{}", proxy.address))
            .await
            .unwrap();
        session.leave().await;

        let error = join(URL, &format!("{scheme}://user:secret@{}", proxy.address))
            .await
            .unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("no connection to router.invalid through the proxy 127.0.0.1"),
            "{text}"
        );
        assert!(text.contains(refusal), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    assert_eq!(proxy.asked().len(), 2);
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_unknown_is_named() {
    let gone = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let text = join(URL, &format!("http://{gone}"))
        .await
        .unwrap_err()
        .to_string();
    let named = format!(
        "through the proxy 127.0.0.1: could not connect to 127.0.0.1 port {}",
        gone.port()
    );
    assert!(text.contains(&named), "{text}");
    let text = join(URL, "socks4://127.0.0.1:1").await.unwrap_err().to_string();
    assert!(text.contains("socks4"), "{text}");
}
