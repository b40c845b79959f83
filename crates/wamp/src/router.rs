//! The router: one realm with dealer, broker, meta API and testaments.
//!
//! One [`Router`] holds the state; [`Router::serve`] accepts WebSocket connections. Authentication asks an
//! [`Authenticator`], which may look secrets up in a database.
//!
//! Inside, from the wire inwards: `wire` and `connection` move the frames of one session, `admission` is the handshake,
//! `queue` the bounded way out, `hub` the one lock; behind it `realm` with `dealer`, `calls`, `broker`, `meta` and
//! `testament` is pure and synchronous. A single lock with sections below a microsecond beats a task that owns the
//! realm: no message crosses threads twice, and decoding and encoding, which is nine tenths of the work, stays outside.

mod admission;
mod audience;
mod broker;
mod calls;
mod config;
mod connection;
mod counters;
mod dealer;
mod directory;
mod hub;
mod meta;
mod outbox;
mod pattern;
mod permission;
mod queue;
mod realm;
mod refusal;
mod session;
mod testament;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub use self::config::{Authenticator, JoinRequest, Limits, Lookup, Permission, Principal, RouterConfig};
use self::connection::Setting;
pub use self::counters::{Counters, Dropped};
use self::hub::Hub;
use self::permission::Lines;
use self::realm::Realm;
use crate::uri::close;

/// The router. Cloneable handle.
#[derive(Clone)]
pub struct Router {
    config: Arc<RouterConfig>,
    hub: Arc<Hub>,
    listeners: Arc<AtomicU64>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Router")
            .field("realm", &self.config.realm)
            .finish_non_exhaustive()
    }
}

/// Connections beyond `max_sessions` that may be in their handshake at once; further ones are closed unanswered.
const SPARE_CONNECTIONS: usize = 1024;

/// Pause after a failed `accept`, which usually means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Router {
    /// A router without listeners.
    pub fn new(config: RouterConfig) -> Router {
        let random = fastrand::Rng::new();
        let realm = Realm::new(&config.realm, &config.roles, config.limits.max_sessions, random);
        Router {
            config: Arc::new(config),
            hub: Arc::new(Hub::new(realm)),
            listeners: Arc::default(),
        }
    }

    /// Accepts connections until `stop`; then says GOODBYE `system_shutdown` to every session that came through this
    /// listener and returns when all are gone or twice the goodbye timeout has passed.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let limits = self.config.limits.clone();
        let most = limits.max_sessions.saturating_add(SPARE_CONNECTIONS);
        let setting = Setting {
            hub: Arc::clone(&self.hub),
            realm: self.config.realm.as_str().into(),
            authenticator: Arc::clone(&self.config.authenticator),
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
                    Ok((stream, _)) if connections.len() < most => {
                        connections.spawn(connection::run(setting.clone(), stream));
                    }
                    Ok((_, peer)) => tracing::warn!(%peer, "too many connections"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        self.hub.dismiss_all(setting.listener, close::SYSTEM_SHUTDOWN);
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

    /// Gives every open session of `authid` these permissions of its own instead of those it joined with.
    /// Subscriptions and registrations that they do not cover are revoked (UNSUBSCRIBED and UNREGISTERED with request
    /// id 0). Sessions that join later get theirs from the authenticator.
    pub fn set_permissions(&self, authid: &str, permissions: &[Permission]) {
        self.hub
            .set_own_rights(authid, &Arc::new(Lines::new(permissions)));
    }

    /// What the router holds and has dropped.
    pub fn counters(&self) -> Counters {
        self.hub.counters()
    }
}

/// A connection's task never ends in an error of its own, so a failed join is a bug in it.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
