//! The release manifest as devices read it (`update-and-system.md` 9.1 U1). Must not know where it is put.

use std::fmt;

use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

use crate::layout::Platform;

/// What a binary must be before a device runs it; the agent's `src/update/manifest.rs` says the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub product: String,
    pub version: String,
    pub os: String,
    pub arch: String,
    /// Of the binary.
    pub sha256: String,
    /// Of the binary, bytes.
    pub size: u64,
    /// Environments that it is meant for; empty: all.
    pub channels: Vec<String>,
    /// Older agents have to go through a version in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<String>,
    pub issued: Timestamp,
    /// Afterwards it has to be issued again.
    pub expires: Timestamp,
    /// May replace a newer version.
    pub allow_downgrade: bool,
    pub deltas: Vec<Delta>,
}

/// A patch beside the binary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Digest of the binary that it patches.
    pub from_sha256: String,
    pub name: String,
    /// Of the patch: digest and bytes.
    pub sha256: String,
    pub size: u64,
}

/// What whoever makes the release decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub channels: Vec<String>,
    pub minimum_version: Option<String>,
    pub allow_downgrade: bool,
}

/// What is decided otherwise when a manifest is issued again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub channels: Option<Vec<String>>,
    /// `Some(None)`: there is none any more.
    pub minimum_version: Option<Option<String>>,
    pub allow_downgrade: Option<bool>,
}

impl Changes {
    /// `terms` with these changes.
    pub fn of(&self, terms: Terms) -> Terms {
        Terms {
            channels: self.channels.clone().unwrap_or(terms.channels),
            minimum_version: self.minimum_version.clone().unwrap_or(terms.minimum_version),
            allow_downgrade: self.allow_downgrade.unwrap_or(terms.allow_downgrade),
        }
    }
}

/// As options of the command.
impl fmt::Display for Terms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels = self.channels.iter().map(|channel| format!("--channel {channel}"));
        let minimum = self.minimum_version.iter();
        let minimum = minimum.map(|version| format!("--minimum-version {version}"));
        let downgrade = self.allow_downgrade.then(|| "--allow-downgrade".to_owned());
        let words: Vec<_> = channels.chain(minimum).chain(downgrade).collect();
        match words.is_empty() {
            true => formatter.write_str("no limits"),
            false => formatter.write_str(&words.join(" ")),
        }
    }
}

impl Manifest {
    /// Of a binary, issued now.
    pub fn issue(
        platform: &Platform,
        version: &str,
        binary: &[u8],
        deltas: Vec<Delta>,
        terms: &Terms,
        days: u32,
    ) -> Manifest {
        let issued = seconds(Timestamp::now());
        Manifest {
            product: "reagent".to_owned(),
            version: version.to_owned(),
            os: platform.os.clone(),
            arch: platform.arch.clone(),
            sha256: crate::digest(binary),
            size: binary.len() as u64,
            channels: terms.channels.clone(),
            minimum_version: terms.minimum_version.clone(),
            issued,
            expires: later(issued, days),
            allow_downgrade: terms.allow_downgrade,
            deltas,
        }
    }

    pub fn terms(&self) -> Terms {
        Terms {
            channels: self.channels.clone(),
            minimum_version: self.minimum_version.clone(),
            allow_downgrade: self.allow_downgrade,
        }
    }

    /// The same but for `changes`, issued again now for so many days.
    pub fn renew(&mut self, days: u32, changes: &Changes) {
        let terms = changes.of(self.terms());
        self.channels = terms.channels;
        self.minimum_version = terms.minimum_version;
        self.allow_downgrade = terms.allow_downgrade;
        self.issued = seconds(Timestamp::now());
        self.expires = later(self.issued, days);
    }

    /// The text that is signed.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("plain members have a JSON form");
        text.push(b'\n');
        text
    }
}

/// Whole seconds: what people read.
pub(crate) fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `days` days after `time`.
pub(crate) fn later(time: Timestamp, days: u32) -> Timestamp {
    time.checked_add((i64::from(days) * 24).hours())
        .unwrap_or(Timestamp::MAX)
}
