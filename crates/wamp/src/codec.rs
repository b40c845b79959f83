//! The wire encodings. Each decodes a frame into a [`Message`] whose payload stays encoded.
//!
//! A frame is walked once: that finds the boundaries of the message's elements and checks every byte, nesting and
//! claimed length included, so that a payload which is only forwarded is known to be well-formed. `shape` knows which
//! elements each message has; `json`, `msgpack` and `cbor` know nothing of messages.

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;

use crate::message::Message;
use crate::payload::Payload;
use crate::value::{Dict, Value};

mod cbor;
mod json;
mod msgpack;
mod node;
mod shape;
#[cfg(test)]
pub(crate) mod tests;

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

/// Deepest nesting that is decoded or encoded, the message's own array included; deeper input is refused before any
/// recursion can hurt.
pub const MAX_DEPTH: usize = 64;

/// Most elements that any message has.
const MAX_ELEMENTS: usize = 7;

/// Where the elements of a message are in its frame.
#[derive(Default)]
struct Elements {
    ranges: [Range<usize>; MAX_ELEMENTS],
    len: usize,
}

impl Elements {
    fn push(&mut self, range: Range<usize>) -> Result<(), CodecError> {
        let slot = self
            .ranges
            .get_mut(self.len)
            .ok_or_else(|| CodecError::Shape("too many elements".to_owned()))?;
        *slot = range;
        self.len += 1;
        Ok(())
    }
}

/// What an element is at first sight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Null,
    EmptyList,
    List,
    EmptyDict,
    Dict,
    Other,
}

