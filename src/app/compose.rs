//! Compose apps: what the agent makes of an app's document (`app-lifecycle.md` 5), and what the containers of its project
//! say about the app. Pure but for [`archive`] and [`directory`].
//!
//! Must not know: the command line, the daemon, how an action proceeds.

pub(crate) mod archive;
pub(crate) mod directory;
pub(crate) mod document;
pub(crate) mod env_file;
pub(crate) mod ports;
pub(crate) mod project;

use protocol::AppRequest;
use serde_json::{Map, Value};

/// A compose document: an object, whatever is in it.
pub(crate) type Document = Map<String, Value>;

/// The document of the version that is installed. A request that still asks for the update which has brought `version`
/// is older than that.
pub(crate) fn installed<'a>(request: &'a AppRequest, version: &str) -> Option<&'a Document> {
    let old = request.docker_compose.as_ref()?;
    let updated = request.request_update
        && !version.is_empty()
        && version == request.newest_version
        && version != request.present_version;
    Some(match &request.new_docker_compose {
        Some(new) if updated => new,
        Some(_) | None => old,
    })
}

/// The document of the version that an update brings (W13: only one that is there).
pub(crate) fn newest(request: &AppRequest) -> Option<&Document> {
    let old = request.docker_compose.as_ref()?;
    Some(request.new_docker_compose.as_ref().unwrap_or(old))
}
