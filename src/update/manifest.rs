//! The signed release manifest (`update-and-system.md` 9.1 U1, U6): what a binary must be before it may run here.
//!
//! A signature is checked before any field is looked at, the fields before anything is downloaded. Must not know how
//! files travel.

use minisign_verify::{PublicKey, Signature};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::clock::{Ahead, Clock};
use super::version;

/// A manifest lists one binary and a few patches.
pub(crate) const MAX_SIZE: usize = 64 * 1024;
/// No agent is this large; a manifest that says so is a mistake.
const MAX_BINARY: u64 = 256 * 1024 * 1024;

/// The two keys of the product, the current and the next; each is a minisign public key file.
const COMPILED_IN: [&str; 2] = [
    include_str!("../../release/current.pub"),
    include_str!("../../release/next.pub"),
];

/// The manifest of one binary, as signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// `reagent`
    pub product: String,
    pub version: String,
    pub os: String,
    pub arch: String,
    /// Of the binary: 64 lower-case hex digits.
    pub sha256: String,
    /// Of the binary, bytes.
    pub size: u64,
    /// Environments that it is meant for; empty: all.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Older agents have to go through a version in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<String>,
    /// RFC 3339.
    pub issued: jiff::Timestamp,
    /// RFC 3339. Afterwards it has to be issued again.
    pub expires: jiff::Timestamp,
    /// May replace a newer version.
    #[serde(default)]
    pub allow_downgrade: bool,
    #[serde(default)]
    pub deltas: Vec<Delta>,
}

/// A patch that makes the binary out of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    /// Digest of the binary that it patches.
    pub from_sha256: String,
    /// Object beside the binary.
    pub name: String,
    /// Of the patch: digest and bytes.
    pub sha256: String,
    pub size: u64,
}

/// Why a manifest does not allow an installation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("this build has no release keys and installs nothing")]
    NoKeys,
    #[error("the release is not signed by a known key: publish it signed with a key that this build carries")]
    Signature,
    #[error("what is signed cannot be read")]
    Malformed(#[source] serde_json::Error),
    #[error("the manifest is for {found}, not for {wanted}")]
    Other { found: String, wanted: String },
    #[error("the manifest has unusable values: {0}")]
    Values(&'static str),
    #[error("the manifest expired at {0}: 'scripts/publish renew' signs it anew")]
    Expired(jiff::Timestamp),
    #[error(
        "what is signed is older than one seen before: the bucket has an old copy, publish or renew there"
    )]
    Replayed,
    #[error(transparent)]
    Ahead(#[from] Ahead),
    #[error("the schedule of rollouts is gone from the bucket, although one is in force until {0}")]
    Gone(jiff::Timestamp),
    #[error("the release is not meant for the environment {0:?}")]
    Channel(String),
    #[error("the release needs at least version {0} to update from: update to that one first")]
    Barrier(String),
    #[error(
        "version {offered} is older than {running} and not signed as a downgrade: 'scripts/publish renew --allow-downgrade' does that"
    )]
    Downgrade { running: String, offered: String },
}

/// The public keys whose releases are installed.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Vec<PublicKey>);

impl Keys {
    /// Those of the product. A place without a key is empty but for comments.
    pub(crate) fn compiled_in() -> Keys {
        Keys::read(COMPILED_IN)
    }

