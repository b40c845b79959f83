//! What a session hangs on: a connection that carries frames, or the router in the same process, which takes messages.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::{Codec, CodecError};
use crate::message::Message;
use crate::payload::Payload;
use crate::transport::{FrameStream, Incoming, TransportError};

/// A router in the same process, seen from one of its sessions. Dropping the last handle ends the session.
pub(crate) trait Host: std::fmt::Debug + Send + Sync {
    /// Hands a message over, which is routed before this returns. Gives the time at which [`Host::expire`] is due.
    fn send(&self, message: Message) -> Option<Instant>;

    /// Ends the calls whose time is up; gives the next time.
    fn expire(&self) -> Option<Instant>;

    /// The next message for the session; `None` when the router has ended it.
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Option<Message>>;
}

/// The shape in which messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Encoded(Codec),
    /// As they are: the router is in this process.
    Plain,
}

/// A message in the shape in which it travels.
#[derive(Debug)]
pub(super) enum Parcel {
    Frame(Bytes),
    Message(Message),
}

impl Form {
    pub(super) fn codec(self) -> Option<Codec> {
        match self {
            Form::Encoded(codec) => Some(codec),
            Form::Plain => None,
        }
    }

    pub(super) fn pack(self, message: &Message) -> Result<Parcel, CodecError> {
        Ok(match self {
            Form::Encoded(codec) => Parcel::Frame(codec.encode(message)?),
            Form::Plain => Parcel::Message(message.clone()),
        })
    }

    /// Encodes arguments, where they will be needed encoded.
    pub(super) fn pack_payload(self, payload: &Payload) -> Result<Payload, CodecError> {
        match self {
            Form::Encoded(codec) => codec.encode_payload(payload),
            Form::Plain => Ok(payload.clone()),
        }
    }
}

impl Parcel {
    /// Bytes on the wire; 0 without one.
    pub(super) fn len(&self) -> usize {
        match self {
            Parcel::Frame(frame) => frame.len(),
            Parcel::Message(_) => 0,
        }
    }
}

/// Where a session's messages come from.
#[derive(Debug)]
pub(super) enum Source {
    Frames(FrameStream),
    Host(Arc<dyn Host>),
}

/// What comes in.
#[derive(Debug)]
pub(super) enum Received {
    Incoming(Incoming),
    Message(Message),
}

impl Source {
    /// The next thing from the router; `None` when it has hung up in good order. May be abandoned and called again.
    pub(super) async fn next(&mut self) -> Option<Result<Received, TransportError>> {
        match self {
            Source::Frames(stream) => Some(stream.next().await?.map(Received::Incoming)),
            Source::Host(host) => {
                let message = poll_fn(|context| host.poll_receive(context)).await?;
                Some(Ok(Received::Message(message)))
            }
        }
    }
}
