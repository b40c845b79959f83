//! Any WAMP value: what details dictionaries hold and what applications pass when they do not care about raw bytes.
//!
//! Integers are normalised: a non-negative number is always [`Value::Uint`], a negative one [`Value::Int`]. Binary
//! travels over JSON as a string that starts with NUL followed by base64 (WAMP specification, "binary conversion").

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod de;
mod error;
mod ser;
#[cfg(test)]
mod tests;

use de::FromValue;
pub use error::ConvertError;

/// Under this name values read and write themselves, so that a conversion between values, which is not JSON, takes their
/// texts and their binary for what they are.
const NATIVE: &str = "$wamp::Value";

/// String-keyed dictionary: details, options, keyword arguments.
pub type Dict = BTreeMap<String, Value>;

/// One decoded WAMP value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// JSON `null`, MessagePack nil, CBOR null or undefined.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A negative integer. Non-negative ones are [`Value::Uint`].
    Int(i64),
    /// A non-negative integer.
    Uint(u64),
    /// Anything with a fraction or an exponent.
    Float(f64),
    /// Text.
    Str(String),
    /// Binary.
    Bytes(Vec<u8>),
    /// Ordered values.
    List(Vec<Value>),
    /// String-keyed values.
    Dict(Dict),
}

impl Value {
    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A non-negative integer, strictly: a float or a text is `None`. Use `protocol::number` for tolerant reads.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Uint(number) => Some(*number),
            _ => None,
        }
    }

    /// The dictionary, if this is one.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// The list, if this is one.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Member `key` of a dictionary; `None` for anything else.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_dict().and_then(|dict| dict.get(key))
    }

    /// Converts to JSON. Binary becomes NUL + base64 text, a non-finite float becomes null.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Turns any serialisable value into a WAMP value. Bytes become [`Value::Bytes`], everything else is as in JSON.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Value, ConvertError> {
        value.serialize(ser::ToValue)
    }

    /// Reads a typed value out of this one.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConvertError> {
        T::deserialize(FromValue(self.clone()))
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(flag) => Value::Bool(flag),
            serde_json::Value::Number(number) => {
                if let Some(unsigned) = number.as_u64() {
                    Value::Uint(unsigned)
                } else if let Some(signed) = number.as_i64() {
                    Value::Int(signed)
                } else {
                    Value::Float(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            serde_json::Value::String(text) => Value::from(text),
            serde_json::Value::Array(list) => Value::List(list.into_iter().map(Value::from).collect()),
            serde_json::Value::Object(map) => Value::Dict(
                map.into_iter()
                    .map(|(key, value)| (key, Value::from(value)))
                    .collect(),
            ),
        }
    }
}

/// Text from JSON: NUL + base64 is binary, everything else stays text.
pub(crate) fn text_or_binary(text: String) -> Value {
    use base64::Engine as _;
    if let Some(encoded) = text.strip_prefix('\0')
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(encoded)
    {
        return Value::Bytes(bytes);
    }
    Value::Str(text)
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Str(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Str(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Bool(flag)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Uint(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Uint(u64::from(number))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        u64::try_from(number).map_or(Value::Int(number), Value::Uint)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Float(number)
    }
}

impl From<Dict> for Value {
    fn from(dict: Dict) -> Value {
        Value::Dict(dict)
    }
}

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Value {
        Value::List(list)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(flag) => serializer.serialize_bool(*flag),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Uint(number) => serializer.serialize_u64(*number),
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Str(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => {
                if serializer.is_human_readable() {
                    use base64::Engine as _;
                    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
                    serializer.serialize_newtype_struct(NATIVE, &format!("\0{encoded}"))
                } else {
                    serializer.serialize_bytes(bytes)
                }
            }
            Value::List(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                for item in list {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Value::Dict(dict) => {
                let mut map = serializer.serialize_map(Some(dict.len()))?;
                for (key, value) in dict {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        let human_readable = deserializer.is_human_readable();
        deserializer.deserialize_newtype_struct(NATIVE, ValueVisitor { human_readable })
    }
}

struct ValueVisitor {
    human_readable: bool,
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a WAMP value")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let human_readable = deserializer.is_human_readable();
        deserializer.deserialize_any(ValueVisitor { human_readable })
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        <Value as Deserialize>::deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Uint(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(if self.human_readable {
            text_or_binary(text)
        } else {
            Value::Str(text)
        })
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut dict = Dict::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            dict.insert(key, value);
        }
        Ok(Value::Dict(dict))
    }
}
