//! Connections through a proxy: which one, and how to get past it.
//!
//! The rules of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, HTTP CONNECT and SOCKS5 are those of hyper-util.
//! Contract: `session-and-api.md` 3.4.

use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::http::Uri;
use tower_service::Service;

use super::dial::{DialError, connect};
use super::socket::Io;
use super::tls::{self, TlsOptions};

/// Which proxy leads where.
#[derive(Clone, Debug)]
pub struct Proxies {
    matcher: Option<Arc<Matcher>>,
    /// Loopback hosts go through the proxy as well.
    loopback: bool,
}

impl Proxies {
    /// What the environment says: `wss` goes through `HTTPS_PROXY`, `ws` through `HTTP_PROXY`, both through `ALL_PROXY`,
    /// hosts of `NO_PROXY` (names with their subdomains, addresses, networks, `*`) and loopback hosts through none.
    /// Lower case works too.
    pub fn from_environment() -> Proxies {
        Proxies {
            matcher: Some(Arc::new(Matcher::from_env())),
            loopback: false,
        }
    }

    /// No proxy at all.
    pub fn none() -> Proxies {
        Proxies {
            matcher: None,
            loopback: false,
        }
    }

    /// Everything through this one: `http://user:password@host:port`, `https://…`, `socks5://…`.
    pub fn through(proxy: &str) -> Proxies {
        Proxies {
            matcher: Some(Arc::new(Matcher::builder().all(proxy).build())),
            loopback: true,
        }
    }

    fn find(&self, host: &str, uri: &Uri) -> Option<Intercept> {
        let matcher = self.matcher.as_ref()?;
        if !self.loopback && is_loopback(host) {
            return None;
        }
        matcher.intercept(uri)
    }
}

/// What the environment says.
impl Default for Proxies {
    fn default() -> Proxies {
        Proxies::from_environment()
    }
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Why a proxy did not open the way.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Neither `http`, `https` nor `socks5`.
    #[error("proxies of the kind {0:?} are not supported")]
    Scheme(String),
    /// The URL of the proxy has no host.
    #[error("the proxy's URL names no host")]
    NoHost,
    /// The proxy itself cannot be reached.
    #[error(transparent)]
    Unreachable(Box<DialError>),
    /// It was reached and did not open a connection to the host. Its answer is in the source.
    #[error("it opened no connection")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A byte stream to `host`, directly or through the proxy that is to be used for it.
pub(super) async fn reach(
    proxies: &Proxies,
    host: &str,
    port: u16,
    secure: bool,
    options: &TlsOptions,
) -> Result<Box<dyn Io>, DialError> {
    let bracketed = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let scheme = if secure { "https" } else { "http" };
    let uri: Uri = format!("{scheme}://{bracketed}:{port}/")
        .parse()
        .map_err(|_| DialError::Url(format!("no usable host name in {host:?}")))?;
    let Some(found) = proxies.find(host, &uri) else {
        return Ok(Box::new(connect(host, port).await?));
    };
    let name = found
        .uri()
        .authority()
        .map_or_else(String::new, |authority| authority.host().to_owned());
    through(&found, uri, options)
        .await
        .map_err(|source| DialError::Proxy {
            proxy: name,
            host: host.to_owned(),
            source,
        })
}

async fn through(found: &Intercept, host: Uri, options: &TlsOptions) -> Result<Box<dyn Io>, ProxyError> {
    let proxy = found.uri().clone();
    let scheme = proxy.scheme_str().unwrap_or_default().to_owned();
    let usual_port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        "socks5" | "socks5h" => 1080,
        _ => return Err(ProxyError::Scheme(scheme)),
    };
    let name = proxy
        .host()
        .ok_or(ProxyError::NoHost)?
        .trim_matches(['[', ']'])
        .to_owned();
    let unreachable = |error| ProxyError::Unreachable(Box::new(error));
    let tcp = connect(&name, proxy.port_u16().unwrap_or(usual_port))
        .await
        .map_err(unreachable)?;
    let connected = Connected(Some(match scheme.as_str() {
        "https" => {
            let tls = tls::connect(tcp, &name, options).await;
            Box::new(tls.map_err(|source| unreachable(DialError::Tls { host: name, source }))?)
        }
        _ => Box::new(tcp),
    }));
    let stream = if scheme.starts_with("http") {
        let mut tunnel = Tunnel::new(proxy, connected);
        if let Some(authorization) = found.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        tunnel
            .call(host)
            .await
            .map_err(|error| ProxyError::Refused(Box::new(error)))?
    } else {
        let mut socks = SocksV5::new(proxy, connected);
        if let Some((user, password)) = found.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        socks
            .call(host)
            .await
            .map_err(|error| ProxyError::Refused(Box::new(error)))?
    };
    Ok(stream.into_inner())
}

/// The connection to the proxy, for the libraries that want to make it themselves.
struct Connected(Option<Box<dyn Io>>);

impl Service<Uri> for Connected {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().ok_or_else(|| std::io::Error::other("used up"));
        ready(stream.map(TokioIo::new))
    }
}
