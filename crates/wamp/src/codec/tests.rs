use proptest::prelude::*;

use super::*;
use crate::MAX_ID;

const CODECS: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Cbor];

fn decode(codec: Codec, bytes: impl Into<Vec<u8>>) -> Result<Message, CodecError> {
    codec.decode(&Bytes::from(bytes.into()))
}

fn json(text: &str) -> Result<Message, CodecError> {
    decode(Codec::Json, text)
}

/// The message with its payload as values, so that messages of different codecs compare.
fn plain(message: &Message) -> (Message, Vec<Value>, Dict) {
    let payload = shape::payload(message).cloned().unwrap_or_default();
    let mut bare = message.clone();
    if let Message::Abort { payload, .. }
    | Message::Error { payload, .. }
    | Message::Publish { payload, .. }
    | Message::Event { payload, .. }
    | Message::Call { payload, .. }
    | Message::Result { payload, .. }
    | Message::Invocation { payload, .. }
    | Message::Yield { payload, .. } = &mut bare
    {
        *payload = Payload::Empty;
    }
    (bare, payload.args().unwrap(), payload.kwargs().unwrap())
}

fn any_text() -> impl Strategy<Value = String> {
    // Text that starts with NUL is how JSON spells binary: the one thing that WAMP cannot tell apart.
    any::<String>().prop_filter("NUL marks binary in JSON", |text| !text.starts_with('\0'))
}

pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::Uint),
        any::<f64>()
            .prop_filter("JSON has finite floats only", |float| float.is_finite())
            .prop_map(Value::Float),
        any_text().prop_map(Value::Str),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(4, 40, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::List),
            proptest::collection::btree_map(any::<String>(), inner, 0..20).prop_map(Value::Dict),
        ]
    })
}

fn any_dict() -> impl Strategy<Value = Dict> {
    proptest::collection::btree_map(any::<String>(), any_value(), 0..4)
}

fn any_payload() -> impl Strategy<Value = Payload> {
    (proptest::collection::vec(any_value(), 0..4), any_dict())
        .prop_map(|(args, kwargs)| Payload::from_parts(args, kwargs))
}

