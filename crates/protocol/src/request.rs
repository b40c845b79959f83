//! What the backend asks of one app: kwargs of `request_app_state` (`app-lifecycle.md` 1.4, 1.5) and rows of
//! `get_requested_app_states` (1.6). Both are read by the same rules; a request is complete and valid or refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::app::{AppId, AppState, Stage};
use crate::naming;
use crate::number;

/// Login for one registry. The password never shows in debug output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RegistryLogin")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// One request, validated.
#[derive(Clone, PartialEq)]
pub struct AppRequest {
    pub app: AppId,
    /// One safe path component, original case.
    pub app_name: String,
    /// As asked for; storage keeps [`AppState::normalised`].
    pub target: AppState,
    /// The backend's view of the current state: seeds a new app. Always present in kwargs, may be missing in rows.
    pub current: Option<AppState>,
    pub requestor_account_key: u64,
    /// 0 means unknown.
    pub device_owner_account_key: u64,
    pub release_key: u64,
    pub new_release_key: u64,
    /// Version to publish.
    pub version: String,
    /// Version to run.
    pub present_version: String,
    /// Version to pull or update to.
    pub newest_version: String,
    pub request_update: bool,
    pub cancel_transition: bool,
    /// `NAME: {"value": …}`
    pub environment: Option<Map<String, Value>>,
    /// `NAME: {"defaultValue": …}`
    pub environment_template: Option<Map<String, Value>>,
    /// Port rules as received; read with [`crate::PortRule::parse_list`].
    pub ports: Option<Vec<Value>>,
    /// Non-null means compose app, even when empty.
    pub docker_compose: Option<Map<String, Value>>,
    pub new_docker_compose: Option<Map<String, Value>>,
    /// Registry to login. Kept in memory only.
    pub docker_credentials: BTreeMap<String, RegistryLogin>,
    /// 0 means none.
    pub instance_key: u64,
    /// 0 means not given, used as 1.
    pub app_cred_epoch: u64,
}

impl fmt::Debug for AppRequest {
    /// Key, stage, states and versions only: everything else may hold secrets (weaknesses R47, W64).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AppRequest")
            .field("app", &self.app)
            .field("app_name", &self.app_name)
            .field("target", &self.target)
            .field("current", &self.current)
            .field("present_version", &self.present_version)
            .field("newest_version", &self.newest_version)
            .field("request_update", &self.request_update)
            .finish_non_exhaustive()
    }
}

/// Why a request was refused; the text goes to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Longest app name, bytes: with stage and key it has to fit into one path component and into an image reference.
const MAX_APP_NAME: usize = 200;

/// Reads the kwargs of `request_app_state`.
pub fn parse_kwargs(kwargs: &Map<String, Value>) -> Result<AppRequest, Refused> {
    let request = parse(kwargs)?;
    // The reference cannot store a request without a current state; refusing it clearly beats half an app.
    if request.current.is_none() {
        return Err(check_failed(
            "current state",
            text_of(kwargs, "current_state", "state"),
        ));
    }
    Ok(request)
}

/// Reads one row of `get_requested_app_states`. A row without a usable current state is still a valid request.
pub fn parse_row(row: &Value) -> Result<AppRequest, Refused> {
    match row {
        Value::Object(members) => parse(members),
        _ => Err(Refused("row is not an object".to_owned())),
    }
}

fn parse(members: &Map<String, Value>) -> Result<AppRequest, Refused> {
    let fields = Fields(members);
    let key = match fields.get("app_key") {
        None => 0,
        Some(value) => number::whole(value).ok_or_else(|| refused("failed to parse app_key"))?,
    };
    if key == 0 {
        return Err(refused("missing from payload app_key"));
    }
    let app_name = fields.text("app_name", "failed to parse appName")?;
    if app_name.is_empty() {
        return Err(refused("failed to parse appName"));
    }
    if app_name.len() > MAX_APP_NAME {
        return Err(Refused(format!("app_name is longer than {MAX_APP_NAME} bytes")));
    }
    if !naming::is_safe_app_name(&app_name) {
        return Err(Refused(format!(
            "app_name {} is not a plain name: it must not contain a path",
            quoted(&app_name)
        )));
    }
    let stage = fields.text("stage", "failed to parse stage")?;
    if stage.is_empty() {
        return Err(refused("missing from payload stage"));
    }
    let target = fields.text("target_state", "failed to parse requestedState")?;
    let manual = fields.text(
        "manually_requested_state",
        "failed to parse manuallyRequestedState",
    )?;
    let current = fields.text("current_state", "failed to parse currentState")?;
    let state = fields.text("state", "failed to parse currentState2")?;
    let requestor = fields.account("requestor_account_key", "failed to parse requestorAccountKey")?;
    let account = fields.account("account_id", "failed to parse requestorAccountKey2")?;
    let owner = fields.account(
        "device_owner_account_key",
        "failed to parse deviceOwnerAccountKey",
    )?;
    let request = AppRequest {
        app: AppId {
            key,
            stage: stage
                .parse::<Stage>()
                .map_err(|_| check_failed("stage", &stage))?,
        },
        app_name,
        target: goal(if target.is_empty() { &manual } else { &target })?,
        current: (if current.is_empty() { state } else { current })
            .parse()
            .ok()
            .filter(|state: &AppState| state.is_storable()),
        requestor_account_key: if requestor == 0 { account } else { requestor },
        device_owner_account_key: owner,
        release_key: fields.number(
            "release_key",
            "failed to parse releaseKeyString",
            "strconv.ParseUint",
        )?,
        new_release_key: fields.number(
            "new_release_key",
            "failed to parse newReleaseKey",
            "strconv.ParseUint",
        )?,
        version: fields.text("version", "failed to parse version")?,
        present_version: fields.text("present_version", "failed to parse presentVersion")?,
        newest_version: fields.text("newest_version", "failed to parse newestVersion")?,
        request_update: fields.flag("request_update", "failed to parse requestUpdate")?,
        cancel_transition: fields.flag("cancel_transition", "failed to parse cancelTransition")?,
        environment: fields.object("environment", "failed to parse environment")?,
        environment_template: fields
            .object("environment_template", "failed to parse environment template")?,
        ports: fields.list("ports", "failed to parse ports")?,
        docker_compose: fields.object("docker_compose", "failed to parse docker compose")?,
        new_docker_compose: fields.object("new_docker_compose", "failed to parse new docker compose")?,
        docker_credentials: fields.logins("docker_credentials", "failed to parse docker credentials")?,
        instance_key: fields.get("instance_key").and_then(number::whole).unwrap_or(0),
        app_cred_epoch: fields.get("app_cred_epoch").and_then(number::whole).unwrap_or(0),
    };
    Ok(request)
}

