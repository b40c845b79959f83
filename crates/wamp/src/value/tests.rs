use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::codec::tests::{any_dict, any_value};
use crate::payload::Payload;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    host: IpAddr,
    port: u16,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    One(f64),
    Two(i8, bool),
    Named { text: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(u64);

fn settings() -> Settings {
    Settings {
        host: [127, 0, 0, 1].into(),
        port: 8080,
        note: None,
    }
}

/// There and back, as JSON says it.
fn round<T: Serialize + DeserializeOwned + Debug + PartialEq>(typed: T) {
    let value = Value::from_serialize(&typed).unwrap();
    assert_eq!(value.to_json(), serde_json::to_value(&typed).unwrap());
    assert_eq!(value.deserialize::<T>().unwrap(), typed);
}

#[test]
fn typed_values_are_said_as_in_json_and_come_back() {
    round(settings());
    round(vec![Some(-1_i64), None]);
    round((u64::MAX, i64::MIN, 'x', "text".to_owned(), 0.1_f64));
    round([
        Shape::Nothing,
        Shape::One(0.5),
        Shape::Two(-3, true),
        Shape::Named { text: "t".to_owned() },
    ]);
    round(BTreeMap::from([(7_u32, Wrapped(1)), (8, Wrapped(2))]));
    round(BTreeMap::from([(true, ()), (false, ())]));
    round(json!({"a": [1, -1, 1.5, null, "x"], "b": {}}));
    assert!(Value::from_serialize(&BTreeMap::from([(vec![1], 1)])).is_err());
}

#[test]
fn binary_stays_binary_and_text_that_looks_like_it_stays_text() {
    let value = Value::List(vec![
        Value::Bytes(vec![0, 255]),
        Value::from("\0AP8="),
        Value::Float(f64::INFINITY),
        Value::Dict(Dict::from([("\0AP8=".to_owned(), Value::Bytes(Vec::new()))])),
    ]);
    assert_eq!(Value::from_serialize(&value).unwrap(), value);
    assert_eq!(value.deserialize::<Value>().unwrap(), value);
    let nested: Vec<Option<Value>> = value.deserialize().unwrap();
    assert_eq!(nested[1], Some(Value::from("\0AP8=")));
    let text = Value::from("\0AP8=");
    assert_eq!(
        Payload::from_args(vec![text.clone()]).parse::<Value>().unwrap(),
        text
    );
    // JSON cannot tell the two apart.
    let json = serde_json::to_string(&value.as_list().unwrap()[..2]).unwrap();
    assert_eq!(json, r#"["\u0000AP8=","\u0000AP8="]"#);
    let bytes = Value::Bytes(vec![0, 255]);
    assert_eq!(
        serde_json::from_str::<Vec<Value>>(&json).unwrap(),
        [bytes.clone(), bytes]
    );
}

proptest! {
    #[test]
    fn values_are_values(args in vec(any_value(), 0..4)) {
        for value in &args {
            prop_assert_eq!(&Payload::from_args(vec![value.clone()]).parse::<Value>().unwrap(), value);
            prop_assert_eq!(&Value::from_serialize(value).unwrap(), value);
            prop_assert_eq!(&value.deserialize::<Value>().unwrap(), value);
        }
        let payload = Payload::from_args(args.clone());
        prop_assert_eq!(payload.parse::<Vec<Value>>().unwrap(), args);
    }

    /// Nothing that a peer sends makes a typed read panic, nor its error long.
    #[test]
    fn any_arguments_can_be_read_as_anything(args in vec(any_value(), 0..4), kwargs in any_dict()) {
        let payload = Payload::from_parts(args, kwargs);
        let errors = [
            payload.parse::<Settings>().err(),
            payload.parse::<Shape>().err(),
            payload.parse::<(u8, String)>().err(),
            payload.parse::<BTreeMap<u32, Option<Wrapped>>>().err(),
            payload.parse::<Vec<Shape>>().err(),
            payload.parse::<f32>().err(),
        ];
        for error in errors.into_iter().flatten() {
            prop_assert!(error.to_string().len() < 200, "{error}");
        }
    }
}

#[test]
fn arguments_are_what_their_type_says() {
    let parsed = |args: Vec<Value>, kwargs: Dict| Payload::from_parts(args, kwargs);
    assert_eq!(Payload::of(&()).unwrap(), Payload::Empty);
    assert_eq!(Payload::of(&None::<u8>).unwrap(), Payload::Empty);
    assert_eq!(
        Payload::of("one").unwrap(),
        parsed(vec!["one".into()], Dict::new())
    );
    let payload = Payload::of(&settings()).unwrap();
    assert!(payload.args().unwrap().is_empty());
    assert_eq!(payload.parse::<Settings>().unwrap(), settings());
    assert_eq!(payload.parse::<BTreeMap<String, Value>>().unwrap().len(), 3);
    // As the only positional argument, too.
    assert_eq!(
        Payload::one(&settings()).unwrap().parse::<Settings>().unwrap(),
        settings()
    );
    let pair = Payload::of(&(1, "two")).unwrap();
    assert_eq!(pair.parse::<(u8, String)>().unwrap(), (1, "two".to_owned()));
    assert_eq!(pair.parse::<()>(), Ok(()));
    assert_eq!(
        Payload::of(&[1, 2, 3]).unwrap().parse::<Vec<u8>>().unwrap(),
        [1, 2, 3]
    );
    assert!(Payload::Empty.parse::<Vec<u8>>().unwrap().is_empty());
    assert_eq!(Payload::Empty.parse::<Option<u8>>().unwrap(), None);
    assert_eq!(
        Payload::of(&7).unwrap().parse::<Option<Wrapped>>().unwrap(),
        Some(Wrapped(7))
    );
    for shape in [
        Shape::Nothing,
        Shape::One(1.0),
        Shape::Named { text: "t".to_owned() },
    ] {
        assert_eq!(Payload::of(&shape).unwrap().parse::<Shape>().unwrap(), shape);
    }
    assert_eq!(
        pair.parse::<Value>().unwrap(),
        Value::List(vec![Value::Uint(1), "two".into()])
    );
    assert_eq!(
        Payload::of("x").unwrap().parse::<Value>().unwrap(),
        Value::from("x")
    );
}

#[test]
fn what_does_not_fit_is_named_without_being_repeated() {
    let secret = "hunter2";
    let wrong = |payload: Payload, expected: &str, error: ConvertError| {
        assert_eq!(error.to_string(), expected, "{payload:?}");
        assert!(!error.to_string().contains(secret));
    };
    let payload = Payload::of(&(1, secret)).unwrap();
    wrong(
        payload.clone(),
        "[1]: expected u16, got text",
        payload.parse::<(u8, u16)>().unwrap_err(),
    );
    wrong(
        payload.clone(),
        "expected 1 elements, got 2",
        payload.parse::<(u8,)>().unwrap_err(),
    );
    wrong(
        payload.clone(),
        "expected one argument, got 2",
        payload.parse::<u8>().unwrap_err(),
    );
    wrong(
        payload.clone(),
        "expected keyword arguments",
        payload.parse::<Settings>().unwrap_err(),
    );
    let missing = Payload::of(&json!({"host": "::1"})).unwrap();
    wrong(
        missing.clone(),
        "missing field `port`",
        missing.parse::<Settings>().unwrap_err(),
    );
    let wide = Payload::of(&json!({"host": "::1", "port": 70_000})).unwrap();
    wrong(
        wide.clone(),
        "port: expected u16, got another value",
        wide.parse::<Settings>().unwrap_err(),
    );
    let custom = Payload::of(&json!({"host": secret, "port": 1})).unwrap();
    wrong(
        custom.clone(),
        "host: a value that cannot be used",
        custom.parse::<Settings>().unwrap_err(),
    );
    let variant = Payload::of(secret).unwrap();
    wrong(
        variant.clone(),
        "expected one of Nothing, One, Two, Named",
        variant.parse::<Shape>().unwrap_err(),
    );
    let keyed = Payload::of(&json!({"hunter2": "x"})).unwrap();
    wrong(
        keyed.clone(),
        "expected u8, got text",
        keyed.parse::<BTreeMap<String, u8>>().unwrap_err(),
    );
    wrong(
        Payload::Empty,
        "expected u64, got no argument",
        Payload::Empty.parse::<u64>().unwrap_err(),
    );
}
