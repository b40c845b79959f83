//! What an app's container must look like (`app-lifecycle.md` 4.1, 4.2, 4.5), and how to tell whether one does.
//!
//! Pure but for a look at two paths of the host. The labels that we add let a lost database be rebuilt from the containers; the
//! reference ignores them.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::{AppId, AppRequest, AppState, Stage, naming};
use sha2::{Digest, Sha256};

use crate::engine::{ContainerFacts, ContainerSpec, ContainerStatus, PortBinding};

/// The label that both agents put on every single-container app.
pub(crate) const REAL: (&str, &str) = ("real", "True");
/// Compose puts it on what belongs to a project.
pub(crate) const COMPOSE_PROJECT: &str = "com.docker.compose.project";

const CONFIG: &str = "reagent.config";
/// Whose container it is: several agents may share one Docker daemon, and none touches what another made.
const SERIAL: &str = "reagent.serial_number";
const APP_KEY: &str = "reagent.app_key";
const APP_NAME: &str = "reagent.app_name";
const STAGE: &str = "reagent.stage";
const VERSION: &str = "reagent.version";
const RELEASE_KEY: &str = "reagent.release_key";
const REQUESTOR: &str = "reagent.requestor_account_key";
const OWNER: &str = "reagent.device_owner_account_key";

/// What a container is made of, besides what the request says.
pub(crate) struct Parts<'a> {
    pub(crate) request: &'a AppRequest,
    /// Of the device.
    pub(crate) serial_number: &'a str,
    pub(crate) image: String,
    pub(crate) version: &'a str,
    pub(crate) release_key: u64,
    pub(crate) env: Vec<String>,
    pub(crate) bindings: Vec<PortBinding>,
    pub(crate) shared_dir: &'a Path,
    pub(crate) data_dir: &'a Path,
    pub(crate) nvidia: bool,
}

/// The container of an app.
pub(crate) fn spec(parts: Parts<'_>) -> ContainerSpec {
    let Parts {
        request,
        serial_number,
        image,
        version,
        release_key,
        env,
        bindings,
        shared_dir,
        data_dir,
        nvidia,
    } = parts;
    let mut mounts = vec![
        (shared_dir.display().to_string(), "/shared".to_owned()),
        (data_dir.display().to_string(), "/data".to_owned()),
    ];
    for host in ["/sys/bus/w1/devices", "/usr/local/cuda"] {
        if Path::new(host).exists() {
            mounts.push((host.to_owned(), host.to_owned()));
        }
    }
    let mut spec = ContainerSpec {
        name: naming::container(request.app, &request.app_name),
        image,
        env,
        labels: BTreeMap::new(),
        interactive: request.app.stage == Stage::Dev,
        bindings,
        mounts,
        runtime: nvidia.then(|| "nvidia".to_owned()),
    };
    let config = fingerprint(&spec);
    spec.labels = [
        (REAL.0, REAL.1.to_owned()),
        (CONFIG, config),
        (SERIAL, serial_number.to_owned()),
        (APP_KEY, request.app.key.to_string()),
        (APP_NAME, request.app_name.clone()),
        (STAGE, request.app.stage.to_string()),
        (VERSION, version.to_owned()),
        (RELEASE_KEY, release_key.to_string()),
        (REQUESTOR, request.requestor_account_key.to_string()),
        (OWNER, request.device_owner_account_key.to_string()),
    ]
    .map(|(label, value)| (label.to_owned(), value))
    .into();
    spec
}

/// Whether an existing container was made from the same configuration (W26). One without the label was not made by us.
pub(crate) fn is_current(facts: &ContainerFacts, spec: &ContainerSpec) -> bool {
    facts.labels.get(CONFIG) == spec.labels.get(CONFIG)
}

