//! Procedures about apps: `request_app_state`, `get_app_log_history`.

use protocol::{naming, request};
use serde_json::Value;
use wamp::Payload;

use super::{Call, Code, Context, Failure, Reply, one};
use crate::app::RequestError;
use crate::journal::Chain;

/// Commits the request and answers; the transition runs on its own (`session-and-api.md` 6.4).
pub(super) async fn request_app_state(context: Context, call: Call) -> Reply {
    let request = request::parse_kwargs(&call.kwargs).map_err(|refused| Failure::invalid(refused.0))?;
    tracing::info!(?request, "app state requested");
    context.apps.request(request).await.map_err(|error| {
        let code = match &error {
            RequestError::Unsupported(_) => Code::InvalidArgument,
            RequestError::Store(_) => Code::Internal,
            RequestError::Closing => Code::Unavailable,
        };
        Failure {
            code,
            text: Chain(&error).to_string(),
        }
    })?;
    Ok(Payload::Empty)
}

/// A flat list of lines, oldest first (`logs-terminal-tunnel.md` 2.11).
pub(super) async fn get_app_log_history(context: Context, call: Call) -> Reply {
    let container = match call.first_dict()?.get("containerName") {
        Some(Value::String(name)) => name,
        _ => return Err(Failure::invalid("invalid value for containerName")),
    };
    let (app, name) = naming::parse_container(container).map_err(|bad| Failure::invalid(bad.to_string()))?;
    one(&context.logs.history(app, &name).await)
}
