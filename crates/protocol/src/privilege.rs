//! Privileges that procedures of the agent require (`session-and-api.md` 6.2).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller must be allowed to do on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Privilege {
    Read,
    Network,
    Develop,
    Maintain,
}

impl Privilege {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Privilege::Read => "READ",
            Privilege::Network => "NETWORK",
            Privilege::Develop => "DEVELOP",
            Privilege::Maintain => "MAINTAIN",
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
