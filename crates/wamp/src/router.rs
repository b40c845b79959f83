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
mod connection;
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

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::connection::Setting;
use self::hub::Hub;
use self::permission::Lines;
use self::realm::Realm;
use crate::auth::Salting;
use crate::uri::close;
use crate::value::Dict;

/// Who wants in: what HELLO said.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    pub realm: String,
    pub authid: Option<String>,
    /// Methods the client offers, in order.
    pub methods: Vec<String>,
    pub authextra: Dict,
}

/// What an [`Authenticator`] knows of an authid.
#[derive(Clone)]
pub enum Principal {
    /// Admitted without proof (method `anonymous`).
    Anonymous { authid: String, role: String },
    /// Challenge-response. With `salting` the secret is the plain password and the router derives the key.
    Cra {
        secret: String,
        role: String,
        salting: Option<Salting>,
        extra: Dict,
    },
    /// Ticket.
    Ticket {
        ticket: String,
        role: String,
        extra: Dict,
    },
    /// One of the others with permissions of its own, made by [`Principal::with_permissions`].
    Personal {
        principal: Box<Principal>,
        permissions: Arc<[Permission]>,
    },
}

impl Principal {
    /// The same principal with permissions of its own beside those of its role. Both are looked up together: the
    /// longest matching prefix or the exact entry decides, whosever it is; on one and the same URI the principal's own
    /// wins. [`Router::set_permissions`] changes them while sessions are open.
    #[must_use]
    pub fn with_permissions(self, permissions: Arc<[Permission]>) -> Principal {
        Principal::Personal {
            principal: Box::new(self),
            permissions,
        }
    }
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Principal::Anonymous { authid, role } => write!(formatter, "Anonymous({authid}, {role})"),
            Principal::Cra { role, .. } => write!(formatter, "Cra({role})"),
            Principal::Ticket { role, .. } => write!(formatter, "Ticket({role})"),
            Principal::Personal { principal, .. } => write!(formatter, "Personal({principal:?})"),
        }
    }
}

/// Finds the principal for a join request. `Err(None)`: unknown (answered exactly like a wrong secret).
/// `Err(Some((reason, message)))`: ABORT with that reason.
pub type Lookup = Pin<Box<dyn Future<Output = Result<Principal, Option<(String, String)>>> + Send>>;
/// The authentication callback.
pub type Authenticator = Arc<dyn Fn(JoinRequest) -> Lookup + Send + Sync>;

/// One line of a role's permissions. The longest matching prefix (or the exact entry) decides.
#[derive(Clone, Debug)]
pub struct Permission {
    /// URI, or a string prefix of it.
    pub uri: String,
    /// Whether `uri` is a prefix.
    pub prefix: bool,
    pub call: bool,
    pub register: bool,
    pub publish: bool,
    pub subscribe: bool,
    /// May use `force_reregister`.
    pub force_register: bool,
    /// Caller and publisher identity is disclosed to callee and subscriber.
    pub disclose: bool,
}

/// Bounds. Each says what happens when it is reached.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Handshake not finished: closed.
    pub opening_timeout: Duration,
    /// HELLO or AUTHENTICATE missing: closed.
    pub auth_timeout: Duration,
    /// WebSocket pings; a peer silent for two intervals is gone.
    pub ping_interval: Duration,
    /// Larger messages close the connection with 1009.
    pub max_message_size: usize,
    /// Sessions in all: further ones are refused with ABORT.
    pub max_sessions: usize,
    /// Messages queued for one session: EVENTs beyond are dropped and counted, anything else closes the session.
    pub send_queue_messages: usize,
    /// The same in bytes.
    pub send_queue_bytes: usize,
    /// A session whose queue has been dropping events for this long, without ever becoming half empty, is closed.
    pub overflow_patience: Duration,
    /// Wait for the peer's GOODBYE before the transport is closed.
    pub goodbye_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            opening_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            max_message_size: 16 << 20,
            max_sessions: 50_000,
            send_queue_messages: 4096,
            send_queue_bytes: 32 << 20,
            overflow_patience: Duration::from_secs(30),
            goodbye_timeout: Duration::from_secs(2),
        }
    }
}

/// What [`Router::new`] needs.
#[derive(Clone)]
pub struct RouterConfig {
    pub realm: String,
    /// Role name to permissions.
    pub roles: HashMap<String, Vec<Permission>>,
    pub authenticator: Authenticator,
    pub limits: Limits,
}

impl std::fmt::Debug for RouterConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RouterConfig")
            .field("realm", &self.realm)
            .field("roles", &self.roles)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What the router holds and what it had to drop, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Joined sessions.
    pub sessions: usize,
    /// Registrations, shared ones counted once.
    pub registrations: usize,
    /// Subscriptions, counted once however many subscribers they have.
    pub subscriptions: usize,
    pub dropped_events: Dropped,
    /// Sessions closed because they did not read replies or invocations.
    pub overflowed_sessions: u64,
}

/// EVENTs that were not delivered, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The receiver's send queue was full.
    pub queue_full: u64,
    /// The payload has no form in the receiver's encoding.
    pub unencodable: u64,
}

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
