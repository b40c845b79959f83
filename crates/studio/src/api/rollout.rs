//! Rollouts of agent versions: what is asked and shown.

use serde::{Deserialize, Serialize};

use crate::keys::RolloutKey;

/// Wants a version of the agent on devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartRollout {
    /// `X.Y.Z`, published in the bucket that the devices use.
    pub version: String,
    /// Devices by name, key or serial number; left out: all that the account may maintain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// The devices that go first; left out: one, chosen by its place for this version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary: Vec<String>,
    /// Hundredths of the other devices that each wave reaches up to.
    #[serde(default = "default_waves")]
    pub waves: Vec<u8>,
    /// Hundredths of the devices asked so far that have to end well, or the rollout pauses itself.
    #[serde(default = "default_threshold")]
    pub threshold: u8,
    /// Seconds from the call to the final word of a device.
    #[serde(default = "default_patience")]
    pub patience: u32,
    /// Also a version that is not published in the bucket of the studio: the devices have another one.
    #[serde(default)]
    pub unchecked: bool,
}

pub fn default_waves() -> Vec<u8> {
    vec![10, 50, 100]
}

pub fn default_threshold() -> u8 {
    90
}

/// A download may take half an hour, the proof of a version ten minutes.
pub fn default_patience() -> u32 {
    45 * 60
}

/// How to go on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ResumeRollout {
    /// Ask the devices that failed again; else they stay as they are, and those that the reason of the pause tells of
    /// count no more. Refused while that does not tell of too many failures that came since: it does from then on.
    #[serde(default)]
    pub retry: bool,
}

/// The newest rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    pub rollout_key: RolloutKey,
    pub version: String,
    /// `running`, `paused`, `done`, `aborted`
    pub state: String,
    /// Why it is paused or aborted, and that too many devices failed since.
    pub reason: String,
    /// From 0, the canary group.
    pub wave: u32,
    pub waves: u32,
    pub threshold: u8,
    pub patience: u32,
    pub created: String,
    pub updated: String,
    pub devices: Vec<RolloutDevice>,
}

/// Who runs what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutDevice {
    pub device: String,
    pub serial_number: String,
    pub wave: u32,
    /// `waiting`, `asked`, `staged`, `updated`, `failed`
    pub state: String,
    /// Of the device.
    pub status: String,
    /// What it ran when it was asked, and what it reported last.
    pub from_version: String,
    pub agent_version: String,
    pub reason: String,
}
