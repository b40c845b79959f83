//! Why a request is not carried out, and strict reading of options.
//!
//! Unknown options are ignored, null counts as absent; a known option with a wrong value is refused, never ignored
//! (`wamp-interop.md` R-V8).

use crate::uri;
use crate::value::{Dict, Value};

/// Why a message of a session was not carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// ERROR with this URI and text; the session lives.
    #[error("{uri}: {text}")]
    Error { uri: &'static str, text: String },
    /// ERROR with this URI and text, because a bound is reached; the session lives.
    #[error("{uri}: {text}")]
    Limit { uri: &'static str, text: String },
    /// ABORT; the session ends.
    #[error("protocol violation: {0}")]
    Violation(String),
}

impl Refusal {
    pub(super) fn error(uri: &'static str, text: impl Into<String>) -> Refusal {
        Refusal::Error {
            uri,
            text: text.into(),
        }
    }

    /// A bound of the router is reached.
    pub(super) fn limit(uri: &'static str, text: impl Into<String>) -> Refusal {
        Refusal::Limit {
            uri,
            text: text.into(),
        }
    }

    pub(super) fn argument(text: impl Into<String>) -> Refusal {
        Refusal::error(uri::error::INVALID_ARGUMENT, text)
    }

    pub(super) fn uri(value: &str) -> Refusal {
        Refusal::error(uri::error::INVALID_URI, format!("invalid URI {value:?}"))
    }
}

fn present<'d>(options: &'d Dict, key: &str) -> Option<&'d Value> {
    options.get(key).filter(|value| !value.is_null())
}

/// A boolean option; absent is `None`.
pub(super) fn flag(options: &Dict, key: &str) -> Result<Option<bool>, Refusal> {
    match present(options, key) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(Refusal::argument(format!("option {key} is not a boolean"))),
    }
}

/// An option that names one of a few choices; absent is `default`.
pub(super) fn choice<T>(
    options: &Dict,
    key: &str,
    default: T,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, Refusal> {
    match present(options, key) {
        None => Ok(default),
        Some(value) => value
            .as_str()
            .and_then(parse)
            .ok_or_else(|| Refusal::argument(format!("option {key} has an unknown value"))),
    }
}

/// A non-negative whole number; absent is `None`.
pub(super) fn number(options: &Dict, key: &str) -> Result<Option<u64>, Refusal> {
    match present(options, key) {
        None => Ok(None),
        Some(Value::Uint(number)) => Ok(Some(*number)),
        // Clients without integers send whole numbers as floats.
        Some(Value::Float(float))
            if *float >= 0.0 && *float <= crate::MAX_ID as f64 && float.fract() == 0.0 =>
        {
            Ok(Some(*float as u64))
        }
        Some(_) => Err(Refusal::argument(format!(
            "option {key} is not a non-negative integer"
        ))),
    }
}

/// A list option; absent is `None`.
pub(super) fn list<'d>(options: &'d Dict, key: &str) -> Result<Option<&'d [Value]>, Refusal> {
    match present(options, key) {
        None => Ok(None),
        Some(Value::List(list)) => Ok(Some(list)),
        Some(_) => Err(Refusal::argument(format!("option {key} is not a list"))),
    }
}
