//! What holds for any bytes that somebody may send as a frame. Panics when it does not.

use bytes::Bytes;
use wamp::{Codec, Message, Payload, Value};

const CODECS: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Cbor];

/// What is accepted can be written again, means the same afterwards, and survives every other encoding.
pub(crate) fn frame(codec: Codec, bytes: &[u8]) {
    let Ok(message) = codec.decode(&Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let again = codec.encode(&message).expect("what was accepted can be written");
    let again = codec.decode(&again).expect("what was written can be read");
    // Not `==`: NaN is not equal to itself.
    assert_eq!(format!("{message:?}"), format!("{again:?}"));
    for other in CODECS {
        if other != codec {
            transcoded(&message, other);
        }
    }
}

fn transcoded(message: &Message, other: Codec) {
    let frame = other
        .encode(message)
        .expect("every encoding has a form for every value");
    let there = other.decode(&frame).expect("what was written can be read");
    assert_eq!(message.code(), there.code());
    let (Some(sent), Some(got)) = (payload(message), payload(&there)) else {
        return;
    };
    let before = Value::List(sent.args().expect("checked when it was decoded"));
    let after = Value::List(got.args().expect("checked when it was decoded"));
    same(&before, &after, other);
    let before = Value::Dict(sent.kwargs().expect("checked when it was decoded"));
    let after = Value::Dict(got.kwargs().expect("checked when it was decoded"));
    same(&before, &after, other);
}

/// JSON has no infinities and no NaN, and text that begins with NUL and base64 is binary there: everything else stays.
fn same(before: &Value, after: &Value, codec: Codec) {
    if codec == Codec::Json {
        assert_eq!(before.to_json(), after.to_json());
    } else {
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
    }
}

fn payload(message: &Message) -> Option<&Payload> {
    match message {
        Message::Abort { payload, .. }
        | Message::Error { payload, .. }
        | Message::Publish { payload, .. }
        | Message::Event { payload, .. }
        | Message::Call { payload, .. }
        | Message::Result { payload, .. }
        | Message::Invocation { payload, .. }
        | Message::Yield { payload, .. } => Some(payload),
        _ => None,
    }
}
