//! Payloads that the agent sends to the backend (`session-and-api.md` 7.2 to 7.5).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::{AppState, Stage, UpdateStatus};

/// One state of one app: `args[0]` of `update_app_on_device`. Every member is always present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateReport {
    pub app_key: u64,
    pub device_key: u64,
    pub swarm_key: u64,
    pub serial_number: String,
    pub stage: Stage,
    pub state: AppState,
    /// Always 0; the reference never had a source for it.
    pub device_to_app_key: u64,
    pub requestor_account_key: u64,
    pub release_key: u64,
    pub request_update: bool,
    pub release_build: bool,
    #[serde(rename = "updateStatus")]
    pub update_status: UpdateStatus,
}

/// The port rules of one app: the other shape of `update_app_on_device`; has no `state`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortReport {
    pub app_key: u64,
    pub device_key: u64,
    pub swarm_key: u64,
    pub stage: Stage,
    /// Every rule of the app; one that this version cannot read is here as it came, so that nobody loses it.
    pub ports: Vec<Value>,
}

/// Device status values that an agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeviceStatus {
    Configuring,
    Connected,
    /// Instead of CONNECTED while the disk is critically full.
    Emergency,
}

/// Host statistics: `stats` of a status update and the result of `get_storage_data`. Bytes; unreadable is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStats {
    pub cpu_count: u64,
    /// Percent over all CPUs.
    pub cpu_usage: f64,
    pub memory_total: u64,
    pub memory_used: u64,
    pub memory_available: u64,
    pub storage_total: u64,
    pub storage_used: u64,
    pub storage_free: u64,
    pub docker_apps_total: u64,
    pub docker_apps_used: u64,
    pub docker_apps_free: u64,
    pub docker_apps_mounted: bool,
    /// Left out until known (later revisions of the reference).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub docker_available: Option<bool>,
}

/// `args[0]` of `update_device_status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusUpdate {
    pub swarm_key: u64,
    pub device_key: u64,
    pub status: DeviceStatus,
    pub wamp_session_id: u64,
    /// Left out until known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tunnel_capable: Option<bool>,
    pub stats: HostStats,
}

/// `args[0]` of `update_device_architecture`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchitectureUpdate {
    pub swarm_key: u64,
    pub device_key: u64,
    /// `amd64`, `armv7`
    pub architecture: String,
    /// Detailed OS text.
    pub os: String,
    /// `amd64`, `arm`
    pub arch: String,
    /// `v7` or empty
    pub variant: String,
    pub agent_version: String,
}

/// args\[0\] of the testament's event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testament {
    pub swarm_key: u64,
    pub device_key: u64,
    pub serial_number: String,
    pub wamp_session_id: u64,
}
