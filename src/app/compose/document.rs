//! The document that compose gets (`app-lifecycle.md` 5.2): the authored one with what the agent adds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Document;
use super::ports;
use crate::engine::Dialect;

/// The file of variables beside the document.
pub(crate) const ENV_FILE: &str = ".env-compose";
const HOST: &str = "host.docker.internal";
const HOST_GATEWAY: &str = "host-gateway";
/// Where the files of the variables are mounted.
const ENV_MOUNT: &str = "/data/env";

/// The members of one service.
type Service = Map<String, Value>;

/// A document that compose could not read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDocument {
    #[error("failed to infer services")]
    Services,
    #[error("failed to infer service")]
    Service,
}

/// What the agent adds.
pub(crate) struct Frame<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) project: &'a str,
    /// The app's `env` directory on the host.
    pub(crate) env_dir: &'a str,
    /// Host ports by service and place in its list.
    pub(crate) ports: &'a BTreeMap<(String, usize), u16>,
    /// Whether a file that the document names is there, relative to it.
    pub(crate) has_file: &'a dyn Fn(&str) -> bool,
}

/// The services of a document, in its order.
pub(crate) fn services(document: &Document) -> Result<Vec<(&str, &Service)>, BadDocument> {
    let Some(Value::Object(services)) = document.get("services") else {
        return Err(BadDocument::Services);
    };
    let named = services.iter().map(|(name, service)| match service {
        Value::Object(service) => Ok((name.as_str(), service)),
        _ => Err(BadDocument::Service),
    });
    named.collect()
}

/// The document as it is written. The authored one stays as it is.
pub(crate) fn render(document: &Document, frame: &Frame<'_>) -> Result<Value, BadDocument> {
    // Every service is looked at before anything is made of it.
    services(document)?;
    let mut rendered = Map::new();
    if frame.dialect != Dialect::First {
        rendered.insert("name".to_owned(), frame.project.into());
    }
    for (member, value) in document {
        if member != "name" {
            rendered.insert(member.clone(), value.clone());
        }
    }
    if let Some(Value::Object(services)) = rendered.get_mut("services") {
        for (name, service) in services {
            if let Value::Object(service) = service {
                complete(name, service, frame);
            }
        }
    }
    Ok(Value::Object(rendered))
}

fn complete(name: &str, service: &mut Map<String, Value>, frame: &Frame<'_>) {
    let env_file = env_files(service.get("env_file"), frame.has_file);
    service.insert("env_file".to_owned(), env_file);
    match service.entry("extra_hosts").or_insert_with(|| json!([])) {
        Value::Array(hosts) => {
            let known = |host: &Value| host.as_str().is_some_and(|host| host.starts_with(HOST));
            if !hosts.iter().any(known) {
                hosts.push(format!("{HOST}:{HOST_GATEWAY}").into());
            }
        }
        Value::Object(hosts) => {
            hosts.entry(HOST).or_insert_with(|| HOST_GATEWAY.into());
        }
        _ => {}
    }
    if let Value::Array(volumes) = service.entry("volumes").or_insert_with(|| json!([]))
        && !volumes.iter().any(mounts_env)
    {
        volumes.push(format!("{}:{ENV_MOUNT}:ro", frame.env_dir).into());
    }
    if let Some(Value::Array(entries)) = service.get_mut("ports") {
        for (place, entry) in entries.iter_mut().enumerate() {
            if let Some(host_port) = frame.ports.get(&(name.to_owned(), place)) {
                *entry = ports::rewritten(entry, *host_port, frame.dialect);
            }
        }
    }
}

/// Authored files that are there come first, so that the agent's variables win (W50). A release's document may name
/// files that only its author has.
fn env_files(authored: Option<&Value>, has_file: &dyn Fn(&str) -> bool) -> Value {
    let there = |entry: &Value| {
        let path = match entry {
            Value::Object(long) => long.get("path").and_then(Value::as_str),
            entry => entry.as_str(),
        };
        path.is_some_and(|path| path != ENV_FILE && has_file(path))
    };
    let mut files: Vec<Value> = match authored {
        Some(Value::Array(files)) => files.iter().filter(|file| there(file)).cloned().collect(),
        Some(file) if there(file) => vec![file.clone()],
        Some(_) | None => Vec::new(),
    };
    if files.is_empty() {
        return ENV_FILE.into();
    }
    files.push(ENV_FILE.into());
    Value::Array(files)
}

