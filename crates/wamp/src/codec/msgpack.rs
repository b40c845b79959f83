//! MessagePack. An extension value is read as its binary data: WAMP has no such type.

use super::node::{Cursor, Node, big_endian};
use super::{CodecError, Container, Elements, MAX_DEPTH};
use crate::value::{Dict, Value};

pub(super) const EMPTY_LIST: &[u8] = &[0x90];

/// Boundaries of the elements of the one array that `frame` must be.
pub(super) fn split(frame: &[u8]) -> Result<Elements, CodecError> {
    let mut cursor = Cursor::new(frame);
    let count = match cursor.byte()? {
        byte @ 0x90..=0x9f => u64::from(byte & 0x0f),
        0xdc => cursor.unsigned(2)?,
        0xdd => cursor.unsigned(4)?,
        _ => return Err(CodecError::Shape("not an array".to_owned())),
    };
    let mut elements = Elements::default();
    for _ in 0..cursor.check_count(count)? {
        let start = cursor.at();
        item::<()>(&mut cursor, 1)?;
        elements.push(start..cursor.at())?;
    }
    finished(&cursor)?;
    Ok(elements)
}

/// Decodes the one value that `bytes` must be.
pub(super) fn value(bytes: &[u8]) -> Result<Value, CodecError> {
    let mut cursor = Cursor::new(bytes);
    let value = item(&mut cursor, 0)?;
    finished(&cursor)?;
    Ok(value)
}

/// The number, if a checked element is one in its usual form.
pub(super) fn plain_uint(element: &[u8]) -> Option<u64> {
    match element {
        [number @ 0x00..=0x7f] => Some(u64::from(*number)),
        [0xcc..=0xcf, digits @ ..] => Some(big_endian(digits)),
        _ => None,
    }
}

/// The text, if a checked element is one.
pub(super) fn plain_text(element: &[u8]) -> Option<&str> {
    let text = match element {
        [0xa0..=0xbf, text @ ..] | [0xd9, _, text @ ..] | [0xda, _, _, text @ ..] => text,
        _ => return None,
    };
    std::str::from_utf8(text).ok()
}

/// What kind of container a checked element is.
pub(super) fn container(element: &[u8]) -> Container {
    match element {
        [0xc0] => Container::Null,
        [0x90] | [0xdc, 0, 0] | [0xdd, 0, 0, 0, 0] => Container::EmptyList,
        [0x91..=0x9f | 0xdc | 0xdd, ..] => Container::List,
        [0x80] | [0xde, 0, 0] | [0xdf, 0, 0, 0, 0] => Container::EmptyDict,
        [0x81..=0x8f | 0xde | 0xdf, ..] => Container::Dict,
        _ => Container::Other,
    }
}

fn finished(cursor: &Cursor<'_>) -> Result<(), CodecError> {
    match cursor.remaining() {
        0 => Ok(()),
        more => Err(CodecError::Syntax(format!("{more} bytes too many"))),
    }
}

fn item<N: Node>(cursor: &mut Cursor<'_>, depth: usize) -> Result<N, CodecError> {
    let byte = cursor.byte()?;
    match byte {
        0x00..=0x7f => Ok(N::uint(u64::from(byte))),
        0x80..=0x8f => map(cursor, u64::from(byte & 0x0f), depth),
        0x90..=0x9f => list(cursor, u64::from(byte & 0x0f), depth),
        0xa0..=0xbf => Ok(N::text(cursor.text(u64::from(byte & 0x1f))?)),
        0xc0 => Ok(N::null()),
        0xc1 => Err(CodecError::Syntax("the byte 0xc1 is never used".to_owned())),
        0xc2 | 0xc3 => Ok(N::bool(byte == 0xc3)),
        0xc4..=0xc6 => {
            let len = cursor.unsigned(1 << (byte - 0xc4))?;
            Ok(N::binary(cursor.take(len)?))
        }
        0xc7..=0xc9 => {
            let len = cursor.unsigned(1 << (byte - 0xc7))?;
            extension(cursor, len)
        }
        0xca => {
            let bits = u32::try_from(cursor.unsigned(4)?).expect("four bytes fit u32");
            Ok(N::float(f64::from(f32::from_bits(bits))))
        }
        0xcb => Ok(N::float(f64::from_bits(cursor.unsigned(8)?))),
        0xcc..=0xcf => Ok(N::uint(cursor.unsigned(1 << (byte - 0xcc))?)),
        0xd0..=0xd3 => {
            let width = 1 << (byte - 0xd0);
            let unused = 64 - 8 * width;
            // Shift the sign bit up and back down again to extend it.
            let shifted = cursor.unsigned(width)? << unused;
            Ok(N::int(shifted.cast_signed() >> unused))
        }
        0xd4..=0xd8 => extension(cursor, 1 << (byte - 0xd4)),
        0xd9..=0xdb => {
            let len = cursor.unsigned(1 << (byte - 0xd9))?;
            Ok(N::text(cursor.text(len)?))
        }
        0xdc | 0xdd => {
            let count = cursor.unsigned(if byte == 0xdc { 2 } else { 4 })?;
            list(cursor, count, depth)
        }
        0xde | 0xdf => {
            let count = cursor.unsigned(if byte == 0xde { 2 } else { 4 })?;
            map(cursor, count, depth)
        }
        0xe0..=0xff => Ok(N::int(i64::from(byte.cast_signed()))),
    }
}

