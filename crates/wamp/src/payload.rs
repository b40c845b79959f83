//! Positional and keyword arguments of a message, kept as encoded bytes until somebody asks.
//!
//! A router forwards a payload between peers of the same codec without ever looking inside; between different codecs
//! it is transcoded once. A client builds payloads from values, before it is known which codec the session speaks.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecError};
use crate::value::{ConvertError, Dict, Value};

mod arguments;

use arguments::Arguments;

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

    /// The arguments that a value stands for: a tuple or a list gives positional ones, a structure or a map keyword
    /// ones, `()` and `None` none, and anything else is a single positional argument. [`Payload::parse`] is the way
    /// back.
    ///
    /// ```
    /// use wamp::{Payload, Value};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Range { from: u32, to: u32 }
    ///
    /// assert_eq!(Payload::of(&(1, "two"))?.args()?, [Value::Uint(1), Value::from("two")]);
    /// let payload = Payload::of(&Range { from: 3, to: 7 })?;
    /// assert_eq!(payload.kwargs()?["to"], Value::Uint(7));
    /// assert_eq!(payload.parse::<Range>()?.from, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Payload, ConvertError> {
        Ok(match Value::from_serialize(value)? {
            Value::Null => Payload::Empty,
            Value::List(args) => Payload::from_args(args),
            Value::Dict(kwargs) => Payload::from_kwargs(kwargs),
            single => Payload::from_args(vec![single]),
        })
    }

    /// The arguments as a typed value, by the rules of [`Payload::of`]. What the type has no use for is ignored, but
    /// for positional arguments beyond a tuple. A structure is also read from a dictionary that is the only positional
    /// argument, which is how many callers send it. For a list that is one argument among others there is
    /// [`Payload::first`].
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConvertError> {
        let malformed = |error: CodecError| ConvertError::new(error.to_string());
        T::deserialize(Arguments {
            args: self.args().map_err(malformed)?,
            kwargs: self.kwargs().map_err(malformed)?,
        })
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
