//! What a router is told: who may join and how, what each role may do, and the bounds.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Salting;
use crate::uri::UriRule;
use crate::value::Dict;

/// Who wants in: what HELLO said.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The realm that HELLO names; empty when it names none, which only [`RealmsConfig::assigner`] ever sees.
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
    /// Signature with an ed25519 key (`cryptosign`).
    Cryptosign {
        /// Public keys, hex, 64 digits each. Any one of them will do.
        keys: Vec<String>,
        role: String,
        extra: Dict,
    },
    /// One of the others with permissions of its own, made by [`Principal::with_permissions`].
    Personal {
        principal: Box<Principal>,
        permissions: Arc<[Permission]>,
    },
    /// One of the others in another realm or under another name than HELLO said, made by [`Principal::in_realm`] and
    /// [`Principal::named`].
    Assigned {
        principal: Box<Principal>,
        realm: Option<String>,
        authid: Option<String>,
    },
    /// A procedure knows (`wamp-interop.md` 3.1, "dynamic authenticator").
    Asked(AskedProcedure),
}

/// The procedure that knows a principal. The router calls it as `(realm, authid, details)` in a session of its own,
/// whose role is `trusted`, with `details` = `{authmethod, authid, authrole, authextra, session, transport: {peer}}`.
///
/// `authmethod` is the first of `wampcra`, `ticket` and `cryptosign` that the client offers. The procedure answers
/// with a dictionary: `role`, and `secret` (for `cryptosign`: `pubkey`, one key or a list, hex); optionally `realm` and
/// `authid`, which both may differ from what HELLO said, `extra`, which becomes WELCOME's `authextra`, and for
/// `wampcra` `salt`, `iterations` and `keylen`, with which the secret is still the plain password. An ERROR of the
/// procedure becomes the ABORT; nobody registered: ABORT `wamp.error.no_such_procedure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedProcedure {
    pub procedure: String,
    /// The realm in which it is called; `None`: the one that HELLO names.
    pub realm: Option<String>,
    /// Bound for its answer; [`Limits::auth_timeout`] bounds it as well.
    pub timeout: Duration,
}

impl AskedProcedure {
    /// Called in the realm that the client wants to join, with 5 s to answer.
    pub fn new(procedure: &str) -> AskedProcedure {
        AskedProcedure {
            procedure: procedure.to_owned(),
            realm: None,
            timeout: Duration::from_secs(5),
        }
    }

    /// An authenticator that asks about everybody. Whoever offers the procedure has to join all the same: a callback of
    /// one's own admits that session and answers [`Principal::Asked`] for all others.
    pub fn authenticator(self) -> Authenticator {
        Arc::new(move |_| {
            let asked = self.clone();
            Box::pin(async move { Ok(Principal::Asked(asked)) })
        })
    }
}

impl Principal {
    /// The same principal with permissions of its own beside those of its role. Both are looked up together: the
    /// longest matching prefix or the exact entry decides, whosever it is; on one and the same URI the principal's own
    /// wins. [`Router::set_permissions`](super::Router::set_permissions) changes them while sessions are open.
    #[must_use]
    pub fn with_permissions(self, permissions: Arc<[Permission]>) -> Principal {
        Principal::Personal {
            principal: Box::new(self),
            permissions,
        }
    }

    /// The same principal in this realm, whatever realm HELLO named.
    #[must_use]
    pub fn in_realm(self, realm: &str) -> Principal {
        Principal::Assigned {
            principal: Box::new(self),
            realm: Some(realm.to_owned()),
            authid: None,
        }
    }

    /// The same principal under this authid, whatever authid HELLO named.
    #[must_use]
    pub fn named(self, authid: &str) -> Principal {
        Principal::Assigned {
            principal: Box::new(self),
            realm: None,
            authid: Some(authid.to_owned()),
        }
    }
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Principal::Anonymous { authid, role } => write!(formatter, "Anonymous({authid}, {role})"),
            Principal::Cra { role, .. } => write!(formatter, "Cra({role})"),
            Principal::Ticket { role, .. } => write!(formatter, "Ticket({role})"),
            Principal::Cryptosign { role, .. } => write!(formatter, "Cryptosign({role})"),
            Principal::Personal { principal, .. } => write!(formatter, "Personal({principal:?})"),
            Principal::Assigned { principal, .. } => write!(formatter, "Assigned({principal:?})"),
            Principal::Asked(asked) => write!(formatter, "Asked({})", asked.procedure),
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
    /// May take from others: `force_reregister`, and together with `call` for the procedure itself
    /// `wamp.registration.remove_callee` and `wamp.subscription.remove_subscriber`.
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
    /// Pings; a peer silent for two intervals is gone. On a RawSocket only a peer that has sent PING or PONG itself is
    /// pinged, because some do not survive it; for the others the same time goes to TCP keep-alive. Zero: neither.
    pub ping_interval: Duration,
    /// Larger messages close the connection with 1009.
    pub max_message_size: usize,
    /// Sessions in all realms together: further ones are refused with ABORT.
    pub max_sessions: usize,
    /// Sessions of one authid in one realm: further ones are refused with ABORT.
    pub max_sessions_per_authid: usize,
    /// Calls of one session without a final reply, and invocations of one session without a final answer: further calls
    /// get an ERROR.
    pub max_pending_calls: usize,
    /// Registrations of one session: further ones get an ERROR.
    pub max_registrations: usize,
    /// Subscriptions of one session: further ones get an ERROR.
    pub max_subscriptions: usize,
    /// Testaments of one session and scope: further ones get an ERROR.
    pub max_testaments: usize,
    /// Bytes of topics, receiver lists and arguments in all testaments of one session: further ones get an ERROR.
    pub max_testament_bytes: usize,
    /// Retained events of one realm: a further one takes the place of the oldest.
    pub max_retained: usize,
    /// Bytes of topics, receiver lists and arguments in the retained events of one realm: the oldest give way; an event
    /// that is larger than all that is published but not retained.
    pub max_retained_bytes: usize,
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
            max_sessions_per_authid: usize::MAX,
            max_pending_calls: 65_536,
            max_registrations: 65_536,
            max_subscriptions: 65_536,
            max_testaments: 64,
            max_testament_bytes: 256 << 10,
            max_retained: 10_000,
            max_retained_bytes: 16 << 20,
            send_queue_messages: 16_384,
            send_queue_bytes: 32 << 20,
            overflow_patience: Duration::from_secs(30),
            goodbye_timeout: Duration::from_secs(2),
        }
    }
}

