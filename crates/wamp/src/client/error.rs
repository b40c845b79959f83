//! What can go wrong: while joining, with one request, with the session as a whole.

use std::time::Duration;

use crate::payload::Payload;
use crate::transport::DialError;
pub(super) use crate::transport::chain;
use crate::{Value, uri};

/// Why a session could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is unusable.
    #[error("invalid router URL: {0}")]
    Url(String),
    /// DNS, TCP, TLS or the upgrade failed. The text names the cause.
    #[error("could not reach the router: {0}")]
    Transport(String),
    /// A bound of [`ClientConfig`](super::ClientConfig) passed.
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

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> ConnectError {
        match error {
            DialError::Url(what) => ConnectError::Url(what),
            DialError::NoSubprotocol => ConnectError::NoSubprotocol,
            DialError::Resolve { .. }
            | DialError::Connect { .. }
            | DialError::ConnectUnix { .. }
            | DialError::RawSocket(_)
            | DialError::Proxy { .. }
            | DialError::Tls { .. }
            | DialError::Upgrade(_) => ConnectError::Transport(chain(&error)),
        }
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
    /// The caller cancelled, or did not take partial results as fast as they came.
    #[error("cancelled")]
    Cancelled,
    /// Refused locally, nothing was sent.
    #[error("invalid URI {0:?}")]
    InvalidUri(String),
    /// Refused locally: larger than the router accepts.
    #[error("message of {0} bytes exceeds the limit")]
    TooLarge(usize),
    /// Refused locally: the router does not announce this feature.
    #[error("the router does not announce {0}")]
    NotSupported(&'static str),
    /// The arguments could not be encoded.
    #[error("could not encode the message: {0}")]
    Encode(String),
    /// The answer came, but is not of the type that was asked for.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
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
            payload: Payload::from_args(vec![Value::Str(text.into())]),
        }
    }
}

impl std::fmt::Display for WampError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.uri)?;
        // The first positional argument is where every router and the agent put the sentence for people.
        match self.payload.args().unwrap_or_default().first() {
            Some(Value::Str(text)) => write!(formatter, ": {text}"),
            Some(value) => match value.get("error").and_then(Value::as_str) {
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
