//! Sessions of the program that the router runs in: messages go to the realm and come back as they are, without bytes,
//! sockets or a handshake. They share queues, bounds and permissions with all other sessions.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::Router;
use super::admission::Admitted;
use super::hub::Hub;
use super::outbox::Outgoing;
use super::queue::{Next, Queue};
use super::realms::Realms;
use super::session::{Features, Identity};
use crate::Id;
use crate::client::{Host, Session};
use crate::message::Message;
use crate::value::Dict;

/// Bound for the router's replies, as for any client. Only a callee can take long, and calls have bounds of their own.
const REPLY_TIMEOUT: Duration = Duration::from_secs(7);

/// In `wamp.session.get` and `on_join`.
const METHOD: &str = "internal";

/// Who attaches. There is nothing to prove: the program vouches for its own sessions.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The realm to join.
    pub realm: String,
    pub authid: String,
    /// A role of the realm.
    pub role: String,
}

/// Why a session was not attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("the router has no realm {0:?}")]
    NoSuchRealm(String),
    /// The realm has no such role, or as many sessions as it may have.
    #[error("{0}")]
    Refused(String),
}

impl Router {
    /// Joins from inside the program, and gives the same session that [`Session::connect`] gives. It does not end with
    /// a listener, but with its last handle. Has to be called on a tokio runtime.
    pub fn attach(&self, attachment: Attachment) -> Result<Session, AttachError> {
        let Attachment { realm, authid, role } = attachment;
        let Some(place) = self.realms.get(&realm) else {
            return Err(AttachError::NoSuchRealm(realm));
        };
        let hub = Arc::clone(&place.hub);
        let limits = self.realms.limits();
        let queue = Queue::new(limits.send_queue_messages, limits.send_queue_bytes).telling_dropped(true);
        let queue = Arc::new(queue);
        let id = Realms::fresh_id();
        let admitted = Admitted {
            hub: Arc::clone(&hub),
            identity: Identity {
                authid,
                authrole: role,
                authmethod: METHOD,
                authextra: Dict::new(),
                peer: "process".to_owned(),
                features: Features::ours(),
                own_rights: None,
            },
        };
        let welcome = admitted.welcome(id);
        let Message::Welcome { details, .. } = welcome.clone() else {
            return Err(AttachError::Refused("no WELCOME".to_owned()));
        };
        hub.join(id, admitted.identity, welcome, &queue, Hub::NO_LISTENER)
            .map_err(|error| AttachError::Refused(error.to_string()))?;
        // WELCOME, which the session has as it is.
        queue.try_pop();
        let host = Arc::new(Seat { id, hub, queue });
        Ok(Session::hosted(id, details, REPLY_TIMEOUT, host))
    }
}

/// The router's end of an attached session.
#[derive(Debug)]
struct Seat {
    id: Id,
    hub: Arc<Hub>,
    queue: Arc<Queue>,
}

impl Host for Seat {
    fn send(&self, message: Message) -> Option<Instant> {
        self.hub.receive(self.id, message)
    }

    fn expire(&self) -> Option<Instant> {
        self.hub.expire(self.id)
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            return Poll::Ready(match ready!(self.queue.poll_pop(context)) {
                Next::Message(Outgoing::One(message)) => Some(message),
                Next::Message(Outgoing::Event(event)) => Some(event.message.clone()),
                Next::Ping => continue,
                Next::End(last, _) => last,
                Next::Overflow => None,
            });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.lose(self.id);
    }
}
