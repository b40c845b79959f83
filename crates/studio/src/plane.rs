//! Which router carries the fleet's messages: the one inside this process, or one that somebody else runs.
//!
//! Either way the studio's own component is an ordinary session there; agents cannot tell the difference.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wamp::client::{ClientConfig, ConnectError, Credentials, Session};
use wamp::router::{AttachError, Attachment, Limits, Listener, Router, RouterConfig, ServerTls};

use crate::admission::{self, REALM, SYSTEM};
use crate::serve::{ExternalRouter, ServeError};
use crate::store::Store;

/// Certificate chain and key of the embedded router, PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The message plane of a running studio.
#[derive(Debug)]
pub(crate) struct Plane {
    /// Where this machine reaches the router.
    pub(crate) url: String,
    /// How the component joins.
    pub(crate) door: Door,
    /// Clients of an external router are looked up by calling the component.
    pub(crate) answers_authentication: bool,
    router: Option<Embedded>,
}

/// The component's way to the router.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// It is in this process. No account `system` exists there: nobody else can be it.
    Inside(Router),
    /// Over the network.
    Outside(Box<ClientConfig>),
}

/// Why the component has no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error(transparent)]
    Inside(#[from] AttachError),
    #[error(transparent)]
    Outside(#[from] ConnectError),
}

impl Door {
    /// A session as `system`.
    pub(crate) async fn join(&self) -> Result<Session, DoorError> {
        match self {
            Door::Inside(router) => Ok(router.attach(Attachment {
                realm: REALM.to_owned(),
                authid: SYSTEM.to_owned(),
                role: SYSTEM.to_owned(),
            })?),
            Door::Outside(config) => Ok(Session::connect(config).await?),
        }
    }
}

#[derive(Debug)]
struct Embedded {
    router: Router,
    task: JoinHandle<io::Result<()>>,
    stop: CancellationToken,
}

impl Plane {
    /// Opens the router of this process.
    pub(crate) async fn embedded(
        listen: SocketAddr,
        tls: Option<&TlsFiles>,
        store: &Store,
    ) -> Result<Plane, ServeError> {
        let tls = tls.map(load).transpose()?;
        let failed = |error| ServeError::Listen(listen, error);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if address.ip().is_unspecified() {
            tracing::info!("listening on every address; identity files need --public-url");
        }
        let router = Router::new(RouterConfig {
            realm: REALM.to_owned(),
            roles: admission::roles(),
            authenticator: admission::authenticator(store.clone()),
            limits: Limits::default(),
        });
        let stop = CancellationToken::new();
        let until = stop.clone();
        let serving = router.clone();
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let listener = match tls {
            Some(tls) => Listener::Tls(listener, tls),
            None => Listener::Tcp(listener),
        };
        let task = tokio::spawn(async move { serving.serve(listener, until).await });
        Ok(Plane {
            url: format!("{scheme}://{}", reachable(address)),
            door: Door::Inside(router.clone()),
            answers_authentication: false,
            router: Some(Embedded { router, task, stop }),
        })
    }

    /// Uses a router that runs already.
    pub(crate) fn external(router: ExternalRouter) -> Plane {
        let mut client = ClientConfig::new(&router.url, REALM);
        client.credentials = Credentials::Cra {
            authid: router.authid,
            secret: router.secret,
        };
        Plane {
            url: router.url,
            door: Door::Outside(Box::new(client)),
            answers_authentication: true,
            router: None,
        }
    }

    /// The router of this process, if there is one.
    pub(crate) fn router(&self) -> Option<Router> {
        self.router.as_ref().map(|embedded| embedded.router.clone())
    }

    /// Resolves when the embedded router ends by itself; never with an external one, which the component redials.
    pub(crate) async fn ended(&mut self) -> io::Error {
        match &mut self.router {
            Some(embedded) => match (&mut embedded.task).await {
                Ok(Ok(())) => io::Error::other("it stopped by itself"),
                Ok(Err(error)) => error,
                Err(error) => io::Error::other(error),
            },
            None => std::future::pending().await,
        }
    }

    /// Ends the embedded router: every session gets GOODBYE. The task to wait for, if there is one.
    pub(crate) fn close(self) -> Option<JoinHandle<io::Result<()>>> {
        let embedded = self.router?;
        embedded.stop.cancel();
        (!embedded.task.is_finished()).then_some(embedded.task)
    }
}

fn load(files: &TlsFiles) -> Result<ServerTls, ServeError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| ServeError::TlsFile {
            path: path.display().to_string(),
            source,
        })
    };
    ServerTls::from_pem(&read(&files.certificate)?, &read(&files.key)?).map_err(ServeError::Tls)
}

/// The address under which this machine reaches a listener.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_reached_over_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
