//! Arguments as types of one's own, by serde: [`Args`] for the positional ones, [`Kwargs`] for those with names, [`One`]
//! for a single positional one.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Payload;
use crate::codec::CodecError;
use crate::value::Value;

/// All positional arguments: a tuple, a list, or a struct whose fields are told by their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Args<T>(pub T);

/// All keyword arguments: a struct with named fields, or a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kwargs<T>(pub T);

/// The only positional argument; further ones are ignored when reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct One<T>(pub T);

/// What can be sent as arguments, a result or an event.
pub trait IntoPayload {
    /// Fails when the type has no form as arguments of its kind: a map as positional ones, a list as named ones.
    fn into_payload(self) -> Result<Payload, CodecError>;
}

/// What arguments, a result or an event can be read as.
pub trait FromPayload: Sized {
    /// Fails when something is missing or of another type; the text says what was expected and never what was there.
    fn from_payload(payload: &Payload) -> Result<Self, CodecError>;
}

fn value<T: Serialize>(value: &T) -> Result<Value, CodecError> {
    Value::from_serialize(value).map_err(|error| CodecError::Syntax(error.to_string()))
}

/// Says which argument it is, where and what was expected: the text travels back to the peer.
fn read<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, CodecError> {
    let expected = std::any::type_name::<T>();
    value
        .deserialize()
        .map_err(|error| CodecError::Syntax(format!("{what} do not fit {expected}: {error}")))
}

impl<T: Serialize> IntoPayload for Args<T> {
    fn into_payload(self) -> Result<Payload, CodecError> {
        match value(&self.0)? {
            Value::List(args) => Ok(Payload::from_args(args)),
            Value::Null => Ok(Payload::Empty),
            _ => Err(CodecError::Syntax(
                "positional arguments have to be a tuple or a list".to_owned(),
            )),
        }
    }
}

impl<T: DeserializeOwned> FromPayload for Args<T> {
    fn from_payload(payload: &Payload) -> Result<Args<T>, CodecError> {
        let args = Value::List(payload.args()?);
        read(&args, "the positional arguments").map(Args)
    }
}

impl<T: Serialize> IntoPayload for Kwargs<T> {
    fn into_payload(self) -> Result<Payload, CodecError> {
        match value(&self.0)? {
            Value::Dict(kwargs) => Ok(Payload::from_kwargs(kwargs)),
            _ => Err(CodecError::Syntax(
                "keyword arguments have to be a struct or a map".to_owned(),
            )),
        }
    }
}

impl<T: DeserializeOwned> FromPayload for Kwargs<T> {
    fn from_payload(payload: &Payload) -> Result<Kwargs<T>, CodecError> {
        let kwargs = Value::Dict(payload.kwargs()?);
        read(&kwargs, "the keyword arguments").map(Kwargs)
    }
}

impl<T: Serialize> IntoPayload for One<T> {
    fn into_payload(self) -> Result<Payload, CodecError> {
        Ok(Payload::from_args(vec![value(&self.0)?]))
    }
}

impl<T: DeserializeOwned> FromPayload for One<T> {
    fn from_payload(payload: &Payload) -> Result<One<T>, CodecError> {
        // Nothing at all is read like null: an `Option` takes both.
        let args = payload.args()?;
        read(args.first().unwrap_or(&Value::Null), "the argument").map(One)
    }
}

/// Nothing.
impl IntoPayload for () {
    fn into_payload(self) -> Result<Payload, CodecError> {
        Ok(Payload::Empty)
    }
}

/// Whatever there is, unread.
impl FromPayload for () {
    fn from_payload(_: &Payload) -> Result<(), CodecError> {
        Ok(())
    }
}

/// As it is.
impl IntoPayload for Payload {
    fn into_payload(self) -> Result<Payload, CodecError> {
        Ok(self)
    }
}

/// As it is.
impl FromPayload for Payload {
    fn from_payload(payload: &Payload) -> Result<Payload, CodecError> {
        Ok(payload.clone())
    }
}

