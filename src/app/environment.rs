//! The environment of an app's container (`app-lifecycle.md` 4.3), pure; its mirror in files is [`files`].
//!
//! Must not know: Docker, where the values came from.

pub(crate) mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use protocol::credentials::AppCredential;
use protocol::flock::Flock;
use protocol::port::WireProtocol;
use protocol::{AppRequest, Stage};
use serde_json::{Map, Value};

use crate::engine::PortBinding;

/// Longest `NAME=value` that goes into the container's configuration; longer ones exist as file only.
const LONGEST_ENTRY: usize = 20_480;

/// Names that only the agent may set, whatever the source (W40).
pub(crate) const RESERVED: [&str; 2] = ["APP_AUTH_ID", "APP_AUTH_SECRET"];

/// Everything the environment is made of.
pub(crate) struct Inputs<'a> {
    pub(crate) flock: &'a Flock,
    pub(crate) request: &'a AppRequest,
    pub(crate) credential: Option<&'a AppCredential>,
    pub(crate) lan_ip: Option<Ipv4Addr>,
    /// The platform's base URL, once known.
    pub(crate) base_url: Option<&'a str>,
    pub(crate) bindings: &'a [PortBinding],
}

/// Names and values in the contract's order. Docker takes the last of equal names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment(Vec<(String, String)>);

impl Environment {
    pub(crate) fn new(inputs: &Inputs<'_>) -> Environment {
        let mut environment = Environment(Vec::new());
        environment.identity(inputs);
        let request = inputs.request;
        if request.app.stage == Stage::Prod {
            for (name, value) in entries(request.environment.as_ref(), "value") {
                environment.add(name, value);
            }
        }
        let present: BTreeSet<String> = environment.0.iter().map(|(name, _)| name.clone()).collect();
        for (name, value) in entries(request.environment_template.as_ref(), "defaultValue") {
            if request.app.stage == Stage::Dev || !present.contains(name) {
                environment.add(name, value);
            }
        }
        for (declared, host_port) in device_ports(inputs.bindings) {
            environment.add(&format!("DEVICE_PORT_FOR_{declared}"), host_port.to_string());
        }
        environment
    }

    fn identity(&mut self, inputs: &Inputs<'_>) {
        let (flock, request) = (inputs.flock, inputs.request);
        self.add("DEVICE_SERIAL_NUMBER", flock.serial_number.clone());
        self.add("ENV", request.app.stage.to_string());
        self.add("DEVICE_KEY", flock.device_key.to_string());
        self.add("SWARM_KEY", flock.swarm_key.to_string());
        self.add("APP_KEY", request.app.key.to_string());
        self.add("APP_NAME", request.app_name.clone());
        self.add("DEVICE_NAME", flock.name.clone());
        self.add(
            "DEVICE_ENDPOINT_URL",
            reachable_from_container(&flock.device_endpoint_url),
        );
        self.add("TUNNEL_DOMAIN", tunnel_domain(flock));
        if let Some(credential) = inputs.credential {
            self.add("APP_AUTH_ID", credential.auth_id.clone());
            self.add("APP_AUTH_SECRET", credential.secret.clone());
        }
        if let Some(ip) = inputs.lan_ip {
            self.add("DEVICE_LAN_IP", ip.to_string());
        }
        if request.instance_key > 0 {
            self.add("INSTANCE_KEY", request.instance_key.to_string());
        }
        if let Some(base) = inputs.base_url {
            self.add("RESWARM_URL", base.to_owned());
            self.add(
                "DEVICE_URL",
                format!(
                    "{base}/{}/swarms/{}/settings/devices/{}",
                    flock.swarm_owner_name, flock.swarm_name, flock.name
                ),
            );
        }
    }

    fn add(&mut self, name: &str, value: String) {
        let value = value
            .replace('\n', "\\n")
            .replace('\t', "\\t")
            .replace('\r', "\\r");
        self.0.push((name.to_owned(), value));
    }

