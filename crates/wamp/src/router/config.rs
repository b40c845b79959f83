//! What a router is told: who may join and how, what each role may do, and the bounds.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Salting;
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
            send_queue_messages: 16_384,
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