/// Both kinds.
impl<A: Serialize, K: Serialize> IntoPayload for (Args<A>, Kwargs<K>) {
    fn into_payload(self) -> Result<Payload, CodecError> {
        let args = self.0.into_payload()?.args()?;
        let kwargs = self.1.into_payload()?.kwargs()?;
        Ok(Payload::from_parts(args, kwargs))
    }
}

/// Both kinds.
impl<A: DeserializeOwned, K: DeserializeOwned> FromPayload for (Args<A>, Kwargs<K>) {
    fn from_payload(payload: &Payload) -> Result<(Args<A>, Kwargs<K>), CodecError> {
        Ok((Args::from_payload(payload)?, Kwargs::from_payload(payload)?))
    }
}

impl Payload {
    /// The arguments as a type: `payload.parse::<Args<(String, u64)>>()`.
    pub fn parse<T: FromPayload>(&self) -> Result<T, CodecError> {
        T::from_payload(self)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::codec::Codec;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Reading {
        sensor: String,
        celsius: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }

    fn reading() -> Reading {
        Reading {
            sensor: "boiler".to_owned(),
            celsius: 61.5,
            note: None,
        }
    }

    #[test]
    fn what_goes_in_comes_out_with_every_codec() {
        for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
            let travelled = |payload: Payload| codec.encode_payload(&payload).unwrap();
            let args = travelled(Args((1_i64, "two", None::<u8>)).into_payload().unwrap());
            let Args((one, two, three)): Args<(i64, String, Option<u8>)> = args.parse().unwrap();
            assert_eq!((one, two.as_str(), three), (1, "two", None));

            let kwargs = travelled(Kwargs(reading()).into_payload().unwrap());
            assert_eq!(kwargs.parse::<Kwargs<Reading>>().unwrap(), Kwargs(reading()));

            let one = travelled(One(reading()).into_payload().unwrap());
            assert_eq!(one.parse::<One<Reading>>().unwrap(), One(reading()));

            let both = travelled((Args(vec![1, 2]), Kwargs(reading())).into_payload().unwrap());
            let (Args(list), Kwargs(named)) = both.parse::<(Args<Vec<u8>>, Kwargs<Reading>)>().unwrap();
            assert_eq!((list, named), (vec![1, 2], reading()));
        }
    }

    #[test]
    fn nothing_is_read_as_nothing() {
        assert_eq!(
            Payload::Empty.parse::<Args<()>>().ok(),
            None,
            "() is null, not an empty list"
        );
        assert_eq!(Payload::Empty.parse::<Args<[u8; 0]>>().unwrap(), Args([]));
        assert_eq!(Payload::Empty.parse::<One<Option<u8>>>().unwrap(), One(None));
        Payload::from_args(vec![1_u64.into()]).parse::<()>().unwrap();
        assert_eq!(().into_payload().unwrap(), Payload::Empty);
    }

    #[test]
    fn binary_is_binary_for_types_too() {
        let args = Args((Value::Bytes(vec![0, 255]), Value::from("\0AP8="), f64::INFINITY));
        let payload = args.clone().into_payload().unwrap();
        assert_eq!(payload.args().unwrap()[..2], [args.0.0.clone(), args.0.1.clone()]);
        assert_eq!(payload.parse::<Args<(Value, Value, f64)>>().unwrap(), args);
        for codec in [Codec::MessagePack, Codec::Cbor] {
            let travelled = codec.encode_payload(&payload).unwrap();
            assert_eq!(travelled.parse::<Args<(Value, Value, f64)>>().unwrap(), args);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_without_being_quoted() {
        let secret = Args(("hunter2",)).into_payload().unwrap();
        let error = secret.parse::<Args<(u64,)>>().unwrap_err().to_string();
        assert!(
            error.ends_with("the positional arguments do not fit (u64,): [0]: expected u64, got text"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
        assert!(secret.parse::<Kwargs<Reading>>().is_err());
        assert!(Args(reading()).into_payload().is_err());
        assert!(Kwargs(vec![1]).into_payload().is_err());
    }
}