fn mounts_env(volume: &Value) -> bool {
    match volume {
        Value::String(short) => short.contains(&format!(":{ENV_MOUNT}")),
        Value::Object(long) => long
            .get("target")
            .and_then(Value::as_str)
            .is_some_and(|target| target.starts_with(ENV_MOUNT)),
        _ => false,
    }
}

/// Service to image, for services that have one.
pub(crate) fn images(document: &Document) -> BTreeMap<&str, &str> {
    let services = services(document).unwrap_or_default();
    services
        .into_iter()
        .filter_map(|(name, service)| Some((name, service.get("image")?.as_str()?)))
        .filter(|(_, image)| !image.is_empty())
        .collect()
}

/// Services that are not built here.
pub(crate) fn pulled(document: &Document) -> Vec<&str> {
    let services = services(document).unwrap_or_default();
    services
        .into_iter()
        .filter(|(_, service)| service.get("build").is_none_or(Value::is_null))
        .map(|(name, _)| name)
        .collect()
}

/// Services that are to run for ever: one that has ended, even with 0, has failed. Everything else may be a helper that
/// does its work and ends (W18).
pub(crate) fn lasting(document: &Document) -> BTreeSet<String> {
    let services = services(document).unwrap_or_default();
    let completing: BTreeSet<&str> = services
        .iter()
        .filter_map(|(_, service)| service.get("depends_on")?.as_object())
        .flatten()
        .filter(|(_, how)| {
            how.get("condition").and_then(Value::as_str) == Some("service_completed_successfully")
        })
        .map(|(name, _)| name.as_str())
        .collect();
    services
        .iter()
        .filter(|(name, service)| !completing.contains(name) && restarts(service))
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

fn restarts(service: &Map<String, Value>) -> bool {
    let deployed = || {
        service
            .get("deploy")?
            .get("restart_policy")?
            .get("condition")?
            .as_str()
    };
    match service.get("restart").and_then(Value::as_str) {
        Some(policy) => matches!(policy, "always" | "unless-stopped"),
        None => deployed() == Some("any"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Document {
        match value {
            Value::Object(document) => document,
            _ => unreachable!(),
        }
    }

    fn rendered(document: Value, dialect: Dialect, ports: &[(&str, usize, u16)]) -> Value {
        let ports = ports
            .iter()
            .map(|(service, place, port)| (((*service).to_owned(), *place), *port))
            .collect();
        let frame = Frame {
            dialect,
            project: "prod_6_myapp_compose",
            env_dir: "/opt/reagent/apps/prod/myapp/env",
            ports: &ports,
            has_file: &|file| file == "there.env",
        };
        render(&object(document), &frame).unwrap()
    }

    #[test]
    fn the_example_of_the_contract_comes_out() {
        let authored = json!({"services": {"web": {"image": "r/x:1", "ports": ["8080:80", "${P}:90"]}}});
        let found = rendered(authored, Dialect::Second, &[("web", 0, 40_000)]);
        let expected = json!({
            "name": "prod_6_myapp_compose",
            "services": {"web": {
                "image": "r/x:1",
                "ports": ["0.0.0.0:40000:80", "${P}:90"],
                "env_file": ".env-compose",
                "extra_hosts": ["host.docker.internal:host-gateway"],
                "volumes": ["/opt/reagent/apps/prod/myapp/env:/data/env:ro"]
            }}
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn the_old_dialect_gets_no_name() {
        let authored = json!({"name": "authored", "version": "3", "services": {}});
        let old = rendered(authored.clone(), Dialect::First, &[]);
        assert_eq!(old, json!({"version": "3", "services": {}}));
        let new = rendered(authored, Dialect::Second, &[]);
        assert_eq!(new["name"], "prod_6_myapp_compose");
    }

    #[test]
    fn what_is_there_already_is_not_added_twice_and_odd_shapes_stay() {
        let authored = json!({"services": {
            "a": {"extra_hosts": ["host.docker.internal:10.0.0.1"], "volumes": ["/x:/data/env"]},
            "b": {"extra_hosts": {"db": "10.0.0.2"}, "volumes": [{"type": "bind", "source": "/x", "target": "/data/env/y"}]},
            "c": {"extra_hosts": {"host.docker.internal": "10.0.0.3"}, "volumes": "odd"},
            "d": {"extra_hosts": 7, "restart": "always", "labels": ["x=y"], "build": "."},
        }});
        let found = rendered(authored, Dialect::Second, &[]);
        let service = |name: &str| found["services"][name].clone();
        assert_eq!(
            service("a")["extra_hosts"],
            json!(["host.docker.internal:10.0.0.1"])
        );
        assert_eq!(service("a")["volumes"], json!(["/x:/data/env"]));
        assert_eq!(
            service("b")["extra_hosts"],
            json!({"db": "10.0.0.2", "host.docker.internal": "host-gateway"})
        );
        assert_eq!(service("b")["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(
            service("c")["extra_hosts"],
            json!({"host.docker.internal": "10.0.0.3"})
        );
        assert_eq!(service("c")["volumes"], "odd");
        assert_eq!(service("d")["extra_hosts"], 7);
        assert_eq!(
            (
                &service("d")["restart"],
                &service("d")["labels"],
                &service("d")["build"]
            ),
            (&json!("always"), &json!(["x=y"]), &json!("."))
        );
    }

    #[test]
    fn authored_variables_that_are_there_come_before_the_agents() {
        let authored = json!({"services": {
            "a": {"env_file": "there.env"},
            "b": {"env_file": ["missing.env", "there.env", ".env-compose"]},
            "c": {"env_file": [{"path": "there.env", "required": false}]},
            "d": {"env_file": "missing.env"},
            "e": {"env_file": 5},
        }});
        let found = rendered(authored, Dialect::Second, &[]);
        let files = |name: &str| found["services"][name]["env_file"].clone();
        assert_eq!(files("a"), json!(["there.env", ".env-compose"]));
        assert_eq!(files("b"), json!(["there.env", ".env-compose"]));
        assert_eq!(
            files("c"),
            json!([{"path": "there.env", "required": false}, ".env-compose"])
        );
        assert_eq!(files("d"), ".env-compose");
        assert_eq!(files("e"), ".env-compose");
    }

    #[test]
    fn a_document_without_an_object_of_objects_is_refused_in_the_contracts_words() {
        let refusal = |document: Value| services(&object(document)).unwrap_err().to_string();
        for document in [json!({}), json!({"services": []}), json!({"services": null})] {
            assert_eq!(refusal(document), "failed to infer services");
        }
        assert_eq!(
            refusal(json!({"services": {"web": "x"}})),
            "failed to infer service"
        );
        assert!(images(&object(json!({"services": 1}))).is_empty());
        assert!(lasting(&object(json!({}))).is_empty());
    }

    #[test]
    fn images_and_what_is_pulled_are_told_by_service() {
        let document = object(json!({"services": {
            "web": {"image": "r/web:1"}, "db": {"image": "postgres"}, "own": {"build": "."},
            "both": {"image": "r/both", "build": {"context": "."}}, "none": {"image": ""},
        }}));
        let found: Vec<_> = images(&document).into_iter().collect();
        assert_eq!(
            found,
            [("both", "r/both"), ("db", "postgres"), ("web", "r/web:1")]
        );
        assert_eq!(pulled(&document), ["web", "db", "none"]);
    }

    #[test]
    fn only_services_that_are_restarted_for_ever_last() {
        let document = object(json!({"services": {
            "web": {"restart": "always", "depends_on": {"init": {"condition": "service_completed_successfully"}}},
            "init": {"restart": "always"},
            "db": {"restart": "unless-stopped", "depends_on": ["web"]},
            "deployed": {"deploy": {"restart_policy": {"condition": "any"}}},
            "retried": {"restart": "on-failure"}, "once": {"restart": "no"}, "plain": {},
        }}));
        let found: Vec<String> = lasting(&document).into_iter().collect();
        assert_eq!(found, ["db", "deployed", "web"]);
    }
}
