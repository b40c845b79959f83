//! Identifiers of the fleet. All are positive whole numbers on the wire and never reused.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

macro_rules! key {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                // A key beyond i64 was never issued: -1 matches no row, so such a key reads as "unknown".
                Ok(ToSqlOutput::from(i64::try_from(self.0).unwrap_or(-1)))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let number = value.as_i64()?;
                u64::try_from(number).map($name).map_err(|_| FromSqlError::OutOfRange(number))
            }
        }
    )*};
}

key! {
    /// A person or a program that may use the studio; its decimal text is the WAMP authid.
    AccountKey,
    /// A project: the unit that devices belong to. First half of a device's authid.
    SwarmKey,
    /// A gateway. Second half of its authid.
    DeviceKey,
    /// An app.
    AppKey,
    /// One version of an app.
    ReleaseKey,
    /// A version of the agent on its way to devices.
    RolloutKey,
}

/// The authid of a device's session, `<swarm>-<device>` (`session-and-api.md` 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAuthid {
    pub swarm: SwarmKey,
    pub device: DeviceKey,
}

impl DeviceAuthid {
    /// Reads `42-1337`; anything else is `None`.
    pub fn parse(text: &str) -> Option<DeviceAuthid> {
        let (swarm, device) = text.split_once('-')?;
        Some(DeviceAuthid {
            swarm: SwarmKey(protocol::number::decimal(swarm)?),
            device: DeviceKey(protocol::number::decimal(device)?),
        })
    }
}

impl fmt::Display for DeviceAuthid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.swarm, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_authid_is_two_numbers_and_a_dash() {
        let authid = DeviceAuthid {
            swarm: SwarmKey(42),
            device: DeviceKey(1337),
        };
        assert_eq!(DeviceAuthid::parse("42-1337"), Some(authid));
        assert_eq!(authid.to_string(), "42-1337");
        for bad in ["", "42", "42-", "-1", "42-1337-1", "a-b", "+4-2", "42 - 1"] {
            assert_eq!(DeviceAuthid::parse(bad), None, "{bad:?}");
        }
    }
}