/// One element of an outgoing message.
#[derive(Clone, Copy, Default)]
enum Field<'a> {
    Uint(u64),
    Text(&'a str),
    #[default]
    Null,
    Dict(&'a Dict),
    List(&'a [Value]),
    /// Bytes of the target encoding, copied as they are.
    Raw(&'a [u8]),
}

/// The elements of one outgoing message.
#[derive(Default)]
struct Fields<'a> {
    fields: [Field<'a>; MAX_ELEMENTS],
    len: usize,
}

impl<'a> Fields<'a> {
    fn push(&mut self, field: Field<'a>) {
        self.fields[self.len] = field;
        self.len += 1;
    }

    fn extend<const N: usize>(&mut self, fields: [Field<'a>; N]) {
        self.fields[self.len..self.len + N].copy_from_slice(&fields);
        self.len += N;
    }
}

thread_local! {
    /// Where messages are put together whose length is not known before: the frame itself is then allocated in one
    /// piece that fits.
    static DRAFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Longest payload of a message that is put together in the thread's own buffer, which is never given back.
const LONGEST_DRAFT: usize = 4096;

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

    /// Decodes one frame. The payload of the result is a copy of its part of `frame`, still encoded.
    pub fn decode(self, frame: &Bytes) -> Result<Message, CodecError> {
        let elements = match self {
            Codec::Json => json::split(frame),
            Codec::MessagePack => msgpack::split(frame),
            Codec::Cbor => cbor::split(frame),
        }?;
        shape::decode(self, frame, &elements)
    }

    /// Encodes one message. A raw payload of the same codec is copied, one of another codec is transcoded.
    pub fn encode(self, message: &Message) -> Result<Bytes, CodecError> {
        // A payload of another codec becomes values first; they are written like any others.
        let transcoded = match shape::payload(message) {
            Some(payload @ Payload::Raw { codec, .. }) if *codec != self => Some(Payload::Values {
                args: payload.args()?,
                kwargs: payload.kwargs()?,
            }),
            _ => None,
        };
        let payload = transcoded.as_ref().or(shape::payload(message));
        let mut fields = shape::fields(message);
        if let Some(payload) = payload {
            self.push_payload(&mut fields, payload);
        }
        let fields = &fields.fields[..fields.len];
        match payload {
            None | Some(Payload::Empty) => self.draft(fields),
            Some(payload @ Payload::Raw { .. }) if payload.encoded_len() <= LONGEST_DRAFT => {
                self.draft(fields)
            }
            // Values are of unknown length, possibly large.
            Some(payload @ (Payload::Raw { .. } | Payload::Values { .. })) => {
                let mut out = Vec::with_capacity(payload.encoded_len() + 128);
                self.write_fields(&mut out, fields)?;
                Ok(Bytes::from(out))
            }
        }
    }

    fn draft(self, fields: &[Field<'_>]) -> Result<Bytes, CodecError> {
        DRAFT.with_borrow_mut(|out| {
            out.clear();
            self.write_fields(out, fields)?;
            Ok(Bytes::copy_from_slice(out))
        })
    }

    /// Decodes one value that spans all of `bytes`.
    pub fn decode_value(self, bytes: &[u8]) -> Result<Value, CodecError> {
        match self {
            Codec::Json => json::value(bytes),
            Codec::MessagePack => msgpack::value(bytes),
            Codec::Cbor => cbor::value(bytes),
        }
    }

    /// Decodes a list that spans all of `bytes`.
    pub fn decode_list(self, bytes: &[u8]) -> Result<Vec<Value>, CodecError> {
        match self.decode_value(bytes)? {
            Value::List(list) => Ok(list),
            _ => Err(CodecError::Shape("not a list".to_owned())),
        }
    }

    /// Decodes a dictionary that spans all of `bytes`.
    pub fn decode_dict(self, bytes: &[u8]) -> Result<Dict, CodecError> {
        match self.decode_value(bytes)? {
            Value::Dict(dict) => Ok(dict),
            _ => Err(CodecError::Shape("not a dictionary".to_owned())),
        }
    }

    /// Encodes arguments, so that one [`Payload::Raw`] serves many messages of this codec.
    pub fn encode_payload(self, payload: &Payload) -> Result<Payload, CodecError> {
        match payload {
            Payload::Empty => Ok(Payload::Empty),
            Payload::Raw { codec, .. } if *codec == self => Ok(payload.clone()),
            Payload::Raw { .. } => self.encode_parts(&payload.args()?, &payload.kwargs()?),
            Payload::Values { args, kwargs } => self.encode_parts(args, kwargs),
        }
    }

    fn encode_parts(self, args: &[Value], kwargs: &Dict) -> Result<Payload, CodecError> {
        let mut encoded_args = Vec::new();
        self.write_field(&mut encoded_args, &Field::List(args))?;
        let mut encoded_kwargs = Vec::new();
        if !kwargs.is_empty() {
            self.write_field(&mut encoded_kwargs, &Field::Dict(kwargs))?;
        }
        Ok(Payload::Raw {
            codec: self,
            args: Bytes::from(encoded_args),
            kwargs: Bytes::from(encoded_kwargs),
        })
    }

    fn push_payload<'a>(self, fields: &mut Fields<'a>, payload: &'a Payload) {
        match payload {
            Payload::Empty => {}
            Payload::Raw { args, kwargs, .. } => {
                let bare = kwargs.is_empty() || self.container(kwargs) == Container::EmptyDict;
                if !bare {
                    fields.extend([Field::Raw(args), Field::Raw(kwargs)]);
                } else if self.container(args) != Container::EmptyList {
                    fields.push(Field::Raw(args));
                }
            }
            Payload::Values { args, kwargs } => {
                if !kwargs.is_empty() {
                    fields.extend([Field::List(args), Field::Dict(kwargs)]);
                } else if !args.is_empty() {
                    fields.push(Field::List(args));
                }
            }
        }
    }

    fn write_fields(self, out: &mut Vec<u8>, fields: &[Field<'_>]) -> Result<(), CodecError> {
        match self {
            Codec::Json => {
                for (index, field) in fields.iter().enumerate() {
                    out.push(if index == 0 { b'[' } else { b',' });
                    self.write_field(out, field)?;
                }
                out.push(b']');
                return Ok(());
            }
            Codec::MessagePack => msgpack::write_array(out, fields.len()),
            Codec::Cbor => cbor::write_array(out, fields.len()),
        }
        fields.iter().try_for_each(|field| self.write_field(out, field))
    }

    fn write_field(self, out: &mut Vec<u8>, field: &Field<'_>) -> Result<(), CodecError> {
        match (field, self) {
            (Field::Uint(number), Codec::Json) => json::write_uint(out, *number),
            (Field::Uint(number), Codec::MessagePack) => msgpack::write_uint(out, *number),
            (Field::Uint(number), Codec::Cbor) => cbor::write_uint(out, *number),
            (Field::Text(text), Codec::Json) => json::write_text(out, text),
            (Field::Text(text), Codec::MessagePack) => msgpack::write_text(out, text),
            (Field::Text(text), Codec::Cbor) => cbor::write_text(out, text),
            (Field::Null, Codec::Json) => out.extend_from_slice(b"null"),
            (Field::Null, Codec::MessagePack) => msgpack::write_null(out),
            (Field::Null, Codec::Cbor) => cbor::write_null(out),
            (Field::Dict(dict), Codec::Json) => json::write_dict(out, dict, 1)?,
            (Field::Dict(dict), Codec::MessagePack) => msgpack::write_dict(out, dict, 1)?,
            (Field::Dict(dict), Codec::Cbor) => cbor::write_dict(out, dict, 1)?,
            (Field::List(list), Codec::Json) => json::write_list(out, list, 1)?,
            (Field::List(list), Codec::MessagePack) => msgpack::write_list(out, list, 1)?,
            (Field::List(list), Codec::Cbor) => cbor::write_list(out, list, 1)?,
            (Field::Raw(bytes), _) => out.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Decodes an element that [`Codec::decode`] has already been through.
    fn checked_value(self, element: &[u8]) -> Result<Value, CodecError> {
        match self {
            Codec::Json => json::checked_value(element),
            Codec::MessagePack => msgpack::value(element),
            Codec::Cbor => cbor::value(element),
        }
    }

    /// The non-negative integer that a checked element is.
    fn checked_uint(self, element: &[u8]) -> Result<Option<u64>, CodecError> {
        let plain = match self {
            Codec::Json => json::plain_uint(element),
            Codec::MessagePack => msgpack::plain_uint(element),
            Codec::Cbor => cbor::plain_uint(element),
        };
        if plain.is_some() {
            return Ok(plain);
        }
        match self.checked_value(element)? {
            Value::Uint(number) => Ok(Some(number)),
            _ => Ok(None),
        }
    }

    /// The text that a checked element is.
    fn checked_text(self, element: &[u8]) -> Result<Option<String>, CodecError> {
        let plain = match self {
            Codec::Json => return json::text(element),
            Codec::MessagePack => msgpack::plain_text(element),
            Codec::Cbor => cbor::plain_text(element),
        };
        if let Some(text) = plain {
            return Ok(Some(text.to_owned()));
        }
        match self.checked_value(element)? {
            Value::Str(text) => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    fn container(self, element: &[u8]) -> Container {
        match self {
            Codec::Json => json::container(element),
            Codec::MessagePack => msgpack::container(element),
            Codec::Cbor => cbor::container(element),
        }
    }

    fn empty_list(self) -> Bytes {
        Bytes::from_static(match self {
            Codec::Json => json::EMPTY_LIST,
            Codec::MessagePack => msgpack::EMPTY_LIST,
            Codec::Cbor => cbor::EMPTY_LIST,
        })
    }
}
