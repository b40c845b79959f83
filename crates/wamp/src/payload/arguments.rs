//! The arguments of a message as one typed value.

use serde::de::{Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use crate::value::{ConvertError, Dict, FromValue, NATIVE, Value, visit_dict, visit_list};

/// The type that is asked for decides what is read: [`Payload::parse`](super::Payload::parse) has the rules.
pub(super) struct Arguments {
    pub(super) args: Vec<Value>,
    pub(super) kwargs: Dict,
}

impl Arguments {
    /// What they are for a type that takes anything.
    fn whole(mut self) -> Value {
        match (self.args.len(), self.kwargs.is_empty()) {
            (0, true) => Value::Null,
            (0, false) => Value::Dict(self.kwargs),
            (1, _) => self.args.swap_remove(0),
            _ => Value::List(self.args),
        }
    }

    /// What stands for a single value.
    fn single<'de, V: Visitor<'de>>(mut self, visitor: &V) -> Result<FromValue, ConvertError> {
        if self.args.is_empty() && !self.kwargs.is_empty() {
            return Ok(FromValue(Value::Dict(self.kwargs)));
        }
        match self.args.len() {
            0 => Err(ConvertError::new(format!(
                "expected {}, got no argument",
                expectation(visitor)
            ))),
            1 => Ok(FromValue(self.args.swap_remove(0))),
            len => Err(ConvertError::invalid_length(len, &"one argument")),
        }
    }

    /// Keyword arguments; callers of other languages may send them as the only positional one.
    fn named(self) -> Result<Dict, ConvertError> {
        if !self.kwargs.is_empty() {
            return Ok(self.kwargs);
        }
        match <[Value; 1]>::try_from(self.args) {
            Ok([Value::Dict(dict)]) => Ok(dict),
            Ok([_]) => Err(ConvertError::new("expected keyword arguments")),
            // Fields may all be optional.
            Err(args) if args.is_empty() => Ok(Dict::new()),
            Err(_) => Err(ConvertError::new("expected keyword arguments")),
        }
    }
}

/// What a visitor says that it expects.
fn expectation<'de, V: Visitor<'de>>(visitor: &V) -> String {
    (visitor as &dyn serde::de::Expected).to_string()
}

macro_rules! single_values {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
            self.single(&visitor)?.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Arguments {
    type Error = ConvertError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        FromValue(self.whole()).deserialize_any(visitor)
    }

    single_values! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        self.single(&visitor)?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        match (self.args.as_slice(), self.kwargs.is_empty()) {
            ([] | [Value::Null], true) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        match name {
            NATIVE => FromValue(self.whole()).deserialize_newtype_struct(name, visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        visit_list(self.args, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ConvertError> {
        visit_list(self.args, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        visit_list(self.args, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        visit_dict(self.named()?, &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        visit_dict(self.named()?, fields, visitor)
    }

    forward_to_deserialize_any! { i128 u128 identifier ignored_any }
}
