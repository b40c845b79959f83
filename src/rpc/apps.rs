//! Procedures about apps: `request_app_state`.

use protocol::request;
use wamp::Payload;

use super::{Call, Code, Context, Failure, Reply};
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
