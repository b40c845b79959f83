//! `studio call`

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Out, print, with_client};
use crate::api::{CallDevice, uri};
use crate::cli::{Call, Place};
use crate::exit::{Exit, Failure};

/// Time for the studio's own part beside the device's.
const MARGIN: Duration = Duration::from_secs(5);

pub(super) async fn run(place: &Place, out: Out, options: Call) -> Result<(), Failure> {
    let kwargs = match &options.kwargs {
        None => Map::new(),
        Some(text) => serde_json::from_str::<Map<String, Value>>(text)
            .map_err(|error| Failure::new(Exit::Usage, format!("--kwargs is not a JSON object: {error}")))?,
    };
    let request = CallDevice {
        device: options.device,
        procedure: options.procedure,
        args: options.args.iter().map(|word| argument(word)).collect(),
        kwargs,
        timeout: Some(options.timeout.saturating_mul(1000)),
    };
    let deadline = Duration::from_secs(options.timeout) + MARGIN;
    let payload = with_client(place, async |client| {
        client.send(uri::DEVICE_CALL, &request, deadline).await
    })
    .await?;
    let unreadable = |error: wamp::codec::CodecError| {
        Failure::new(
            Exit::Failed,
            format!("the device's answer is unreadable: {error}"),
        )
    };
    let args: Vec<Value> = payload
        .args()
        .map_err(unreadable)?
        .iter()
        .map(wamp::Value::to_json)
        .collect();
    let kwargs = wamp::Value::Dict(payload.kwargs().map_err(unreadable)?).to_json();
    if out.json {
        out.result(&json!({"args": args, "kwargs": kwargs}), String::new);
        return Ok(());
    }
    for value in &args {
        print(&match value {
            Value::String(text) => format!("{text}\n"),
            other => format!("{other:#}\n"),
        });
    }
    if kwargs.as_object().is_some_and(|kwargs| !kwargs.is_empty()) {
        print(&format!("{kwargs:#}\n"));
    }
    Ok(())
}

/// JSON where it is JSON, else text.
fn argument(word: &str) -> Value {
    serde_json::from_str(word).unwrap_or_else(|_| Value::from(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_where_they_are_json() {
        for (word, value) in [
            ("5", json!(5)),
            ("true", json!(true)),
            (r#"{"a":1}"#, json!({"a": 1})),
            (r#""5""#, json!("5")),
            ("prod_6_app", json!("prod_6_app")),
            ("{broken", json!("{broken")),
            ("", json!("")),
        ] {
            assert_eq!(argument(word), value, "{word}");
        }
    }
}
