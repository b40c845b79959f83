//! The procedures that people's programs call (`studio.…`, see [`crate::api::uri`]): one table, one file per group.
//!
//! Callers are accounts. What they may do is decided here ([`crate::access`]); the command line decides nothing.

mod account;
mod app;
mod development;
mod device;
mod install;
mod rollout;

use serde_json::Value;

use crate::api::{AppView, DeviceView, InstallView, ReleaseView, uri};
use crate::backend::Procedure;
use crate::fault::Fault;
use crate::store::{App, Device, Install};

/// Everything an account may call.
pub(crate) const PROCEDURES: &[Procedure] = &[
    (uri::DEVICE_ADD, |studio, request| {
        Box::pin(device::add(studio, request))
    }),
    (uri::DEVICE_LIST, |studio, request| {
        Box::pin(device::list(studio, request))
    }),
    (uri::DEVICE_SHOW, |studio, request| {
        Box::pin(device::show(studio, request))
    }),
    (uri::DEVICE_REMOVE, |studio, request| {
        Box::pin(device::remove(studio, request))
    }),
    (uri::DEVICE_CALL, |studio, request| {
        Box::pin(device::call(studio, request))
    }),
    (uri::APP_ADD, |studio, request| {
        Box::pin(app::add(studio, request))
    }),
    (uri::APP_LIST, |studio, request| {
        Box::pin(app::list(studio, request))
    }),
    (uri::APP_REMOVE, |studio, request| {
        Box::pin(app::remove(studio, request))
    }),
    (uri::RELEASE_ADD, |studio, request| {
        Box::pin(app::add_release(studio, request))
    }),
    (uri::REGISTRY_LOGIN, |studio, request| {
        Box::pin(app::registry_login(studio, request))
    }),
    (uri::INSTALL_ADD, |studio, request| {
        Box::pin(install::add(studio, request))
    }),
    (uri::INSTALL_START, |studio, request| {
        Box::pin(install::start(studio, request))
    }),
    (uri::INSTALL_STOP, |studio, request| {
        Box::pin(install::stop(studio, request))
    }),
    (uri::INSTALL_REMOVE, |studio, request| {
        Box::pin(install::remove(studio, request))
    }),
    (uri::INSTALL_LIST, |studio, request| {
        Box::pin(install::list(studio, request))
    }),
    (uri::INSTALL_HISTORY, |studio, request| {
        Box::pin(install::history(studio, request))
    }),
    (uri::DEVELOPMENT_REQUEST, |studio, request| {
        Box::pin(development::request(studio, request))
    }),
    (uri::DEVELOPMENT_LOOK, |studio, request| {
        Box::pin(development::look(studio, request))
    }),
    (uri::ROLLOUT_START, |studio, request| {
        Box::pin(rollout::start(studio, request))
    }),
    (uri::ROLLOUT_STATUS, |studio, request| {
        Box::pin(rollout::status(studio, request))
    }),
    (uri::ROLLOUT_PAUSE, |studio, request| {
        Box::pin(rollout::pause(studio, request))
    }),
    (uri::ROLLOUT_RESUME, |studio, request| {
        Box::pin(rollout::resume(studio, request))
    }),
    (uri::ROLLOUT_ABORT, |studio, request| {
        Box::pin(rollout::abort(studio, request))
    }),
    (uri::ACCOUNT_ADD, |studio, request| {
        Box::pin(account::add(studio, request))
    }),
    (uri::ACCOUNT_LIST, |studio, request| {
        Box::pin(account::list(studio, request))
    }),
    (uri::ACCOUNT_GRANT, |studio, request| {
        Box::pin(account::grant(studio, request))
    }),
    (uri::ACCOUNT_REVOKE, |studio, request| {
        Box::pin(account::revoke(studio, request))
    }),
];

/// Longest name of a device, an app, an account or a version.
const LONGEST_NAME: usize = 63;

/// Refuses names that could not be one component of an image name, a file name and a table column at once: letters
/// and digits, single `.`, `_` or `-` between them, and not digits alone, because those are keys.
fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let separated = name
        .split(['.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if separated && name.len() <= LONGEST_NAME && !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(Fault::Invalid(format!(
        "{name:?} cannot be the name of {what}: use letters, digits and single '.', '_' or '-' between them, \
         {LONGEST_NAME} at most, not digits alone"
    )))
}

