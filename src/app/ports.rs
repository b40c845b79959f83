//! Host ports of apps (`app-lifecycle.md` 4.6): apps declare ports, the agent picks where the host publishes them.
//!
//! Assignments live in memory and are recovered from existing containers and from the rules' `host_port`. Must not
//! know: Docker, tunnels.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::port::WireProtocol;
use protocol::{AppId, PortRule, Stage};

use super::compose::ports::Managed;
use crate::engine::PortBinding;

/// Where host ports are taken from.
const POOL: RangeInclusive<u16> = 40_000..=49_999;

/// No port of the pool is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no free host port available in range 40000-49999")]
pub(crate) struct NoFreePort;

/// One published port of one app. `service` is empty for single containers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PortKey {
    app: AppId,
    protocol: WireProtocol,
    declared: u16,
    service: String,
}

/// All assignments of this device.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    assigned: Mutex<BTreeMap<PortKey, u16>>,
}

impl Ports {
    /// The host port for a rule. `bound` is what an existing container of the app publishes the declared port on.
    pub(crate) fn choose(&self, app: AppId, rule: &PortRule, bound: Option<u16>) -> Result<u16, NoFreePort> {
        self.assign(key(app, rule.port, rule.wire_protocol()), rule.host_port, bound)
    }

    /// The same for an entry of a compose service. `wished` is the host port of the rule that is about it, 0 without.
    pub(crate) fn choose_for_service(
        &self,
        app: AppId,
        entry: &Managed,
        wished: u64,
        bound: Option<u16>,
    ) -> Result<u16, NoFreePort> {
        self.assign(key_of(app, entry), wished, bound)
    }

    fn assign(&self, key: PortKey, wished: u64, bound: Option<u16>) -> Result<u16, NoFreePort> {
        // A port number from the cloud is taken only where it can be meant (W55).
        let wished = u16::try_from(wished)
            .ok()
            .filter(|port| POOL.contains(port) || *port == key.declared);
        let preferred = bound.or(wished);
        let mut assigned = self.lock();
        let elsewhere = |assigned: &BTreeMap<PortKey, u16>, port| {
            assigned
                .iter()
                .any(|(other, held)| *other != key && *held == port)
        };
        let port =
            if key.app.stage == Stage::Dev && preferred.is_none() && !elsewhere(&assigned, key.declared) {
                key.declared
            } else if let Some(port) = assigned.get(&key) {
                *port
            } else if let Some(port) = preferred.filter(|port| !elsewhere(&assigned, *port)) {
                port
            } else {
                free_port(&assigned, key.protocol)?
            };
        assigned.insert(key, port);
        Ok(port)
    }

    /// Where a rule is published, without choosing anything new. A port that an existing container publishes is taken in:
    /// after a restart of the agent nobody else may get it.
    pub(crate) fn locate(&self, app: AppId, rule: &PortRule, existing: &[PortBinding]) -> Option<u16> {
        let key = key(app, rule.port, rule.wire_protocol());
        let mut assigned = self.lock();
        let bound = existing
            .iter()
            .find(|binding| {
                binding.container_port == key.declared
                    && binding.protocol == key.protocol
                    && binding.host_port != 0
            })
            .map(|binding| binding.host_port);
        if let Some(port) = bound {
            assigned.entry(key.clone()).or_insert(port);
        }
        assigned.get(&key).copied()
    }

    /// The host port that an entry of a compose service has.
    pub(crate) fn assigned_to_service(&self, app: AppId, entry: &Managed) -> Option<u16> {
        self.lock().get(&key_of(app, entry)).copied()
    }

    /// Takes in what a running project publishes an entry on.
    pub(crate) fn take_in(&self, app: AppId, entry: &Managed, host_port: u16) {
        self.lock().entry(key_of(app, entry)).or_insert(host_port);
    }

    /// Where a rule of a compose app is published: of several services the first by name counts.
    pub(crate) fn locate_service(&self, app: AppId, rule: &PortRule) -> Option<u16> {
        let assigned = self.lock();
        let found = assigned.iter().find(|(key, _)| {
            key.app == app
                && key.declared == rule.port
                && key.protocol == rule.wire_protocol()
                && !key.service.is_empty()
        });
        found.map(|(_, port)| *port)
    }

