//! The router between agent and backend: ours, or Crossbar.io.

use std::collections::HashMap;
use std::sync::Arc;

use super::SOON;
use testkit::crossbar::{Crossbar, User};
use testkit::wait;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::Dict;
use wamp::client::{ClientConfig, Credentials, Session};
use wamp::router::{JoinRequest, Limits, Permission, Principal, Router, RouterConfig};

/// Secret of the backend and of every person.
pub(crate) const SECRET: &str = "backend and people";
/// Secret of every device.
pub(crate) const DEVICE_SECRET: &str = "hush-device-secret";
/// The project after a move; both planes know the device there too.
pub(crate) const MOVED_TO: u64 = 43;

/// A running router. Ends with this value.
pub(crate) struct Plane {
    pub(crate) url: String,
    stop: CancellationToken,
    crossbar: Option<Crossbar>,
}

impl Plane {
    /// Our own router. Its roles may do everything; callers with the authid `hidden` are not disclosed.
    pub(crate) async fn own() -> Plane {
        Plane::own_at("127.0.0.1:0").await
    }

    /// The same on an address, for a router that comes back.
    pub(crate) async fn own_at(address: &str) -> Plane {
        // The port of a router that has just been stopped takes a moment to be free.
        let listener = wait::until_async("the port is free", SOON, || async {
            TcpListener::bind(address).await.ok()
        })
        .await;
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let role = |disclose| {
            vec![Permission {
                uri: String::new(),
                prefix: true,
                call: true,
                register: true,
                publish: true,
                subscribe: true,
                force_register: true,
                disclose,
            }]
        };
        let router = Router::new(RouterConfig {
            realm: "realm1".to_owned(),
            roles: HashMap::from([
                ("device".to_owned(), role(true)),
                ("hidden".to_owned(), role(false)),
            ]),
            authenticator: Arc::new(|request: JoinRequest| Box::pin(async move { Ok(principal(&request)) })),
            limits: Limits::default(),
        });
        let stop = CancellationToken::new();
        let until = stop.clone();
        tokio::spawn(async move { router.serve(listener, until).await });
        Plane {
            url,
            stop,
            crossbar: None,
        }
    }

    /// Crossbar.io with the people and projects that the shared stories need.
    pub(crate) fn crossbar() -> Plane {
        let device = |swarm: u64| User::new(&format!("{swarm}-7"), DEVICE_SECRET, "device");
        let users = [
            User::new("system", SECRET, "backend"),
            User::new("4711", SECRET, "studio"),
            User::new("bob", SECRET, "studio"),
            device(42),
            device(MOVED_TO),
        ];
        let crossbar = Crossbar::start(&users).unwrap_or_else(|error| panic!("{error}"));
        Plane {
            url: crossbar.url(),
            stop: CancellationToken::new(),
            crossbar: Some(crossbar),
        }
    }

    /// Joins as the backend (`system`) or as a person.
    pub(crate) async fn join(&self, authid: &str) -> Session {
        Session::connect(&self.config(authid)).await.unwrap()
    }

    /// As whom and how one joins.
    pub(crate) fn config(&self, authid: &str) -> ClientConfig {
        let mut config = ClientConfig::new(self.url.clone(), "realm1");
        config.credentials = Credentials::Cra {
            authid: authid.to_owned(),
            secret: SECRET.to_owned(),
        };
        config
    }

    /// Crossbar.io, when it is the router.
    pub(crate) fn node(&self) -> &Crossbar {
        self.crossbar.as_ref().unwrap()
    }

    /// Kills Crossbar.io and starts it anew.
    pub(crate) fn restart_node(&mut self) {
        let node = self.crossbar.as_mut().unwrap();
        node.restart(|| {}).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops our router: every session gets GOODBYE, the port is free afterwards.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// `host:port`
    pub(crate) fn address(&self) -> String {
        self.url
            .trim_start_matches("ws://")
            .trim_end_matches("/ws")
            .to_owned()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Devices are `<project>-<device>`, everybody else shares the other secret.
fn principal(request: &JoinRequest) -> Principal {
    let authid = request.authid.clone().unwrap_or_default();
    let secret = match authid.contains('-') {
        true => DEVICE_SECRET,
        false => SECRET,
    };
    // Disclosure is a matter of the callee's procedure and the caller's role.
    let role = match authid.as_str() {
        "hidden" => "hidden",
        _ => "device",
    };
    Principal::Cra {
        secret: secret.to_owned(),
        role: role.to_owned(),
        salting: None,
        extra: Dict::new(),
    }
}
