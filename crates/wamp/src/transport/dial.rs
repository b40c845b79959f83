//! The client's side: name resolution, TCP, TLS, handshake. No retries, no deadline: both belong to the caller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use super::proxy::{self, Proxies, ProxyError};
use super::rawsocket::{self, RawSocketError};
use super::socket::{Io, Socket};
use super::tls::{self, TlsError, TlsOptions};
use super::{Connection, websocket};
use crate::codec::Codec;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL is unusable.
    #[error("{0}")]
    Url(String),
    /// The name could not be resolved.
    #[error("could not resolve {host}")]
    Resolve {
        host: String,
        #[source]
        source: std::io::Error,
    },
    /// No TCP connection to any address of the host.
    #[error("could not connect to {host} port {port}")]
    Connect {
        host: String,
        port: u16,
        #[source]
        source: std::io::Error,
    },
    /// Nobody listens on the Unix socket.
    #[error("could not connect to the socket {path}")]
    ConnectUnix {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// The proxy that leads to the host did not.
    #[error("no connection to {host} through the proxy {proxy}")]
    Proxy {
        proxy: String,
        host: String,
        #[source]
        source: ProxyError,
    },
    /// TLS failed: the peer's certificate, ours, or the handshake.
    #[error("no secure connection to {host}")]
    Tls {
        host: String,
        #[source]
        source: TlsError,
    },
    /// The server did not switch to WebSocket.
    #[error("the server refused the upgrade")]
    Upgrade(#[source] Box<WsError>),
    /// The server picked none of the offered subprotocols.
    #[error("the server picked no offered subprotocol")]
    NoSubprotocol,
    /// The RawSocket handshake failed, with every codec.
    #[error("the server refused the RawSocket handshake")]
    RawSocket(#[source] RawSocketError),
}

/// Where a URL leads.
#[derive(Debug, PartialEq)]
struct Target {
    place: Place,
    /// For WebSocket the same URL with a `ws` or `wss` scheme; `None` for RawSocket.
    upgrade: Option<Uri>,
}

#[derive(Debug, PartialEq)]
enum Place {
    Host { host: String, port: u16, secure: bool },
    Unix(PathBuf),
}

/// Connects to `url`, offering the codecs in order. WebSocket: `ws`, `wss`, `http` and `https` as their aliases, or
/// `ws+unix:///path/of/socket`. RawSocket: `rs`, `rss` (TLS), both with a port, or `rs+unix:///path/of/socket`; there one
/// codec is offered per connection, so each that the server refuses costs one. Messages from the server above
/// `max_message_size` bytes will be refused.
pub async fn dial(
    url: &str,
    codecs: &[Codec],
    options: &TlsOptions,
    proxies: &Proxies,
    max_message_size: usize,
) -> Result<Connection, DialError> {
    let target = Target::parse(url)?;
    let Some(uri) = target.upgrade else {
        let mut refusal = DialError::NoSubprotocol;
        for codec in codecs {
            let socket = target.place.connect(options, proxies).await?;
            match rawsocket::connect(socket, *codec, max_message_size).await {
                Ok(connection) => return Ok(connection),
                // Some servers hang up on a codec that they do not know.
                Err(error @ (RawSocketError::Codec(_) | RawSocketError::Lost(_))) => {
                    refusal = DialError::RawSocket(error);
                }
                Err(error) => return Err(DialError::RawSocket(error)),
            }
        }
        return Err(refusal);
    };
    let socket = target.place.connect(options, proxies).await?;
    upgrade(socket, uri, codecs, max_message_size).await
}

/// A plain byte stream to `host`, over TLS when `secure`: for other protocols that shall reach their server as the
/// session reaches the router, through the same proxies and with the same trust.
pub async fn open(
    host: &str,
    port: u16,
    secure: bool,
    options: &TlsOptions,
    proxies: &Proxies,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, DialError> {
    let place = Place::Host {
        host: host.to_owned(),
        port,
        secure,
    };
    place.connect(options, proxies).await
}

impl Place {
    async fn connect(&self, options: &TlsOptions, proxies: &Proxies) -> Result<Socket, DialError> {
        match self {
            Place::Host { host, port, secure } => {
                let socket = Socket::new(proxy::reach(proxies, host, *port, *secure, options).await?);
                if !secure {
                    return Ok(socket);
                }
                let activity = socket.activity.clone();
                let stream = tls::connect(socket, host, options)
                    .await
                    .map_err(|source| DialError::Tls {
                        host: host.clone(),
                        source,
                    })?;
                Ok(Socket::over(stream, activity))
            }
            Place::Unix(path) => match unix(path).await {
                Ok(stream) => Ok(Socket::new(stream)),
                Err(source) => Err(DialError::ConnectUnix {
                    path: path.display().to_string(),
                    source,
                }),
            },
        }
    }
}

#[cfg(unix)]
async fn unix(path: &std::path::Path) -> std::io::Result<Box<dyn Io>> {
    Ok(Box::new(UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn unix(_: &std::path::Path) -> std::io::Result<Box<dyn Io>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Silence before TCP asks the peer's system whether it is there, and between such questions.
const PROBE: Duration = Duration::from_secs(15);

/// How long what was sent may go without an acknowledgement.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// How long one address may keep the next one waiting (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// A TCP connection to the first address that takes one.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| DialError::Resolve {
            host: host.to_owned(),
            source,
        })?
        .collect();
    let failed = |source| DialError::Connect {
        host: host.to_owned(),
        port,
        source,
    };
    let tcp = reach_first(&addresses).await.map_err(failed)?;
    // Small messages follow one another all the time; waiting for acknowledgements costs 40 ms each.
    tcp.set_nodelay(true).map_err(failed)?;
    // For peers that cannot be pinged (`wamp-interop.md` 3.8): dead after some two minutes of silence. Where the
    // system refuses it, pings are all there is.
    let probes = TcpKeepalive::new().with_time(PROBE).with_interval(PROBE);
    let _ = SockRef::from(&tcp).set_tcp_keepalive(&probes);
    // No probe goes out while something is unacknowledged, which Linux repeats for a quarter of an hour.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = SockRef::from(&tcp).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    Ok(tcp)
}

/// The first of the addresses that takes a connection, tried in order, each some time after the one before: a network
/// whose IPv6 leads nowhere would use up the caller's deadline on the first address every time.
async fn reach_first(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut rest = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    loop {
        match rest.next() {
            Some(address) => attempts.push(TcpStream::connect(*address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let has_more = rest.len() > 0;
        tokio::select! {
            Some(reached) = attempts.next() => match reached {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = tokio::time::sleep(STAGGER), if has_more => {}
        }
    }
}

async fn upgrade(
    socket: Socket,
    uri: Uri,
    codecs: &[Codec],
    max_message_size: usize,
) -> Result<Connection, DialError> {
    let mut request = uri
        .into_client_request()
        .map_err(|error| DialError::Url(error.to_string()))?;
    let offers: Vec<&str> = codecs.iter().map(|codec| codec.subprotocol()).collect();
    let offers = HeaderValue::from_str(&offers.join(", ")).expect("subprotocol names are plain ASCII");
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, offers);
    let config = websocket::config(max_message_size);
    let (socket, response) = client_async_with_config(request, socket, Some(config))
        .await
        .map_err(|error| match error {
            WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(
                SubProtocolError::NoSubProtocol | SubProtocolError::InvalidSubProtocol,
            )) => DialError::NoSubprotocol,
            error => DialError::Upgrade(Box::new(error)),
        })?;
    let codec = response
        .headers()
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|name| name.to_str().ok())
        .and_then(Codec::from_subprotocol)
        .ok_or(DialError::NoSubprotocol)?;
    Ok(websocket::connection(socket, codec))
}

impl Target {
    fn parse(url: &str) -> Result<Target, DialError> {
        let unusable = |what: &str| DialError::Url(format!("{what} in {:?}", without_user(url)));
        if let Some((scheme @ ("rs+unix" | "ws+unix"), path)) = url.split_once("://") {
            if !path.starts_with('/') {
                return Err(unusable("no absolute path of a socket"));
            }
            return Ok(Target {
                place: Place::Unix(path.into()),
                upgrade: (scheme == "ws+unix").then(|| Uri::from_static("ws://localhost/")),
            });
        }
        let uri: Uri = url.parse().map_err(|_| unusable("malformed URL"))?;
        let (raw, secure) = match uri.scheme_str() {
            Some("ws" | "http") => (false, false),
            Some("wss" | "https") => (false, true),
            Some("rs") => (true, false),
            Some("rss") => (true, true),
            Some(_) => return Err(unusable("unknown scheme")),
            None => return Err(unusable("no scheme")),
        };
        let authority = uri.authority().ok_or_else(|| unusable("no host name"))?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(unusable("no host name"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // `host:` or a number above 65535.
            None if authority
                .as_str()
                .rsplit(['@', ']'])
                .next()
                .is_some_and(|rest| rest.contains(':')) =>
            {
                return Err(unusable("invalid port"));
            }
            // RawSocket has no port of its own.
            None if raw => return Err(unusable("no port")),
            None if secure => 443,
            None => 80,
        };
        let place = Place::Host {
            host: host.to_owned(),
            port,
            secure,
        };
        if raw {
            return Ok(Target { place, upgrade: None });
        }
        let mut parts = uri.clone().into_parts();
        let scheme = if secure { "wss" } else { "ws" };
        parts.scheme = Some(scheme.parse().expect("a legal scheme"));
        let uri = Uri::from_parts(parts).map_err(|_| unusable("malformed URL"))?;
        Ok(Target {
            place,
            upgrade: Some(uri),
        })
    }
}

/// A URL for people: a user name and password are not for them.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rule_24_small_messages_do_not_wait_for_acknowledgements() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect("127.0.0.1", port).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_nobody_acknowledges_is_not_waited_for_longer_than_silence() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect("127.0.0.1", port).await.unwrap();
        let timeout = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(UNACKNOWLEDGED));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_says_nothing_does_not_hold_up_the_next_one() {
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let address = silent.local_addr().unwrap();
        // Nobody accepts there: once its queue is full, the system answers no further connection.
        let mut queued = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            queued.push(stream.unwrap());
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = "127.0.0.1:1".parse().unwrap();
        let addresses = [refusing, address, listener.local_addr().unwrap()];
        let reached = tokio::time::timeout(Duration::from_secs(10), reach_first(&addresses))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reached.peer_addr().unwrap(), addresses[2]);
        let refused = reach_first(&addresses[..1]).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(reach_first(&[]).await.is_err());
    }

    fn at(host: &str, port: u16, secure: bool) -> Place {
        Place::Host {
            host: host.to_owned(),
            port,
            secure,
        }
    }

    #[test]
    fn urls_lead_where_they_say() {
        for (url, place, upgrade) in [
            ("ws://a.example", at("a.example", 80, false), Some("ws")),
            ("wss://a.example/ws", at("a.example", 443, true), Some("wss")),
            ("http://a.example:8080", at("a.example", 8080, false), Some("ws")),
            ("https://127.0.0.1:1/x?y", at("127.0.0.1", 1, true), Some("wss")),
            ("ws://[::1]:9/", at("::1", 9, false), Some("ws")),
            ("wss://[::1]", at("::1", 443, true), Some("wss")),
            ("rs://a.example:7000", at("a.example", 7000, false), None),
            ("rss://[::1]:7000", at("::1", 7000, true), None),
            ("rs+unix:///run/w.sock", Place::Unix("/run/w.sock".into()), None),
            (
                "ws+unix:///run/w.sock",
                Place::Unix("/run/w.sock".into()),
                Some("ws"),
            ),
        ] {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target.place, place, "{url}");
            assert_eq!(
                target.upgrade.as_ref().and_then(Uri::scheme_str),
                upgrade,
                "{url}"
            );
        }
        for url in [
            "",
            "a.example",
            "tcp://a:1",
            "ws://",
            "ws:///x",
            "ws://a:99999",
            "ws://a:",
            "ws://a b",
            "rs://a",
            "rss://a",
            "rs+unix://run/w.sock",
        ] {
            assert!(matches!(Target::parse(url), Err(DialError::Url(_))), "{url}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_neither_a_port_nor_told() {
        let target = Target::parse("wss://me:secret@a.example/ws").unwrap();
        assert_eq!(target.place, at("a.example", 443, true));
        for url in [
            "rs://me:secret@a.example",
            "ws://me:secret@a.example:99999/x@y",
            "tcp://me:secret@a:1",
            "ws://me:secret@ a",
        ] {
            let text = Target::parse(url).unwrap_err().to_string();
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
