//! Positional and keyword arguments of a message, kept as encoded bytes until somebody asks.
//!
//! A router forwards a payload between peers of the same codec without ever looking inside; between different codecs
//! it is transcoded once. A client builds payloads from values, before it is known which codec the session speaks.

mod typed;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecError};
use crate::value::{ConvertError, Dict, Value};

pub use typed::{Args, FromPayload, IntoPayload, Kwargs, One};

/// Arguments of a CALL, RESULT, EVENT, … Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Payload {
    /// Neither positional nor keyword arguments.
    #[default]
    Empty,
    /// Parts of an incoming frame.
    Raw {
        /// How they are encoded.
        codec: Codec,
        /// One encoded list. Never empty bytes: an absent list is encoded as an empty list.
        args: Bytes,
        /// One encoded dictionary, or empty bytes when the message had none.
        kwargs: Bytes,
    },
    /// Values that no codec has seen yet.
    Values {
        /// Positional arguments.
        args: Vec<Value>,
        /// Keyword arguments.
        kwargs: Dict,
    },
}

impl Payload {
    /// Positional arguments only.
    pub fn from_args(args: Vec<Value>) -> Payload {
        Payload::from_parts(args, Dict::new())
    }

    /// Keyword arguments only.
    pub fn from_kwargs(kwargs: Dict) -> Payload {
        Payload::from_parts(Vec::new(), kwargs)
    }

    /// Both kinds.
    pub fn from_parts(args: Vec<Value>, kwargs: Dict) -> Payload {
        if args.is_empty() && kwargs.is_empty() {
            return Payload::Empty;
        }
        Payload::Values { args, kwargs }
    }

    /// One positional argument, from anything serialisable.
    pub fn one<T: Serialize + ?Sized>(value: &T) -> Result<Payload, ConvertError> {
        Ok(Payload::from_args(vec![Value::from_serialize(value)?]))
    }

    /// The positional arguments, decoded.
    pub fn args(&self) -> Result<Vec<Value>, CodecError> {
        match self {
            Payload::Empty => Ok(Vec::new()),
            Payload::Raw { codec, args, .. } => codec.decode_list(args),
            Payload::Values { args, .. } => Ok(args.clone()),
        }
    }

    /// The keyword arguments, decoded.
    pub fn kwargs(&self) -> Result<Dict, CodecError> {
        match self {
            Payload::Empty => Ok(Dict::new()),
            Payload::Raw { kwargs, .. } if kwargs.is_empty() => Ok(Dict::new()),
            Payload::Raw { codec, kwargs, .. } => codec.decode_dict(kwargs),
            Payload::Values { kwargs, .. } => Ok(kwargs.clone()),
        }
    }

    /// The first positional argument as a typed value; `Ok(None)` when there is none.
    pub fn first<T: DeserializeOwned>(&self) -> Result<Option<T>, CodecError> {
        match self.args()?.first() {
            None => Ok(None),
            Some(value) => value
                .deserialize()
                .map(Some)
                .map_err(|error| CodecError::Syntax(error.to_string())),
        }
    }

    /// Size of the encoded arguments in bytes; 0 for values that were never encoded.
    pub fn encoded_len(&self) -> usize {
        match self {
            Payload::Empty | Payload::Values { .. } => 0,
            Payload::Raw { args, kwargs, .. } => args.len() + kwargs.len(),
        }
    }
}
