//! Moving images between the device and registries: pull and push, with the login in the request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use protocol::request::RegistryLogin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::daemon::{Raw, of_registry};
use super::image::Reference;
use super::records::Operation;
use super::{Engine, EngineError};

const STALL: Duration = Duration::from_secs(5 * 60);
const PULL: Operation = Operation {
    name: "pull",
    stall: STALL,
    meaning: of_registry,
};
const PUSH: Operation = Operation {
    name: "push",
    stall: STALL,
    meaning: of_registry,
};

impl Engine {
    /// Pulls. Every record of the daemon goes to `progress` as its JSON line, which is to be read meanwhile: while it is
    /// full the pull waits, but for records that only say how far it is, which are left out. Ends with
    /// [`EngineError::Canceled`] when `cancel` fires, and fails when no progress arrives for five minutes.
    pub async fn pull(
        &self,
        reference: &str,
        login: Option<&RegistryLogin>,
        progress: mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let Reference { repository, version } = readable(reference)?;
        let path = format!("/images/create?fromImage={repository}&tag={version}");
        let raw = Raw {
            credentials: login.map(auth_header),
            ..Raw::post(path)
        };
        self.follow_records(PULL, raw, progress, cancel).await
    }

    /// Pushes one tag of an image that is here; progress, cancel and bound as in [`Engine::pull`].
    pub async fn push(
        &self,
        reference: &str,
        login: &RegistryLogin,
        progress: mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let Reference { repository, version } = readable(reference)?;
        let raw = Raw {
            credentials: Some(auth_header(login)),
            ..Raw::post(format!("/images/{repository}/push?tag={version}"))
        };
        self.follow_records(PUSH, raw, progress, cancel).await
    }
}

fn readable(reference: &str) -> Result<Reference, EngineError> {
    Reference::parse(reference)
        .ok_or_else(|| EngineError::NoSuchImage(format!("invalid reference format: {reference:?}")))
}

/// The header with a login (`app-lifecycle.md` 4.9).
fn auth_header(login: &RegistryLogin) -> (&'static str, String) {
    let credentials = serde_json::json!({"username": login.username, "password": login.password});
    ("x-registry-auth", URL_SAFE.encode(credentials.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auth_header_is_url_safe_base64_of_the_credentials() {
        let (_, header) = auth_header(&RegistryLogin {
            username: "t>?".to_owned(),
            password: "s~~~".to_owned(),
        });
        assert_eq!(header, "eyJ1c2VybmFtZSI6InQ-PyIsInBhc3N3b3JkIjoic35-fiJ9");
    }
}
