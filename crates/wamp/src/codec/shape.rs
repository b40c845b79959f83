//! Which elements each message has, in which order and with which bounds: the one place for both directions.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::{Codec, CodecError, Container, Elements, Field, Fields};
use crate::message::{Message, code};
use crate::payload::Payload;
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// The elements of one frame, read by position.
struct Reader<'a> {
    codec: Codec,
    frame: &'a Bytes,
    elements: &'a Elements,
}

pub(super) fn decode(codec: Codec, frame: &Bytes, elements: &Elements) -> Result<Message, CodecError> {
    let reader = Reader {
        codec,
        frame,
        elements,
    };
    if elements.len == 0 {
        return Err(CodecError::Shape("an empty array".to_owned()));
    }
    let code = reader.uint(0, "message type")?;
    reader.check_len(code)?;
    Ok(match code {
        code::HELLO => Message::Hello {
            realm: match reader.container(1) {
                Container::Null => None,
                _ => Some(reader.text(1, "realm")?),
            },
            details: reader.dict(2)?,
        },
        code::WELCOME => Message::Welcome {
            session: reader.id(1)?,
            details: reader.dict(2)?,
        },
        code::ABORT => Message::Abort {
            details: reader.dict(1)?,
            reason: reader.text(2, "reason")?,
            payload: reader.payload(3)?,
        },
        code::CHALLENGE => Message::Challenge {
            method: reader.text(1, "method")?,
            extra: reader.dict(2)?,
        },
        code::AUTHENTICATE => Message::Authenticate {
            signature: reader.text(1, "signature")?,
            // Go clients send null when they have nothing to say.
            extra: match reader.container(2) {
                Container::Null => Dict::new(),
                _ => reader.dict(2)?,
            },
        },
        code::GOODBYE => Message::Goodbye {
            details: reader.dict(1)?,
            reason: reader.text(2, "reason")?,
        },
        code::ERROR => Message::Error {
            request_type: reader.uint(1, "request type")?,
            request: reader.id(2)?,
            details: reader.dict(3)?,
            error: reader.text(4, "error")?,
            payload: reader.payload(5)?,
        },
        code::PUBLISH => Message::Publish {
            request: reader.request()?,
            options: reader.dict(2)?,
            topic: reader.text(3, "topic")?,
            payload: reader.payload(4)?,
        },
        code::PUBLISHED => Message::Published {
            request: reader.id(1)?,
            publication: reader.id(2)?,
        },
        code::SUBSCRIBE => Message::Subscribe {
            request: reader.request()?,
            options: reader.dict(2)?,
            topic: reader.text(3, "topic")?,
        },
        code::SUBSCRIBED => Message::Subscribed {
            request: reader.id(1)?,
            subscription: reader.id(2)?,
        },
        code::UNSUBSCRIBE => Message::Unsubscribe {
            request: reader.request()?,
            subscription: reader.id(2)?,
        },
        code::UNSUBSCRIBED => Message::Unsubscribed {
            request: reader.id(1)?,
            details: reader.optional_dict(2)?,
        },
        code::EVENT => Message::Event {
            subscription: reader.id(1)?,
            publication: reader.id(2)?,
            details: reader.dict(3)?,
            payload: reader.payload(4)?,
        },
        code::CALL => Message::Call {
            request: reader.request()?,
            options: reader.dict(2)?,
            procedure: reader.text(3, "procedure")?,
            payload: reader.payload(4)?,
        },
        code::CANCEL => Message::Cancel {
            request: reader.request()?,
            options: reader.dict(2)?,
        },
        code::RESULT => Message::Result {
            request: reader.id(1)?,
            details: reader.dict(2)?,
            payload: reader.payload(3)?,
        },
        code::REGISTER => Message::Register {
            request: reader.request()?,
            options: reader.dict(2)?,
            procedure: reader.text(3, "procedure")?,
        },
        code::REGISTERED => Message::Registered {
            request: reader.id(1)?,
            registration: reader.id(2)?,
        },
        code::UNREGISTER => Message::Unregister {
            request: reader.request()?,
            registration: reader.id(2)?,
        },
        code::UNREGISTERED => Message::Unregistered {
            request: reader.id(1)?,
            details: reader.optional_dict(2)?,
        },
        code::INVOCATION => Message::Invocation {
            request: reader.id(1)?,
            registration: reader.id(2)?,
            details: reader.dict(3)?,
            payload: reader.payload(4)?,
        },
        code::INTERRUPT => Message::Interrupt {
            request: reader.id(1)?,
            options: reader.dict(2)?,
        },
        code::YIELD => Message::Yield {
            request: reader.id(1)?,
            options: reader.dict(2)?,
            payload: reader.payload(3)?,
        },
        other => return Err(unknown(other)),
    })
}