/// A router of one realm with loose URIs: what [`Router::new`](super::Router::new) mostly gets.
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

/// A router of any number of realms. Sessions of different realms share nothing but the bounds.
///
/// ```
/// use std::collections::{BTreeMap, HashMap};
/// use std::sync::Arc;
///
/// use wamp::router::{AskedProcedure, Authenticator, Limits, Permission, Principal};
/// use wamp::router::{RealmConfig, RealmsConfig, Router};
///
/// let everything = Permission {
///     uri: String::new(),
///     prefix: true,
///     call: true,
///     register: true,
///     publish: true,
///     subscribe: true,
///     force_register: true,
///     disclose: true,
/// };
/// let roles = HashMap::from([("backend".to_owned(), vec![everything.clone()]), ("device".to_owned(), vec![everything])]);
/// // The backend proves itself with a ticket and knows everybody else.
/// let asked = AskedProcedure::new("com.example.authenticate");
/// let authenticator: Authenticator = Arc::new(move |request| {
///     let asked = asked.clone();
///     Box::pin(async move {
///         Ok(match request.authid.as_deref() {
///             Some("backend") => Principal::Ticket {
///                 ticket: "from the environment".to_owned(),
///                 role: "backend".to_owned(),
///                 extra: wamp::Dict::new(),
///             },
///             _ => Principal::Asked(asked),
///         })
///     })
/// });
/// let router = Router::new(RealmsConfig {
///     realms: BTreeMap::from([
///         ("plant".to_owned(), RealmConfig::new(roles.clone(), Arc::clone(&authenticator))),
///         ("office".to_owned(), RealmConfig::new(roles, authenticator)),
///     ]),
///     assigner: None,
///     limits: Limits::default(),
/// });
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(router.counters().sessions, 0);
/// # });
/// ```
#[derive(Clone, Default)]
pub struct RealmsConfig {
    /// By name.
    pub realms: BTreeMap<String, RealmConfig>,
    /// Asked about a HELLO that names no realm; the principal has to be [assigned one](Principal::in_realm). Without an
    /// assigner such a HELLO is refused with `wamp.error.no_such_realm`.
    pub assigner: Option<Authenticator>,
    pub limits: Limits,
}

/// One realm of a router.
#[derive(Clone)]
pub struct RealmConfig {
    /// Role name to permissions.
    pub roles: HashMap<String, Vec<Permission>>,
    pub authenticator: Authenticator,
    /// What procedures, topics, error URIs and reasons have to satisfy.
    pub uris: UriRule,
    /// Request ids have to count 1, 2, 3 …; anything else is a violation (R-V5). After 2^53 comes 1.
    pub strict_request_ids: bool,
}

impl RealmConfig {
    /// Loose URIs and any order of request ids.
    pub fn new(roles: HashMap<String, Vec<Permission>>, authenticator: Authenticator) -> RealmConfig {
        RealmConfig {
            roles,
            authenticator,
            uris: UriRule::Loose,
            strict_request_ids: false,
        }
    }
}

impl std::fmt::Debug for RealmConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RealmConfig")
            .field("roles", &self.roles)
            .field("uris", &self.uris)
            .field("strict_request_ids", &self.strict_request_ids)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RealmsConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RealmsConfig")
            .field("realms", &self.realms)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl From<RouterConfig> for RealmsConfig {
    fn from(config: RouterConfig) -> RealmsConfig {
        RealmsConfig {
            realms: BTreeMap::from([(config.realm, RealmConfig::new(config.roles, config.authenticator))]),
            assigner: None,
            limits: config.limits,
        }
    }
}
