//! What the core wants sent: messages addressed to sessions, in order.
//!
//! An EVENT is shared by all receivers of a subscription and encoded once per codec, by whoever needs it first.
//! Knows nothing of sockets.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::codec::{Codec, CodecError};
use crate::message::Message;
use crate::{Id, uri};

/// A message on its way to one session.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    /// For this session alone.
    One(Message),
    /// An EVENT that other sessions get as well.
    Event(Arc<SharedEvent>),
}

impl Outgoing {
    /// The message itself.
    pub(super) fn message(&self) -> &Message {
        match self {
            Outgoing::One(message) => message,
            Outgoing::Event(event) => &event.message,
        }
    }

    /// The frame for a session that speaks `codec`.
    pub(super) fn encode(&self, codec: Codec) -> Result<Bytes, CodecError> {
        match self {
            Outgoing::One(message) => codec.encode(message),
            Outgoing::Event(event) => event.encode(codec),
        }
    }

    /// What the message weighs in a send queue, bytes: its payload, an estimate for values not encoded yet, and a
    /// flat price for everything else. An event's payload counts twice: another receiver may have had it encoded, and
    /// the frame stays with the event.
    pub(super) fn weight(&self) -> usize {
        const FLAT: usize = 128;
        match self.message() {
            Message::Event { payload, .. } => FLAT + 2 * payload.encoded_len(),
            Message::Invocation { payload, .. }
            | Message::Result { payload, .. }
            | Message::Error { payload, .. } => FLAT + payload.encoded_len(),
            _ => FLAT,
        }
    }
}

/// Why a message could not be given to a session whose connection is well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undeliverable {
    /// Its payload has no form in the session's encoding.
    #[error("{0}")]
    Unencodable(CodecError),
    /// It is above what the session takes, bytes.
    #[error("the peer takes no message above {0} bytes")]
    TooLarge(usize),
}

/// An EVENT and its encodings so far.
#[derive(Debug)]
pub(super) struct SharedEvent {
    pub(super) message: Message,
    frames: [OnceLock<Result<Bytes, CodecError>>; 3],
}

impl SharedEvent {
    pub(super) fn new(message: Message) -> SharedEvent {
        SharedEvent {
            message,
            frames: Default::default(),
        }
    }

    fn encode(&self, codec: Codec) -> Result<Bytes, CodecError> {
        let slot = match codec {
            Codec::Json => 0,
            Codec::MessagePack => 1,
            Codec::Cbor => 2,
        };
        self.frames[slot]
            .get_or_init(|| codec.encode(&self.message))
            .clone()
    }
}

/// How a session ends, seen from the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The router says GOODBYE: wait for the peer's answer, bounded, then close.
    Dismissed,
    /// The peer said GOODBYE and this is the answer: close.
    Left,
    /// The peer broke the protocol: close with 1002.
    Violation,
    /// The peer's ABORT: close, nothing to say.
    Aborted,
}

/// One thing to do for a session.
#[derive(Debug)]
pub(super) enum Delivery {
    Send(Outgoing),
    /// The RESULT of `wamp.router.counters`, whose request id this is. The hub makes it, because it knows the queues.
    Counters(Id),
    /// The session has this subscription no more.
    Forget(Id),
    /// The last message, and what follows it. The realm has forgotten the session already.
    End(Option<Message>, Ending),
}

/// Deliveries in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    deliveries: Vec<(Id, Delivery)>,
}

impl Outbox {
    pub(super) fn send(&mut self, session: Id, message: Message) {
        self.deliveries
            .push((session, Delivery::Send(Outgoing::One(message))));
    }

    pub(super) fn send_event(&mut self, session: Id, event: &Arc<SharedEvent>) {
        self.deliveries
            .push((session, Delivery::Send(Outgoing::Event(Arc::clone(event)))));
    }

    pub(super) fn send_counters(&mut self, session: Id, request: Id) {
        self.deliveries.push((session, Delivery::Counters(request)));
    }

    pub(super) fn forget(&mut self, session: Id, subscription: Id) {
        self.deliveries.push((session, Delivery::Forget(subscription)));
    }

    pub(super) fn end(&mut self, session: Id, message: Option<Message>, ending: Ending) {
        self.deliveries.push((session, Delivery::End(message, ending)));
    }

    /// Takes everything collected so far, keeping the capacity.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Id, Delivery)> + '_ {
        self.deliveries.drain(..)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }
}

/// ABORT for a peer that broke the protocol.
pub(super) fn violation(text: &str) -> Message {
    abort(uri::error::PROTOCOL_VIOLATION, text)
}

/// ABORT with a sentence for people.
pub(super) fn abort(reason: &str, text: &str) -> Message {
    Message::Abort {
        details: [("message".to_owned(), text.into())].into(),
        reason: reason.to_owned(),
        payload: crate::Payload::Empty,
    }
}