fn unknown(code: u64) -> CodecError {
    CodecError::Shape(format!("unknown message type {code}"))
}

/// How many elements a message may have, its type code included.
fn lengths(code: u64) -> Option<RangeInclusive<usize>> {
    Some(match code {
        code::HELLO | code::WELCOME | code::CHALLENGE | code::AUTHENTICATE | code::GOODBYE => 3..=3,
        code::ABORT | code::RESULT | code::YIELD => 3..=5,
        code::ERROR => 5..=7,
        code::PUBLISH | code::EVENT | code::CALL | code::INVOCATION => 4..=6,
        code::PUBLISHED
        | code::SUBSCRIBED
        | code::UNSUBSCRIBE
        | code::CANCEL
        | code::REGISTERED
        | code::UNREGISTER
        | code::INTERRUPT => 3..=3,
        code::SUBSCRIBE | code::REGISTER => 4..=4,
        code::UNSUBSCRIBED | code::UNREGISTERED => 2..=3,
        _ => return None,
    })
}

impl Reader<'_> {
    fn check_len(&self, code: u64) -> Result<(), CodecError> {
        let allowed = lengths(code).ok_or_else(|| unknown(code))?;
        if allowed.contains(&self.elements.len) {
            return Ok(());
        }
        let len = self.elements.len;
        Err(CodecError::Shape(format!(
            "{len} elements in message type {code}"
        )))
    }

    fn element(&self, index: usize) -> &[u8] {
        &self.frame[self.elements.ranges[index].clone()]
    }

    fn container(&self, index: usize) -> Container {
        self.codec.container(self.element(index))
    }

    fn uint(&self, index: usize, name: &str) -> Result<u64, CodecError> {
        self.codec
            .checked_uint(self.element(index))?
            .ok_or_else(|| CodecError::Shape(format!("{name} is not a non-negative integer")))
    }

    fn id(&self, index: usize) -> Result<Id, CodecError> {
        match self.uint(index, "id")? {
            id if id <= MAX_ID => Ok(id),
            id => Err(CodecError::Shape(format!("id {id} is out of range"))),
        }
    }

    /// The id that the sender gives to a new request: never 0.
    fn request(&self) -> Result<Id, CodecError> {
        match self.id(1)? {
            0 => Err(CodecError::Shape("request id 0".to_owned())),
            id => Ok(id),
        }
    }

    fn text(&self, index: usize, name: &str) -> Result<String, CodecError> {
        self.codec
            .checked_text(self.element(index))?
            .ok_or_else(|| CodecError::Shape(format!("{name} is not text")))
    }

    fn dict(&self, index: usize) -> Result<Dict, CodecError> {
        match self.container(index) {
            Container::EmptyDict => Ok(Dict::new()),
            Container::Dict => match self.codec.checked_value(self.element(index))? {
                Value::Dict(dict) => Ok(dict),
                _ => Err(not_a_dict()),
            },
            Container::Null | Container::EmptyList | Container::List | Container::Other => Err(not_a_dict()),
        }
    }

    fn optional_dict(&self, index: usize) -> Result<Dict, CodecError> {
        match index < self.elements.len {
            true => self.dict(index),
            false => Ok(Dict::new()),
        }
    }

    /// Arguments at `index` and keyword arguments behind them. Null counts as absent.
    fn payload(&self, index: usize) -> Result<Payload, CodecError> {
        let args = match self.optional(index) {
            Container::Null | Container::EmptyList => None,
            Container::List => Some(self.slice(index)),
            Container::EmptyDict | Container::Dict | Container::Other => {
                return Err(CodecError::Shape("arguments are not a list".to_owned()));
            }
        };
        let kwargs = match self.optional(index + 1) {
            Container::Null | Container::EmptyDict => None,
            Container::Dict => Some(self.slice(index + 1)),
            Container::EmptyList | Container::List | Container::Other => {
                return Err(CodecError::Shape(
                    "keyword arguments are not a dictionary".to_owned(),
                ));
            }
        };
        if args.is_none() && kwargs.is_none() {
            return Ok(Payload::Empty);
        }
        Ok(Payload::Raw {
            codec: self.codec,
            args: args.unwrap_or_else(|| self.codec.empty_list()),
            kwargs: kwargs.unwrap_or_default(),
        })
    }

    fn optional(&self, index: usize) -> Container {
        match index < self.elements.len {
            true => self.container(index),
            false => Container::Null,
        }
    }

    /// A copy: a frame is itself part of a read buffer that may be as long as the longest message so far, and whoever
    /// kept the element would keep all of that. A queue that counts its bytes would count the wrong ones.
    fn slice(&self, index: usize) -> Bytes {
        Bytes::copy_from_slice(self.element(index))
    }
}

