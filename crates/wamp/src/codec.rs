//! The wire encodings. Each decodes a frame into a [`Message`] whose payload stays a slice of the frame.

use bytes::Bytes;

use crate::message::Message;
use crate::value::{Dict, Value};

/// A WAMP serialisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// `wamp.2.json`, text frames
    #[default]
    Json,
    /// `wamp.2.msgpack`, binary frames
    MessagePack,
    /// `wamp.2.cbor`, binary frames
    Cbor,
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not well-formed in this encoding.
    #[error("malformed data: {0}")]
    Syntax(String),
    /// Well-formed, but not a message: wrong type, wrong length, id out of range.
    #[error("not a WAMP message: {0}")]
    Shape(String),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested too deeply")]
    Depth,
}

/// Deepest nesting that is decoded; deeper input is refused before any recursion can hurt.
pub const MAX_DEPTH: usize = 64;

impl Codec {
    /// The WebSocket subprotocol name.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Codec::Json => "wamp.2.json",
            Codec::MessagePack => "wamp.2.msgpack",
            Codec::Cbor => "wamp.2.cbor",
        }
    }

    /// The codec of a subprotocol name.
    pub fn from_subprotocol(name: &str) -> Option<Codec> {
        [Codec::Json, Codec::MessagePack, Codec::Cbor]
            .into_iter()
            .find(|codec| codec.subprotocol() == name)
    }

    /// Whether messages travel in binary frames.
    pub fn is_binary(self) -> bool {
        self != Codec::Json
    }

    /// Decodes one frame. The payload of the result borrows (shares) `frame`.
    pub fn decode(self, _frame: &Bytes) -> Result<Message, CodecError> {
        todo!()
    }

    /// Encodes one message. A raw payload of another codec is transcoded.
    pub fn encode(self, _message: &Message) -> Result<Bytes, CodecError> {
        todo!()
    }

    /// Decodes one value that spans all of `bytes`.
    pub fn decode_value(self, _bytes: &[u8]) -> Result<Value, CodecError> {
        todo!()
    }

    /// Decodes a list that spans all of `bytes`.
    pub fn decode_list(self, _bytes: &[u8]) -> Result<Vec<Value>, CodecError> {
        todo!()
    }

    /// Decodes a dictionary that spans all of `bytes`.
    pub fn decode_dict(self, _bytes: &[u8]) -> Result<Dict, CodecError> {
        todo!()
    }
}
