//! The client: one session with a router.
//!
//! [`Session::connect`] joins and returns a cloneable handle; a task owned by the handle's `Connection` reads and
//! writes. Everything a session had (registrations, subscriptions, pending calls) ends with it: reconnecting is the
//! caller's business, because only the caller knows what to re-establish in which order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::codec::Codec;
use crate::payload::Payload;
pub use crate::transport::TlsOptions;
use crate::value::Dict;
use crate::{Id, uri};

/// How to authenticate.
#[derive(Clone)]
pub enum Credentials {
    /// No authentication.
    Anonymous,
    /// A ticket for `authid`.
    Ticket { authid: String, ticket: String },
    /// Challenge-response with a shared secret.
    Cra { authid: String, secret: String },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Anonymous => formatter.write_str("Anonymous"),
            Credentials::Ticket { authid, .. } => write!(formatter, "Ticket({authid})"),
            Credentials::Cra { authid, .. } => write!(formatter, "Cra({authid})"),
        }
    }
}

/// Everything [`Session::connect`] needs.
#[derive(Clone)]
pub struct ClientConfig {
    /// `ws://`, `wss://` (aliases `http://`, `https://`).
    pub url: String,
    pub realm: String,
    pub credentials: Credentials,
    /// Subprotocols offered, in order.
    pub codecs: Vec<Codec>,
    pub tls: TlsOptions,
    /// Bound for DNS + TCP + TLS + WebSocket upgrade. Zero: none.
    pub connect_timeout: Duration,
    /// Bound for every reply of the router: HELLO, AUTHENTICATE, SUBSCRIBE, REGISTER, acknowledged PUBLISH, GOODBYE.
    pub reply_timeout: Duration,
    /// WebSocket ping interval; dead after two unanswered. Zero: no pings.
    pub ping_interval: Duration,
    /// Largest message accepted from the router, bytes.
    pub max_message_size: usize,
}

impl ClientConfig {
    /// Anonymous, JSON first, 10 s deadlines, 5 s pings, 16 MiB messages.
    pub fn new(url: impl Into<String>, realm: impl Into<String>) -> ClientConfig {
        ClientConfig {
            url: url.into(),
            realm: realm.into(),
            credentials: Credentials::Anonymous,
            codecs: vec![Codec::Json, Codec::MessagePack, Codec::Cbor],
            tls: TlsOptions::default(),
            connect_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(7),
            ping_interval: Duration::from_secs(5),
            max_message_size: 16 << 20,
        }
    }
}

/// Why a session could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is unusable.
    #[error("invalid router URL: {0}")]
    Url(String),
    /// DNS, TCP, TLS or the upgrade failed.
    #[error("could not reach the router: {0}")]
    Transport(String),
    /// A bound of [`ClientConfig`] passed.
    #[error("the router did not answer in time ({0})")]
    Timeout(&'static str),
    /// The server answered the upgrade without a subprotocol that we offered.
    #[error("the server picked no WAMP subprotocol that was offered")]
    NoSubprotocol,
    /// ABORT between HELLO and WELCOME.
    #[error("the router refused the session: {reason}: {message}")]
    Aborted { reason: String, message: String },
    /// The router broke the protocol during the handshake.
    #[error("protocol violation by the router: {0}")]
    Protocol(String),
}

impl ConnectError {
    /// Whether the router said that the credentials are wrong (`wamp-interop.md` rule 20).
    pub fn is_credential_failure(&self) -> bool {
        matches!(self, ConnectError::Aborted { reason, .. } if matches!(
            reason.as_str(),
            uri::error::NOT_AUTHORIZED | uri::error::AUTHENTICATION_FAILED | uri::error::NO_SUCH_PRINCIPAL
                | "wamp.error.authentication_denied"
        ))
    }
}

/// Why a request on a joined session failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// The session ended before the answer came.
    #[error("connection lost")]
    ConnectionLost,
    /// No answer within the deadline.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Refused locally, nothing was sent.
    #[error("invalid URI {0:?}")]
    InvalidUri(String),
    /// Refused locally: larger than the router accepts.
    #[error("message of {0} bytes exceeds the limit")]
    TooLarge(usize),
    /// The arguments could not be encoded.
    #[error("could not encode the message: {0}")]
    Encode(String),
    /// ERROR from the peer.
    #[error("{}", .0)]
    Peer(WampError),
}

/// An ERROR message: URI and payload.
#[derive(Clone, Debug, PartialEq)]
pub struct WampError {
    pub uri: String,
    pub payload: Payload,
}

impl WampError {
    /// An error with one positional text.
    pub fn new(uri: impl Into<String>, text: impl Into<String>) -> WampError {
        WampError {
            uri: uri.into(),
            payload: Payload::from_args(vec![crate::Value::Str(text.into())]),
        }
    }
}

impl std::fmt::Display for WampError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.uri)?;
        // The first positional argument is where every router and the agent put the sentence for people.
        match self.payload.args().unwrap_or_default().first() {
            Some(crate::Value::Str(text)) => write!(formatter, ": {text}"),
            Some(value) => match value.get("error").and_then(crate::Value::as_str) {
                Some(text) => write!(formatter, ": {text}"),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// We said GOODBYE.
    Left,
    /// The router said GOODBYE (answered) with this reason.
    Goodbye(String),
    /// ABORT inside the session; not a credential failure (rule 19).
    Aborted(String),
    /// Transport lost, ping unanswered, or the router broke the protocol.
    Lost(String),
}

/// Options of a call.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// Local deadline; on expiry CANCEL `killnowait` goes out and the call ends at once. `None`: as long as the session.
    pub timeout: Option<Duration>,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

impl CallOptions {
    /// Options with a deadline.
    pub fn timeout(timeout: Duration) -> CallOptions {
        CallOptions {
            timeout: Some(timeout),
            ..CallOptions::default()
        }
    }
}

/// A partial or final result.
#[derive(Clone, Debug)]
pub struct CallResult {
    /// RESULT details.
    pub details: Dict,
    pub payload: Payload,
}

/// Options of a registration.
#[derive(Clone, Debug, Default)]
pub struct RegisterOptions {
    pub force_reregister: bool,
    /// Further options for the wire (`match`, `invoke`, …).
    pub extra: Dict,
}

/// One incoming call, as a handler sees it.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub details: Dict,
    pub payload: Payload,
    /// Cancelled by INTERRUPT, by the call's `timeout`, or because the session ended.
    pub cancelled: CancellationToken,
    progress: ProgressSender,
}

