//! Containers: what the daemon knows about them, stopping and removing.
//!
//! Addressed by exact name, never by search (weakness W28).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use protocol::port::WireProtocol;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::daemon::{CHANGE, Raw};
use super::{ContainerFacts, ContainerStatus, Engine, EngineError, Health, PortBinding};

/// How often a wanted end state is looked for; the daemon has no call that waits for a name to become free.
const POLL: Duration = Duration::from_millis(100);

/// The members of an inspect answer that we read. Absent and null members are tolerated: engines differ.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    #[serde(default)]
    log_path: Option<String>,
    #[serde(default)]
    state: State,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    status: String,
    started_at: String,
    exit_code: i64,
    error: Option<String>,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    health: Option<Checked>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Checked {
    status: String,
    log: Option<Vec<Check>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    output: String,
}

impl Checked {
    /// `none`, and what this version does not know, is no check.
    fn verdict(self) -> Option<Health> {
        match self.status.as_str() {
            "starting" => Some(Health::Starting),
            "healthy" => Some(Health::Healthy),
            "unhealthy" => {
                let last = self.log.unwrap_or_default().pop().unwrap_or_default();
                Some(Health::Unhealthy(last.output.trim_end().to_owned()))
            }
            _ => None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<BTreeMap<String, String>>,
    image: String,
    tty: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
    port_bindings: Option<HashMap<String, Option<Vec<Binding>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

impl Engine {
    /// The engine's own JSON list of all containers, passed through (`list_containers`).
    pub async fn list_raw(&self) -> Result<Vec<serde_json::Value>, EngineError> {
        self.get("list containers", "", "/containers/json?all=1").await
    }

    /// Every container that carries label `key=value`.
    pub async fn list_labelled(&self, key: &str, value: &str) -> Result<Vec<ContainerFacts>, EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
            #[serde(default)]
            labels: Option<BTreeMap<String, String>>,
        }
        let all: Vec<Listed> = self.get("list containers", "", "/containers/json?all=1").await?;
        let mut found = Vec::new();
        for listed in all {
            let label = listed.labels.as_ref().and_then(|labels| labels.get(key));
            if label.map(String::as_str) != Some(value) {
                continue;
            }
            // Gone between list and inspect: not there.
            found.extend(self.inspect(&listed.id).await?);
        }
        Ok(found)
    }

    /// One container by exact name (or full id).
    pub async fn inspect(&self, name: &str) -> Result<Option<ContainerFacts>, EngineError> {
        Ok(self.inspected(name).await?.map(ContainerFacts::from))
    }

    /// Whether the container has a TTY: its log then is a plain stream instead of frames.
    pub(super) async fn has_tty(&self, name: &str) -> Result<bool, EngineError> {
        match self.inspected(name).await? {
            Some(inspected) => Ok(inspected.config.tty),
            None => Err(EngineError::NoSuchContainer(name.to_owned())),
        }
    }

    async fn inspected(&self, name: &str) -> Result<Option<Inspected>, EngineError> {
        let Ok(name) = super::checked(name) else {
            return Ok(None);
        };
        let path = format!("/containers/{name}/json");
        match self.get::<Inspected>("inspect", name, &path).await {
            // The daemon also answers to the beginning of an id.
            Ok(found) if found.name.trim_start_matches('/') != name && found.id != name => Ok(None),
            Ok(found) => Ok(Some(found)),
            Err(EngineError::NoSuchContainer(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Unpauses a container; one that is not paused is success.
    pub async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        let name = super::checked(name)?;
        let raw = Raw::post(format!("/containers/{name}/unpause"));
        match self.send("unpause", CHANGE, name, raw).await {
            Err(EngineError::Other(text)) if text.contains("is not paused") => Ok(()),
            result => result.map(drop),
        }
    }

    /// Stops with a grace period and waits until it does not run. Gone or not running is success (weakness W22).
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let Ok(checked) = super::checked(name) else {
            return Ok(());
        };
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let raw = Raw::post(format!("/containers/{checked}/stop?t={seconds}"));
        let within = CHANGE.saturating_add(grace);
        match self.send("stop", within, checked, raw).await {
            Ok(_) => {}
            Err(EngineError::NoSuchContainer(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.wait_until("stop", name, |facts| match facts.map(|facts| facts.status) {
            Some(
                ContainerStatus::Running
                | ContainerStatus::Paused
                | ContainerStatus::Restarting
                | ContainerStatus::Unknown,
            ) => false,
            Some(
                ContainerStatus::Created
                | ContainerStatus::Removing
                | ContainerStatus::Exited
                | ContainerStatus::Dead,
            )
            | None => true,
        })
        .await
    }

    /// Force-removes and waits until the name is free. Gone is success; a removal in progress is waited for.
    pub async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let Ok(checked) = super::checked(name) else {
            return Ok(());
        };
        let raw = Raw::delete(format!("/containers/{checked}?force=true"));
        match self.send("remove", CHANGE, checked, raw).await {
            Ok(_) => {}
            Err(EngineError::NoSuchContainer(_)) => return Ok(()),
            Err(EngineError::Other(text)) if text.contains("is already in progress") => {}
            Err(error) => return Err(error),
        }
        self.wait_until("remove", name, |facts| facts.is_none()).await
    }

    async fn wait_until(
        &self,
        doing: &'static str,
        name: &str,
        reached: impl Fn(Option<&ContainerFacts>) -> bool,
    ) -> Result<(), EngineError> {
        let deadline = Instant::now() + CHANGE;
        loop {
            if reached(self.inspect(name).await?.as_ref()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(EngineError::Timeout(CHANGE, doing));
            }
            sleep(POLL).await;
        }
    }
}

impl From<Inspected> for ContainerFacts {
    fn from(inspected: Inspected) -> ContainerFacts {
        ContainerFacts {
            id: inspected.id,
            name: inspected.name.trim_start_matches('/').to_owned(),
            status: status_of(&inspected.state.status),
            started: inspected.state.started_at,
            exit_code: inspected.state.exit_code,
            error: inspected.state.error.unwrap_or_default(),
            oom_killed: inspected.state.oom_killed,
            health: inspected.state.health.and_then(Checked::verdict),
            labels: inspected.config.labels.unwrap_or_default(),
            bindings: bindings_of(inspected.host_config.port_bindings.unwrap_or_default()),
            image: inspected.config.image,
            network_mode: inspected.host_config.network_mode,
            log_path: inspected.log_path.unwrap_or_default(),
        }
    }
}

fn status_of(text: &str) -> ContainerStatus {
    match text {
        "created" => ContainerStatus::Created,
        "running" => ContainerStatus::Running,
        "paused" => ContainerStatus::Paused,
        "restarting" => ContainerStatus::Restarting,
        "removing" => ContainerStatus::Removing,
        "exited" => ContainerStatus::Exited,
        "dead" => ContainerStatus::Dead,
        _ => ContainerStatus::Unknown,
    }
}

/// One binding per container port, sorted; one on all interfaces wins over others (`app-lifecycle.md` 4.6).
fn bindings_of(configured: HashMap<String, Option<Vec<Binding>>>) -> Vec<PortBinding> {
    let mut bindings: Vec<PortBinding> = configured
        .into_iter()
        .filter_map(|(port, hosts)| {
            let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
            let protocol = match protocol {
                "tcp" => WireProtocol::Tcp,
                "udp" => WireProtocol::Udp,
                _ => return None,
            };
            let hosts = hosts.unwrap_or_default();
            let host = hosts
                .iter()
                .find(|host| matches!(host.host_ip.as_str(), "" | "0.0.0.0" | "::"))
                .or(hosts.first())?;
            Some(PortBinding {
                container_port: number.parse().ok()?,
                protocol,
                host_port: host.host_port.parse().ok()?,
            })
        })
        .collect();
    bindings.sort_unstable();
    bindings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_absent_and_null_members_is_read() {
        let inspected: Inspected = serde_json::from_str(
            r#"{"Id":"abc","Name":"/prod_1_x","State":{"Status":"stopping","Error":null},
                "Config":{"Labels":null,"Image":"i"},"HostConfig":{"NetworkMode":"bridge","PortBindings":null}}"#,
        )
        .unwrap();
        let facts = ContainerFacts::from(inspected);
        assert_eq!(
            (facts.name.as_str(), facts.status, facts.exit_code),
            ("prod_1_x", ContainerStatus::Unknown, 0)
        );
    }

    #[test]
    fn a_health_check_is_told_with_its_last_words() {
        let of = |health: &str| {
            let text = format!(
                r#"{{"Id":"abc","Name":"/x","State":{{"Status":"running","Health":{health}}},"Config":{{}},"HostConfig":{{}}}}"#
            );
            ContainerFacts::from(serde_json::from_str::<Inspected>(&text).unwrap()).health
        };
        assert_eq!(of("null"), None);
        assert_eq!(of(r#"{"Status":"none","Log":null}"#), None);
        assert_eq!(of(r#"{"Status":"healthy","Log":[]}"#), Some(Health::Healthy));
        assert_eq!(
            of(r#"{"Status":"unhealthy","Log":[{"Output":"fine"},{"Output":"no route\n"}]}"#),
            Some(Health::Unhealthy("no route".to_owned()))
        );
    }

    #[test]
    fn of_several_bindings_of_a_port_the_one_on_all_interfaces_counts() {
        let configured = serde_json::from_str(
            r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"1"},{"HostIp":"0.0.0.0","HostPort":"2"}],
                "53/udp":[{"HostIp":"10.0.0.1","HostPort":"5353"}],"81/tcp":null,"9/sctp":[{"HostPort":"9"}]}"#,
        )
        .unwrap();
        assert_eq!(
            bindings_of(configured),
            [
                PortBinding {
                    container_port: 53,
                    protocol: WireProtocol::Udp,
                    host_port: 5353
                },
                PortBinding {
                    container_port: 80,
                    protocol: WireProtocol::Tcp,
                    host_port: 2
                },
            ]
        );
    }
}
