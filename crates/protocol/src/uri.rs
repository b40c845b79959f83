//! Procedures and topics (`session-and-api.md` 6 and 7).

/// `re.mgmt.<serial>.<name>`: a procedure or topic of one device.
pub fn device(serial: &str, name: &str) -> String {
    format!("re.mgmt.{serial}.{name}")
}

/// `reswarm.logs.<serial>.<container>`: the log topic of one app.
pub fn logs(serial: &str, container: &str) -> String {
    format!("reswarm.logs.{serial}.{container}")
}

/// Prefix of every log topic.
pub const LOGS_PREFIX: &str = "reswarm.logs.";

/// Published by the router when a device's session ends.
pub const TESTAMENT_TOPIC: &str = "reswarm.api.testament_device";

/// Procedures of the backend that agents call.
pub mod backend {
    pub const READ_DEVICE_METADATA: &str = "reswarm.devices.read_device_metadata";
    pub const GET_APP_CRED_KEY: &str = "reswarm.devices.get_app_cred_key";
    pub const UPDATE_DEVICE_STATUS: &str = "reswarm.devices.update_device_status";
    pub const UPDATE_DEVICE_ARCHITECTURE: &str = "reswarm.devices.update_device_architecture";
    pub const CHECK_PRIVILEGE: &str = "reswarm.devices.check_privilege";
    pub const GET_REQUESTED_APP_STATES: &str = "reswarm.containers.get_requested_app_states";
    pub const UPDATE_APP_ON_DEVICE: &str = "reswarm.containers.update_app_on_device";
    pub const GET_REGISTRY_TOKEN: &str = "reswarm.containers.get_registry_token";
}

/// Meta procedures and topics of the router that agents use.
pub mod meta {
    pub const ADD_TESTAMENT: &str = "wamp.session.add_testament";
    pub const FLUSH_TESTAMENTS: &str = "wamp.session.flush_testaments";
    pub const SUBSCRIPTION_MATCH: &str = "wamp.subscription.match";
    pub const SUBSCRIPTION_ON_CREATE: &str = "wamp.subscription.on_create";
    pub const SUBSCRIPTION_ON_DELETE: &str = "wamp.subscription.on_delete";
}
