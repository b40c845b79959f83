//! Port rules of an app (`app-lifecycle.md` 1.10).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::number;

/// One rule. Members this version does not know are kept and written back (weakness W53).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PortRule {
    pub main: bool,
    pub name: String,
    /// A tunnel is wanted.
    pub active: bool,
    pub public: bool,
    /// Declared port: the identity of the rule.
    pub port: u16,
    /// `http`, `https`, `tcp`, `udp`.
    pub protocol: String,
    /// Non-empty: the rule points to another host; nothing is published for it.
    pub local_ip: String,
    pub remote_port_environment: String,
    pub remote_port: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub host_port: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cloud_remote_port: u64,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `tcp` or `udp`, as Docker wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireProtocol {
    Tcp,
    Udp,
}

impl WireProtocol {
    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            WireProtocol::Tcp => "tcp",
            WireProtocol::Udp => "udp",
        }
    }
}

/// A rule that could not be read: it is skipped with a warning, never fatal (weakness W54).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port rule {index}: {reason}")]
pub struct BadPortRule {
    pub index: usize,
    pub reason: String,
}

impl PortRule {
    /// The protocol that Docker publishes.
    pub fn wire_protocol(&self) -> WireProtocol {
        if self.protocol == "udp" {
            WireProtocol::Udp
        } else {
            WireProtocol::Tcp
        }
    }

    /// Reads one rule.
    pub fn parse(index: usize, value: &Value) -> Result<PortRule, BadPortRule> {
        let bad = |reason: &str| BadPortRule {
            index,
            reason: reason.to_owned(),
        };
        let Value::Object(members) = value else {
            return Err(bad("not an object"));
        };
        let mut rule = PortRule {
            protocol: "http".to_owned(),
            ..PortRule::default()
        };
        for (key, value) in members {
            if value.is_null() {
                continue;
            }
            let flag = || {
                value
                    .as_bool()
                    .ok_or_else(|| bad(&format!("{key} is not a boolean")))
            };
            let text = || {
                value
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| bad(&format!("{key} is not a text")))
            };
            let whole = || number::whole(value).ok_or_else(|| bad(&format!("{key} is not a whole number")));
            match key.as_str() {
                "main" => rule.main = flag()?,
                "name" => rule.name = text()?,
                "active" => rule.active = flag()?,
                "public" => rule.public = flag()?,
                "port" => rule.port = u16::try_from(whole()?).map_err(|_| bad("port is above 65535"))?,
                "protocol" => {
                    let protocol = text()?;
                    if !protocol.is_empty() {
                        rule.protocol = protocol;
                    }
                }
                "local_ip" => rule.local_ip = text()?,
                "remote_port_environment" => rule.remote_port_environment = text()?,
                "remote_port" => rule.remote_port = whole()?,
                "host_port" => rule.host_port = whole()?,
                "cloud_remote_port" => rule.cloud_remote_port = whole()?,
                _ => {
                    rule.unknown.insert(key.clone(), value.clone());
                }
            }
        }
        if rule.port == 0 {
            return Err(bad("port is missing or 0"));
        }
        Ok(rule)
    }

    /// Reads a list of rules; unusable ones are returned beside the good ones.
    pub fn parse_list(values: &[Value]) -> (Vec<PortRule>, Vec<BadPortRule>) {
        let mut rules = Vec::new();
        let mut bad = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match PortRule::parse(index, value) {
                Ok(rule) => rules.push(rule),
                Err(error) => bad.push(error),
            }
        }
        (rules, bad)
    }
}
