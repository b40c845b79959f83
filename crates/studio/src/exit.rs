//! Exit codes and the failures that lead to them.

use wamp::client::{ConnectError, RequestError, WampError};
use wamp::uri::error;

use crate::api::fault;

/// What the process tells its caller. The help text of every command points to this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Tried and failed.
    Failed = 1,
    /// The command line or an argument is unusable.
    Usage = 2,
    /// No such device, app, version, install or procedure.
    NotFound = 3,
    /// No studio answers.
    Unreachable = 4,
    /// The device is not connected.
    Offline = 5,
    /// Wrong credentials or missing privilege.
    Denied = 6,
    /// Ctrl-C while waiting; what was asked stands.
    Interrupted = 130,
}

/// The list of exit codes as help shows it.
pub const CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 studio unreachable, \
                         5 device offline, 6 denied, 130 interrupted";

/// Why a command ends without success: a code, a sentence, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub exit: Exit,
    pub text: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, text: impl Into<String>) -> Failure {
        Failure {
            exit,
            text: text.into(),
            hint: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ConnectError> for Failure {
    fn from(cause: ConnectError) -> Failure {
        if cause.is_credential_failure() {
            return Failure::new(
                Exit::Denied,
                format!("the studio refused the credentials: {cause}"),
            )
            .hint("check --authid and --secret-file, or the data directory's operator.json");
        }
        let text = cause.to_string();
        match cause {
            ConnectError::Url(_) => Failure::new(Exit::Usage, text),
            ConnectError::Transport(_)
            | ConnectError::Timeout(_)
            | ConnectError::NoSubprotocol
            | ConnectError::Aborted { .. }
            | ConnectError::Protocol(_) => Failure::new(Exit::Unreachable, text)
                .hint("start it with 'studio serve', or name it with --url"),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(cause: RequestError) -> Failure {
        match cause {
            RequestError::ConnectionLost => {
                Failure::new(Exit::Unreachable, "lost the connection to the studio")
            }
            RequestError::Peer(answer) => Failure::from(answer),
            RequestError::InvalidUri(_) => Failure::new(Exit::Usage, cause.to_string()),
            RequestError::Timeout(_)
            | RequestError::Cancelled
            | RequestError::TooLarge(_)
            | RequestError::Encode(_)
            | RequestError::NotSupported(_)
            | RequestError::Unexpected(_) => Failure::new(Exit::Failed, cause.to_string()),
        }
    }
}

impl From<WampError> for Failure {
    fn from(answer: WampError) -> Failure {
        let text = sentence(&answer);
        let exit = match answer.uri.as_str() {
            fault::NOT_FOUND => Exit::NotFound,
            fault::DEVICE_OFFLINE => Exit::Offline,
            error::NOT_AUTHORIZED => Exit::Denied,
            error::INVALID_ARGUMENT | error::INVALID_URI => Exit::Usage,
            // Agents have one error URI for everything; a denial shows in its text only.
            error::CANCELED if text.starts_with("insufficient privileges") => Exit::Denied,
            _ => Exit::Failed,
        };
        let failure = Failure::new(exit, text);
        match exit {
            Exit::Offline => failure.hint("'studio device list' shows which devices are connected"),
            Exit::Ok
            | Exit::Failed
            | Exit::Usage
            | Exit::NotFound
            | Exit::Unreachable
            | Exit::Denied
            | Exit::Interrupted => failure,
        }
    }
}

/// The sentence for people in an ERROR; its URI where there is none.
fn sentence(answer: &WampError) -> String {
    let first = answer
        .payload
        .args()
        .ok()
        .and_then(|args| args.into_iter().next());
    match first {
        Some(wamp::Value::Str(text)) => text,
        Some(value) => match value.get("error").and_then(wamp::Value::as_str) {
            Some(text) => text.to_owned(),
            None => format!("{}: {}", answer.uri, value.to_json()),
        },
        None => answer.uri.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wamp::Payload;

    #[test]
    fn every_error_uri_has_its_exit_code() {
        for (uri, exit) in [
            ("studio.error.not_found", Exit::NotFound),
            ("studio.error.conflict", Exit::Failed),
            ("studio.error.device_offline", Exit::Offline),
            ("wamp.error.not_authorized", Exit::Denied),
            ("wamp.error.invalid_argument", Exit::Usage),
            ("wamp.error.runtime_error", Exit::Failed),
            ("wamp.error.canceled", Exit::Failed),
        ] {
            let failure = Failure::from(WampError::new(uri, "because"));
            assert_eq!((failure.exit, failure.text.as_str()), (exit, "because"), "{uri}");
        }
    }

    #[test]
    fn a_denial_of_an_agent_is_known_by_its_text() {
        let payload = Payload::one(&serde_json::json!({"error": "insufficient privileges to read"})).unwrap();
        let failure = Failure::from(WampError {
            uri: error::CANCELED.to_owned(),
            payload,
        });
        assert_eq!(failure.exit, Exit::Denied);
        assert_eq!(failure.text, "insufficient privileges to read");
    }

    #[test]
    fn an_unreachable_router_and_wrong_credentials_differ() {
        let unreachable = Failure::from(ConnectError::Transport("refused".to_owned()));
        assert_eq!(unreachable.exit, Exit::Unreachable);
        assert!(unreachable.hint.is_some());
        let aborted = |reason: &str| ConnectError::Aborted {
            reason: reason.to_owned(),
            message: String::new(),
        };
        assert_eq!(
            Failure::from(aborted("wamp.error.authentication_failed")).exit,
            Exit::Denied
        );
        assert_eq!(
            Failure::from(aborted("wamp.close.system_shutdown")).exit,
            Exit::Unreachable
        );
        assert_eq!(Failure::from(ConnectError::Url("x".to_owned())).exit, Exit::Usage);
    }

    #[test]
    fn an_error_without_a_sentence_shows_its_uri() {
        let bare = WampError {
            uri: "com.example.odd".to_owned(),
            payload: Payload::Empty,
        };
        assert_eq!(Failure::from(bare).text, "com.example.odd");
    }
}