fn extension<N: Node>(cursor: &mut Cursor<'_>, len: u64) -> Result<N, CodecError> {
    cursor.byte()?;
    Ok(N::binary(cursor.take(len)?))
}

fn list<N: Node>(cursor: &mut Cursor<'_>, count: u64, depth: usize) -> Result<N, CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    let mut list = N::List::default();
    for _ in 0..cursor.check_count(count)? {
        N::push(&mut list, item(cursor, depth + 1)?);
    }
    Ok(N::list(list))
}

fn map<N: Node>(cursor: &mut Cursor<'_>, count: u64, depth: usize) -> Result<N, CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    let mut map = N::Map::default();
    for _ in 0..cursor.check_count(count)? {
        let byte = cursor.byte()?;
        let len = match byte {
            0xa0..=0xbf => u64::from(byte & 0x1f),
            0xd9..=0xdb => cursor.unsigned(1 << (byte - 0xd9))?,
            _ => return Err(CodecError::Syntax("a key is not text".to_owned())),
        };
        let key = cursor.text(len)?;
        let item = item(cursor, depth + 1)?;
        N::insert(&mut map, key, item);
    }
    Ok(N::map(map))
}

/// Header of an array of `count` elements.
pub(super) fn write_array(out: &mut Vec<u8>, count: usize) {
    match count {
        0..=15 => out.push(0x90 | count as u8),
        16..=0xffff => sized(out, 0xdc, count as u64, 2),
        _ => sized(out, 0xdd, count as u64, 4),
    }
}

pub(super) fn write_dict(out: &mut Vec<u8>, dict: &Dict, depth: usize) -> Result<(), CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    match dict.len() {
        count @ 0..=15 => out.push(0x80 | count as u8),
        count @ 16..=0xffff => sized(out, 0xde, count as u64, 2),
        count => sized(out, 0xdf, count as u64, 4),
    }
    for (key, value) in dict {
        write_text(out, key);
        write_value(out, value, depth + 1)?;
    }
    Ok(())
}

pub(super) fn write_list(out: &mut Vec<u8>, list: &[Value], depth: usize) -> Result<(), CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    write_array(out, list.len());
    list.iter().try_for_each(|item| write_value(out, item, depth + 1))
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len @ 32..=0xff => sized(out, 0xd9, len as u64, 1),
        len @ 0x100..=0xffff => sized(out, 0xda, len as u64, 2),
        len => sized(out, 0xdb, len as u64, 4),
    }
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn write_uint(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => sized(out, 0xcc, number, 1),
        0x100..=0xffff => sized(out, 0xcd, number, 2),
        0x1_0000..=0xffff_ffff => sized(out, 0xce, number, 4),
        _ => sized(out, 0xcf, number, 8),
    }
}

fn write_int(out: &mut Vec<u8>, number: i64) {
    let bits = number.cast_unsigned();
    match number {
        0.. => write_uint(out, bits),
        -32..=-1 => out.push(bits as u8),
        -0x80..=-33 => sized(out, 0xd0, bits, 1),
        -0x8000..=-0x81 => sized(out, 0xd1, bits, 2),
        -0x8000_0000..=-0x8001 => sized(out, 0xd2, bits, 4),
        _ => sized(out, 0xd3, bits, 8),
    }
}

pub(super) fn write_null(out: &mut Vec<u8>) {
    out.push(0xc0);
}

fn write_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), CodecError> {
    match value {
        Value::Null => write_null(out),
        Value::Bool(flag) => out.push(0xc2 | u8::from(*flag)),
        Value::Int(number) => write_int(out, *number),
        Value::Uint(number) => write_uint(out, *number),
        Value::Float(number) => sized(out, 0xcb, number.to_bits(), 8),
        Value::Str(text) => write_text(out, text),
        Value::Bytes(bytes) => {
            match bytes.len() {
                len @ 0..=0xff => sized(out, 0xc4, len as u64, 1),
                len @ 0x100..=0xffff => sized(out, 0xc5, len as u64, 2),
                len => sized(out, 0xc6, len as u64, 4),
            }
            out.extend_from_slice(bytes);
        }
        Value::List(list) => write_list(out, list, depth)?,
        Value::Dict(dict) => write_dict(out, dict, depth)?,
    }
    Ok(())
}

/// `tag` followed by the low `width` bytes of `number`, big-endian.
fn sized(out: &mut Vec<u8>, tag: u8, number: u64, width: usize) {
    out.push(tag);
    out.extend_from_slice(&number.to_be_bytes()[8 - width..]);
}
