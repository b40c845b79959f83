//! Who is measured: our router in a process of its own, or a Crossbar.io node.
//!
//! Our process is this same program started again with an argument; it dies with its parent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use testkit::crossbar::{self, Crossbar, User};
use testkit::process::Process;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::Dict;
use wamp::router::{JoinRequest, Limits, Permission, Principal, Router, RouterConfig};

use crate::usage;

pub(crate) const REALM: &str = crossbar::REALM;
pub(crate) const AUTHID: &str = "system";
pub(crate) const SECRET: &str = "bench secret";

/// The argument that makes this program the router.
pub(crate) const SERVE: &str = "serve";

const LISTENS: &str = "listens on ";

/// A running router.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pid: u32,
    _held: Held,
}

/// What keeps it running.
#[expect(dead_code, reason = "held for their Drop")]
enum Held {
    Ours(Process),
    Crossbar(Crossbar),
}

impl Target {
    /// Our router, in a process of its own.
    pub(crate) fn ours() -> Target {
        let program = std::env::current_exe().expect("a program knows its path");
        let mut process = Process::start("router", Command::new(program).arg(SERVE));
        let line = process.wait_for_line(LISTENS, Duration::from_secs(10));
        let address = line.trim_start_matches(LISTENS).parse();
        Target {
            address: address.expect("an address"),
            pid: process.pid(),
            _held: Held::Ours(process),
        }
    }

    /// A Crossbar.io node.
    pub(crate) fn crossbar() -> Target {
        let node = Crossbar::start(&[User::new(AUTHID, SECRET, "backend")])
            .unwrap_or_else(|error| panic!("{error}"));
        Target {
            address: SocketAddr::from(([127, 0, 0, 1], node.port())),
            pid: node.pid(),
            _held: Held::Crossbar(node),
        }
    }

    /// CPU time used so far, all processes.
    pub(crate) fn cpu(&self) -> Duration {
        usage::cpu(self.pid)
    }

    /// Resident set, all processes, bytes.
    pub(crate) fn resident(&self) -> u64 {
        usage::resident(self.pid)
    }
}

/// Serves until the parent ends.
pub(crate) fn serve() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0))
                .await
                .expect("loopback has free ports");
            println!("{LISTENS}{}", listener.local_addr().expect("bound"));
            router().serve(listener, CancellationToken::new()).await
        })
        .expect("the listener works");
}

fn router() -> Router {
    let everything = Permission {
        uri: String::new(),
        prefix: true,
        call: true,
        register: true,
        publish: true,
        subscribe: true,
        force_register: true,
        disclose: true,
    };
    Router::new(RouterConfig {
        realm: REALM.to_owned(),
        roles: HashMap::from([("backend".to_owned(), vec![everything])]),
        authenticator: Arc::new(|_: JoinRequest| {
            Box::pin(async {
                Ok(Principal::Cra {
                    secret: SECRET.to_owned(),
                    role: "backend".to_owned(),
                    salting: None,
                    extra: Dict::new(),
                })
            })
        }),
        limits: Limits::default(),
    })
}
