//! From anything serialisable to a [`Value`], binary included.

use serde::ser::{self, Serialize, Serializer};

use super::{ConvertError, Dict, NATIVE, Value, text_or_binary};

/// Enumerations are said as `serde_json` does: a unit variant is its name, any other a dictionary of one entry.
pub(super) struct ToValue;

pub(super) struct ListBuilder {
    variant: Option<&'static str>,
    list: Vec<Value>,
}

pub(super) struct DictBuilder {
    variant: Option<&'static str>,
    dict: Dict,
    key: String,
}

fn tagged(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        None => value,
        Some(variant) => Value::Dict(Dict::from([(variant.to_owned(), value)])),
    }
}

fn list(variant: Option<&'static str>, len: usize) -> Result<ListBuilder, ConvertError> {
    // The length is what a type says of itself: it is not believed beyond a page.
    let list = Vec::with_capacity(len.min(256));
    Ok(ListBuilder { variant, list })
}

fn dict(variant: Option<&'static str>) -> Result<DictBuilder, ConvertError> {
    Ok(DictBuilder {
        variant,
        dict: Dict::new(),
        key: String::new(),
    })
}

impl Serializer for ToValue {
    type Ok = Value;
    type Error = ConvertError;
    type SerializeSeq = ListBuilder;
    type SerializeTuple = ListBuilder;
    type SerializeTupleStruct = ListBuilder;
    type SerializeTupleVariant = ListBuilder;
    type SerializeMap = DictBuilder;
    type SerializeStruct = DictBuilder;
    type SerializeStructVariant = DictBuilder;

    fn serialize_bool(self, flag: bool) -> Result<Value, ConvertError> {
        Ok(Value::Bool(flag))
    }

    fn serialize_i8(self, number: i8) -> Result<Value, ConvertError> {
        Ok(Value::from(i64::from(number)))
    }

    fn serialize_i16(self, number: i16) -> Result<Value, ConvertError> {
        Ok(Value::from(i64::from(number)))
    }

    fn serialize_i32(self, number: i32) -> Result<Value, ConvertError> {
        Ok(Value::from(i64::from(number)))
    }

    fn serialize_i64(self, number: i64) -> Result<Value, ConvertError> {
        Ok(Value::from(number))
    }

    fn serialize_u8(self, number: u8) -> Result<Value, ConvertError> {
        Ok(Value::Uint(number.into()))
    }

    fn serialize_u16(self, number: u16) -> Result<Value, ConvertError> {
        Ok(Value::Uint(number.into()))
    }

    fn serialize_u32(self, number: u32) -> Result<Value, ConvertError> {
        Ok(Value::Uint(number.into()))
    }

    fn serialize_u64(self, number: u64) -> Result<Value, ConvertError> {
        Ok(Value::Uint(number))
    }

    fn serialize_f32(self, number: f32) -> Result<Value, ConvertError> {
        Ok(Value::Float(number.into()))
    }

    fn serialize_f64(self, number: f64) -> Result<Value, ConvertError> {
        Ok(Value::Float(number))
    }

    fn serialize_char(self, character: char) -> Result<Value, ConvertError> {
        Ok(Value::Str(character.to_string()))
    }

    fn serialize_str(self, text: &str) -> Result<Value, ConvertError> {
        Ok(Value::from(text))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, ConvertError> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn serialize_none(self) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ConvertError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, ConvertError> {
        Ok(Value::from(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, ConvertError> {
        match value.serialize(self)? {
            Value::Str(text) if name == NATIVE => Ok(text_or_binary(text)),
            value => Ok(value),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, ConvertError> {
        Ok(tagged(Some(variant), value.serialize(self)?))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<ListBuilder, ConvertError> {
        list(None, len.unwrap_or_default())
    }

    fn serialize_tuple(self, len: usize) -> Result<ListBuilder, ConvertError> {
        list(None, len)
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<ListBuilder, ConvertError> {
        list(None, len)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<ListBuilder, ConvertError> {
        list(Some(variant), len)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<DictBuilder, ConvertError> {
        dict(None)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<DictBuilder, ConvertError> {
        dict(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<DictBuilder, ConvertError> {
        dict(Some(variant))
    }
}

impl ListBuilder {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        let index = self.list.len();
        let value = value
            .serialize(ToValue)
            .map_err(|error| error.in_element(index))?;
        self.list.push(value);
        Ok(())
    }

    fn finish(self) -> Result<Value, ConvertError> {
        Ok(tagged(self.variant, Value::List(self.list)))
    }
}

impl DictBuilder {
    fn insert<T: Serialize + ?Sized>(&mut self, key: String, value: &T) -> Result<(), ConvertError> {
        let value = value.serialize(ToValue).map_err(|error| error.in_field(&key))?;
        self.dict.insert(key, value);
        Ok(())
    }

    fn finish(self) -> Result<Value, ConvertError> {
        Ok(tagged(self.variant, Value::Dict(self.dict)))
    }
}

/// What serde tells apart and WAMP does not: every one of these is a list.
macro_rules! lists {
    ($($kind:ident :: $element:ident),* $(,)?) => {$(
        impl ser::$kind for ListBuilder {
            type Ok = Value;
            type Error = ConvertError;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
                self.push(value)
            }

            fn end(self) -> Result<Value, ConvertError> {
                self.finish()
            }
        }
    )*};
}

lists! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

impl ser::SerializeMap for DictBuilder {
    type Ok = Value;
    type Error = ConvertError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ConvertError> {
        self.key = match key.serialize(ToValue)? {
            Value::Str(text) => text,
            Value::Uint(number) => number.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Float(_) | Value::Bytes(_) | Value::List(_) | Value::Dict(_) => {
                return Err(ConvertError::new("the key of a dictionary has to be text"));
            }
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        let key = std::mem::take(&mut self.key);
        self.insert(key, value)
    }

    fn end(self) -> Result<Value, ConvertError> {
        self.finish()
    }
}

impl ser::SerializeStruct for DictBuilder {
    type Ok = Value;
    type Error = ConvertError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), ConvertError> {
        self.insert(key.to_owned(), value)
    }

    fn end(self) -> Result<Value, ConvertError> {
        self.finish()
    }
}

impl ser::SerializeStructVariant for DictBuilder {
    type Ok = Value;
    type Error = ConvertError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), ConvertError> {
        self.insert(key.to_owned(), value)
    }

    fn end(self) -> Result<Value, ConvertError> {
        self.finish()
    }
}
