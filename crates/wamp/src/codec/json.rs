//! JSON. A scanner of our own finds element boundaries and refuses everything that `serde_json` would refuse later,
//! so that a forwarded payload is known to be readable; values themselves are read and written by `serde_json`.

use std::io::Write as _;

use super::{CodecError, Container, Elements, MAX_DEPTH};
use crate::value::{Dict, Value};

pub(super) const EMPTY_LIST: &[u8] = b"[]";

/// Boundaries of the elements of the one array that `frame` must be.
pub(super) fn split(frame: &[u8]) -> Result<Elements, CodecError> {
    check_utf8(frame)?;
    let mut scanner = Scanner { bytes: frame, at: 0 };
    scanner.space();
    if scanner.next()? != b'[' {
        return Err(CodecError::Shape("not an array".to_owned()));
    }
    let mut elements = Elements::default();
    scanner.space();
    if scanner.peek()? == b']' {
        scanner.at += 1;
    } else {
        loop {
            scanner.space();
            let start = scanner.at;
            scanner.item(1)?;
            elements.push(start..scanner.at)?;
            if !scanner.another(b']')? {
                break;
            }
        }
    }
    scanner.finished()?;
    Ok(elements)
}

/// Decodes the one value that `bytes` must be.
pub(super) fn value(bytes: &[u8]) -> Result<Value, CodecError> {
    check_utf8(bytes)?;
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.space();
    scanner.item(0)?;
    scanner.finished()?;
    checked_value(bytes)
}

/// Decodes an element that [`split`] has already been through.
pub(super) fn checked_value(element: &[u8]) -> Result<Value, CodecError> {
    serde_json::from_slice(element).map_err(|error| CodecError::Syntax(error.to_string()))
}

/// The number, if a checked element is one without sign, fraction and exponent that fits.
pub(super) fn plain_uint(element: &[u8]) -> Option<u64> {
    element.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The text, if a checked element is one. Where a message has text, text it is: only among arguments and details does
/// NUL at the beginning make it binary.
pub(super) fn text(element: &[u8]) -> Result<Option<String>, CodecError> {
    let syntax = |error: &dyn std::fmt::Display| CodecError::Syntax(error.to_string());
    match element {
        [b'"', text @ .., b'"'] if !text.contains(&b'\\') => match std::str::from_utf8(text) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => Err(syntax(&error)),
        },
        [b'"', ..] => match serde_json::from_slice(element) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(syntax(&error)),
        },
        _ => Ok(None),
    }
}

/// What kind of container a checked element is.
pub(super) fn container(element: &[u8]) -> Container {
    let empty = |inner: &[u8]| inner.iter().all(u8::is_ascii_whitespace);
    match element {
        b"null" => Container::Null,
        [b'[', inner @ .., b']'] if empty(inner) => Container::EmptyList,
        [b'[', ..] => Container::List,
        [b'{', inner @ .., b'}'] if empty(inner) => Container::EmptyDict,
        [b'{', ..] => Container::Dict,
        _ => Container::Other,
    }
}

fn check_utf8(bytes: &[u8]) -> Result<(), CodecError> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(CodecError::Syntax("text is not UTF-8".to_owned())),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Result<u8, CodecError> {
        self.bytes
            .get(self.at)
            .copied()
            .ok_or_else(|| CodecError::Syntax("the data ends too early".to_owned()))
    }

    fn next(&mut self) -> Result<u8, CodecError> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn finished(&mut self) -> Result<(), CodecError> {
        self.space();
        if self.at == self.bytes.len() {
            return Ok(());
        }
        Err(self.unexpected(self.bytes.len() - self.at, "bytes too many"))
    }

    fn unexpected(&self, count: usize, what: &str) -> CodecError {
        CodecError::Syntax(format!("{count} {what} at offset {}", self.at))
    }

    fn malformed(&self) -> CodecError {
        CodecError::Syntax(format!("not valid JSON at offset {}", self.at))
    }

    /// After an item: whether a comma says that another follows. Consumes the comma or `close`.
    fn another(&mut self, close: u8) -> Result<bool, CodecError> {
        self.space();
        match self.next()? {
            b',' => Ok(true),
            byte if byte == close => Ok(false),
            _ => Err(self.malformed()),
        }
    }

    fn item(&mut self, depth: usize) -> Result<(), CodecError> {
        match self.peek()? {
            b'[' | b'{' if depth >= MAX_DEPTH => Err(CodecError::Depth),
            b'[' => {
                self.at += 1;
                self.space();
                if self.peek()? == b']' {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.space();
                    self.item(depth + 1)?;
                    if !self.another(b']')? {
                        return Ok(());
                    }
                }
            }
            b'{' => {
                self.at += 1;
                self.space();
                if self.peek()? == b'}' {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.space();
                    if self.peek()? != b'"' {
                        return Err(self.malformed());
                    }
                    self.string()?;
                    self.space();
                    if self.next()? != b':' {
                        return Err(self.malformed());
                    }
                    self.space();
                    self.item(depth + 1)?;
                    if !self.another(b'}')? {
                        return Ok(());
                    }
                }
            }
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => Err(self.malformed()),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), CodecError> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.malformed());
        }
        self.at += word.len();
        Ok(())
    }

    fn string(&mut self) -> Result<(), CodecError> {
        self.at += 1;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                0x00..=0x1f => return Err(self.malformed()),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), CodecError> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex4()? {
                // A leading surrogate without its other half is no character.
                0xd800..=0xdbff => {
                    if self.next()? != b'\\' || self.next()? != b'u' {
                        return Err(self.malformed());
                    }
                    match self.hex4()? {
                        0xdc00..=0xdfff => Ok(()),
                        _ => Err(self.malformed()),
                    }
                }
                0xdc00..=0xdfff => Err(self.malformed()),
                _ => Ok(()),
            },
            _ => Err(self.malformed()),
        }
    }

    fn hex4(&mut self) -> Result<u32, CodecError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?)
                .to_digit(16)
                .ok_or_else(|| self.malformed())?;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn digits(&mut self) -> Result<(), CodecError> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.malformed());
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), CodecError> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        let mut may_overflow = self.at - start > 300;
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            may_overflow = true;
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if may_overflow {
            let finite = std::str::from_utf8(&self.bytes[start..self.at])
                .ok()
                .and_then(|text| text.parse::<f64>().ok())
                .is_some_and(f64::is_finite);
            if !finite {
                return Err(CodecError::Syntax("number out of range".to_owned()));
            }
        }
        Ok(())
    }
}

pub(super) fn write_uint(out: &mut Vec<u8>, number: u64) {
    write!(out, "{number}").expect("a number can be written to memory");
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}

pub(super) fn write_dict(out: &mut Vec<u8>, dict: &Dict, depth: usize) -> Result<(), CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    out.push(b'{');
    for (index, (key, value)) in dict.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, key);
        out.push(b':');
        write_value(out, value, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

pub(super) fn write_list(out: &mut Vec<u8>, list: &[Value], depth: usize) -> Result<(), CodecError> {
    if depth >= MAX_DEPTH {
        return Err(CodecError::Depth);
    }
    out.push(b'[');
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_value(out, item, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), CodecError> {
    match value {
        Value::List(list) => write_list(out, list, depth),
        Value::Dict(dict) => write_dict(out, dict, depth),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Bytes(_) => {
            serde_json::to_writer(out, value).expect("a scalar can be written to memory");
            Ok(())
        }
    }
}