    /// Those in the given minisign public key files; what is none counts for nothing.
    pub(crate) fn read<'a>(files: impl IntoIterator<Item = &'a str>) -> Keys {
        Keys(
            files
                .into_iter()
                .filter_map(|file| PublicKey::decode(file.trim()).ok())
                .collect(),
        )
    }

    /// Nothing can be installed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What `content` says (a manifest, a schedule), if `signature` (a minisign signature file, pre-hashed) proves it to be
    /// ours.
    pub(crate) fn open<T: DeserializeOwned>(&self, content: &[u8], signature: &[u8]) -> Result<T, Refused> {
        if self.is_empty() {
            return Err(Refused::NoKeys);
        }
        let signature = std::str::from_utf8(signature)
            .ok()
            .and_then(|text| Signature::decode(text).ok())
            .ok_or(Refused::Signature)?;
        let proven = self
            .0
            .iter()
            .any(|key| key.verify(content, &signature, false).is_ok());
        if !proven {
            return Err(Refused::Signature);
        }
        serde_json::from_slice(content).map_err(Refused::Malformed)
    }
}

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub version: &'a str,
    pub os: &'a str,
    pub arch: &'a str,
    pub environment: &'a str,
    pub running: &'a str,
    /// A person asked for this very version.
    pub explicit: bool,
    /// When the newest manifest seen so far was issued, and of which version it was; empty: unknown.
    pub newest_seen: Option<(jiff::Timestamp, &'a str)>,
    pub clock: Clock,
}

impl Manifest {
    /// Whether it lets `wish` come true.
    pub(crate) fn admits(&self, wish: &Wish<'_>) -> Result<(), Refused> {
        let found = format!("{} {} {}/{}", self.product, self.version, self.os, self.arch);
        let wanted = format!("reagent {} {}/{}", wish.version, wish.os, wish.arch);
        if found != wanted {
            return Err(Refused::Other { found, wanted });
        }
        self.check_values()?;
        wish.clock.admits(self.issued)?;
        if wish.clock.now(wish.newest_seen.map(|(seen, _)| seen)) > self.expires {
            return Err(Refused::Expired(self.expires));
        }
        // A higher version may have been issued earlier: for a test channel, before a fix of what was in production.
        let is_higher = |of: &str| !of.is_empty() && version::is_after(&self.version, of);
        let is_outdated = |(seen, of)| self.issued < seen && !is_higher(of);
        // Only a person who names a signed way back gets what is older; a list or a bucket cannot bring it up again.
        let asked_back = wish.explicit && self.allow_downgrade;
        if !asked_back && wish.newest_seen.is_some_and(is_outdated) {
            return Err(Refused::Replayed);
        }
        if !self.channels.is_empty() && !wish.explicit && !self.channels.iter().any(|c| c == wish.environment)
        {
            return Err(Refused::Channel(wish.environment.to_owned()));
        }
        if let Some(minimum) = &self.minimum_version
            && version::is_after(minimum, wish.running)
        {
            return Err(Refused::Barrier(minimum.clone()));
        }
        if version::is_after(wish.running, &self.version) && !self.allow_downgrade {
            return Err(Refused::Downgrade {
                running: wish.running.to_owned(),
                offered: self.version.clone(),
            });
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), Refused> {
        if !version::is_plain(&self.version) {
            return Err(Refused::Values("version"));
        }
        if self.size == 0 || self.size > MAX_BINARY {
            return Err(Refused::Values("size"));
        }
        let digests = self
            .deltas
            .iter()
            .flat_map(|delta| [&delta.sha256, &delta.from_sha256]);
        if !std::iter::once(&self.sha256).chain(digests).all(|d| is_digest(d)) {
            return Err(Refused::Values("digest"));
        }
        // A patch that is larger than what it makes is of no use to anybody.
        if self
            .deltas
            .iter()
            .any(|delta| !version::is_plain(&delta.name) || delta.size > self.size)
        {
            return Err(Refused::Values("delta"));
        }
        Ok(())
    }

    /// The patch for a device that runs the binary with this digest.
    pub(crate) fn delta_from(&self, sha256: &str) -> Option<&Delta> {
        self.deltas.iter().find(|delta| delta.from_sha256 == sha256)
    }
}

/// 64 lower-case hex digits.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::release::Signer;

    fn manifest() -> Manifest {
        Manifest {
            product: "reagent".to_owned(),
            version: "1.1.0".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            sha256: "ab".repeat(32),
            size: 1000,
            channels: vec!["production".to_owned()],
            minimum_version: None,
            issued: "2026-01-01T00:00:00Z".parse().unwrap(),
            expires: "2026-06-01T00:00:00Z".parse().unwrap(),
            allow_downgrade: false,
            deltas: Vec::new(),
        }
    }