/// Refuses what Docker would refuse as a tag.
fn check_version(version: &str) -> Result<(), Fault> {
    let mut bytes = version.bytes();
    let starts = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let continues = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if starts && continues && version.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(Fault::Invalid(format!(
        "{version:?} cannot be a version: use letters, digits, '.', '_' or '-', {LONGEST_NAME} at most"
    )))
}

/// `NAME: value` pairs as `NAME: {key: value}`, the shape that agents read.
fn environment(
    pairs: serde_json::Map<String, Value>,
    key: &str,
) -> Result<serde_json::Map<String, Value>, Fault> {
    let mut shaped = serde_json::Map::new();
    for (name, value) in pairs {
        if name.is_empty() || name.starts_with('#') || name.contains(|c: char| c == '=' || c.is_whitespace())
        {
            return Err(Fault::Invalid(format!(
                "{name:?} cannot be the name of an environment variable"
            )));
        }
        if value.is_object() || value.is_array() {
            return Err(Fault::Invalid(format!(
                "the value of {name} is neither text nor number"
            )));
        }
        shaped.insert(name, serde_json::json!({ key: value }));
    }
    Ok(shaped)
}

fn device_view(device: &Device) -> DeviceView {
    DeviceView {
        device_key: device.key,
        swarm_key: device.swarm,
        name: device.name.clone(),
        serial_number: device.serial.clone(),
        status: device.status.clone(),
        last_seen: device.last_seen.clone(),
        owner: device.owner_name.clone(),
        architecture: device.architecture.clone(),
        os: device.os.clone(),
        agent_version: device.agent_version.clone(),
        tunnel_capable: device.tunnel_capable,
        wamp_session_id: device.session,
        stats: device.stats,
        created: device.created.clone(),
    }
}

fn app_view(app: &App) -> AppView {
    AppView {
        app_key: app.key,
        name: app.name.clone(),
        ports: app.ports.clone(),
        environment_template: app.environment_template.clone(),
        releases: app
            .releases
            .iter()
            .map(|release| ReleaseView {
                release_key: release.key,
                compose: release.docker_compose.is_some(),
                version: release.version.clone(),
                created: release.created.clone(),
            })
            .collect(),
        created: app.created.clone(),
    }
}

/// An install as people see it; environment values may be secret and stay out.
pub(crate) fn install_view(install: &Install) -> InstallView {
    InstallView {
        device_key: install.device,
        device: install.device_name.clone(),
        serial_number: install.serial.clone(),
        device_online: install.online,
        app_key: install.app,
        app: install.app_name.clone(),
        stage: install.stage,
        current_state: install.current,
        target_state: install.target,
        version: install.present_version.clone(),
        newest_version: install.newest_version.clone(),
        request_update: install.request_update,
        update_status: install.update_status.clone(),
        ports: install.ports.clone(),
        reports: install.reports,
        updated: install.updated.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_fit_images_files_and_tables() {
        for good in ["press-07", "MyApp", "a.b_c-d", "7up"] {
            assert!(check_name("an app", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "7",
            "a b",
            "a/b",
            "../x",
            "-a",
            "a-",
            "a--b",
            "ä",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(check_name("an app", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_tags() {
        for good in ["1.4.0", "1.0.0-rc.1", "latest", "_x"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["", "-1", ".1", "1 0", "1:0", "1/0", &"1".repeat(64)] {
            assert!(check_version(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn environment_values_are_wrapped_and_bad_names_refused() {
        let pairs = |value: Value| value.as_object().unwrap().clone();
        let shaped = environment(pairs(json!({"A": "x", "B": 1})), "value").unwrap();
        assert_eq!(
            Value::Object(shaped),
            json!({"A": {"value": "x"}, "B": {"value": 1}})
        );
        for bad in [
            json!({"": 1}),
            json!({"A B": 1}),
            json!({"A=B": 1}),
            json!({"#A": 1}),
            json!({"A": []}),
        ] {
            assert!(environment(pairs(bad.clone()), "value").is_err(), "{bad}");
        }
    }
}
