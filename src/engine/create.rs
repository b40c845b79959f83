//! Creating and starting containers exactly as `app-lifecycle.md` 4.1, 4.2 and 4.7 say.
//!
//! The Go reference looks up, reuses and removes what is made here, so every field is contract. Must not know where
//! environment, labels and ports come from.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use protocol::port::WireProtocol;
use serde_json::{Map, Value, json};

use super::daemon::{Body, CHANGE, Raw, escaped};
use super::{ContainerSpec, Engine, EngineError};

impl Engine {
    /// Whether this machine has an NVIDIA GPU (`app-lifecycle.md` 4.7). Looked up once: it does not change while we run.
    pub fn detect_gpu() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let holds = |path: &str, word: &[u8]| {
                std::fs::read(path).is_ok_and(|content| {
                    content
                        .windows(word.len())
                        .any(|window| window.eq_ignore_ascii_case(word))
                })
            };
            // `ldconfig -p` prints this cache file; reading it needs no child process.
            std::path::Path::new("/usr/lib/nvidia").exists()
                || holds("/etc/ld.so.cache", b"libnvidia")
                || holds("/proc/device-tree/model", b"nvidia")
        })
    }

    /// Creates a container. A GPU runtime that the daemon does not have is left out (`app-lifecycle.md` 4.7). Returns
    /// what the container goes without.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<Vec<Concession>, EngineError> {
        let mut body = body_of(spec);
        let mut known = Vec::new();
        if self.unprivileged.load(Ordering::Relaxed) && Concession::Privileges.make(&mut body["HostConfig"]) {
            known.push(Concession::Privileges);
        }
        match self.create_body(&spec.name, &body).await {
            Err(error) => match Concession::for_error(&error) {
                Some(concession) if concession.make(&mut body["HostConfig"]) => {
                    tracing::warn!(container = %spec.name, %error, "creating {concession}");
                    self.remove(&spec.name).await?;
                    self.create_body(&spec.name, &body).await?;
                    known.push(concession);
                    Ok(known)
                }
                Some(_) | None => Err(error),
            },
            Ok(()) => Ok(known),
        }
    }

    /// Starts a created or stopped container; one that runs already is success. Where only something that this machine
    /// cannot give keeps it from starting, the container is made again without it (weakness W23). Returns what it goes
    /// without since this call.
    pub async fn start(&self, name: &str) -> Result<Vec<Concession>, EngineError> {
        let mut conceded = Vec::new();
        let mut result = self.start_once(name).await;
        while let Err(error) = &result {
            let Some(concession) = Concession::for_error(error) else {
                break;
            };
            let mut body = self.configuration(name).await?;
            // Each can be made once, so this ends.
            if !concession.make(&mut body["HostConfig"]) {
                break;
            }
            tracing::warn!(container = %name, %error, "starting {concession}");
            conceded.push(concession);
            self.remove(name).await?;
            self.create_body(name, &body).await?;
            result = self.start_once(name).await;
        }
        if result.is_ok() && conceded.contains(&Concession::Privileges) {
            self.unprivileged.store(true, Ordering::Relaxed);
        }
        result.map(|()| conceded)
    }

    async fn start_once(&self, name: &str) -> Result<(), EngineError> {
        let name = super::checked(name)?;
        let raw = Raw::post(format!("/containers/{name}/start"));
        self.send("start", CHANGE, name, raw).await.map(drop)
    }

    async fn create_body(&self, name: &str, body: &Value) -> Result<(), EngineError> {
        let raw = Raw {
            body: Some(Body::Json(body.to_string())),
            ..Raw::post(format!("/containers/create?name={}", escaped(name)))
        };
        self.send("create", CHANGE, name, raw).await.map(drop)
    }

    /// What [`Engine::create_body`] needs to make another container like this one. Nothing in it gets lost, whatever the
    /// daemon knows that we do not.
    async fn configuration(&self, name: &str) -> Result<Value, EngineError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Existing {
            config: Map<String, Value>,
            host_config: Map<String, Value>,
        }
        let name = super::checked(name)?;
        let existing: Existing = self
            .get("inspect", name, &format!("/containers/{name}/json"))
            .await?;
        let mut body = existing.config;
        // The daemon made it from the old container's id.
        body.remove("Hostname");
        body.insert("HostConfig".to_owned(), existing.host_config.into());
        Ok(Value::Object(body))
    }
}

/// What a container goes without where the machine cannot give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concession {
    /// The NVIDIA runtime is not installed or broken (`app-lifecycle.md` 4.7).
    GpuRuntime,
    /// The daemon may not give all capabilities away, because it runs in a container itself. From version 23 on
    /// Docker leaves out on its own what it does not have; older ones refuse to start the container.
    Privileges,
    /// Without privileges the daemon makes the nodes of `/dev` one by one and is refused one of them: a terminal that
    /// somebody has open is enough.
    Devices,
}

