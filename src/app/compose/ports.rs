//! The `ports` of services (`app-lifecycle.md` 5.3): which entries the agent manages, and how they are rewritten. Pure.

use protocol::PortRule;
use protocol::port::WireProtocol;
use serde_json::{Value, json};

use super::Document;
use super::document::services;
use crate::engine::Dialect;

/// An entry whose host port the agent chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Managed {
    pub(crate) service: String,
    /// Place in the service's list.
    pub(crate) place: usize,
    pub(crate) container: u16,
    pub(crate) protocol: WireProtocol,
    /// Host port as authored.
    pub(crate) host: Option<u16>,
}

impl Managed {
    /// The identity of the entry for rules and variables.
    pub(crate) fn declared(&self) -> u16 {
        self.host.unwrap_or(self.container)
    }

    /// The rule that is about this entry.
    pub(crate) fn rule<'a>(&self, rules: &'a [PortRule]) -> Option<&'a PortRule> {
        rules.iter().find(|rule| {
            rule.local_ip.is_empty() && rule.port == self.declared() && rule.wire_protocol() == self.protocol
        })
    }
}

/// The entries that get a host port from the agent, by service name. One without an authored host port and without a
/// rule stays unpublished.
pub(crate) fn managed(document: &Document, rules: &[PortRule]) -> Vec<Managed> {
    let mut found = Vec::new();
    for (service, members) in services(document).unwrap_or_default() {
        let entries = members.get("ports").and_then(Value::as_array);
        for (place, entry) in entries.into_iter().flatten().enumerate() {
            let Some((host, container, protocol)) = read(entry) else {
                continue;
            };
            let managed = Managed {
                service: service.to_owned(),
                place,
                container,
                protocol,
                host,
            };
            if host.is_some() || managed.rule(rules).is_some() {
                found.push(managed);
            }
        }
    }
    // Stable: entries of one service keep their order.
    found.sort_by(|one, other| one.service.cmp(&other.service));
    found
}

/// The entry with another host port, on all interfaces.
pub(crate) fn rewritten(entry: &Value, host_port: u16, dialect: Dialect) -> Value {
    match entry {
        // The old dialect takes an address only in the short form.
        Value::Object(long) if dialect != Dialect::First => {
            let mut long = long.clone();
            long.insert("published".to_owned(), host_port.to_string().into());
            long.insert("host_ip".to_owned(), "0.0.0.0".into());
            Value::Object(long)
        }
        entry => match read(entry) {
            Some((_, container, WireProtocol::Udp)) => json!(format!("0.0.0.0:{host_port}:{container}/udp")),
            Some((_, container, WireProtocol::Tcp)) => json!(format!("0.0.0.0:{host_port}:{container}")),
            None => entry.clone(),
        },
    }
}