/// SHA-256 over everything that a new container would get. Values are hashed, so no secret can be read from a label.
fn fingerprint(spec: &ContainerSpec) -> String {
    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    field(&spec.name);
    field(&spec.image);
    for entry in &spec.env {
        field(entry);
    }
    field(if spec.interactive {
        "interactive"
    } else {
        "detached"
    });
    for binding in &spec.bindings {
        field(&format!(
            "{}/{}={}",
            binding.container_port,
            binding.protocol.as_str(),
            binding.host_port
        ));
    }
    for (host, container) in &spec.mounts {
        field(host);
        field(container);
    }
    field(spec.runtime.as_deref().unwrap_or(""));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The app of a container that one of the two agents made for this device: by name and label, never by name alone (W3).
/// The reference leaves no serial number; what it made counts as this device's.
pub(crate) fn owner(facts: &ContainerFacts, serial_number: &str) -> Option<(AppId, String)> {
    let ours = facts.labels.get(REAL.0).is_some_and(|value| value == REAL.1)
        && !facts.labels.contains_key(COMPOSE_PROJECT)
        && facts
            .labels
            .get(SERIAL)
            .is_none_or(|serial| serial == serial_number)
        && (facts.name.starts_with("dev_") || facts.name.starts_with("prod_"));
    ours.then(|| naming::parse_container(&facts.name).ok()).flatten()
}

/// The request that a container stands for, with the state it is in, from its labels. What labels cannot tell
/// (environment, ports) is missing.
pub(crate) fn adopted(facts: &ContainerFacts, serial_number: &str) -> Option<(AppRequest, AppState)> {
    let (app, lower_name) = owner(facts, serial_number)?;
    let label = |name: &str| facts.labels.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| label(name).parse::<u64>().unwrap_or(0);
    // A label is believed only where it agrees with the name.
    let app_name = match label(APP_NAME) {
        name if name.to_lowercase() == lower_name => name.to_owned(),
        _ => lower_name,
    };
    let version = match label(VERSION) {
        "" => tag_of(&facts.image),
        version => version,
    };
    let request = AppRequest {
        requestor_account_key: number(REQUESTOR),
        device_owner_account_key: number(OWNER),
        release_key: number(RELEASE_KEY),
        present_version: version.to_owned(),
        newest_version: version.to_owned(),
        ..bare_request(app, app_name, AppState::Running)
    };
    let state = derived(facts.status).unwrap_or(AppState::Running);
    // A stopped app has no container, so one that exists was meant to run.
    Some((request, state))
}

/// A request about which nothing but the goal is known.
pub(crate) fn bare_request(app: AppId, app_name: String, target: AppState) -> AppRequest {
    AppRequest {
        app,
        app_name,
        target,
        current: None,
        requestor_account_key: 0,
        device_owner_account_key: 0,
        release_key: 0,
        new_release_key: 0,
        version: String::new(),
        present_version: String::new(),
        newest_version: String::new(),
        request_update: false,
        cancel_transition: false,
        environment: None,
        environment_template: None,
        ports: None,
        docker_compose: None,
        new_docker_compose: None,
        docker_credentials: BTreeMap::new(),
        instance_key: 0,
        app_cred_epoch: 0,
    }
}

/// The tag of a reference, empty when it has none.
fn tag_of(reference: &str) -> &str {
    let repository = naming::repository(reference);
    reference[repository.len()..].strip_prefix(':').unwrap_or("")
}

/// 1.9. `None`: nothing follows from this status. A paused container still runs as far as the table is concerned (W1).
pub(crate) fn derived(status: ContainerStatus) -> Option<AppState> {
    match status {
        ContainerStatus::Running | ContainerStatus::Paused => Some(AppState::Running),
        ContainerStatus::Created => Some(AppState::Present),
        ContainerStatus::Restarting | ContainerStatus::Exited | ContainerStatus::Dead => {
            Some(AppState::Failed)
        }
        // Gone in a moment; the event that follows makes us look again.
        ContainerStatus::Removing | ContainerStatus::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId {
        key: 6,
        stage: Stage::Prod,
    };

    fn request() -> AppRequest {
        AppRequest {
            requestor_account_key: 12,
            ..bare_request(APP, "MyApp".to_owned(), AppState::Running)
        }
    }

    fn made(env: &[&str]) -> ContainerSpec {
        spec(Parts {
            request: &request(),
            serial_number: "abc",
            image: "r/prod_amd64_6_myapp:1.4.0".to_owned(),
            version: "1.4.0",
            release_key: 100,
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            bindings: Vec::new(),
            shared_dir: Path::new("/apps/shared"),
            data_dir: Path::new("/apps/prod/myapp"),
            nvidia: false,
        })
    }

    fn facts(spec: &ContainerSpec, status: ContainerStatus) -> ContainerFacts {
        ContainerFacts {
            id: "id".to_owned(),
            name: spec.name.clone(),
            status,
            started: String::new(),
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            health: None,
            labels: spec.labels.clone(),
            bindings: Vec::new(),
            image: spec.image.clone(),
            network_mode: "bridge".to_owned(),
            log_path: String::new(),
        }
    }

    #[test]
    fn a_container_is_current_until_its_configuration_changes() {
        let spec = made(&["A=1", "SECRET=x"]);
        let facts = facts(&spec, ContainerStatus::Running);
        assert!(is_current(&facts, &made(&["A=1", "SECRET=x"])));
        assert!(!is_current(&facts, &made(&["A=2", "SECRET=x"])));
        assert!(!is_current(&facts, &made(&["A=1SECRET=x"])));
        assert!(!spec.labels.values().any(|value| value.contains("SECRET")));
    }

    #[test]
    fn an_app_is_rebuilt_from_the_labels_of_its_container() {
        let (found, state) = adopted(&facts(&made(&[]), ContainerStatus::Exited), "abc").unwrap();
        assert_eq!((found.app, found.app_name.as_str()), (APP, "MyApp"));
        assert_eq!(
            (found.present_version.as_str(), found.release_key),
            ("1.4.0", 100)
        );
        assert_eq!(found.requestor_account_key, 12);
        assert_eq!((found.target, state), (AppState::Running, AppState::Failed));
    }

    #[test]
    fn a_container_of_the_reference_is_adopted_by_its_name() {
        let mut facts = facts(&made(&[]), ContainerStatus::Running);
        facts.labels = [("real".to_owned(), "True".to_owned())].into();
        facts.image = "registry:5000/apps/prod_amd64_6_myapp:2.0".to_owned();
        let (found, _) = adopted(&facts, "abc").unwrap();
        assert_eq!(
            (found.app_name.as_str(), found.present_version.as_str()),
            ("myapp", "2.0")
        );
    }

    #[test]
    fn foreign_containers_have_no_owner() {
        let ours = facts(&made(&[]), ContainerStatus::Running);
        assert!(owner(&ours, "abc").is_some());
        for name in ["db_2_main", "pub_6_myapp", "prod_6", "redis"] {
            let foreign = ContainerFacts {
                name: name.to_owned(),
                ..ours.clone()
            };
            assert_eq!(owner(&foreign, "abc"), None, "{name}");
        }
        assert_eq!(owner(&ours, "another device"), None);
        let unlabelled = ContainerFacts {
            labels: BTreeMap::new(),
            ..ours.clone()
        };
        assert_eq!(owner(&unlabelled, "abc"), None);
        let mut compose = ours;
        compose.labels.insert(COMPOSE_PROJECT.to_owned(), "x".to_owned());
        assert_eq!(owner(&compose, "abc"), None);
    }
}
