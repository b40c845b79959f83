//! What people's programs say to the studio: URIs, requests, replies and events of `studio.…`. No I/O.
//!
//! Requests travel as keyword arguments, replies and events as one positional dictionary (or list of them). Errors
//! carry one positional sentence. Secrets appear in [`DeviceAdded::flock`], [`AccountAdded::secret`] and
//! [`RegistryLogin::password`] only.

pub mod rollout;

use std::fmt;

use protocol::report::HostStats;
use protocol::{AppState, Privilege, Stage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::keys::{AccountKey, AppKey, DeviceKey, ReleaseKey, SwarmKey};

/// Procedures of the studio.
pub mod uri {
    /// [`super::AddDevice`] → [`super::DeviceAdded`]
    pub const DEVICE_ADD: &str = "studio.device.add";
    /// → list of [`super::DeviceView`]
    pub const DEVICE_LIST: &str = "studio.device.list";
    /// [`super::OneDevice`] → [`super::DeviceView`]
    pub const DEVICE_SHOW: &str = "studio.device.show";
    /// [`super::OneDevice`] → [`super::DeviceView`] as it was
    pub const DEVICE_REMOVE: &str = "studio.device.remove";
    /// [`super::CallDevice`] → whatever the device answers
    pub const DEVICE_CALL: &str = "studio.device.call";
    /// [`super::AddApp`] → [`super::AppView`]
    pub const APP_ADD: &str = "studio.app.add";
    /// → list of [`super::AppView`]
    pub const APP_LIST: &str = "studio.app.list";
    /// [`super::OneApp`] → [`super::AppView`] as it was
    pub const APP_REMOVE: &str = "studio.app.remove";
    /// [`super::AddRelease`] → [`super::AppView`]
    pub const RELEASE_ADD: &str = "studio.release.add";
    /// [`super::RequestInstall`] → [`super::Requested`]
    pub const INSTALL_ADD: &str = "studio.install.add";
    /// [`super::OneInstall`] → [`super::Requested`]
    pub const INSTALL_START: &str = "studio.install.start";
    /// [`super::OneInstall`] → [`super::Requested`]
    pub const INSTALL_STOP: &str = "studio.install.stop";
    /// [`super::RequestRemoval`] → [`super::Requested`]
    pub const INSTALL_REMOVE: &str = "studio.install.remove";
    /// [`super::MaybeDevice`] → list of [`super::InstallView`]
    pub const INSTALL_LIST: &str = "studio.install.list";
    /// [`super::OneInstall`] → list of [`super::ReportView`], oldest first
    pub const INSTALL_HISTORY: &str = "studio.install.history";
    /// [`super::RequestDevelopment`] → [`super::Developed`]
    pub const DEVELOPMENT_REQUEST: &str = "studio.development.request";
    /// [`super::LookAtDevelopment`] → list of [`super::DevelopmentEvent`], oldest first
    pub const DEVELOPMENT_LOOK: &str = "studio.development.look";
    /// → [`super::RegistryLogin`]
    pub const REGISTRY_LOGIN: &str = "studio.registry.login";
    /// [`super::AddAccount`] → [`super::AccountAdded`]
    pub const ACCOUNT_ADD: &str = "studio.account.add";
    /// → list of [`crate::store::Account`]
    pub const ACCOUNT_LIST: &str = "studio.account.list";
    /// [`super::Grant`] → empty
    pub const ACCOUNT_GRANT: &str = "studio.account.grant";
    /// [`super::Grant`] → empty
    pub const ACCOUNT_REVOKE: &str = "studio.account.revoke";

    /// [`super::rollout::StartRollout`] → [`super::rollout::RolloutView`]
    pub const ROLLOUT_START: &str = "studio.rollout.start";
    /// → [`super::rollout::RolloutView`] of the newest rollout
    pub const ROLLOUT_STATUS: &str = "studio.rollout.status";
    /// → [`super::rollout::RolloutView`]
    pub const ROLLOUT_PAUSE: &str = "studio.rollout.pause";
    /// [`super::rollout::ResumeRollout`] → [`super::rollout::RolloutView`]
    pub const ROLLOUT_RESUME: &str = "studio.rollout.resume";
    /// → [`super::rollout::RolloutView`]
    pub const ROLLOUT_ABORT: &str = "studio.rollout.abort";

    /// Event [`super::StateEvent`]: a device reported a state of an app.
    pub const STATE_EVENTS: &str = "studio.events.state";
    /// Event [`super::DevelopmentEvent`]: a device reported a state of an app in development.
    pub const DEVELOPMENT_EVENTS: &str = "studio.events.development";
    /// Event [`super::DeviceEvent`]: a device's status changed.
    pub const DEVICE_EVENTS: &str = "studio.events.device";
}

/// Error URIs beside those of WAMP.
pub mod fault {
    pub const NOT_FOUND: &str = "studio.error.not_found";
    pub const CONFLICT: &str = "studio.error.conflict";
    pub const DEVICE_OFFLINE: &str = "studio.error.device_offline";
}

/// Names a new device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddDevice {
    pub name: String,
}

/// A device by name, key or serial number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneDevice {
    pub device: String,
}

/// One device, or all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MaybeDevice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// A call to be made on the caller's behalf: the account key is added to `kwargs` as `requestor_account_key`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallDevice {
    pub device: String,
    /// Last part of `re.mgmt.<serial>.<procedure>`.
    pub procedure: String,
    #[serde(default)]
    pub args: Vec<Value>,
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Milliseconds, at most an hour; 30 s when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// A new app.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddApp {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Port rules (`app-lifecycle.md` 1.10).
    #[serde(default)]
    pub ports: Vec<Value>,
    /// Compose document of the first version; left out: a single container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_compose: Option<Map<String, Value>>,
    /// Defaults of environment variables, name to value.
    #[serde(default)]
    pub environment: Map<String, Value>,
}

