//! The load generator's own WebSocket framing and WAMP messages, as bytes: what a client has to write and to look at
//! during a measurement and nothing more, so that the router is the slower end. Set-up messages go through `wamp`.

use wamp::Codec;
use wamp::message::code;

/// What every measured message carries.
const TEXT: &str = "sixteen bytes...";

/// Appends `body` as one masked frame. The mask is zero: a client must mask, and this is what that costs least.
pub(crate) fn put(out: &mut Vec<u8>, codec: Codec, body: &[u8]) {
    out.push(if codec.is_binary() { 0x82 } else { 0x81 });
    put_length(out, body.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(body);
}

/// Appends the PONG to a PING.
pub(crate) fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x8a);
    put_length(out, payload.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A frame from the router: its opcode, and where its payload begins and ends. `None`: not all there yet.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (begin, length) = match second & 0x7f {
        126 => (
            4,
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        ),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            (10, usize::try_from(length).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let end = begin + length;
    (bytes.len() >= end).then_some((first & 0x0f, begin, end))
}

/// Type code and second element of a message, when that is a number.
pub(crate) fn head(codec: Codec, message: &[u8]) -> Option<(u64, u64)> {
    match codec {
        Codec::Json => {
            let mut rest = message.strip_prefix(b"[")?;
            let code = digits(&mut rest);
            rest = rest.strip_prefix(b",")?;
            Some((code, digits(&mut rest)))
        }
        Codec::MessagePack => {
            let mut rest = message.get(1..)?;
            Some((unsigned(&mut rest)?, unsigned(&mut rest)?))
        }
        Codec::Cbor => None,
    }
}

fn digits(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    while let Some((digit @ b'0'..=b'9', tail)) = rest.split_first() {
        number = number * 10 + u64::from(digit - b'0');
        *rest = tail;
    }
    number
}

fn unsigned(rest: &mut &[u8]) -> Option<u64> {
    let (&first, tail) = rest.split_first()?;
    let width = match first {
        0..=0x7f => 0,
        0xcc..=0xcf => 1 << (first - 0xcc),
        _ => return None,
    };
    let (number, tail) = tail.split_at_checked(width)?;
    *rest = tail;
    if width == 0 {
        return Some(u64::from(first));
    }
    Some(
        number
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

/// `[48, request, {}, procedure, [text]]`
pub(crate) fn call(codec: Codec, request: u64, procedure: &str) -> Vec<u8> {
    with_uri(codec, code::CALL, request, procedure, TEXT)
}

/// `[16, request, {}, topic, [text]]`
pub(crate) fn publish(codec: Codec, request: u64, topic: &str) -> Vec<u8> {
    with_uri(codec, code::PUBLISH, request, topic, TEXT)
}

/// The same with a payload of so many bytes.
pub(crate) fn publish_bulk(codec: Codec, request: u64, topic: &str, bytes: usize) -> Vec<u8> {
    with_uri(codec, code::PUBLISH, request, topic, &"x".repeat(bytes))
}

/// `[70, request, {}, [text]]`
pub(crate) fn answer(codec: Codec, request: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    begin(&mut out, codec, 4, code::YIELD, request);
    end(&mut out, codec, TEXT);
    out
}

fn with_uri(codec: Codec, code: u64, request: u64, uri: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    begin(&mut out, codec, 5, code, request);
    put_text(&mut out, codec, uri);
    if codec == Codec::Json {
        out.push(b',');
    }
    end(&mut out, codec, text);
    out
}

/// The elements before the URI or the arguments.
fn begin(out: &mut Vec<u8>, codec: Codec, elements: u8, code: u64, request: u64) {
    if codec == Codec::Json {
        out.extend_from_slice(format!("[{code},{request},{{}},").as_bytes());
        return;
    }
    out.push(0x90 | elements);
    for number in [code, request] {
        match number {
            0..=0x7f => out.push(number as u8),
            0x80..=0xffff_ffff => {
                out.push(0xce);
                out.extend_from_slice(&(number as u32).to_be_bytes());
            }
            _ => {
                out.push(0xcf);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
    out.push(0x80);
}

/// The arguments: one text.
fn end(out: &mut Vec<u8>, codec: Codec, text: &str) {
    match codec {
        Codec::Json => {
            out.push(b'[');
            put_text(out, codec, text);
            out.extend_from_slice(b"]]");
        }
        Codec::MessagePack | Codec::Cbor => {
            out.push(0x91);
            put_text(out, codec, text);
        }
    }
}

/// Plain ASCII only.
fn put_text(out: &mut Vec<u8>, codec: Codec, text: &str) {
    match codec {
        Codec::Json => {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        }
        Codec::MessagePack | Codec::Cbor => {
            out.push(0xda);
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}
