//! One log line: an event as data, as JSON and as text for people. Must not know where it goes.

use std::error::Error;
use std::fmt::{self, Write as _};

use jiff::Zoned;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::Chain;

/// An event with the members that `query_device_logs` reads back, and its further fields.
#[derive(Debug)]
pub(super) struct Line {
    level: Level,
    at: Zoned,
    /// `file:line`.
    caller: String,
    pub(super) message: String,
    error: Option<String>,
    fields: Map<String, Value>,
}

impl Line {
    pub(super) fn of(event: &Event<'_>, at: &Zoned) -> Line {
        let metadata = event.metadata();
        let caller = format!(
            "{}:{}",
            metadata.file().unwrap_or("unknown"),
            metadata.line().unwrap_or_default()
        );
        let mut line = Line::new(*metadata.level(), at, caller, String::new());
        event.record(&mut line);
        line
    }

    /// A line of the log about itself: `lost` lines could not be written.
    pub(super) fn of_loss(lost: u64, at: &Zoned) -> Line {
        let message = "log lines were lost: the log file could not be written".to_owned();
        let mut line = Line::new(Level::WARN, at, format!("{}:{}", file!(), line!()), message);
        line.fields.insert("lost".to_owned(), json!(lost));
        line
    }

    fn new(level: Level, at: &Zoned, caller: String, message: String) -> Line {
        Line {
            level,
            at: at.clone(),
            caller,
            message,
            error: None,
            fields: Map::new(),
        }
    }

    /// A JSON object and a newline.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut members = Map::new();
        members.insert(
            "level".to_owned(),
            json!(self.level.as_str().to_ascii_lowercase()),
        );
        members.insert("time".to_owned(), json!(rfc3339(&self.at)));
        members.insert("caller".to_owned(), json!(self.caller));
        members.insert("message".to_owned(), json!(self.message));
        if let Some(error) = &self.error {
            members.insert("error".to_owned(), json!(error));
        }
        members.extend(self.fields.clone());
        let mut text = Value::Object(members).to_string().into_bytes();
        text.push(b'\n');
        text
    }

    /// `2026-08-14 10:00:00 INFO message key=value`, without newline.
    pub(super) fn to_console(&self) -> String {
        let mut text = format!(
            "{} {:<5} {}",
            self.at.strftime("%Y-%m-%d %H:%M:%S"),
            self.level,
            self.message
        );
        let error = self.error.as_ref().map(|error| ("error", json!(error)));
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in error.into_iter().chain(fields) {
            // Words stay bare, everything else is quoted as JSON does it.
            let shown = match &value {
                Value::String(word)
                    if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()) =>
                {
                    word.clone()
                }
                other => other.to_string(),
            };
            let _ = write!(text, " {name}={shown}");
        }
        text
    }

    fn record(&mut self, field: &Field, value: Value) {
        let as_text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match field.name() {
            "message" => self.message = as_text(value),
            "error" => self.error = Some(as_text(value)),
            // Readers take these for the line's own.
            taken @ ("level" | "time" | "caller" | "stack") => {
                self.fields.insert(format!("{taken}_"), value);
            }
            name => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, json!(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record(field, json!(Chain(value).to_string()));
    }
}

/// RFC 3339 with local offset and whole seconds; `Z` for UTC as the reference writes it.
fn rfc3339(at: &Zoned) -> String {
    let layout = if at.offset().is_zero() {
        "%Y-%m-%dT%H:%M:%SZ"
    } else {
        "%Y-%m-%dT%H:%M:%S%:z"
    };
    at.strftime(layout).to_string()
}