/// Host port, container port, protocol. `None` for what is kept as it is: ranges, variables, other protocols.
fn read(entry: &Value) -> Option<(Option<u16>, u16, WireProtocol)> {
    match entry {
        Value::Number(number) => Some((None, port(&number.to_string())?, WireProtocol::Tcp)),
        Value::String(short) => read_short(short),
        Value::Object(long) => {
            let number = |name: &str| match long.get(name) {
                None | Some(Value::Null) => Some(None),
                Some(Value::String(text)) if text.is_empty() => Some(None),
                Some(Value::String(text)) => port(text).map(Some),
                Some(Value::Number(number)) => port(&number.to_string()).map(Some),
                Some(_) => None,
            };
            let protocol = match long.get("protocol") {
                None | Some(Value::Null) => WireProtocol::Tcp,
                Some(name) => protocol(name.as_str()?)?,
            };
            Some((number("published")?, number("target")??, protocol))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => None,
    }
}

fn read_short(short: &str) -> Option<(Option<u16>, u16, WireProtocol)> {
    let (ports, name) = short.split_once('/').unwrap_or((short, "tcp"));
    let protocol = protocol(name)?;
    let Some((before, container)) = ports.rsplit_once(':') else {
        return Some((None, port(ports)?, protocol));
    };
    let host = match before.rsplit_once(':') {
        None => before,
        Some((address, host)) => {
            let bare = address
                .strip_prefix('[')
                .and_then(|address| address.strip_suffix(']'))
                .unwrap_or(address);
            bare.parse::<std::net::IpAddr>().ok()?;
            host
        }
    };
    Some((Some(port(host)?), port(container)?, protocol))
}

fn protocol(name: &str) -> Option<WireProtocol> {
    match name {
        "" | "tcp" => Some(WireProtocol::Tcp),
        "udp" => Some(WireProtocol::Udp),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::WireProtocol::{Tcp, Udp};
    use super::*;

    #[test]
    fn entries_are_read_as_the_contracts_table_says() {
        for (entry, expected) in [
            (json!("8080:80"), Some((Some(8080), 80, Tcp))),
            (json!("8080:80/tcp"), Some((Some(8080), 80, Tcp))),
            (json!("53:53/udp"), Some((Some(53), 53, Udp))),
            (json!("127.0.0.1:8080:80"), Some((Some(8080), 80, Tcp))),
            (json!("[::1]:8080:80"), Some((Some(8080), 80, Tcp))),
            (json!("80"), Some((None, 80, Tcp))),
            (json!(80), Some((None, 80, Tcp))),
            (
                json!({"target": 80, "published": 8080}),
                Some((Some(8080), 80, Tcp)),
            ),
            (
                json!({"target": 80, "published": "8080", "protocol": "udp", "host_ip": "127.0.0.1"}),
                Some((Some(8080), 80, Udp)),
            ),
            (json!({"target": 80}), Some((None, 80, Tcp))),
            (json!("8080-8090:80-90"), None),
            (json!("3000-3005"), None),
            (json!("${P}:90"), None),
            (json!("90:${P}"), None),
            (json!("53:53/sctp"), None),
            (json!("localhost:8080:80"), None),
            (json!("127.0.0.1::80"), None),
            (json!("+80"), None),
            (json!(0), None),
            (json!(70_000), None),
            (json!(1.5), None),
            (json!(""), None),
            (json!(null), None),
            (json!({"published": 8080}), None),
            (json!({"target": 80, "published": "8080-8090"}), None),
        ] {
            assert_eq!(read(&entry), expected, "{entry}");
        }
    }

    #[test]
    fn an_entry_without_host_port_is_managed_only_by_a_rule() {
        let Value::Object(document) = json!({"services": {
            "web": {"ports": ["8080:80", "81", 82, "${P}:90"]},
            "api": {"ports": [{"target": 8080}, "53:53/udp"]},
        }}) else {
            unreachable!()
        };
        let rule = |port, protocol: &str, local_ip: &str| PortRule {
            port,
            protocol: protocol.to_owned(),
            local_ip: local_ip.to_owned(),
            ..PortRule::default()
        };
        let rules = [
            rule(81, "http", ""),
            rule(82, "udp", ""),
            rule(8080, "http", "10.0.0.1"),
            rule(53, "udp", ""),
        ];
        let found = managed(&document, &rules);
        let found: Vec<_> = found
            .iter()
            .map(|entry| (entry.service.as_str(), entry.place, entry.declared()))
            .collect();
        assert_eq!(found, [("api", 1, 53), ("web", 0, 8080), ("web", 1, 81)]);
    }

    #[test]
    fn rewritten_entries_are_on_all_interfaces_and_keep_everything_else() {
        for (entry, expected) in [
            (json!("127.0.0.1:8080:80"), json!("0.0.0.0:40000:80")),
            (json!("53:53/udp"), json!("0.0.0.0:40000:53/udp")),
            (json!(80), json!("0.0.0.0:40000:80")),
            (
                json!({"target": 80, "mode": "host", "published": 8080}),
                json!({"target": 80, "mode": "host", "published": "40000", "host_ip": "0.0.0.0"}),
            ),
        ] {
            assert_eq!(rewritten(&entry, 40_000, Dialect::Second), expected, "{entry}");
        }
        let long = json!({"target": 80, "protocol": "udp"});
        assert_eq!(
            rewritten(&long, 40_000, Dialect::First),
            json!("0.0.0.0:40000:80/udp")
        );
    }
}
