//! The client's TLS against a rustls server with certificates made for the test.

#![allow(clippy::unwrap_used)]

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use wamp::Codec;
use wamp::transport::tls::TlsError;
use wamp::transport::{Connection, DialError, Proxies, TlsOptions, accept, dial};

/// Bound for what must happen by itself.
const SOON: Duration = Duration::from_secs(20);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Accepts one connection with a certificate for `name`, which has expired if `expired`; asks for a client certificate
/// of the same authority if `ask_client`.
async fn server(authority: &Authority, name: &str, expired: bool, ask_client: bool) -> String {
    let config = certified(authority, name, expired, ask_client);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        if let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await {
            let mut connection = accept(stream, &[Codec::Json], 1 << 20).await.unwrap();
            while let Some(Ok(_)) = connection.stream.next().await {}
        }
    });
    url
}

fn certified(authority: &Authority, name: &str, expired: bool, ask_client: bool) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let certificate = params.signed_by(&key, authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if ask_client {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    builder
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

async fn connect(url: &str, options: &TlsOptions) -> Result<Connection, DialError> {
    dial(url, &[Codec::Json], options, &Proxies::none(), 1 << 20).await
}

fn trusting(authority: &Authority) -> TlsOptions {
    TlsOptions {
        extra_roots_pem: Some(authority.pem()),
        ..TlsOptions::default()
    }
}

fn cause(refused: Result<Connection, DialError>) -> TlsError {
    match refused {
        Err(DialError::Tls { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted() {
    let authority = authority();
    let url = server(&authority, "localhost", false, false).await;
    assert_eq!(
        connect(&url, &trusting(&authority)).await.unwrap().codec,
        Codec::Json
    );
}

#[tokio::test]
async fn c_26_an_unknown_authority_is_named() {
    let url = server(&authority(), "localhost", false, false).await;
    let cause = cause(connect(&url, &TlsOptions::default()).await);
    assert!(matches!(cause, TlsError::UnknownAuthority), "{cause:?}");
}

#[tokio::test]
async fn c_26_a_wrong_host_name_is_named() {
    let authority = authority();
    let url = server(&authority, "elsewhere.example", false, false).await;
    let cause = cause(connect(&url, &trusting(&authority)).await);
    assert!(matches!(cause, TlsError::WrongName), "{cause:?}");
}

#[tokio::test]
async fn c_26_an_expired_certificate_is_named() {
    let authority = authority();
    let url = server(&authority, "localhost", true, false).await;
    let cause = cause(connect(&url, &trusting(&authority)).await);
    assert!(matches!(cause, TlsError::OutOfDate), "{cause:?}");
}

#[tokio::test]
async fn the_insecure_mode_accepts_any_server_and_presents_the_identity() {
    let authority = authority();
    let url = server(&authority, "elsewhere.example", true, true).await;
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["device".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let options = TlsOptions {
        client_identity_pem: Some((certificate.pem(), key.serialize_pem())),
        insecure: true,
        ..TlsOptions::default()
    };
    assert_eq!(connect(&url, &options).await.unwrap().codec, Codec::Json);
    assert!(!format!("{options:?}").contains("PRIVATE"));
}

#[tokio::test]
async fn unusable_pem_is_an_error() {
    let url = server(&authority(), "localhost", false, false).await;
    let options = TlsOptions {
        extra_roots_pem: Some("not a certificate".to_owned()),
        ..TlsOptions::default()
    };
    let refused = connect(&url, &options).await.unwrap_err();
    assert_eq!(
        refused.source().unwrap().to_string(),
        "unusable extra root certificates"
    );
}

#[tokio::test]
async fn room_that_the_peer_makes_for_the_last_of_a_message_is_a_sign_of_life() {
    let authority = authority();
    let acceptor = TlsAcceptor::from(Arc::new(certified(&authority, "localhost", false, false)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rss://localhost:{}", listener.local_addr().unwrap().port());
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        stream.write_all(&[0x7F, 0xF1, 0, 0]).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let options = trusting(&authority);
    let (client, mut server) = tokio::join!(connect(&url, &options), server);
    let Connection {
        mut sink, activity, ..
    } = client.unwrap();
    // Until the socket is full, and what is left waits inside TLS.
    loop {
        sink.feed(vec![0; 4 << 10].into()).await.unwrap();
        if timeout(Duration::from_millis(200), sink.flush()).await.is_err() {
            break;
        }
    }
    activity.take();
    let reader = tokio::spawn(async move { while let Ok(1..) = server.read(&mut [0; 4 << 10]).await {} });
    timeout(SOON, sink.flush()).await.unwrap().unwrap();
    assert!(activity.take());
    reader.abort();
}
