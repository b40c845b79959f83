//! What a reconnecting session tells of itself. Counters only grow, so that a reader who is slow sees what it missed.

use std::sync::Arc;
use std::time::Duration;

use crate::client::{CloseReason, ConnectError, RequestError, Session};

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: State,
    /// Sessions joined so far.
    pub sessions: u64,
    /// How the last session was lost.
    pub last_loss: Option<Loss>,
    /// Why the last attempt without a session failed.
    pub last_failure: Option<Arc<ConnectError>>,
    /// What the session should have and does not have; empty between two sessions.
    pub missing: Vec<Missing>,
    /// Registrations and subscriptions that were taken away from us so far.
    pub evictions: u64,
}

/// What is going on.
#[derive(Clone, Debug)]
pub enum State {
    /// Dialling, joining, or re-establishing.
    Connecting,
    /// Everything has been re-established, as far as possible: [`Status::missing`] has the rest.
    Connected(Session),
    /// Nothing happens for this long.
    Waiting(Duration),
    /// For good.
    Stopped,
}

/// A lost session. What was published while there was none is not known to anybody: subscribers get
/// [`Feed::Gap`](super::Feed::Gap).
#[derive(Clone, Debug)]
pub struct Loss {
    pub reason: CloseReason,
    /// Calls that failed with it, with [`RequestError::ConnectionLost`].
    pub failed_calls: usize,
}

/// Something that a session should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The testament for this topic.
    Testament(String),
    /// The registration of this procedure.
    Registration(String),
    /// The subscription to this topic.
    Subscription(String),
}

/// Something that a session should have and does not have.
#[derive(Clone, Debug)]
pub struct Missing {
    pub item: Item,
    pub cause: MissingCause,
    /// Whether there will be no further attempt in this session.
    pub given_up: bool,
}

/// Why something is missing.
#[derive(Clone, Debug)]
pub enum MissingCause {
    /// It was refused, or not answered.
    Refused(RequestError),
    /// It was there, and the router has taken it away.
    Revoked,
}

impl Status {
    pub(super) fn new() -> Status {
        Status {
            state: State::Connecting,
            sessions: 0,
            last_loss: None,
            last_failure: None,
            missing: Vec::new(),
            evictions: 0,
        }
    }

    /// The session, while there is one that is complete as far as possible.
    pub fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Connected(session) => Some(session),
            State::Connecting | State::Waiting(_) | State::Stopped => None,
        }
    }

    pub(super) fn lacks(&mut self, missing: Missing) {
        self.has(&missing.item);
        self.missing.push(missing);
    }

    pub(super) fn has(&mut self, item: &Item) {
        self.missing.retain(|missing| missing.item != *item);
    }
}