    /// Gives every port of `app` that `conflict`, the daemon's text, names another number. `false` when it names none.
    pub(crate) fn replace_conflicting(&self, app: AppId, conflict: &str) -> Result<bool, NoFreePort> {
        let named = ports_in(conflict);
        let mut assigned = self.lock();
        let hit: Vec<PortKey> = assigned
            .iter()
            .filter(|(key, port)| key.app == app && named.contains(port))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &hit {
            let port = free_port(&assigned, key.protocol)?;
            assigned.insert(key.clone(), port);
        }
        Ok(!hit.is_empty())
    }

    /// Forgets the ports of rules that are gone.
    pub(crate) fn keep_only(&self, app: AppId, rules: &[PortRule]) {
        self.lock().retain(|held, _| {
            held.app != app
                || rules
                    .iter()
                    .any(|rule| rule.port == held.declared && rule.wire_protocol() == held.protocol)
        });
    }

    /// Forgets the ports of entries that are gone.
    pub(crate) fn keep_only_services(&self, app: AppId, entries: &[Managed]) {
        let kept: Vec<PortKey> = entries.iter().map(|entry| key_of(app, entry)).collect();
        self.lock()
            .retain(|held, _| held.app != app || kept.contains(held));
    }

    /// Forgets all ports of an app.
    pub(crate) fn release(&self, app: AppId) {
        self.lock().retain(|key, _| key.app != app);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PortKey, u16>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(app: AppId, declared: u16, protocol: WireProtocol) -> PortKey {
    PortKey {
        app,
        protocol,
        declared,
        service: String::new(),
    }
}

fn key_of(app: AppId, entry: &Managed) -> PortKey {
    PortKey {
        service: entry.service.clone(),
        ..key(app, entry.declared(), entry.protocol)
    }
}

fn free_port(assigned: &BTreeMap<PortKey, u16>, protocol: WireProtocol) -> Result<u16, NoFreePort> {
    POOL.into_iter()
        .find(|port| !assigned.values().any(|held| held == port) && bindable(*port, protocol))
        .ok_or(NoFreePort)
}

fn bindable(port: u16, protocol: WireProtocol) -> bool {
    match protocol {
        WireProtocol::Tcp => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
        WireProtocol::Udp => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
    }
}

/// The numbers that follow a colon, whole: `:80` is not found in `:8080` (W55).
fn ports_in(text: &str) -> Vec<u16> {
    text.split(':')
        .skip(1)
        .filter_map(|part| {
            let end = part
                .find(|sign: char| !sign.is_ascii_digit())
                .unwrap_or(part.len());
            part[..end].parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(key: u64, stage: Stage) -> AppId {
        AppId { key, stage }
    }

    fn rule(port: u16, host_port: u64) -> PortRule {
        PortRule {
            port,
            host_port,
            protocol: "http".to_owned(),
            ..PortRule::default()
        }
    }

    #[test]
    fn a_port_is_kept_until_it_is_released() {
        let ports = Ports::default();
        let first = ports.choose(app(1, Stage::Prod), &rule(80, 0), None).unwrap();
        assert!(POOL.contains(&first));
        assert_eq!(ports.choose(app(1, Stage::Prod), &rule(80, 0), None), Ok(first));
        let other = ports.choose(app(2, Stage::Prod), &rule(80, 0), None).unwrap();
        assert_ne!(first, other);
        ports.release(app(1, Stage::Prod));
        ports.keep_only(app(2, Stage::Prod), &[]);
        assert_eq!(ports.choose(app(3, Stage::Prod), &rule(80, 0), None), Ok(first));
    }

    #[test]
    fn a_prod_app_gets_its_preferred_port_when_nobody_holds_it() {
        let ports = Ports::default();
        assert_eq!(
            ports.choose(app(1, Stage::Prod), &rule(80, 40_123), None),
            Ok(40_123)
        );
        // What the container already publishes wins over the rule.
        assert_eq!(
            ports.choose(app(2, Stage::Prod), &rule(80, 40_124), Some(40_200)),
            Ok(40_200)
        );
        assert_ne!(
            ports.choose(app(3, Stage::Prod), &rule(80, 40_123), None),
            Ok(40_123)
        );
    }

    #[test]
    fn a_number_outside_the_pool_is_not_taken_from_the_cloud() {
        let ports = Ports::default();
        assert_ne!(ports.choose(app(1, Stage::Prod), &rule(80, 22), None), Ok(22));
        assert_eq!(
            ports.choose(app(2, Stage::Prod), &rule(8080, 8080), None),
            Ok(8080)
        );
    }

    #[test]
    fn a_dev_app_gets_the_declared_port_unless_another_app_holds_it() {
        let ports = Ports::default();
        assert_eq!(ports.choose(app(1, Stage::Dev), &rule(8080, 0), None), Ok(8080));
        let second = ports.choose(app(2, Stage::Dev), &rule(8080, 0), None).unwrap();
        assert!(POOL.contains(&second));
    }

    #[test]
    fn only_the_conflicting_port_is_replaced() {
        let ports = Ports::default();
        let one = app(1, Stage::Dev);
        ports.choose(one, &rule(8080, 0), None).unwrap();
        ports.choose(one, &rule(80, 0), None).unwrap();
        let text = "driver failed: Bind for 0.0.0.0:8080 failed: port is already allocated";
        assert_eq!(ports.replace_conflicting(one, text), Ok(true));
        assert_ne!(ports.lock()[&key(one, 8080, WireProtocol::Tcp)], 8080);
        assert_eq!(ports.lock()[&key(one, 80, WireProtocol::Tcp)], 80);
        assert_eq!(ports.replace_conflicting(one, "something else"), Ok(false));
    }

    #[test]
    fn a_port_in_use_on_the_host_is_passed_over() {
        let ports = Ports::default();
        let probe = ports.choose(app(1, Stage::Prod), &rule(80, 0), None).unwrap();
        ports.release(app(1, Stage::Prod));
        let _held = TcpListener::bind((Ipv4Addr::UNSPECIFIED, probe)).unwrap();
        assert_ne!(ports.choose(app(1, Stage::Prod), &rule(80, 0), None), Ok(probe));
    }

    #[test]
    fn services_of_one_app_have_ports_of_their_own() {
        let ports = Ports::default();
        let one = app(1, Stage::Prod);
        let entry = |service: &str, host| Managed {
            service: service.to_owned(),
            place: 0,
            container: 80,
            protocol: WireProtocol::Tcp,
            host,
        };
        let (api, web) = (entry("api", Some(8080)), entry("web", Some(8080)));
        let first = ports.choose_for_service(one, &api, 0, None).unwrap();
        let second = ports.choose_for_service(one, &web, 0, None).unwrap();
        assert_ne!(first, second);
        assert_eq!(ports.locate_service(one, &rule(8080, 0)), Some(first));
        assert_eq!(ports.locate_service(one, &rule(80, 0)), None);
        ports.keep_only_services(one, std::slice::from_ref(&web));
        assert_eq!(ports.assigned_to_service(one, &api), None);
        assert_eq!(ports.assigned_to_service(one, &web), Some(second));
        // What runs already keeps its port.
        ports.take_in(one, &api, 40_777);
        assert_eq!(ports.choose_for_service(one, &api, 0, None), Ok(40_777));
        assert_eq!(
            ports.choose_for_service(one, &entry("db", None), 40_888, None),
            Ok(40_888)
        );
    }

    #[test]
    fn a_dev_service_gets_the_declared_port_when_nobody_holds_it() {
        let ports = Ports::default();
        let entry = Managed {
            service: "web".to_owned(),
            place: 0,
            container: 80,
            protocol: WireProtocol::Tcp,
            host: Some(8080),
        };
        assert_eq!(
            ports.choose_for_service(app(1, Stage::Dev), &entry, 0, None),
            Ok(8080)
        );
        let other = ports
            .choose_for_service(app(2, Stage::Dev), &entry, 0, None)
            .unwrap();
        assert!(POOL.contains(&other));
    }
}
