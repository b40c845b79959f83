use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::codec::tests::any_value;

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
    fn values_are_values(value in any_value()) {
        prop_assert_eq!(&Value::from_serialize(&value).unwrap(), &value);
        prop_assert_eq!(&value.deserialize::<Value>().unwrap(), &value);
    }

    /// Nothing that a peer sends makes a typed read panic, nor its error long.
    #[test]
    fn any_value_can_be_read_as_anything(value in any_value()) {
        let errors = [
            value.deserialize::<Settings>().err(),
            value.deserialize::<Shape>().err(),
            value.deserialize::<(u8, String)>().err(),
            value.deserialize::<BTreeMap<u32, Option<Wrapped>>>().err(),
            value.deserialize::<Vec<Shape>>().err(),
            value.deserialize::<f32>().err(),
        ];
        for error in errors.into_iter().flatten() {
            prop_assert!(error.to_string().len() < 200, "{error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named_without_being_repeated() {
    let secret = "hunter2";
    let wrong = |expected: &str, error: ConvertError| {
        assert_eq!(error.to_string(), expected);
        assert!(!error.to_string().contains(secret));
    };
    let pair = Value::from_serialize(&(1, secret)).unwrap();
    wrong(
        "[1]: expected u16, got text",
        pair.deserialize::<(u8, u16)>().unwrap_err(),
    );
    wrong(
        "expected 1 elements, got 2",
        pair.deserialize::<(u8,)>().unwrap_err(),
    );
    wrong(
        "expected a tuple of size 3, got 2",
        pair.deserialize::<(u8, String, u8)>().unwrap_err(),
    );
    let of = |json: serde_json::Value| Value::from(json);
    let missing = of(json!({"host": "::1"}));
    wrong(
        "missing field `port`",
        missing.deserialize::<Settings>().unwrap_err(),
    );
    let wide = of(json!([{"host": "::1", "port": 70_000}]));
    wrong(
        "[0].port: expected u16, got another value",
        wide.deserialize::<Vec<Settings>>().unwrap_err(),
    );
    let custom = of(json!({"host": secret, "port": 1}));
    wrong(
        "host: a value that cannot be used",
        custom.deserialize::<Settings>().unwrap_err(),
    );
    let variant = of(json!(secret));
    wrong(
        "expected one of Nothing, One, Two, Named",
        variant.deserialize::<Shape>().unwrap_err(),
    );
    let keyed = of(json!({"hunter2": "x"}));
    wrong(
        "expected u8, got text",
        keyed.deserialize::<BTreeMap<String, u8>>().unwrap_err(),
    );
}
