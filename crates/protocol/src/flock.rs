//! The device identity file, `.flock` (`session-and-api.md` 2): parse, migrate, change, write. No I/O.
//!
//! The parsed document stays as issued: unknown members and their order survive, only what is set changes
//! (weakness R8). Must not know where the file lies or when it is written.

use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use crate::number;

/// Members in the order in which a document is written (2.1).
const ORDER: [&str; 22] = [
    "name",
    "secret",
    "board",
    "status",
    "password",
    "wlanssid",
    "swarm_key",
    "device_key",
    "swarm_name",
    "description",
    "architecture",
    "serial_number",
    "authentication",
    "swarm_owner_name",
    "config_passphrase",
    "device_endpoint_url",
    "environment",
    "docker_registry_url",
    "insecure-registries",
    "docker_main_repository",
    "appliance_domain",
    "update_url",
];

/// Exact old values and what replaces them (2.3).
const MIGRATIONS: [(&str, &str, &str); 2] = [
    (
        "docker_registry_url",
        "registry.reswarm.io/",
        "registry.ironflock.com/",
    ),
    (
        "device_endpoint_url",
        "wss://cbw.record-evolution.com/ws-re-dev",
        "wss://cbw.ironflock.com/ws-re-dev",
    ),
];

/// Environment of an endpoint host that names none, first match wins (2.7, weakness R12).
const ENVIRONMENTS: [(&str, &str); 4] = [
    ("datapods", "test"),
    ("record-evolution", "production"),
    ("ironflock.com", "production"),
    ("ironflock.dev", "test"),
];

/// The document as issued, order and unknown keys kept. Holds every mandatory member.
#[derive(Clone, PartialEq)]
pub struct FlockDocument {
    members: Map<String, Value>,
}

/// The values that the agent works with.
#[derive(Clone, PartialEq, Eq)]
pub struct Flock {
    /// Device name.
    pub name: String,
    pub secret: String,
    pub swarm_key: u64,
    pub device_key: u64,
    pub swarm_name: String,
    pub swarm_owner_name: String,
    pub serial_number: String,
    pub device_endpoint_url: String,
    pub docker_registry_url: String,
    pub docker_main_repository: String,
    /// The member `environment`, empty when absent.
    pub environment: String,
    pub appliance_domain: String,
    pub update_url: String,
    pub board_model: String,
    /// PEM, legacy endpoint mode only.
    pub certificate: String,
    /// PEM, legacy endpoint mode only.
    pub certificate_key: String,
}

/// Why a text is not a usable `.flock`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlockError {
    /// Not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    Syntax(String),
    /// A mandatory member is missing, empty or of the wrong type.
    #[error("member {0:?} is missing or unusable")]
    Member(&'static str),
}