fn goal(text: &str) -> Result<AppState, Refused> {
    text.parse()
        .ok()
        .filter(|state: &AppState| state.is_storable())
        .ok_or_else(|| check_failed("target state", text))
}

fn refused(text: &str) -> Refused {
    Refused(text.to_owned())
}

/// The words "CHECK constraint failed" are what clients of the reference see in this case.
fn check_failed(what: &str, text: &str) -> Refused {
    Refused(format!(
        "CHECK constraint failed: {} is not a valid {what}",
        quoted(text)
    ))
}

/// What the caller sent, as far as it helps to recognise it: it goes into logs, too.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn text_of<'a>(members: &'a Map<String, Value>, first: &str, second: &str) -> &'a str {
    let text = |key: &str| {
        members
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    text(first).or_else(|| text(second)).unwrap_or("")
}

/// Typed access to members; `null` counts as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str, message: &str) -> Result<String, Refused> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(refused(message)),
        }
    }

    fn flag(&self, key: &str, message: &str) -> Result<bool, Refused> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(refused(message)),
        }
    }

    fn account(&self, key: &str, message: &str) -> Result<u64, Refused> {
        self.number(key, message, "strconv.Atoi")
    }

    /// A text that is no number is answered in the words of the reference's number parser.
    fn number(&self, key: &str, message: &str, parser: &str) -> Result<u64, Refused> {
        match self.get(key) {
            None => Ok(0),
            Some(Value::String(text)) if text.is_empty() => Ok(0),
            Some(value @ Value::String(text)) => number::whole(value)
                .ok_or_else(|| Refused(format!("{parser}: parsing {}: invalid syntax", quoted(text)))),
            Some(value) => number::whole(value).ok_or_else(|| refused(message)),
        }
    }

    fn object(&self, key: &str, message: &str) -> Result<Option<Map<String, Value>>, Refused> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object.clone())),
            Some(_) => Err(refused(message)),
        }
    }

    fn list(&self, key: &str, message: &str) -> Result<Option<Vec<Value>>, Refused> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list.clone())),
            Some(_) => Err(refused(message)),
        }
    }

    fn logins(&self, key: &str, message: &str) -> Result<BTreeMap<String, RegistryLogin>, Refused> {
        match self.get(key) {
            None => Ok(BTreeMap::new()),
            Some(value) => serde_json::from_value(value.clone()).map_err(|_| refused(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kwargs(changes: Value) -> Map<String, Value> {
        let mut members = json!({
            "app_key": 6, "app_name": "MyApp", "stage": "PROD", "current_state": "PRESENT", "target_state": "RUNNING"
        });
        let (Value::Object(members), Value::Object(changes)) = (&mut members, changes) else {
            unreachable!()
        };
        members.extend(changes);
        members.clone()
    }

    #[test]
    fn the_contract_example_is_read() {
        let request = parse_kwargs(&kwargs(json!({
            "release_key": "100", "new_release_key": 101, "present_version": "1.4.0", "newest_version": "1.5.0",
            "requestor_account_key": 12, "device_owner_account_key": "9", "app_cred_epoch": 2.0,
            "environment": {"MQTT_HOST": {"value": "broker.local"}}, "docker_compose": null,
            "docker_credentials": {"ghcr.io": {"username": "bot", "password": "secret"}}
        })))
        .unwrap();
        assert_eq!(
            request.app,
            AppId {
                key: 6,
                stage: Stage::Prod
            }
        );
        assert_eq!(request.target, AppState::Running);
        assert_eq!(request.current, Some(AppState::Present));
        assert_eq!((request.release_key, request.new_release_key), (100, 101));
        assert_eq!(
            (request.requestor_account_key, request.device_owner_account_key),
            (12, 9)
        );
        assert_eq!(request.app_cred_epoch, 2);
        assert!(request.docker_compose.is_none());
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn precedence_falls_back_to_the_older_names() {
        let request = parse_kwargs(&kwargs(json!({
            "target_state": "", "manually_requested_state": "REMOVED", "current_state": "", "state": "RUNNING",
            "requestor_account_key": 0, "account_id": "77"
        })))
        .unwrap();
        assert_eq!(request.target, AppState::Removed);
        assert_eq!(request.current, Some(AppState::Running));
        assert_eq!(request.requestor_account_key, 77);
    }

    #[test]
    fn every_bad_input_has_the_text_of_the_contract() {
        for (change, text) in [
            (json!({"app_key": "six"}), "failed to parse app_key"),
            (json!({"app_key": 0}), "missing from payload app_key"),
            (json!({"app_key": null}), "missing from payload app_key"),
            (json!({"app_name": ""}), "failed to parse appName"),
            (json!({"app_name": 5}), "failed to parse appName"),
            (json!({"stage": 5}), "failed to parse stage"),
            (json!({"stage": ""}), "missing from payload stage"),
            (json!({"target_state": 1}), "failed to parse requestedState"),
            (
                json!({"manually_requested_state": []}),
                "failed to parse manuallyRequestedState",
            ),
            (json!({"current_state": 1}), "failed to parse currentState"),
            (json!({"state": 1}), "failed to parse currentState2"),
            (
                json!({"requestor_account_key": true}),
                "failed to parse requestorAccountKey",
            ),
            (
                json!({"requestor_account_key": "x"}),
                "strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (json!({"account_id": []}), "failed to parse requestorAccountKey2"),
            (
                json!({"device_owner_account_key": {}}),
                "failed to parse deviceOwnerAccountKey",
            ),
            (json!({"release_key": true}), "failed to parse releaseKeyString"),
            (json!({"new_release_key": true}), "failed to parse newReleaseKey"),
            (json!({"version": 1}), "failed to parse version"),
            (json!({"present_version": 1}), "failed to parse presentVersion"),
            (json!({"newest_version": 1}), "failed to parse newestVersion"),
            (json!({"request_update": "yes"}), "failed to parse requestUpdate"),
            (
                json!({"cancel_transition": 1}),
                "failed to parse cancelTransition",
            ),
            (json!({"environment": []}), "failed to parse environment"),
            (
                json!({"environment_template": 1}),
                "failed to parse environment template",
            ),
            (json!({"ports": {}}), "failed to parse ports"),
            (json!({"docker_compose": []}), "failed to parse docker compose"),
            (
                json!({"new_docker_compose": "x"}),
                "failed to parse new docker compose",
            ),
            (
                json!({"docker_credentials": {"r": {"username": 1}}}),
                "failed to parse docker credentials",
            ),
        ] {
            assert_eq!(
                parse_kwargs(&kwargs(change.clone())),
                Err(Refused(text.to_owned())),
                "{change}"
            );
        }
    }

    #[test]
    fn unknown_stages_and_states_are_refused_like_the_database_would() {
        for change in [
            json!({"stage": "TEST"}),
            json!({"target_state": "FLYING"}),
            json!({"target_state": "STOPPED"}),
            json!({"target_state": ""}),
            json!({"current_state": ""}),
            json!({"current_state": "INHERIT"}),
        ] {
            let refused = parse_kwargs(&kwargs(change.clone())).unwrap_err();
            assert!(
                refused.0.starts_with("CHECK constraint failed"),
                "{change}: {refused}"
            );
        }
    }

    #[test]
    fn a_refusal_never_repeats_more_than_a_line_of_what_was_sent() {
        let long = "ü".repeat(1 << 20);
        for member in [
            "app_name",
            "stage",
            "target_state",
            "current_state",
            "release_key",
            "account_id",
        ] {
            let path = format!("/{long}");
            let text = if member == "app_name" { &path } else { &long };
            let refused = parse_kwargs(&kwargs(json!({ member: text }))).unwrap_err();
            assert!(refused.0.len() < 300, "{member}: {} bytes", refused.0.len());
        }
    }

    #[test]
    fn a_path_is_not_an_app_name() {
        assert!(parse_kwargs(&kwargs(json!({"app_name": "../../etc"}))).is_err());
    }

    #[test]
    fn a_name_that_no_directory_can_have_is_refused() {
        assert!(parse_kwargs(&kwargs(json!({"app_name": "x".repeat(200)}))).is_ok());
        let refused = parse_kwargs(&kwargs(json!({"app_name": "x".repeat(201)}))).unwrap_err();
        assert_eq!(refused.0, "app_name is longer than 200 bytes");
    }

    #[test]
    fn a_row_without_current_state_is_still_a_request() {
        let row = Value::Object(kwargs(json!({"current_state": null})));
        assert_eq!(parse_row(&row).unwrap().current, None);
        assert!(parse_row(&json!([])).is_err());
    }
}
