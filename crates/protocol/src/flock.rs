//! The device identity file, `.flock` (`session-and-api.md` 2): parse, migrate, change, write. No I/O.

use serde_json::{Map, Value};

/// The document as issued, order and unknown keys kept.
#[derive(Clone, Debug, PartialEq)]
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
