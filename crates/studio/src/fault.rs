//! Why a procedure refuses or fails, as the caller sees it: an error URI and one sentence.

use wamp::client::WampError;
use wamp::uri::error;

use crate::api::fault as uri;
use crate::store::StoreError;

/// A refused or failed procedure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The arguments are unusable.
    #[error("{0}")]
    Invalid(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// No such device, app, version, install, procedure.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or something still depends on it.
    #[error("{0}")]
    Conflict(String),
    /// The device has no session.
    #[error("{0}")]
    Offline(String),
    /// The device answered with an error: passed on as it is.
    #[error("the device answered with an error")]
    Device(#[source] Box<DeviceError>),
    /// The studio itself failed; the caller only learns that.
    #[error("the studio failed to answer")]
    Internal(#[source] StoreError),
}

/// An ERROR of a device.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0)]
pub(crate) struct DeviceError(pub(crate) WampError);

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        match error {
            StoreError::Taken { .. } | StoreError::InUse(_) => Fault::Conflict(error.to_string()),
            StoreError::Open { .. }
            | StoreError::TooNew { .. }
            | StoreError::Sql(_)
            | StoreError::Content { .. }
            | StoreError::Random(_)
            | StoreError::Closed => Fault::Internal(error),
        }
    }
}

impl Fault {
    /// The ERROR message for the caller. Internal causes are logged here, once, and not told.
    pub(crate) fn into_wamp(self, procedure: &str) -> WampError {
        match self {
            Fault::Invalid(text) => WampError::new(error::INVALID_ARGUMENT, text),
            Fault::Denied(text) => WampError::new(error::NOT_AUTHORIZED, text),
            Fault::NotFound(text) => WampError::new(uri::NOT_FOUND, text),
            Fault::Conflict(text) => WampError::new(uri::CONFLICT, text),
            Fault::Offline(text) => WampError::new(uri::DEVICE_OFFLINE, text),
            Fault::Device(answer) => answer.0,
            Fault::Internal(cause) => {
                let source = std::error::Error::source(&cause).map(ToString::to_string);
                tracing::error!(procedure, error = %cause, source, "the fleet store did not answer");
                WampError::new(error::RUNTIME_ERROR, "the studio failed to answer: see its log")
            }
        }
    }
}