    /// `NAME=value` for the container's configuration.
    pub(crate) fn for_container(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .filter(|entry| entry.len() <= LONGEST_ENTRY)
            .collect()
    }

    /// Every variable in order, equal names included.
    pub(crate) fn entries(&self) -> &[(String, String)] {
        &self.0
    }

    /// Every variable, the value that Docker would take.
    pub(crate) fn for_files(&self) -> BTreeMap<String, String> {
        self.0.iter().cloned().collect()
    }
}

/// Usable entries of `environment` or `environment_template`. An entry that is no object, has no value, a reserved
/// name or one that cannot be a variable is left out; it never fails an app (W20).
fn entries<'a>(
    source: Option<&'a Map<String, Value>>,
    member: &'static str,
) -> impl Iterator<Item = (&'a str, String)> {
    source
        .into_iter()
        .flatten()
        .filter(|(name, _)| {
            !name.is_empty() && !name.contains(['=', '\0']) && !RESERVED.contains(&name.trim())
        })
        .filter_map(move |(name, entry)| Some((name.as_str(), text(entry.get(member)?)?)))
}

/// Texts verbatim, everything else as compact JSON: integers of 64 bits keep their digits, fractions the shortest text of
/// their value (W47).
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.replace('\0', "")),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    }
}

/// Declared port to host port, ascending; TCP wins over UDP on the same number.
fn device_ports(bindings: &[PortBinding]) -> BTreeMap<u16, u16> {
    let mut ports = BTreeMap::new();
    for binding in bindings {
        if binding.protocol == WireProtocol::Tcp || !ports.contains_key(&binding.container_port) {
            ports.insert(binding.container_port, binding.host_port);
        }
    }
    ports
}

fn tunnel_domain(flock: &Flock) -> String {
    if !flock.appliance_domain.is_empty() {
        return flock.appliance_domain.clone();
    }
    match flock.environment.as_str() {
        "test" => "app.ironflock.dev",
        "local" => "localhost",
        _ => "app.ironflock.com",
    }
    .to_owned()
}

/// `localhost` of the device is another machine for a container: the host gets the name Docker gives it.
fn reachable_from_container(url: &str) -> String {
    let rewritten = || {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, host)) => (format!("{user}@"), host),
            None => (String::new(), authority),
        };
        let (host, port) = match host_port.strip_prefix('[') {
            Some(v6) => v6.split_once(']')?,
            None => host_port.split_at(host_port.find(':').unwrap_or(host_port.len())),
        };
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        local.then(|| format!("{scheme}://{user}host.docker.internal{port}{path}"))
    };
    rewritten().unwrap_or_else(|| url.to_owned())
}

/// The address with which the device stands in its LAN: that of the default route or, on an island, that of the first
/// network that is not Docker's. Nothing is sent.
pub(crate) fn lan_ip() -> Option<Ipv4Addr> {
    source_toward(Ipv4Addr::new(8, 8, 8, 8)).or_else(|| {
        // Absent where there is no Linux.
        let routes = std::fs::read_to_string("/proc/net/route").ok()?;
        attached_networks(&routes).find_map(|network| source_toward(Ipv4Addr::from(u32::from(network) + 1)))
    })
}

/// The networks that a route of `/proc/net/route` leads to without a gateway.
fn attached_networks(routes: &str) -> impl Iterator<Item = Ipv4Addr> {
    routes.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        let mut address = || u32::from_str_radix(fields.next()?, 16).ok().map(u32::swap_bytes);
        let (network, gateway) = (address()?, address()?);
        let containers = ["lo", "veth", "br-", "docker"];
        let usable =
            network != 0 && gateway == 0 && !containers.iter().any(|prefix| interface.starts_with(prefix));
        usable.then(|| Ipv4Addr::from(network))
    })
}

/// Which of our addresses the system would send from.
fn source_toward(target: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((target, 53)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests;
