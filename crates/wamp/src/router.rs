//! The router: realms with dealer, broker, meta API and testaments.
//!
//! One [`Router`] holds the state; [`Router::serve`] accepts WebSocket and RawSocket connections. Authentication asks an
//! [`Authenticator`], which may look secrets up in a database.
//!
//! Inside, from the wire inwards: `wire` and `connection` move the frames of one session, `admission` is the handshake,
//! `queue` the bounded way out, `hub` the one lock; behind it `realm` with `dealer`, `calls`, `broker`, `meta` and
//! `testament` is pure and synchronous. A single lock with sections below a microsecond beats a task that owns the
//! realm: no message crosses threads twice, and decoding and encoding, which is nine tenths of the work, stays outside.

mod admission;
#[cfg(feature = "client")]
mod attach;
mod audience;
mod broker;
mod calls;
mod config;
mod connection;
mod counters;
mod dealer;
mod directory;
mod endings;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzed;
mod hub;
mod id_map;
mod joining;
mod journal;
mod listener;
mod meta;
mod outbox;
mod pattern;
mod permission;
mod queue;
mod realm;
mod realms;
mod refusal;
mod retained;
mod service;
mod session;
mod testament;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "client")]
pub use self::attach::{AttachError, Attachment};
pub use self::config::{
    AskedProcedure, Authenticator, JoinRequest, Limits, Lookup, Permission, Principal, RealmConfig,
    RealmsConfig, RouterConfig,
};
use self::connection::Setting;
use self::counters::Cause;
pub use self::counters::{Counters, Denied, Dropped, Queues, Refused, Traffic};
pub use self::listener::Listener;
use self::realms::Realms;
pub use crate::transport::ServerTls;
use crate::uri::close;

/// The router. Cloneable handle.
#[derive(Clone)]
pub struct Router {
    realms: Arc<Realms>,
    listeners: Arc<AtomicU64>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Router")
            .field("realms", &self.realms.names())
            .finish_non_exhaustive()
    }
}

/// Connections beyond `max_sessions` that may be in their handshake at once; further ones are closed unanswered.
const SPARE_CONNECTIONS: usize = 1024;

/// Pause after a failed `accept`, which usually means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Router {
    /// A router without listeners: of one realm with a [`RouterConfig`], of any number with a [`RealmsConfig`].
    pub fn new(config: impl Into<RealmsConfig>) -> Router {
        Router {
            realms: Arc::new(Realms::new(config.into())),
            listeners: Arc::default(),
        }
    }

    /// Accepts WebSocket and RawSocket connections, from one and the same port, until `stop`; then says GOODBYE `system_shutdown` to every session that came through this
    /// listener and returns when all are gone or twice the goodbye timeout has passed.
    pub async fn serve(&self, listener: impl Into<Listener>, stop: CancellationToken) -> std::io::Result<()> {
        let listener = listener.into();
        let limits = Arc::clone(self.realms.limits());
        let most = limits.max_sessions.saturating_add(SPARE_CONNECTIONS);
        let setting = Setting {
            realms: Arc::clone(&self.realms),
            listener: self.listeners.fetch_add(1, Ordering::Relaxed),
            stop: stop.clone(),
            limits,
        };
        // Dropping the set ends every connection, should this future be dropped.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = listener.accept() => match accepted {
                    Ok((accepted, peer)) if connections.len() < most => {
                        connections.spawn(connection::run(setting.clone(), accepted, peer));
                    }
                    Ok((_, peer)) => self.realms.count_refusal(None, Cause::Full, &peer),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        self.realms.dismiss_all(setting.listener, close::SYSTEM_SHUTDOWN);
        // Once for the peer's GOODBYE, once for its close frame.
        let within = 2 * setting.limits.goodbye_timeout;
        let all_gone = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if tokio::time::timeout(within, all_gone).await.is_err() {
            tracing::warn!("some sessions did not leave in time");
        }
        connections.shutdown().await;
        Ok(())
    }

    /// Gives every open session of `authid`, in whatever realm, these permissions of its own instead of those it joined
    /// with. Subscriptions and registrations that they do not cover are revoked (UNSUBSCRIBED and UNREGISTERED with
    /// request id 0). Sessions that join later get theirs from the authenticator.
    pub fn set_permissions(&self, authid: &str, permissions: &[Permission]) {
        self.realms.set_own_rights(authid, permissions);
    }

    /// What the router holds, has refused and has dropped, all realms together. A session gets those of its realm from
    /// the procedure `wamp.router.counters`, as a dictionary of the same names, if its role may call that.
    pub fn counters(&self) -> Counters {
        self.realms.counters()
    }
}

/// A connection's task never ends in an error of its own, so a failed join is a bug in it.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