impl Concession {
    fn for_error(error: &EngineError) -> Option<Concession> {
        match error {
            EngineError::Other(text) if text.to_lowercase().contains("nvidia") => {
                Some(Concession::GpuRuntime)
            }
            EngineError::Other(text) if text.contains("unable to apply caps") => Some(Concession::Privileges),
            EngineError::Other(text) if text.contains("error creating device nodes") => {
                Some(Concession::Devices)
            }
            EngineError::Other(_)
            | EngineError::Unreachable(_)
            | EngineError::NoSuchContainer(_)
            | EngineError::NoSuchImage(_)
            | EngineError::Denied(_)
            | EngineError::NameInUse(_)
            | EngineError::PortConflict(_)
            | EngineError::NoSpace(_)
            | EngineError::Canceled
            | EngineError::EmptyDockerfile
            | EngineError::NoDockerfile
            | EngineError::NoArchive(_)
            | EngineError::Timeout(..) => None,
        }
    }

    /// Makes the concession; `false` when it is made already. `host` is the `HostConfig` of a container.
    fn make(self, host: &mut Value) -> bool {
        match self {
            Concession::GpuRuntime => host["Runtime"].take() == "nvidia",
            Concession::Privileges => {
                // Only a privileged container gets at all devices without being allowed to.
                for device in host["Devices"].as_array_mut().into_iter().flatten() {
                    if let Some(device) = device.as_object_mut() {
                        device.insert("CgroupPermissions".to_owned(), json!("rwm"));
                    }
                }
                host["CapAdd"] = Value::Null;
                std::mem::replace(&mut host["Privileged"], json!(false)) == true
            }
            Concession::Devices => {
                // A privileged container gets every device anyway; there the error has another cause.
                host["Privileged"] != true
                    && host["Devices"]
                        .take()
                        .as_array()
                        .is_some_and(|devices| !devices.is_empty())
            }
        }
    }
}

impl std::fmt::Display for Concession {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Concession::GpuRuntime => "without the GPU runtime: Docker does not have it here",
            Concession::Privileges => "without privileges: Docker itself lacks capabilities here",
            Concession::Devices => "without the devices of the host: Docker may not make them all here",
        })
    }
}

fn body_of(spec: &ContainerSpec) -> Value {
    let mut exposed = Map::new();
    let mut published = Map::new();
    for binding in &spec.bindings {
        let protocol = match binding.protocol {
            WireProtocol::Tcp => "tcp",
            WireProtocol::Udp => "udp",
        };
        let port = format!("{}/{protocol}", binding.container_port);
        let host = json!({"HostIp": "0.0.0.0", "HostPort": binding.host_port.to_string()});
        exposed.insert(port.clone(), json!({}));
        if let Value::Array(hosts) = published.entry(port).or_insert_with(|| json!([])) {
            hosts.push(host);
        }
    }
    let mounts: Vec<Value> = spec
        .mounts
        .iter()
        .map(|(host, container)| json!({"Type": "bind", "Source": host, "Target": container}))
        .collect();
    let mut host = json!({
        // The agent, not Docker, restarts apps.
        "RestartPolicy": {"Name": "no"},
        "NetworkMode": "bridge",
        "Privileged": true,
        "CapAdd": ["ALL"],
        "Devices": [{"PathOnHost": "/dev", "PathInContainer": "/dev"}],
        "ExtraHosts": ["host.docker.internal:host-gateway"],
        "PortBindings": published,
        "Mounts": mounts,
    });
    if let Some(runtime) = &spec.runtime {
        host["Runtime"] = json!(runtime);
    }
    json!({
        "Image": spec.image,
        "Env": spec.env,
        "Labels": spec.labels,
        "Tty": true,
        "AttachStdin": spec.interactive,
        "AttachStdout": spec.interactive,
        "AttachStderr": spec.interactive,
        "OpenStdin": spec.interactive,
        "ExposedPorts": exposed,
        "HostConfig": host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Value {
        let spec = ContainerSpec {
            name: "prod_1_x".to_owned(),
            image: "x".to_owned(),
            env: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            interactive: false,
            bindings: Vec::new(),
            mounts: Vec::new(),
            runtime: None,
        };
        body_of(&spec)["HostConfig"].take()
    }

    fn concession(text: &str) -> Option<Concession> {
        Concession::for_error(&EngineError::Other(text.to_owned()))
    }

    #[test]
    fn a_daemon_that_may_give_neither_capabilities_nor_every_device_is_met_step_by_step() {
        let caps = "runc create failed: unable to start container process: unable to apply caps: operation not permitted";
        let nodes =
            "error during container init: error creating device nodes: open /dev/pts/0: permission denied";
        assert_eq!(concession(caps), Some(Concession::Privileges));
        assert_eq!(concession(nodes), Some(Concession::Devices));
        let mut host = host();
        assert!(
            !Concession::Devices.make(&mut host),
            "privileged: the devices are not at fault"
        );
        assert!(Concession::Privileges.make(&mut host));
        assert_eq!(
            (&host["Privileged"], &host["CapAdd"]),
            (&json!(false), &Value::Null)
        );
        assert_eq!(host["Devices"].as_array().map(Vec::len), Some(1));
        assert!(Concession::Devices.make(&mut host));
        assert_eq!(host["Devices"], Value::Null);
        for made in [
            Concession::GpuRuntime,
            Concession::Privileges,
            Concession::Devices,
        ] {
            assert!(!made.make(&mut host), "{made:?} is made once");
        }
    }

    #[test]
    fn other_errors_concede_nothing() {
        for text in [
            "no such file or directory",
            "permission denied",
            "OCI runtime create failed",
        ] {
            assert_eq!(concession(text), None, "{text}");
        }
    }
}
