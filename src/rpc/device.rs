//! Procedures about the device and the agent: `device_handshake`, `get_agent_metadata`, `get_storage_data`,
//! `system_restart_agent`.

use std::time::Duration;

use serde_json::json;
use wamp::{Dict, Payload, Value};

use super::{Call, Context, Reply, one};
use crate::cli::VERSION;
use crate::system::platform::Platform;
use crate::system::power;

/// What looking up the newest version may take of the caller's time.
const LOOKUP: Duration = Duration::from_secs(5);

/// Local time and serial number, as keyword results.
pub(super) async fn device_handshake(context: Context, _call: Call) -> Reply {
    let now = local_time(&crate::local_time::now());
    Ok(Payload::from_kwargs(Dict::from([
        ("utp".to_owned(), Value::from(now)),
        (
            "id".to_owned(),
            Value::from(context.device.current().serial_number.clone()),
        ),
    ])))
}

/// RFC 3339 to the second as the reference writes it: no offset from UTC is `Z`.
fn local_time(now: &jiff::Zoned) -> String {
    let offset = if now.offset().is_zero() { "Z" } else { "%:z" };
    now.strftime(&format!("%Y-%m-%dT%H:%M:%S{offset}")).to_string()
}

/// What runs here and what could. The members about the newest version are left out when the version list cannot be
/// had; a build without release keys cannot update itself, and a button that cannot work misleads.
pub(super) async fn get_agent_metadata(context: Context, _call: Call) -> Reply {
    let platform = Platform::detect();
    let mut metadata = json!({
        "os": platform.detailed_os,
        "OSVersion": platform.detailed_os,
        "arch": platform.arch,
        "variant": platform.variant,
        "version": VERSION,
        "serialNumber": context.device.current().serial_number,
        "canUpdate": context.updates.is_possible(),
        "tunnelCapable": false,
        "trialVersion": context.updates.on_trial().unwrap_or_default(),
    });
    if let Some(last) = context.updates.last() {
        metadata["lastUpdate"] = last;
    }
    let newest = tokio::time::timeout(LOOKUP, context.updates.newest()).await;
    if let Ok(Some(newest)) = newest {
        metadata["hasLatest"] = json!(newest == VERSION);
        metadata["latestVersion"] = json!(newest);
        metadata["latestAgentVersion"] = json!(newest);
    }
    one(&metadata)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_written_as_the_reference_writes_it() {
        let moment: jiff::Timestamp = "2026-08-14T08:00:00.75Z".parse().unwrap();
        let at = |offset| moment.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(offset)));
        assert_eq!(local_time(&at(0)), "2026-08-14T08:00:00Z");
        assert_eq!(local_time(&at(2)), "2026-08-14T10:00:00+02:00");
        assert_eq!(local_time(&at(-3)), "2026-08-14T05:00:00-03:00");
    }
}
