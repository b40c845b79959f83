//! Creating and starting containers exactly as `app-lifecycle.md` 4.1, 4.2 and 4.7 say.
//!
//! The Go reference looks up, reuses and removes what is made here, so every field is contract. Must not know where
//! environment, labels and ports come from.

use std::collections::HashMap;
use std::sync::OnceLock;

use bollard::models::{
    ContainerConfig, ContainerCreateBody, DeviceMapping, HostConfig, Mount, MountType, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use protocol::port::WireProtocol;

use super::daemon::CHANGE;
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
        match self.create_body(&spec.name, body.clone()).await {
            Err(error) => match Concession::for_error(&error) {
                Some(concession)
                    if body
                        .host_config
                        .as_mut()
                        .is_some_and(|host| concession.make(host)) =>
                {
                    tracing::warn!(container = %spec.name, %error, "creating {concession}");
                    self.remove(&spec.name).await?;
                    self.create_body(&spec.name, body).await?;
                    Ok(vec![concession])
                }
                Some(_) | None => Err(error),
            },
            Ok(()) => Ok(Vec::new()),
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
            if !body
                .host_config
                .as_mut()
                .is_some_and(|host| concession.make(host))
            {
                break;
            }
            tracing::warn!(container = %name, %error, "starting {concession}");
            conceded.push(concession);
            self.remove(name).await?;
            self.create_body(name, body).await?;
            result = self.start_once(name).await;
        }
        result.map(|()| conceded)
    }

    async fn start_once(&self, name: &str) -> Result<(), EngineError> {
        let name = super::checked(name)?;
        self.call("start", CHANGE, name, |docker| async move {
            docker.start_container(name, None).await
        })
        .await
    }

    async fn create_body(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.call("create", CHANGE, name, |docker| async move {
            docker.create_container(Some(options), body).await
        })
        .await
        .map(|_| ())
    }

    /// The configuration of an existing container, to make another one like it.
    async fn configuration(&self, name: &str) -> Result<ContainerCreateBody, EngineError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Existing {
            config: ContainerConfig,
            host_config: HostConfig,
        }
        let name = super::checked(name)?;
        let existing: Existing = self
            .get("inspect", name, &format!("/containers/{name}/json"))
            .await?;
        let unreadable =
            |error: serde_json::Error| EngineError::Other(format!("configuration of {name}: {error}"));
        let config = serde_json::to_value(existing.config).map_err(unreadable)?;
        let mut body: ContainerCreateBody = serde_json::from_value(config).map_err(unreadable)?;
        // The daemon made it from the old container's id.
        body.hostname = None;
        body.host_config = Some(existing.host_config);
        Ok(body)
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

    /// Makes the concession; `false` when it is made already.
    fn make(self, host: &mut HostConfig) -> bool {
        match self {
            Concession::GpuRuntime => {
                let had = host.runtime.as_deref() == Some("nvidia");
                host.runtime = None;
                had
            }
            Concession::Privileges => {
                // Only a privileged container gets at all devices without being allowed to.
                for device in host.devices.iter_mut().flatten() {
                    device.cgroup_permissions = Some("rwm".to_owned());
                }
                host.cap_add = None;
                host.privileged.replace(false) == Some(true)
            }
            Concession::Devices => {
                // A privileged container gets every device anyway; there the error has another cause.
                host.privileged != Some(true)
                    && host.devices.take().is_some_and(|devices| !devices.is_empty())
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

fn body_of(spec: &ContainerSpec) -> ContainerCreateBody {
    let mut port_bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for binding in &spec.bindings {
        let protocol = match binding.protocol {
            WireProtocol::Tcp => "tcp",
            WireProtocol::Udp => "udp",
        };
        port_bindings
            .entry(format!("{}/{protocol}", binding.container_port))
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: Some("0.0.0.0".to_owned()),
                host_port: Some(binding.host_port.to_string()),
            });
    }
    let mounts = spec.mounts.iter().map(|(host, container)| Mount {
        typ: Some(MountType::BIND),
        source: Some(host.clone()),
        target: Some(container.clone()),
        ..Mount::default()
    });
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: Some(spec.env.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        tty: Some(true),
        attach_stdin: Some(spec.interactive),
        attach_stdout: Some(spec.interactive),
        attach_stderr: Some(spec.interactive),
        open_stdin: Some(spec.interactive),
        exposed_ports: Some(port_bindings.keys().cloned().collect()),
        host_config: Some(HostConfig {
            // The agent, not Docker, restarts apps.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            network_mode: Some("bridge".to_owned()),
            privileged: Some(true),
            cap_add: Some(vec!["ALL".to_owned()]),
            devices: Some(vec![DeviceMapping {
                path_on_host: Some("/dev".to_owned()),
                path_in_container: Some("/dev".to_owned()),
                cgroup_permissions: None,
            }]),
            extra_hosts: Some(vec!["host.docker.internal:host-gateway".to_owned()]),
            port_bindings: Some(port_bindings),
            mounts: Some(mounts.collect()),
            runtime: spec.runtime.clone(),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostConfig {
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
        body_of(&spec).host_config.unwrap()
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
        assert_eq!((host.privileged, host.cap_add.clone()), (Some(false), None));
        assert_eq!(host.devices.as_ref().map(Vec::len), Some(1));
        assert!(Concession::Devices.make(&mut host));
        assert_eq!(host.devices, None);
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