fn not_a_dict() -> CodecError {
    CodecError::Shape("details are not a dictionary".to_owned())
}

/// The payload of a message that can have one.
pub(super) fn payload(message: &Message) -> Option<&Payload> {
    match message {
        Message::Abort { payload, .. }
        | Message::Error { payload, .. }
        | Message::Publish { payload, .. }
        | Message::Event { payload, .. }
        | Message::Call { payload, .. }
        | Message::Result { payload, .. }
        | Message::Invocation { payload, .. }
        | Message::Yield { payload, .. } => Some(payload),
        Message::Hello { .. }
        | Message::Welcome { .. }
        | Message::Challenge { .. }
        | Message::Authenticate { .. }
        | Message::Goodbye { .. }
        | Message::Published { .. }
        | Message::Subscribe { .. }
        | Message::Subscribed { .. }
        | Message::Unsubscribe { .. }
        | Message::Unsubscribed { .. }
        | Message::Cancel { .. }
        | Message::Register { .. }
        | Message::Registered { .. }
        | Message::Unregister { .. }
        | Message::Unregistered { .. }
        | Message::Interrupt { .. } => None,
    }
}

/// The elements before the payload.
pub(super) fn fields(message: &Message) -> Fields<'_> {
    use Field::{Dict as Details, Null, Text, Uint};
    let mut fields = Fields::default();
    fields.push(Uint(message.code()));
    match message {
        Message::Hello { realm, details } => {
            fields.extend([realm.as_deref().map_or(Null, Text), Details(details)]);
        }
        Message::Welcome { session, details } => fields.extend([Uint(*session), Details(details)]),
        Message::Abort { details, reason, .. } | Message::Goodbye { details, reason } => {
            fields.extend([Details(details), Text(reason)]);
        }
        Message::Challenge { method: text, extra }
        | Message::Authenticate {
            signature: text,
            extra,
        } => fields.extend([Text(text), Details(extra)]),
        Message::Error {
            request_type,
            request,
            details,
            error,
            ..
        } => fields.extend([Uint(*request_type), Uint(*request), Details(details), Text(error)]),
        Message::Publish {
            request,
            options,
            topic: uri,
            ..
        }
        | Message::Subscribe {
            request,
            options,
            topic: uri,
        }
        | Message::Call {
            request,
            options,
            procedure: uri,
            ..
        }
        | Message::Register {
            request,
            options,
            procedure: uri,
        } => fields.extend([Uint(*request), Details(options), Text(uri)]),
        Message::Published {
            request,
            publication: id,
        }
        | Message::Subscribed {
            request,
            subscription: id,
        }
        | Message::Unsubscribe {
            request,
            subscription: id,
        }
        | Message::Registered {
            request,
            registration: id,
        }
        | Message::Unregister {
            request,
            registration: id,
        } => fields.extend([Uint(*request), Uint(*id)]),
        Message::Unsubscribed { request, details } | Message::Unregistered { request, details } => {
            fields.push(Uint(*request));
            if !details.is_empty() {
                fields.push(Details(details));
            }
        }
        Message::Event {
            subscription: first,
            publication: second,
            details,
            ..
        }
        | Message::Invocation {
            request: first,
            registration: second,
            details,
            ..
        } => fields.extend([Uint(*first), Uint(*second), Details(details)]),
        Message::Cancel { request, options }
        | Message::Interrupt { request, options }
        | Message::Result {
            request,
            details: options,
            ..
        }
        | Message::Yield { request, options, .. } => fields.extend([Uint(*request), Details(options)]),
    }
    fields
}
