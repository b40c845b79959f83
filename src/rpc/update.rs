//! `update_agent` (`session-and-api.md` 6.9, `update-and-system.md` 1.11).

use serde_json::{Value, json};

use super::{Call, Context, Failure, Reply, one};
use crate::cli::VERSION;

/// What a caller may call its update, in bytes.
const ID: usize = 64;

/// Checks and installs what is offered, or the version that the caller names; with `force` also a build that failed here
/// before. The `id` that the caller may give comes back with the outcome. Answers when it is finished; a failure is no
/// error of the call, its reason is the message. That the agent ends is no failure of the update: it is to be asked again.
pub(super) async fn update_agent(context: Context, call: Call) -> Reply {
    let (version, force, id) = (version(&call)?, force(&call)?, id(&call)?);
    let report = context.updates.update(version, force, id).await;
    let report = report.ok_or_else(|| Failure::unavailable("the agent is stopping"))?;
    one(&json!({
        "CurrentVersion": VERSION,
        "LatestVersion": report.latest,
        "Message": report.message,
        "DidAgentUpdate": report.updated,
        "DidTunnelUpdate": false,
        "DidUpdate": report.updated,
        "InProgress": report.in_progress,
        "TotalFileSize": report.size,
    }))
}

/// A member of the first argument, or a keyword argument. Callers of the reference send nothing, or anything.
fn given<'a>(call: &'a Call, name: &str) -> Option<&'a Value> {
    let first = call.args.first().and_then(|first| first.get(name));
    first.or_else(|| call.kwargs.get(name))
}

fn force(call: &Call) -> Result<bool, Failure> {
    match given(call, "force") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(force)) => Ok(*force),
        Some(_) => Err(Failure::invalid("force must be true or false")),
    }
}

fn id(call: &Call) -> Result<String, Failure> {
    match given(call, "id") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(id)) if id.len() <= ID => Ok(id.clone()),
        Some(_) => Err(Failure::invalid("id must be a text of at most 64 bytes")),
    }
}

fn version(call: &Call) -> Result<Option<String>, Failure> {
    match given(call, "version") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(version)) if version.is_empty() => Ok(None),
        Some(Value::String(version)) => Ok(Some(version.trim_start_matches('v').to_owned())),
        Some(_) => Err(Failure::invalid("version must be a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_be_named_in_either_place_and_need_not() {
        let call = |args: Value, kwargs: Value| Call {
            args: args.as_array().unwrap().clone(),
            kwargs: kwargs.as_object().unwrap().clone(),
        };
        let named = Some("1.2.3".to_owned());
        assert_eq!(version(&call(json!([]), json!({}))).unwrap(), None);
        assert_eq!(
            version(&call(json!([{"requestor_account_key": 1}]), json!({}))).unwrap(),
            None
        );
        assert_eq!(
            version(&call(json!([{"version": "v1.2.3"}]), json!({}))).unwrap(),
            named
        );
        assert_eq!(
            version(&call(json!([]), json!({"version": "1.2.3"}))).unwrap(),
            named
        );
        version(&call(json!([]), json!({"version": 7}))).unwrap_err();
        assert!(!force(&call(json!([{"version": "1.2.3"}]), json!({}))).unwrap());
        assert!(force(&call(json!([{"force": true}]), json!({}))).unwrap());
        assert!(force(&call(json!([]), json!({"force": true}))).unwrap());
        force(&call(json!([]), json!({"force": "yes"}))).unwrap_err();
        assert_eq!(id(&call(json!([]), json!({}))).unwrap(), "");
        assert_eq!(id(&call(json!([]), json!({"id": "1-1000"}))).unwrap(), "1-1000");
        id(&call(json!([]), json!({"id": "x".repeat(65)}))).unwrap_err();
    }
}
