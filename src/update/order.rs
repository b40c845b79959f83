//! What an update is to do, and how it ended. Must not know how it is done.

use super::install::InstallError;

/// Why an update is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The agent does so every now and then.
    Automatic,
    /// Somebody wants what is offered.
    Asked,
    /// Somebody wants this version.
    Version(String),
}

impl Cause {
    pub(crate) fn version(&self) -> Option<&str> {
        match self {
            Cause::Automatic | Cause::Asked => None,
            Cause::Version(version) => Some(version),
        }
    }
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub cause: Cause,
    /// Also what failed here before.
    pub force: bool,
    /// What its outcome is called; may be empty.
    pub id: String,
}

impl Order {
    /// What the agent does by itself.
    pub(crate) fn automatic() -> Order {
        Order {
            cause: Cause::Automatic,
            force: false,
            id: String::new(),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Staged {
        version: String,
        size: u64,
    },
    Nothing {
        offered: Option<String>,
        message: String,
    },
    /// The device is in the middle of something that an update would break off.
    Postponed {
        offered: String,
    },
    Failed {
        offered: Option<String>,
        failure: InstallError,
    },
}

impl Ended {
    pub(crate) fn nothing(offered: &str, message: String) -> Ended {
        Ended::Nothing {
            offered: Some(offered.to_owned()),
            message,
        }
    }

    /// The version that the bucket offers or that was asked for.
    pub(crate) fn offered(&self) -> Option<&str> {
        match self {
            Ended::Staged { version, .. } => Some(version),
            Ended::Postponed { offered } => Some(offered),
            Ended::Nothing { offered, .. } | Ended::Failed { offered, .. } => offered.as_deref(),
        }
    }
}
