//! What a parser produces, so that one parser per encoding both checks and decodes: whatever the check accepts can be
//! decoded later, because it is the same code. Also the byte cursor that both binary parsers read from.

use super::CodecError;
use crate::value::{Dict, Value};

/// The result of parsing one item: a [`Value`], or `()` when only the boundaries matter.
pub(super) trait Node: Sized {
    type List: Default;
    type Map: Default;

    fn null() -> Self;
    fn bool(flag: bool) -> Self;
    fn uint(number: u64) -> Self;
    fn int(number: i64) -> Self;
    fn float(number: f64) -> Self;
    fn text(text: &str) -> Self;
    fn binary(bytes: &[u8]) -> Self;
    fn push(list: &mut Self::List, item: Self);
    fn list(list: Self::List) -> Self;
    fn insert(map: &mut Self::Map, key: &str, item: Self);
    fn map(map: Self::Map) -> Self;
}

impl Node for () {
    type List = ();
    type Map = ();

    fn null() {}
    fn bool(_: bool) {}
    fn uint(_: u64) {}
    fn int(_: i64) {}
    fn float(_: f64) {}
    fn text(_: &str) {}
    fn binary(_: &[u8]) {}
    fn push(_: &mut (), _: ()) {}
    fn list(_: ()) {}
    fn insert(_: &mut (), _: &str, _: ()) {}
    fn map(_: ()) {}
}

impl Node for Value {
    // Grown as items arrive: a header may claim any number of them.
    type List = Vec<Value>;
    type Map = Dict;

    fn null() -> Value {
        Value::Null
    }
    fn bool(flag: bool) -> Value {
        Value::Bool(flag)
    }
    fn uint(number: u64) -> Value {
        Value::Uint(number)
    }
    fn int(number: i64) -> Value {
        Value::from(number)
    }
    fn float(number: f64) -> Value {
        Value::Float(number)
    }
    fn text(text: &str) -> Value {
        Value::Str(text.to_owned())
    }
    fn binary(bytes: &[u8]) -> Value {
        Value::Bytes(bytes.to_vec())
    }
    fn push(list: &mut Vec<Value>, item: Value) {
        list.push(item);
    }
    fn list(list: Vec<Value>) -> Value {
        Value::List(list)
    }
    fn insert(map: &mut Dict, key: &str, item: Value) {
        map.insert(key.to_owned(), item);
    }
    fn map(map: Dict) -> Value {
        Value::Dict(map)
    }
}

/// A position in a byte string. Reading past the end is an error, never a panic.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub(super) fn peek(&self) -> Result<u8, CodecError> {
        self.bytes.get(self.at).copied().ok_or_else(truncated)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], CodecError> {
        let len = usize::try_from(len).map_err(|_| truncated())?;
        let end = self.at.checked_add(len).ok_or_else(truncated)?;
        let slice = self.bytes.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(slice)
    }

    #[inline]
    pub(super) fn text(&mut self, len: u64) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.take(len)?).map_err(|_| CodecError::Syntax("text is not UTF-8".to_owned()))
    }

    /// A big-endian unsigned integer of `width` bytes (1, 2, 4 or 8).
    pub(super) fn unsigned(&mut self, width: u64) -> Result<u64, CodecError> {
        Ok(big_endian(self.take(width)?))
    }

    /// Refuses a count of items that the remaining bytes cannot hold, at one byte for each at least.
    pub(super) fn check_count(&self, count: u64) -> Result<u64, CodecError> {
        if count > self.remaining() as u64 {
            return Err(truncated());
        }
        Ok(count)
    }
}

/// The number that up to eight bytes are.
#[inline]
pub(super) fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

pub(super) fn truncated() -> CodecError {
    CodecError::Syntax("the data ends too early".to_owned())
}
