//! CBOR (RFC 8949), definite and indefinite lengths. Tags are looked through; big numbers (tags 2 and 3) and negative
//! integers below 64 bits become floats, as the same numbers do in JSON.

use super::node::{Cursor, Node, big_endian};
use super::{CodecError, Container, Elements, MAX_DEPTH};
use crate::value::{Dict, Value};

pub(super) const EMPTY_LIST: &[u8] = &[0x80];

const BREAK: u8 = 0xff;

/// Boundaries of the elements of the one array that `frame` must be.
pub(super) fn split(frame: &[u8]) -> Result<Elements, CodecError> {
    let mut cursor = Cursor::new(frame);
    let first = cursor.byte()?;
    if first >> 5 != 4 {
        return Err(CodecError::Shape("not an array".to_owned()));
    }
    let count = argument(&mut cursor, first & 0x1f)?;
    let mut elements = Elements::default();
    let mut items = Items::new(&cursor, count)?;
    while items.more(&mut cursor)? {
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

/// The number, if a checked element is one without a tag.
pub(super) fn plain_uint(element: &[u8]) -> Option<u64> {
    match element {
        [number @ 0x00..=0x17] => Some(u64::from(*number)),
        [0x18..=0x1b, digits @ ..] => Some(big_endian(digits)),
        _ => None,
    }
}

/// The text, if a checked element is one in one piece and without a tag.
pub(super) fn plain_text(element: &[u8]) -> Option<&str> {
    let text = match element {
        [0x60..=0x77, text @ ..] | [0x78, _, text @ ..] | [0x79, _, _, text @ ..] => text,
        _ => return None,
    };
    std::str::from_utf8(text).ok()
}

/// What kind of container a checked element is.
pub(super) fn container(element: &[u8]) -> Container {
    match element {
        [0xf6 | 0xf7] => Container::Null,
        [0x80] | [0x9f, BREAK] => Container::EmptyList,
        [0x98..=0x9b, zeros @ ..] if zeros.iter().all(|byte| *byte == 0) => Container::EmptyList,
        [0x81..=0x9f, ..] => Container::List,
        [0xa0] | [0xbf, BREAK] => Container::EmptyDict,
        [0xb8..=0xbb, zeros @ ..] if zeros.iter().all(|byte| *byte == 0) => Container::EmptyDict,
        [0xa1..=0xbf, ..] => Container::Dict,
        _ => Container::Other,
    }
}

fn finished(cursor: &Cursor<'_>) -> Result<(), CodecError> {
    match cursor.remaining() {
        0 => Ok(()),
        more => Err(CodecError::Syntax(format!("{more} bytes too many"))),
    }
}

/// The argument of an initial byte; `None` is the indefinite length.
fn argument(cursor: &mut Cursor<'_>, info: u8) -> Result<Option<u64>, CodecError> {
    match info {
        0..=23 => Ok(Some(u64::from(info))),
        24..=27 => Ok(Some(cursor.unsigned(1 << (info - 24))?)),
        31 => Ok(None),
        _ => Err(malformed()),
    }
}

/// Counts through the items of a container of either kind of length.
struct Items {
    left: Option<u64>,
}

impl Items {
    fn new(cursor: &Cursor<'_>, count: Option<u64>) -> Result<Items, CodecError> {
        let left = count.map(|count| cursor.check_count(count)).transpose()?;
        Ok(Items { left })
    }

    fn more(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, CodecError> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if cursor.peek()? == BREAK => {
                cursor.byte()?;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

fn item<N: Node>(cursor: &mut Cursor<'_>, depth: usize) -> Result<N, CodecError> {
    let first = cursor.byte()?;
    let info = first & 0x1f;
    match first >> 5 {
        0 => Ok(N::uint(argument(cursor, info)?.ok_or_else(malformed)?)),
        1 => {
            let below = argument(cursor, info)?.ok_or_else(malformed)?;
            Ok(match i64::try_from(below) {
                Ok(below) => N::int(-1 - below),
                Err(_) => N::float(-1.0 - below as f64),
            })
        }
        2 => match argument(cursor, info)? {
            Some(len) => Ok(N::binary(cursor.take(len)?)),
            None => Ok(N::binary(&chunks(cursor, 2)?)),
        },
        3 => match argument(cursor, info)? {
            Some(len) => Ok(N::text(cursor.text(len)?)),
            None => Ok(N::text(&text_chunks(cursor)?)),
        },
        4 => {
            let count = argument(cursor, info)?;
            list(cursor, count, depth)
        }
        5 => {
            let count = argument(cursor, info)?;
            map(cursor, count, depth)
        }
        6 => match argument(cursor, info)?.ok_or_else(malformed)? {
            tag @ (2 | 3) => big_number(cursor, tag == 3),
            // A tag nests like a container does: a chain of tags must not recurse without bound.
            _ if depth >= MAX_DEPTH => Err(CodecError::Depth),
            _ => item(cursor, depth + 1),
        },
        _ => simple(cursor, info),
    }
}

fn simple<N: Node>(cursor: &mut Cursor<'_>, info: u8) -> Result<N, CodecError> {
    match info {
        20 | 21 => Ok(N::bool(info == 21)),
        22 | 23 => Ok(N::null()),
        25 => Ok(N::float(half(cursor.unsigned(2)?))),
        26 => {
            let bits = u32::try_from(cursor.unsigned(4)?).expect("four bytes fit u32");
            Ok(N::float(f64::from(f32::from_bits(bits))))
        }
        27 => Ok(N::float(f64::from_bits(cursor.unsigned(8)?))),
        _ => Err(malformed()),
    }
}

/// A half-precision float (RFC 8949, appendix D).
fn half(bits: u64) -> f64 {
    let exponent = (bits >> 10) & 0x1f;
    let mantissa = (bits & 0x3ff) as f64;
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent as i32 - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

fn big_number<N: Node>(cursor: &mut Cursor<'_>, negative: bool) -> Result<N, CodecError> {
    let first = cursor.byte()?;
    if first >> 5 != 2 {
        return Err(malformed());
    }
    let len = argument(cursor, first & 0x1f)?.ok_or_else(malformed)?;
    let bytes = cursor.take(len)?;
    let magnitude = bytes
        .iter()
        .fold(0.0, |number, byte| number * 256.0 + f64::from(*byte));
    Ok(N::float(if negative { -1.0 - magnitude } else { magnitude }))
}

/// The pieces of an indefinite-length string of `major` type, joined.
fn chunks(cursor: &mut Cursor<'_>, major: u8) -> Result<Vec<u8>, CodecError> {
    let mut joined = Vec::new();
    loop {
        let first = cursor.byte()?;
        if first == BREAK {
            return Ok(joined);
        }
        if first >> 5 != major {
            return Err(malformed());
        }
        let len = argument(cursor, first & 0x1f)?.ok_or_else(malformed)?;
        joined.extend_from_slice(cursor.take(len)?);
    }
}

fn text_chunks(cursor: &mut Cursor<'_>) -> Result<String, CodecError> {
    String::from_utf8(chunks(cursor, 3)?).map_err(|_| CodecError::Syntax("text is not UTF-8".to_owned()))
}

fn list<N: Node>(cursor: &mut Cursor<'_>, count: Option<u64>, depth: usize) -> Result<N, CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    let mut list = N::List::default();
    let mut items = Items::new(cursor, count)?;
    while items.more(cursor)? {
        N::push(&mut list, item(cursor, depth + 1)?);
    }
    Ok(N::list(list))
}

fn map<N: Node>(cursor: &mut Cursor<'_>, count: Option<u64>, depth: usize) -> Result<N, CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    let mut map = N::Map::default();
    let mut items = Items::new(cursor, count)?;
    while items.more(cursor)? {
        let first = cursor.byte()?;
        if first >> 5 != 3 {
            return Err(CodecError::Syntax("a key is not text".to_owned()));
        }
        match argument(cursor, first & 0x1f)? {
            Some(len) => {
                let key = cursor.text(len)?;
                let item = item(cursor, depth + 1)?;
                N::insert(&mut map, key, item);
            }
            None => {
                let key = text_chunks(cursor)?;
                let item = item(cursor, depth + 1)?;
                N::insert(&mut map, &key, item);
            }
        }
    }
    Ok(N::map(map))
}

fn malformed() -> CodecError {
    CodecError::Syntax("not valid CBOR".to_owned())
}

/// Header of an array of `count` elements.
pub(super) fn write_array(out: &mut Vec<u8>, count: usize) {
    header(out, 4, count as u64);
}

pub(super) fn write_dict(out: &mut Vec<u8>, dict: &Dict, depth: usize) -> Result<(), CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    header(out, 5, dict.len() as u64);
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
    header(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn write_uint(out: &mut Vec<u8>, number: u64) {
    header(out, 0, number);
}

pub(super) fn write_null(out: &mut Vec<u8>) {
    out.push(0xf6);
}

fn write_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), CodecError> {
    match value {
        Value::Null => write_null(out),
        Value::Bool(flag) => out.push(0xf4 | u8::from(*flag)),
        Value::Int(number) => match u64::try_from(*number) {
            Ok(number) => header(out, 0, number),
            // The complement of a negative number is its distance below -1.
            Err(_) => header(out, 1, (!*number).cast_unsigned()),
        },
        Value::Uint(number) => write_uint(out, *number),
        Value::Float(number) => {
            out.push(0xfb);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Str(text) => write_text(out, text),
        Value::Bytes(bytes) => {
            header(out, 2, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Value::List(list) => write_list(out, list, depth)?,
        Value::Dict(dict) => write_dict(out, dict, depth)?,
    }
    Ok(())
}

fn header(out: &mut Vec<u8>, major: u8, number: u64) {
    let major = major << 5;
    let bytes = number.to_be_bytes();
    match number {
        0..=23 => out.push(major | number as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, number as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}
