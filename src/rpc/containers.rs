//! Procedures about the container engine: `list_containers`, `get_images`, `prune_images`.

use protocol::naming;
use serde_json::Value;
use wamp::Payload;

use super::{Call, Context, Failure, Reply, one};
use crate::engine::EngineError;

/// One positional argument: the engine's own list of all containers, passed through.
pub(super) async fn list_containers(context: Context, _call: Call) -> Reply {
    one(&context.engine.list_raw().await?)
}

/// One positional dictionary per image.
pub(super) async fn get_images(context: Context, _call: Call) -> Reply {
    let images = context.engine.images_raw().await?;
    Ok(Payload::from_args(
        images.into_iter().map(wamp::Value::from).collect(),
    ))
}

/// With `all`, everything unused but the volumes, containers and images of known apps (R63); else dangling images.
pub(super) async fn prune_images(context: Context, call: Call) -> Reply {
    let all = match call.first_dict()?.get("all") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(all)) => *all,
        Some(_) => return Err(Failure::invalid("all value for container prune is not a boolean")),
    };
    let mut keep: Vec<String> = context
        .apps
        .known()
        .await
        .into_iter()
        .map(|(app, name)| naming::container(app, &name))
        .collect();
    keep.extend(context.apps.service_images().await);
    let text = context.engine.prune(all, &keep).await?;
    if all { one(&text) } else { Ok(Payload::Empty) }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        Failure::unavailable(error.to_string())
    }
}