/// An app by name or key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneApp {
    pub app: String,
}

/// A new version of an app.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddRelease {
    pub app: String,
    pub version: String,
    /// Left out: a single container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_compose: Option<Map<String, Value>>,
    /// A version that exists already is no error.
    #[serde(default)]
    pub exists_ok: bool,
}

/// An app on a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneInstall {
    pub device: String,
    pub app: String,
}

/// Wants an app on a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestInstall {
    pub device: String,
    pub app: String,
    /// The newest release when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Run it, too.
    #[serde(default)]
    pub start: bool,
    /// Environment variables, name to value; left out: as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Map<String, Value>>,
}

/// Wants an app off a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestRemoval {
    pub device: String,
    pub app: String,
    /// Keep the app's data directory on the device.
    #[serde(default)]
    pub keep_data: bool,
}

/// Wants something of an app in development. The device must be online.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestDevelopment {
    pub device: String,
    pub app: String,
    /// BUILT, PUBLISHED, RUNNING, PRESENT, REMOVED or UNINSTALLED.
    pub target: AppState,
    /// To publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of a Compose app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_compose: Option<Map<String, Value>>,
    /// End what the device is doing about the app.
    #[serde(default)]
    pub cancel: bool,
}

/// The device has stored a wish about an app in development.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Developed {
    pub device_key: DeviceKey,
    pub device: String,
    pub serial_number: String,
    pub app_key: AppKey,
    pub app: String,
    /// Last component of its log topic: `dev_6_myapp`.
    pub container: String,
    /// The same for building and pushing a release: `pub_6_myapp`.
    pub publication: String,
    /// Number of the newest report before the wish: what comes of it has higher ones.
    pub reports: u64,
}

/// What was reported of an app in development after that number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookAtDevelopment {
    pub device: String,
    pub app: String,
    pub after: u64,
}

/// A device reported a state of an app in development.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevelopmentEvent {
    pub device_key: DeviceKey,
    pub app_key: AppKey,
    pub state: AppState,
    /// Later reports about apps in development have higher ones.
    pub number: u64,
}

/// A new account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddAccount {
    pub name: String,
    #[serde(default)]
    pub admin: bool,
}

/// A privilege of an account on a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    pub account: AccountKey,
    pub device: String,
    pub privilege: Privilege,
}

/// A new device and the text of its identity file, shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct DeviceAdded {
    pub device: DeviceView,
    pub flock: String,
}

impl fmt::Debug for DeviceAdded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeviceAdded")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// A new account and its secret, shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccountAdded {
    pub account: AccountKey,
    pub name: String,
    pub secret: String,
}

impl fmt::Debug for AccountAdded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccountAdded")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// A device as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    pub device_key: DeviceKey,
    pub swarm_key: SwarmKey,
    pub name: String,
    pub serial_number: String,
    pub status: String,
    pub last_seen: Option<String>,
    pub owner: String,
    pub architecture: String,
    pub os: String,
    pub agent_version: String,
    pub tunnel_capable: Option<bool>,
    pub wamp_session_id: Option<u64>,
    pub stats: Option<HostStats>,
    pub created: String,
}

/// An app as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppView {
    pub app_key: AppKey,
    pub name: String,
    pub ports: Vec<Value>,
    /// `NAME: {"defaultValue": …}`
    pub environment_template: Map<String, Value>,
    /// Oldest first.
    pub releases: Vec<ReleaseView>,
    pub created: String,
}

/// A version of an app as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseView {
    pub release_key: ReleaseKey,
    pub version: String,
    /// Several containers, by a Compose document.
    #[serde(default)]
    pub compose: bool,
    pub created: String,
}

/// An app on a device as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstallView {
    pub device_key: DeviceKey,
    pub device: String,
    pub serial_number: String,
    pub device_online: bool,
    pub app_key: AppKey,
    pub app: String,
    pub stage: Stage,
    pub current_state: AppState,
    pub target_state: AppState,
    pub version: String,
    pub newest_version: String,
    pub request_update: bool,
    pub update_status: String,
    pub ports: Vec<Value>,
    /// Grows with every report of the device.
    pub reports: u64,
    pub updated: String,
}

/// A state that a device reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportView {
    /// When the report arrived; RFC 3339, UTC.
    pub at: String,
    pub state: String,
    pub version: String,
}

/// Answer to a request about an install: stored in any case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Requested {
    pub install: InstallView,
    pub delivery: Delivery,
}

/// Whether the device knows already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Delivery {
    /// The device has stored the request.
    Accepted,
    /// No session: it gets the request when it connects.
    Offline,
    /// It answered with an error or not in time; it gets the request again when it connects.
    Failed { reason: String },
}

/// How to reach the registry that devices pull from.
#[derive(Clone, Serialize, Deserialize)]
pub struct RegistryLogin {
    /// `host:port/`
    pub registry: String,
    /// `apps/`
    pub repository: String,
    /// Empty when the studio runs no registry: log in with your own credentials.
    pub username: String,
    pub password: String,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RegistryLogin")
            .field("registry", &self.registry)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A device reported a state of an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateEvent {
    pub install: InstallView,
    /// The install ended with this report.
    pub removed: bool,
}

/// A device's status changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEvent {
    pub device_key: DeviceKey,
    pub device: String,
    pub status: String,
}