    fn wish() -> Wish<'static> {
        Wish {
            version: "1.1.0",
            os: "linux",
            arch: "amd64",
            environment: "production",
            running: "1.0.0",
            explicit: false,
            newest_seen: None,
            clock: clock("2026-02-01T00:00:00Z"),
        }
    }

    fn at(time: &str) -> jiff::Timestamp {
        time.parse().unwrap()
    }

    /// Of a device with a build of late 2025.
    fn clock(time: &str) -> Clock {
        Clock::new(at(time), at("2025-12-01T00:00:00Z"))
    }

    #[test]
    fn either_of_two_keys_is_enough_and_a_foreign_one_is_not() {
        let (current, next, foreign) = (Signer::new(), Signer::new(), Signer::new());
        let keys = Keys::read([current.public(), next.public()]);
        let content = serde_json::to_vec(&manifest()).unwrap();
        for signer in [&current, &next] {
            let opened: Manifest = keys.open(&content, &signer.sign(&content)).unwrap();
            assert_eq!(opened, manifest());
        }
        let refused = keys
            .open::<Manifest>(&content, &foreign.sign(&content))
            .unwrap_err();
        assert!(matches!(refused, Refused::Signature), "{refused}");
    }

    #[test]
    fn one_changed_byte_of_the_content_or_a_cut_signature_is_refused() {
        let signer = Signer::new();
        let keys = Keys::read([signer.public()]);
        let content = serde_json::to_vec(&manifest()).unwrap();
        let signature = signer.sign(&content);
        for place in 0..content.len() {
            let mut changed = content.clone();
            changed[place] ^= 1;
            assert!(matches!(
                keys.open::<Manifest>(&changed, &signature),
                Err(Refused::Signature)
            ));
        }
        for length in 0..signature.len().saturating_sub(2) {
            assert!(matches!(
                keys.open::<Manifest>(&content, &signature[..length]),
                Err(Refused::Signature)
            ));
        }
    }

    #[test]
    fn without_keys_nothing_is_ever_accepted() {
        let signer = Signer::new();
        let content = serde_json::to_vec(&manifest()).unwrap();
        let keys = Keys::read(["untrusted comment: no key yet\n", ""]);
        let refused = keys
            .open::<Manifest>(&content, &signer.sign(&content))
            .unwrap_err();
        assert!(matches!(refused, Refused::NoKeys), "{refused}");
    }

    #[test]
    fn a_manifest_allows_what_it_says_and_nothing_else() {
        manifest().admits(&wish()).unwrap();
        let other_machine = Wish {
            arch: "arm64",
            ..wish()
        };
        assert!(matches!(
            manifest().admits(&other_machine),
            Err(Refused::Other { .. })
        ));
        let other_version = Wish {
            version: "1.2.0",
            ..wish()
        };
        assert!(matches!(
            manifest().admits(&other_version),
            Err(Refused::Other { .. })
        ));
        let other_channel = Wish {
            environment: "test",
            ..wish()
        };
        assert!(matches!(
            manifest().admits(&other_channel),
            Err(Refused::Channel(_))
        ));
        let asked = Wish {
            environment: "test",
            explicit: true,
            ..wish()
        };
        manifest().admits(&asked).unwrap();
    }

    #[test]
    fn an_expired_manifest_is_refused_also_by_a_clock_that_was_never_set() {
        let late = Wish {
            clock: clock("2026-06-01T00:00:01Z"),
            ..wish()
        };
        assert!(matches!(manifest().admits(&late), Err(Refused::Expired(_))));
        let unset = Wish {
            clock: clock("1970-01-01T00:00:09Z"),
            ..wish()
        };
        manifest().admits(&unset).unwrap();
        // The build was made later, or something was seen that was.
        let later_build = Wish {
            clock: Clock::new(at("1970-01-01T00:00:09Z"), at("2026-06-02T00:00:00Z")),
            ..wish()
        };
        assert!(matches!(
            manifest().admits(&later_build),
            Err(Refused::Expired(_))
        ));
        let seen_later = Wish {
            newest_seen: Some((at("2026-06-02T00:00:00Z"), "1.0.0")),
            ..unset
        };
        assert!(matches!(manifest().admits(&seen_later), Err(Refused::Expired(_))));
    }

    #[test]
    fn a_manifest_from_the_future_is_refused_by_a_clock_that_is_set() {
        let hours_behind = Wish {
            clock: clock("2025-12-31T00:00:00Z"),
            ..wish()
        };
        manifest().admits(&hours_behind).unwrap();
        let behind = Wish {
            clock: clock("2025-12-30T00:00:00Z"),
            ..wish()
        };
        assert!(matches!(manifest().admits(&behind), Err(Refused::Ahead(_))));
    }

    #[test]
    fn a_higher_version_that_was_issued_earlier_is_no_replay() {
        // 1.1.0 was tested long before 1.0.1, a fix, came to production; or 1.0.1 was issued again.
        let fixed = Wish {
            newest_seen: Some((at("2026-01-10T00:00:00Z"), "1.0.1")),
            running: "1.0.1",
            ..wish()
        };
        manifest().admits(&fixed).unwrap();
        for of in ["1.1.0", "1.2.0", ""] {
            let newest_seen = Some((at("2026-01-10T00:00:00Z"), of));
            let replayed = Wish {
                newest_seen,
                ..wish()
            };
            assert!(
                matches!(manifest().admits(&replayed), Err(Refused::Replayed)),
                "{of}"
            );
        }
    }

    #[test]
    fn older_manifests_and_older_versions_need_a_signed_permission() {
        let seen = Wish {
            newest_seen: Some((at("2026-01-02T00:00:00Z"), "1.2.0")),
            ..wish()
        };
        assert!(matches!(manifest().admits(&seen), Err(Refused::Replayed)));
        let newer = Wish {
            running: "1.2.0",
            explicit: true,
            ..wish()
        };
        assert!(matches!(
            manifest().admits(&newer),
            Err(Refused::Downgrade { .. })
        ));
        let mut allowed = manifest();
        allowed.allow_downgrade = true;
        allowed.admits(&newer).unwrap();
        // The permission is as old as the manifest that gives it: one that was published once is not brought up again.
        assert!(matches!(allowed.admits(&seen), Err(Refused::Replayed)));
        let named = Wish {
            running: "1.2.0",
            explicit: true,
            ..seen
        };
        allowed.admits(&named).unwrap();
        assert!(matches!(manifest().admits(&named), Err(Refused::Replayed)));
    }

    #[test]
    fn a_barrier_stops_agents_that_are_too_old() {
        let mut barrier = manifest();
        barrier.minimum_version = Some("1.0.1".to_owned());
        assert!(matches!(barrier.admits(&wish()), Err(Refused::Barrier(_))));
        barrier
            .admits(&Wish {
                running: "1.0.1",
                ..wish()
            })
            .unwrap();
    }

    #[test]
    fn unusable_values_are_refused_although_they_are_signed() {
        type Break = fn(&mut Manifest);
        let delta = |name: &str| Delta {
            from_sha256: "cd".repeat(32),
            name: name.to_owned(),
            sha256: "ef".repeat(32),
            size: 10,
        };
        manifest().deltas.push(delta("patch.zst"));
        let breaks: [Break; 4] = [
            |m| m.sha256 = "AB".repeat(32),
            |m| m.sha256.truncate(63),
            |m| m.size = 0,
            |m| m.size = u64::MAX,
        ];
        for spoil in breaks {
            let mut spoiled = manifest();
            spoil(&mut spoiled);
            assert!(
                matches!(spoiled.admits(&wish()), Err(Refused::Values(_))),
                "{spoiled:?}"
            );
        }
        let mut wandering = manifest();
        wandering.deltas.push(delta("../../elsewhere"));
        assert!(matches!(wandering.admits(&wish()), Err(Refused::Values(_))));
    }
}
