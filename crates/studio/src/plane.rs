//! Which router carries the fleet's messages: the one inside this process, or one that somebody else runs.
//!
//! Either way the studio's own component joins it as an ordinary client; agents cannot tell the difference.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wamp::client::{ClientConfig, Credentials};
use wamp::router::{Limits, Router, RouterConfig};

use crate::admission::{self, REALM, SYSTEM};
use crate::secret;
use crate::serve::{ExternalRouter, ServeError};
use crate::store::Store;

/// The message plane of a running studio.
#[derive(Debug)]
pub(crate) struct Plane {
    /// Where this machine reaches the router.
    pub(crate) url: String,
    /// How the component joins.
    pub(crate) client: ClientConfig,
    /// Clients of an external router are looked up by calling the component.
    pub(crate) answers_authentication: bool,
    router: Option<Embedded>,
}

#[derive(Debug)]
struct Embedded {
    router: Router,
    task: JoinHandle<io::Result<()>>,
    stop: CancellationToken,
}

impl Plane {
    /// Opens the router of this process.
    pub(crate) async fn embedded(listen: SocketAddr, store: &Store) -> Result<Plane, ServeError> {
        let failed = |error| ServeError::Listen(listen, error);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if address.ip().is_unspecified() {
            tracing::info!("listening on every address; identity files need --public-url");
        }
        // Known to this process alone: nobody else can be the system.
        let system_secret = secret::fresh().map_err(ServeError::Random)?;
        let router = Router::new(RouterConfig {
            realm: REALM.to_owned(),
            roles: admission::roles(),
            authenticator: admission::authenticator(store.clone(), system_secret.clone()),
            limits: Limits::default(),
        });
        let stop = CancellationToken::new();
        let until = stop.clone();
        let serving = router.clone();
        let task = tokio::spawn(async move { serving.serve(listener, until).await });
        let url = format!("ws://{}", reachable(address));
        Ok(Plane {
            client: client(&url, SYSTEM, system_secret),
            url,
            answers_authentication: false,
            router: Some(Embedded { router, task, stop }),
        })
    }

    /// Uses a router that runs already.
    pub(crate) fn external(router: ExternalRouter) -> Plane {
        Plane {
            client: client(&router.url, &router.authid, router.secret),
            url: router.url,
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

fn client(url: &str, authid: &str, secret: String) -> ClientConfig {
    let mut client = ClientConfig::new(url, REALM);
    client.credentials = Credentials::Cra {
        authid: authid.to_owned(),
        secret,
    };
    client
}

/// The address under which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
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
