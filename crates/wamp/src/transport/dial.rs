//! The client's side: name resolution, TCP, TLS, upgrade. No retries, no deadline: both belong to the caller.

use tokio::net::TcpStream;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use super::proxy::{self, Proxies, ProxyError};
use super::tls::{self, TlsError, TlsOptions};
use super::{Connection, Socket, connection, websocket_config};
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
}

/// Where a URL leads.
struct Target {
    host: String,
    port: u16,
    secure: bool,
    /// The same URL with a `ws` or `wss` scheme.
    uri: Uri,
}

/// Connects to `url` (`ws`, `wss`, or `http`, `https` as their aliases), offering the subprotocols of `codecs` in order.
/// Messages from the server above `max_message_size` bytes will be refused.
pub async fn dial(
    url: &str,
    codecs: &[Codec],
    options: &TlsOptions,
    proxies: &Proxies,
    max_message_size: usize,
) -> Result<Connection, DialError> {
    let target = Target::parse(url)?;
    let stream = proxy::reach(proxies, &target.host, target.port, target.secure, options).await?;
    let socket = if target.secure {
        let stream = tls::connect(stream, &target.host, options)
            .await
            .map_err(|source| DialError::Tls {
                host: target.host.clone(),
                source,
            })?;
        Socket::new(stream)
    } else {
        Socket::new(stream)
    };
    upgrade(socket, target.uri, codecs, max_message_size).await
}

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
    let tcp = TcpStream::connect(&addresses[..]).await.map_err(failed)?;
    // Small messages follow one another all the time; waiting for acknowledgements costs 40 ms each.
    tcp.set_nodelay(true).map_err(failed)?;
    Ok(tcp)
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
    let config = websocket_config(max_message_size);
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
    Ok(connection(socket, codec))
}

impl Target {
    fn parse(url: &str) -> Result<Target, DialError> {
        let unusable = |what: &str| DialError::Url(format!("{what} in {url:?}"));
        let uri: Uri = url.parse().map_err(|_| unusable("malformed URL"))?;
        let secure = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
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
                .rsplit(']')
                .next()
                .is_some_and(|rest| rest.contains(':')) =>
            {
                return Err(unusable("invalid port"));
            }
            None if secure => 443,
            None => 80,
        };
        let mut parts = uri.clone().into_parts();
        let scheme = if secure { "wss" } else { "ws" };
        parts.scheme = Some(scheme.parse().expect("a legal scheme"));
        let uri = Uri::from_parts(parts).map_err(|_| unusable("malformed URL"))?;
        Ok(Target {
            host: host.to_owned(),
            port,
            secure,
            uri,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_where_they_say() {
        for (url, host, port, secure) in [
            ("ws://a.example", "a.example", 80, false),
            ("wss://a.example/ws", "a.example", 443, true),
            ("http://a.example:8080", "a.example", 8080, false),
            ("https://127.0.0.1:1/x?y", "127.0.0.1", 1, true),
            ("ws://[::1]:9/", "::1", 9, false),
            ("wss://[::1]", "::1", 443, true),
        ] {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(
                (target.host.as_str(), target.port, target.secure),
                (host, port, secure)
            );
            assert_eq!(target.uri.scheme_str(), Some(if secure { "wss" } else { "ws" }));
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
        ] {
            assert!(matches!(Target::parse(url), Err(DialError::Url(_))), "{url}");
        }
    }
}
