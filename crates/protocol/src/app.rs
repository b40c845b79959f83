//! Identity and states of an app (`app-lifecycle.md` 1.1, 1.2, 1.8).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where an app's image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Stage {
    /// Built on the device.
    Dev,
    /// Pulled from the registry.
    Prod,
}

impl Stage {
    /// `DEV` or `PROD`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Dev => "DEV",
            Stage::Prod => "PROD",
        }
    }

    /// `dev` or `prod`.
    pub fn lower(self) -> &'static str {
        match self {
            Stage::Dev => "dev",
            Stage::Prod => "prod",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that is not one of the names of an enum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {text:?}")]
pub struct UnknownName {
    /// What was expected.
    pub what: &'static str,
    /// What was there.
    pub text: String,
}

impl FromStr for Stage {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Stage, UnknownName> {
        match text {
            "DEV" => Ok(Stage::Dev),
            "PROD" => Ok(Stage::Prod),
            _ => Err(UnknownName {
                what: "stage",
                text: text.to_owned(),
            }),
        }
    }
}

/// One app on a device: the same key may exist once per stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppId {
    /// The platform's key, > 0.
    pub key: u64,
    pub stage: Stage,
}

impl fmt::Display for AppId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.key, self.stage)
    }
}

macro_rules! app_states {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// State of an app as reported, stored and requested. Spelling is contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum AppState {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl AppState {
            /// Every state, in declaration order.
            pub const ALL: &'static [AppState] = &[$(AppState::$name,)*];

            /// The name on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(AppState::$name => $text,)*
                }
            }
        }

        impl FromStr for AppState {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<AppState, UnknownName> {
                match text {
                    $($text => Ok(AppState::$name),)*
                    _ => Err(UnknownName { what: "app state", text: text.to_owned() }),
                }
            }
        }
    };
}

app_states! {
    /// Installed, no container.
    Present = "PRESENT",
    /// Not on the device.
    Removed = "REMOVED",
    /// Not on the device, data wiped.
    Uninstalled = "UNINSTALLED",
    /// The last action failed, or the container ended by itself.
    Failed = "FAILED",
    Building = "BUILDING",
    Built = "BUILT",
    /// Never produced by an agent.
    Transfered = "TRANSFERED",
    Transfering = "TRANSFERING",
    Publishing = "PUBLISHING",
    Published = "PUBLISHED",
    Downloading = "DOWNLOADING",
    Starting = "STARTING",
    Stopping = "STOPPING",
    Updating = "UPDATING",
    Deleting = "DELETING",
    Running = "RUNNING",
    /// Legacy: readable, but the database refuses it.
    Stopped = "STOPPED",
}

impl AppState {
    /// Whether an action is under way (`app-lifecycle.md` 1.8, column "transient").
    pub fn is_transient(self) -> bool {
        match self {
            AppState::Built
            | AppState::Published
            | AppState::Building
            | AppState::Publishing
            | AppState::Downloading
            | AppState::Updating
            | AppState::Transfering
            | AppState::Transfered
            | AppState::Starting
            | AppState::Stopping
            | AppState::Deleting => true,
            AppState::Present
            | AppState::Running
            | AppState::Removed
            | AppState::Uninstalled
            | AppState::Failed
            | AppState::Stopped => false,
        }
    }

    /// Whether this is the target of an operation that is done once for each request, instead of a state to be kept: a
    /// build, a publication (`app-lifecycle.md` 7.7 "invalid offline").
    pub fn is_once(self) -> bool {
        matches!(self, AppState::Built | AppState::Published)
    }

    /// The settled state that a request for this one leads to (`app-lifecycle.md` 1.8, last column).
    pub fn normalised(self) -> AppState {
        match self {
            AppState::Building
            | AppState::Publishing
            | AppState::Downloading
            | AppState::Updating
            | AppState::Transfering
            | AppState::Transfered
            | AppState::Stopping => AppState::Present,
            AppState::Starting => AppState::Running,
            AppState::Deleting => AppState::Removed,
            AppState::Present
            | AppState::Running
            | AppState::Removed
            | AppState::Uninstalled
            | AppState::Failed
            | AppState::Stopped
            | AppState::Built
            | AppState::Published => self,
        }
    }

    /// Whether the database's CHECK constraint accepts it (`app-lifecycle.md` 9.1).
    pub fn is_storable(self) -> bool {
        self != AppState::Stopped
    }
}

impl fmt::Display for AppState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Progress of an update as reported to the backend; camel-case key `updateStatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStatus {
    /// No update since the agent started.
    #[default]
    #[serde(rename = "")]
    None,
    PendingRemoteConfirmation,
    Completed,
    Canceled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_a_round_trip_through_its_name() {
        for state in AppState::ALL {
            assert_eq!(state.as_str().parse::<AppState>().as_ref(), Ok(state));
        }
        assert_eq!(AppState::ALL.len(), 17);
    }

    #[test]
    fn normalising_leads_to_a_state_that_is_its_own_goal() {
        for state in AppState::ALL {
            assert_eq!(state.normalised().normalised(), state.normalised());
        }
    }
}
