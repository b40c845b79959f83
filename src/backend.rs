//! Typed calls to the cloud, `reswarm.…` (`session-and-api.md` 7.1). Every call has a deadline.

use crate::link::SessionWatch;

/// Calls the backend through whatever session is up.
#[derive(Clone, Debug)]
pub struct Backend {
    session: SessionWatch,
}

/// Why a backend call failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No session right now; nothing was sent.
    #[error("not connected")]
    NotConnected,
    /// The call failed.
    #[error("backend call {procedure} failed")]
    Call {
        procedure: &'static str,
        #[source]
        source: wamp::client::RequestError,
    },
    /// The reply cannot be used.
    #[error("backend call {procedure} returned an unusable reply: {reason}")]
    Reply { procedure: &'static str, reason: String },
}

impl Backend {
    /// A backend reached through `session`.
    pub fn new(session: SessionWatch) -> Backend {
        Backend { session }
    }

    /// The registry user name for `account` (`app-lifecycle.md` 4.9); empty when the backend gives none.
    pub async fn registry_token(&self, _account: u64) -> Result<String, BackendError> {
        let _ = &self.session;
        todo!()
    }
}