impl FlockDocument {
    /// Reads a document strictly (weakness R9): it is an object, and `device_endpoint_url`, `serial_number`, `secret`
    /// (non-empty text), `swarm_key`, `device_key` (whole numbers > 0 in any accepted form) are there. Keys match
    /// case-insensitively, the last one of several spellings counts; another member of the wrong type reads as empty.
    pub fn parse(text: &str) -> Result<FlockDocument, FlockError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| FlockError::Syntax(error.to_string()))?;
        let Value::Object(members) = value else {
            return Err(FlockError::Syntax("it is another kind of value".to_owned()));
        };
        for name in ["device_endpoint_url", "serial_number", "secret"] {
            if text_of(&members, name).is_empty() {
                return Err(FlockError::Member(name));
            }
        }
        for name in ["swarm_key", "device_key"] {
            if member(&members, name).and_then(number::positive).is_none() {
                return Err(FlockError::Member(name));
            }
        }
        Ok(FlockDocument { members })
    }

    /// A complete new document: every member of 2.1 in table order, optional ones left out when empty.
    pub fn issue(flock: &Flock) -> FlockDocument {
        let mut members = Map::new();
        for name in ORDER {
            if let Some(value) = issued(name, flock) {
                members.insert(name.to_owned(), value);
            }
        }
        FlockDocument { members }
    }

    /// The values that the agent works with.
    pub fn flock(&self) -> Flock {
        let text = |name| text_of(&self.members, name).to_owned();
        let whole = |name| {
            member(&self.members, name)
                .and_then(number::whole)
                .unwrap_or_default()
        };
        let inner = |group, name| match member(&self.members, group) {
            Some(Value::Object(members)) => text_of(members, name).to_owned(),
            _ => String::new(),
        };
        Flock {
            name: text("name"),
            secret: text("secret"),
            swarm_key: whole("swarm_key"),
            device_key: whole("device_key"),
            swarm_name: text("swarm_name"),
            swarm_owner_name: text("swarm_owner_name"),
            serial_number: text("serial_number"),
            device_endpoint_url: text("device_endpoint_url"),
            docker_registry_url: text("docker_registry_url"),
            docker_main_repository: text("docker_main_repository"),
            environment: text("environment"),
            appliance_domain: text("appliance_domain"),
            update_url: text("update_url"),
            board_model: inner("board", "model"),
            certificate: inner("authentication", "certificate"),
            certificate_key: inner("authentication", "key"),
        }
    }

    /// Replaces the two outdated addresses of 2.3; says whether anything changed. Idempotent.
    pub fn migrate(&mut self) -> bool {
        let mut changed = false;
        for (name, old, new) in MIGRATIONS {
            if text_of(&self.members, name) == old {
                self.set(name, json!(new));
                changed = true;
            }
        }
        changed
    }

    /// Sets the device name. Empty text changes nothing, here and in every setter (weakness R31).
    pub fn set_name(&mut self, name: &str) {
        self.set_text("name", name);
    }

    /// Sets the project key; 0 changes nothing.
    pub fn set_swarm_key(&mut self, swarm_key: u64) {
        if swarm_key > 0 {
            self.set("swarm_key", json!(swarm_key));
        }
    }

    /// Sets the project name.
    pub fn set_swarm_name(&mut self, name: &str) {
        self.set_text("swarm_name", name);
    }

    /// Sets the project owner's name.
    pub fn set_swarm_owner_name(&mut self, name: &str) {
        self.set_text("swarm_owner_name", name);
    }

    /// Sets the update base URL.
    pub fn set_update_url(&mut self, url: &str) {
        self.set_text("update_url", url);
    }

    /// The text of the file (2.4): one space per level, no newline at the end, `<`, `>`, `&`, U+2028 and U+2029 escaped.
    pub fn to_text(&self) -> String {
        use serde::Serialize as _;

        let mut text = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b" "));
        self.members
            .serialize(&mut serializer)
            .expect("a JSON map is written to memory without error");
        // Outside of strings JSON uses none of these characters.
        String::from_utf8(text)
            .expect("JSON is UTF-8")
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029")
    }

    fn set_text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() && text != text_of(&self.members, name) {
            self.set(name, json!(text));
        }
    }

    /// Replaces the member under the spelling it has; a new one goes to its place in the table.
    fn set(&mut self, name: &'static str, value: Value) {
        let mut spelled = self.members.iter_mut();
        if let Some((_, present)) = spelled.rfind(|(key, _)| key.eq_ignore_ascii_case(name)) {
            *present = value;
            return;
        }
        let rank = ORDER
            .iter()
            .position(|known| *known == name)
            .unwrap_or(ORDER.len());
        let before = |key: &String| ORDER[..rank].iter().any(|known| key.eq_ignore_ascii_case(known));
        let place = self.members.keys().rposition(before).map_or(0, |index| index + 1);
        self.members.shift_insert(place, name.to_owned(), value);
    }
}

impl Flock {
    /// The environment for update channel and tunnels (2.7): as issued, else by endpoint, else `local`.
    pub fn effective_environment(&self) -> &str {
        if !self.environment.is_empty() {
            return &self.environment;
        }
        ENVIRONMENTS
            .iter()
            .find(|(part, _)| self.device_endpoint_url.contains(part))
            .map_or("local", |(_, environment)| environment)
    }
}

impl std::fmt::Debug for Flock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Flock")
            .field("name", &self.name)
            .field("swarm_key", &self.swarm_key)
            .field("device_key", &self.device_key)
            .field("serial_number", &self.serial_number)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FlockDocument {
    /// Never the members: they hold the secret and the WiFi password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("FlockDocument")
            .field(&self.flock())
            .finish()
    }
}

/// The last member whose key is `name` in any case.
fn member<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members
        .iter()
        .rfind(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn text_of<'a>(members: &'a Map<String, Value>, name: &str) -> &'a str {
    member(members, name).and_then(Value::as_str).unwrap_or_default()
}

/// The value of a member in a new document, `None` for an optional one without content.
fn issued(name: &str, flock: &Flock) -> Option<Value> {
    let optional = |text: &str| (!text.is_empty()).then(|| json!(text));
    Some(match name {
        "name" => json!(flock.name),
        "secret" => json!(flock.secret),
        "board" => json!({
            "cpu": "",
            "docs": null,
            "board": "",
            "model": flock.board_model,
            "boardname": "",
            "modelname": "",
            "reflasher": false,
            "architecture": "",
        }),
        "status" => json!("DISCONNECTED"),
        "swarm_key" => json!(flock.swarm_key),
        "device_key" => json!(flock.device_key),
        "swarm_name" => json!(flock.swarm_name),
        "description" => Value::Null,
        "serial_number" => json!(flock.serial_number),
        "authentication" => json!({"key": flock.certificate_key, "certificate": flock.certificate}),
        "swarm_owner_name" => json!(flock.swarm_owner_name),
        "device_endpoint_url" => json!(flock.device_endpoint_url),
        "environment" => return optional(&flock.environment),
        "docker_registry_url" => json!(flock.docker_registry_url),
        "insecure-registries" => return None,
        "docker_main_repository" => json!(flock.docker_main_repository),
        "appliance_domain" => return optional(&flock.appliance_domain),
        "update_url" => return optional(&flock.update_url),
        // password, wlanssid, architecture, config_passphrase: always written, nothing to say.
        _ => json!(""),
    })
}

#[cfg(test)]
mod tests;