fn any_message() -> impl Strategy<Value = Message> {
    let ids = (1..=MAX_ID, 0..=MAX_ID);
    (0..24usize, ids, any_dict(), any_text(), any_payload()).prop_map(
        |(kind, (request, id), details, text, payload)| match kind {
            0 => Message::Hello {
                realm: (id % 2 == 0).then_some(text),
                details,
            },
            1 => Message::Welcome { session: id, details },
            2 => Message::Abort {
                details,
                reason: text,
                payload,
            },
            3 => Message::Challenge {
                method: text,
                extra: details,
            },
            4 => Message::Authenticate {
                signature: text,
                extra: details,
            },
            5 => Message::Goodbye {
                details,
                reason: text,
            },
            6 => Message::Error {
                request_type: 48,
                request,
                details,
                error: text,
                payload,
            },
            7 => Message::Publish {
                request,
                options: details,
                topic: text,
                payload,
            },
            8 => Message::Published {
                request,
                publication: id,
            },
            9 => Message::Subscribe {
                request,
                options: details,
                topic: text,
            },
            10 => Message::Subscribed {
                request,
                subscription: id,
            },
            11 => Message::Unsubscribe {
                request,
                subscription: id,
            },
            12 => Message::Unsubscribed { request: id, details },
            13 => Message::Event {
                subscription: id,
                publication: request,
                details,
                payload,
            },
            14 => Message::Call {
                request,
                options: details,
                procedure: text,
                payload,
            },
            15 => Message::Cancel {
                request,
                options: details,
            },
            16 => Message::Result {
                request,
                details,
                payload,
            },
            17 => Message::Register {
                request,
                options: details,
                procedure: text,
            },
            18 => Message::Registered {
                request,
                registration: id,
            },
            19 => Message::Unregister {
                request,
                registration: id,
            },
            20 => Message::Unregistered { request: id, details },
            21 => Message::Invocation {
                request,
                registration: id,
                details,
                payload,
            },
            22 => Message::Interrupt {
                request,
                options: details,
            },
            _ => Message::Yield {
                request,
                options: details,
                payload,
            },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_message_survives_each_codec_and_every_change_of_codec(message in any_message()) {
        for first in CODECS {
            let decoded = first.decode(&first.encode(&message).unwrap()).unwrap();
            prop_assert_eq!(plain(&decoded), plain(&message));
            for second in CODECS {
                let frame = second.encode(&decoded).unwrap();
                let transcoded = second.decode(&frame).unwrap();
                prop_assert_eq!(plain(&transcoded), plain(&message));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for codec in CODECS {
            if let Ok(message) = decode(codec, bytes.clone()) {
                // What was accepted can be read and sent on.
                plain(&message);
                codec.encode(&message).unwrap();
            }
            let _ = codec.decode_value(&bytes);
        }
    }

    #[test]
    fn damaged_messages_never_panic(
        message in any_message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for codec in CODECS {
            let mut bytes = codec.encode(&message).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(damaged) = decode(codec, bytes.clone()) {
                plain(&damaged);
            }
            bytes.truncate(at);
            prop_assert!(decode(codec, bytes).is_err());
        }
    }

    #[test]
    fn the_json_scanner_accepts_what_serde_json_accepts(text in "[\\[\\]{}\",:0-9.eE+ntrue\\\\-]{0,24}") {
        let ours = Codec::Json.decode_value(text.as_bytes()).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }
}

#[test]
fn the_payload_is_copied_verbatim_and_does_not_keep_its_frame() {
    let frame = Bytes::from_static(br#"[36,1,2,{}, [1.50, "x"] ,{ "a":1e2 }]"#);
    let message = Codec::Json.decode(&frame).unwrap();
    let Message::Event {
        payload: Payload::Raw { args, kwargs, .. },
        ..
    } = &message
    else {
        panic!("{message:?}");
    };
    assert_eq!(&args[..], br#"[1.50, "x"]"#);
    assert!(!frame.as_ptr_range().contains(&args.as_ptr()));
    assert_eq!(&kwargs[..], br#"{ "a":1e2 }"#);
    let again = Codec::Json.encode(&message).unwrap();
    assert_eq!(&again[..], br#"[36,1,2,{},[1.50, "x"],{ "a":1e2 }]"#);
}

#[test]
fn the_frames_of_the_contract_come_out_as_they_stand_there() {
    for frame in [
        r#"[70,1,{}]"#,
        r#"[8,68,5,{},"wamp.error.canceled",[{"error":"…"}]]"#,
        r#"[48,7,{},"reswarm.devices.get_app_cred_key"]"#,
        r#"[64,9,{"force_reregister":true},"re.mgmt.x.get_images"]"#,
        r#"[49,12,{"mode":"killnowait"}]"#,
        r#"[6,{},"wamp.close.close_realm"]"#,
        r#"[67,0,{"reason":"wamp.error.unregistered","registration":1792702957179649}]"#,
        r#"[35,7]"#,
    ] {
        let message = json(frame).unwrap();
        assert_eq!(Codec::Json.encode(&message).unwrap(), frame.as_bytes());
    }
}

#[test]
fn null_and_empty_arguments_count_as_absent() {
    for frame in [
        "[70,1,{}]",
        "[70,1,{},null]",
        "[70,1,{},[]]",
        "[70,1,{},[ ],{ }]",
        "[70,1,{},null,null]",
    ] {
        let message = json(frame).unwrap();
        assert_eq!(
            message,
            Message::Yield {
                request: 1,
                options: Dict::new(),
                payload: Payload::Empty
            }
        );
    }
    let message = json(r#"[70,1,{},null,{"utp":"x"}]"#).unwrap();
    assert_eq!(
        Codec::Json.encode(&message).unwrap(),
        &br#"[70,1,{},[],{"utp":"x"}]"#[..]
    );
    assert_eq!(
        decode(Codec::MessagePack, [0x95, 70, 1, 0x80, 0xc0, 0x80]).unwrap(),
        json("[70,1,{}]").unwrap()
    );
    assert_eq!(
        decode(Codec::Cbor, [0x85, 0x18, 70, 1, 0xa0, 0xf6, 0xbf, 0xff]).unwrap(),
        json("[70,1,{}]").unwrap()
    );
    assert!(json(r#"[5,"",null]"#).is_ok());
    assert_eq!(
        json("[1,null,{}]").unwrap(),
        Message::Hello {
            realm: None,
            details: Dict::new()
        }
    );
}

#[test]
fn messages_of_a_wrong_shape_are_refused() {
    for frame in [
        "[]",
        "{}",
        "70",
        r#"["70",1,{}]"#,
        "[70.0,1,{}]",
        "[-1,1,{}]",
        "[99,1,{}]",
        "[337,1]",
        "[70,1]",
        "[70,1,{},[],{},1]",
        "[70,1,{},[],{},1,2,3,4,5]",
        "[70,1,null]",
        "[70,1,[]]",
        "[70,1,{},{}]",
        "[70,1,{},\"\\u0000AAAA\"]",
        "[70,1,{},[],[]]",
        r#"[48,0,{},"a.b"]"#,
        r#"[48,-1,{},"a.b"]"#,
        r#"[48,1.0,{},"a.b"]"#,
        r#"[48,"1",{},"a.b"]"#,
        r#"[48,9007199254740993,{},"a.b"]"#,
        r#"[48,1,{},7]"#,
        r#"[48,1,{},null]"#,
        r#"[2,null,{}]"#,
    ] {
        assert!(matches!(json(frame), Err(CodecError::Shape(_))), "{frame}");
    }
    assert!(json(r#"[48,9007199254740992,{},"a.b"]"#).is_ok());
}

#[test]
fn malformed_data_is_refused() {
    for frame in [
        "",
        " ",
        "[",
        "[70",
        "[70,1,{}",
        "[70,1,{}]x",
        "[70,1,{}] []",
        "[70,1,{},]",
        "[70,,1]",
        "[70,1,{\"a\"}]",
        "[70,1,{\"a\":1,}]",
        "[70,1,{1:2}]",
        "[70,1,{},[01]]",
        "[70,1,{},[1.]]",
        "[70,1,{},[+1]]",
        "[70,1,{},[NaN]]",
        "[70,1,{},[1e999]]",
        "[70,1,{},[\"\\ud800\"]]",
        "[70,1,{},[\"\\udc00\"]]",
        "[70,1,{},[\"\\x\"]]",
        "[70,1,{},[\"\n\"]]",
        "[70,1,{},[tru]]",
    ] {
        assert!(matches!(json(frame), Err(CodecError::Syntax(_))), "{frame}");
    }
    for (codec, bytes) in [
        (Codec::Json, &b"[70,1,{},[\"\xff\"]]"[..]),
        (Codec::MessagePack, &[0x94, 70, 1, 0x80, 0x91, 0xa1, 0xff]),
        (Codec::MessagePack, &[0x94, 70, 1, 0x80, 0x91, 0xc1]),
        // Keys that are numbers, trailing bytes, a list that ends too early.
        (Codec::MessagePack, &[0x93, 70, 1, 0x81, 1, 1]),
        (Codec::MessagePack, &[0x93, 70, 1, 0x80, 0x80]),
        (Codec::MessagePack, &[0x94, 70, 1, 0x80]),
        (Codec::Cbor, &[0x84, 0x18, 70, 1, 0xa0, 0x81, 0x61, 0xff]),
        (Codec::Cbor, &[0x83, 0x18, 70, 1, 0xa1, 1, 1]),
        (Codec::Cbor, &[0x83, 0x18, 70, 1, 0xa0, 0xa0]),
        (Codec::Cbor, &[0x9f, 0x18, 70, 1, 0xa0]),
        (Codec::Cbor, &[0x84, 0x18, 70, 1, 0xa0, 0x81, 0xfc]),
    ] {
        assert!(
            matches!(decode(codec, bytes), Err(CodecError::Syntax(_))),
            "{codec:?} {bytes:x?}"
        );
    }
}

#[test]
fn deep_nesting_is_refused_and_legal_nesting_is_not() {
    let nested = |open: &[u8], close: &[u8], depth: usize| [open.repeat(depth), close.repeat(depth)].concat();
    let frames = |depth: usize| {
        [
            (
                Codec::Json,
                [b"[70,1,{},".to_vec(), nested(b"[", b"]", depth), b"]".to_vec()].concat(),
            ),
            (
                Codec::MessagePack,
                [
                    vec![0x94, 70, 1, 0x80],
                    nested(&[0x91], &[], depth - 1),
                    vec![0x90],
                ]
                .concat(),
            ),
            (
                Codec::Cbor,
                [vec![0x84, 0x18, 70, 1, 0xa0], nested(&[0x9f], &[0xff], depth)].concat(),
            ),
        ]
    };
    for (codec, frame) in frames(100_000) {
        assert_eq!(decode(codec, frame), Err(CodecError::Depth), "{codec:?}");
    }
    let tags = [vec![0x84, 0x18, 70, 1, 0xa0], vec![0xc6; 100_000], vec![0x80]].concat();
    assert_eq!(decode(Codec::Cbor, tags), Err(CodecError::Depth));
    for (codec, frame) in frames(MAX_DEPTH - 1) {
        let message = decode(codec, frame).unwrap();
        plain(&message);
        for other in CODECS {
            assert!(other.encode(&message).is_ok());
        }
    }
    let mut deep = Value::Null;
    for _ in 0..MAX_DEPTH {
        deep = Value::List(vec![deep]);
    }
    let message = Message::Yield {
        request: 1,
        options: Dict::new(),
        payload: Payload::from_args(vec![deep]),
    };
    for codec in CODECS {
        assert_eq!(codec.encode(&message), Err(CodecError::Depth));
    }
}

#[test]
fn claimed_sizes_allocate_nothing() {
    for (codec, bytes) in [
        (Codec::MessagePack, &[0xdd, 0xff, 0xff, 0xff, 0xff][..]),
        (
            Codec::MessagePack,
            &[0x94, 70, 1, 0x80, 0xdd, 0xff, 0xff, 0xff, 0xff, 0],
        ),
        (
            Codec::MessagePack,
            &[0x94, 70, 1, 0x80, 0x91, 0xc6, 0xff, 0xff, 0xff, 0xff],
        ),
        (Codec::MessagePack, &[0x93, 70, 1, 0xdf, 0xff, 0xff, 0xff, 0xff]),
        (
            Codec::Cbor,
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (
            Codec::Cbor,
            &[
                0x84, 0x18, 70, 1, 0xa0, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ),
        (
            Codec::Cbor,
            &[
                0x84, 0x18, 70, 1, 0xa0, 0x81, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ),
        (
            Codec::Cbor,
            &[
                0x83, 0x18, 70, 1, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ),
    ] {
        assert!(
            matches!(decode(codec, bytes), Err(CodecError::Syntax(_))),
            "{codec:?} {bytes:x?}"
        );
    }
}

#[test]
fn rare_forms_of_cbor_and_messagepack_are_read() {
    let value = |codec: Codec, bytes: &[u8]| codec.decode_value(bytes).unwrap();
    assert_eq!(value(Codec::Cbor, &[0xf9, 0x3c, 0x00]), Value::Float(1.0));
    assert_eq!(value(Codec::Cbor, &[0xf9, 0xc4, 0x00]), Value::Float(-4.0));
    assert_eq!(
        value(Codec::Cbor, &[0xf9, 0x00, 0x01]),
        Value::Float(2f64.powi(-24))
    );
    assert_eq!(
        value(Codec::Cbor, &[0xf9, 0x7c, 0x00]),
        Value::Float(f64::INFINITY)
    );
    assert_eq!(
        value(Codec::Cbor, &[0xfa, 0x47, 0xc3, 0x50, 0x00]),
        Value::Float(100_000.0)
    );
    assert_eq!(
        value(Codec::Cbor, &[0x7f, 0x61, b'a', 0x62, b'b', b'c', 0xff]),
        Value::from("abc")
    );
    assert_eq!(
        value(Codec::Cbor, &[0x5f, 0x41, 1, 0x41, 2, 0xff]),
        Value::Bytes(vec![1, 2])
    );
    assert_eq!(value(Codec::Cbor, &[0xc1, 0x05]), Value::Uint(5));
    assert_eq!(
        value(Codec::Cbor, &[0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        Value::Float(2f64.powi(64))
    );
    assert_eq!(
        value(
            Codec::Cbor,
            &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        ),
        Value::Float(-2f64.powi(64))
    );
    assert_eq!(value(Codec::Cbor, &[0xf7]), Value::Null);
    assert_eq!(value(Codec::MessagePack, &[0xd1, 0xff, 0x00]), Value::Int(-256));
    assert_eq!(
        value(Codec::MessagePack, &[0xd3, 0, 0, 0, 0, 0, 0, 0, 9]),
        Value::Uint(9)
    );
    assert_eq!(
        value(Codec::MessagePack, &[0xca, 0x3f, 0x80, 0, 0]),
        Value::Float(1.0)
    );
    assert_eq!(value(Codec::MessagePack, &[0xd4, 1, 7]), Value::Bytes(vec![7]));
    assert_eq!(
        value(Codec::MessagePack, &[0xc7, 2, 1, 7, 8]),
        Value::Bytes(vec![7, 8])
    );
}

#[test]
fn binary_travels_over_json_as_nul_and_base64() {
    let message = Message::Yield {
        request: 1,
        options: Dict::new(),
        payload: Payload::from_args(vec![Value::Bytes(vec![0, 255, 16])]),
    };
    let frame = Codec::Json.encode(&message).unwrap();
    assert_eq!(frame, &br#"[70,1,{},["\u0000AP8Q"]]"#[..]);
    assert_eq!(plain(&Codec::Json.decode(&frame).unwrap()), plain(&message));
}

#[test]
fn an_encoded_payload_serves_many_messages() {
    let values = Payload::from_parts(
        vec![Value::from("a")],
        Dict::from([("k".to_owned(), Value::Uint(1))]),
    );
    for codec in CODECS {
        let encoded = codec.encode_payload(&values).unwrap();
        assert!(matches!(&encoded, Payload::Raw { codec: of, .. } if *of == codec));
        let event = |payload| Message::Event {
            subscription: 1,
            publication: 2,
            details: Dict::new(),
            payload,
        };
        assert_eq!(
            codec.encode(&event(encoded)).unwrap(),
            codec.encode(&event(values.clone())).unwrap()
        );
    }
}

#[test]
fn a_uri_that_looks_like_binary_is_text_in_json_as_well() {
    let message = Message::Error {
        request_type: 48,
        request: 1,
        details: Dict::new(),
        error: "\0AAAA".to_owned(),
        payload: Payload::Empty,
    };
    let frame = Codec::Json.encode(&message).unwrap();
    assert_eq!(Codec::Json.decode(&frame).unwrap(), message);
}
