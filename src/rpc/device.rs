//! Procedures about the device and the agent: `device_handshake`, `get_agent_metadata`, `get_storage_data`,
//! `system_restart_agent`.

use serde_json::json;
use wamp::{Dict, Payload, Value};

use super::{Call, Context, Reply, one};
use crate::cli::VERSION;
use crate::system::platform::Platform;
use crate::system::power;

/// Local time and serial number, as keyword results.
pub(super) async fn device_handshake(context: Context, _call: Call) -> Reply {
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    Ok(Payload::from_kwargs(Dict::from([
        ("utp".to_owned(), Value::from(now)),
        (
            "id".to_owned(),
            Value::from(context.device.current().serial_number.clone()),
        ),
    ])))
}

/// What runs here. The members about newer versions are left out and `canUpdate` is false: this version neither looks
/// new versions up nor installs them, and a button that cannot work misleads.
pub(super) async fn get_agent_metadata(context: Context, _call: Call) -> Reply {
    let platform = Platform::detect();
    one(&json!({
        "os": platform.detailed_os,
        "OSVersion": platform.detailed_os,
        "arch": platform.arch,
        "variant": platform.variant,
        "version": VERSION,
        "serialNumber": context.device.current().serial_number,
        "canUpdate": false,
        "tunnelCapable": false,
    }))
}

/// The same dictionary as `stats` in a status update.
pub(super) async fn get_storage_data(context: Context, _call: Call) -> Reply {
    one(&context.host.current())
}

/// Answers at once and acts two seconds later.
pub(super) async fn system_restart_agent(context: Context, _call: Call) -> Reply {
    // Owned by the runtime; ends with the process, which is what it is for.
    tokio::spawn(power::restart_agent(context.stop.clone()));
    Ok(Payload::Empty)
}