#[derive(Clone, Debug)]
struct ProgressSender;

impl Invocation {
    /// Whether the caller wants partial results.
    pub fn wants_progress(&self) -> bool {
        self.details
            .get("receive_progress")
            .and_then(crate::Value::as_bool)
            .unwrap_or(false)
    }

    /// Sends a partial result; does nothing (and says so with `false`) when the caller did not ask for it.
    pub async fn progress(&self, _payload: Payload) -> bool {
        let _ = &self.progress;
        todo!()
    }

    /// The caller's identity as disclosed by the router: text, or an integer in decimal. `None` when not disclosed
    /// or not trustworthy (`forward_for` present, rule 16).
    pub fn caller_authid(&self) -> Option<String> {
        todo!()
    }
}

/// What a handler returns.
pub type HandlerResult = Result<Payload, WampError>;
/// The future of a handler.
pub type HandlerFuture = Pin<Box<dyn Future<Output = HandlerResult> + Send>>;
/// A procedure: called concurrently, once per invocation. A panic becomes an ERROR.
pub type Handler = Arc<dyn Fn(Invocation) -> HandlerFuture + Send + Sync>;

/// Wraps an async function as a [`Handler`].
pub fn handler<F, Fut>(function: F) -> Handler
where
    F: Fn(Invocation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    Arc::new(move |invocation| Box::pin(function(invocation)))
}

/// A procedure of ours at the router.
#[derive(Debug)]
pub struct Registration {
    /// The router's id.
    pub id: Id,
    /// Cancelled when the router revokes the registration (rule 11) or the session ends.
    pub revoked: CancellationToken,
}

/// A subscription of ours.
#[derive(Debug)]
pub struct Subscription {
    /// The router's id.
    pub id: Id,
    /// Events in order. Bounded: when the receiver is [`EVENT_QUEUE`] behind, further events are dropped, counted
    /// and announced in [`Event::missed`] of the next one.
    pub events: mpsc::Receiver<Event>,
}

/// Events queued per subscription before dropping starts.
pub const EVENT_QUEUE: usize = 1024;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    pub publication: Id,
    pub details: Dict,
    pub payload: Payload,
    /// Events of this subscription dropped before this one because the receiver was slow.
    pub missed: u64,
}

/// Handle of a joined session. Cloneable; the session ends when [`Session::leave`] is called, the transport dies, or
/// the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Session {
    id: Id,
}

impl Session {
    /// Dials, upgrades, joins.
    pub async fn connect(_config: &ClientConfig) -> Result<Session, ConnectError> {
        todo!()
    }

    /// The session id of WELCOME.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Details of WELCOME.
    pub fn welcome(&self) -> &Dict {
        todo!()
    }

    /// Calls a procedure and waits for the final result. Dropping the future cancels the call.
    pub async fn call(
        &self,
        _uri: &str,
        _payload: Payload,
        _options: CallOptions,
    ) -> Result<CallResult, RequestError> {
        todo!()
    }

    /// Calls with `receive_progress`: partial results go to the channel, the final one is returned.
    pub async fn call_progressive(
        &self,
        _uri: &str,
        _payload: Payload,
        _options: CallOptions,
        _partial: mpsc::Sender<CallResult>,
    ) -> Result<CallResult, RequestError> {
        todo!()
    }

    /// Registers a procedure. Several may be in flight at once; answers are matched by request id.
    pub async fn register(
        &self,
        _uri: &str,
        _options: RegisterOptions,
        _handler: Handler,
    ) -> Result<Registration, RequestError> {
        todo!()
    }

    /// Takes a registration back.
    pub async fn unregister(&self, _registration: Id) -> Result<(), RequestError> {
        todo!()
    }

    /// Subscribes.
    pub async fn subscribe(&self, _topic: &str, _options: Dict) -> Result<Subscription, RequestError> {
        todo!()
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, _subscription: Id) -> Result<(), RequestError> {
        todo!()
    }

    /// Publishes without acknowledgement. Waits only for a place in the send queue.
    pub async fn publish(&self, _topic: &str, _options: Dict, _payload: Payload) -> Result<(), RequestError> {
        todo!()
    }

    /// Publishes with `acknowledge: true` and waits for PUBLISHED.
    pub async fn publish_acknowledged(
        &self,
        _topic: &str,
        _options: Dict,
        _payload: Payload,
    ) -> Result<Id, RequestError> {
        todo!()
    }

    /// Whether the session is still up.
    pub fn is_open(&self) -> bool {
        todo!()
    }

    /// Resolves when the session has ended, with the reason. May be called any number of times.
    pub async fn closed(&self) -> CloseReason {
        todo!()
    }

    /// GOODBYE, bounded wait for the router's, WebSocket close. Idempotent.
    pub async fn leave(&self) {
        todo!()
    }

    /// Drops the transport at once, without GOODBYE.
    pub fn abort(&self) {
        todo!()
    }
}
