//! The lists at the root of a bucket: what makes a published version live (`update-and-system.md` 1.3, 2.5, 2.6). Nothing
//! is newly named in them before it has been proven to lie there whole, for every platform that had a version before.

use std::collections::{BTreeMap, BTreeSet};

use crate::bucket::{Bucket, BucketError};
use crate::keys::PublicKeys;
use crate::layout::{self, LATEST, Platform, VERSION, VERSIONS};
use crate::verify::{self, VerifyError};

/// Channels that every list has.
const CHANNELS: [&str; 4] = ["production", "test", "local", "all"];

/// Why a list was not published.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("the version list is no flat JSON object of texts")]
    Malformed(#[source] serde_json::Error),
    #[error("the version list lacks the channel {0:?}")]
    Channel(&'static str),
    #[error("the channel {channel:?} names {version:?}: agents in the field read X.Y.Z only")]
    Version { channel: String, version: String },
    #[error(
        "version {version} is not published for {platform}, whose devices have {before} now: Go agents would install an error page"
    )]
    Lost {
        version: String,
        platform: Platform,
        before: String,
    },
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Channel to version.
pub type Versions = BTreeMap<String, String>;

/// Reads a version list and refuses one that agents could not use.
pub fn read(text: &[u8]) -> Result<Versions, ListError> {
    let versions: Versions = serde_json::from_slice(text).map_err(ListError::Malformed)?;
    if let Some(missing) = CHANNELS.iter().find(|channel| !versions.contains_key(**channel)) {
        return Err(ListError::Channel(missing));
    }
    match versions.iter().find(|(_, version)| !layout::is_strict(version)) {
        None => Ok(versions),
        Some((channel, version)) => Err(ListError::Version {
            channel: channel.clone(),
            version: version.clone(),
        }),
    }
}

/// The list in the bucket, if there is a usable one.
pub fn current(bucket: &Bucket) -> Result<Option<Versions>, BucketError> {
    let text = bucket.read(VERSIONS)?;
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// Proves every version that `versions` newly names for some channel: platforms in `dropped` may lose theirs. Where a
/// channel keeps its version, nothing changes for any device, so it only has to be there still: it may be one of the Go
/// agent (`update-and-system.md` 1.16).
pub fn check(
    bucket: &Bucket,
    keys: &PublicKeys,
    versions: &Versions,
    dropped: &[Platform],
) -> Result<(), ListError> {
    let names = bucket.list("")?;
    let before = current(bucket)?.unwrap_or_default();
    for version in versions.values().collect::<BTreeSet<_>>() {
        let is_kept = versions
            .iter()
            .filter(|(_, named)| *named == version)
            .all(|(channel, _)| before.get(channel) == Some(version));
        if is_kept {
            verify::present(&names, version)?;
            continue;
        }
        let platforms = verify::version(bucket, &names, keys, version)?;
        for old in before.values().collect::<BTreeSet<_>>() {
            let lost = verify::platforms(&names, old)
                .into_iter()
                .find(|platform| !platforms.contains(platform) && !dropped.contains(platform));
            if let Some(platform) = lost {
                return Err(ListError::Lost {
                    version: version.clone(),
                    platform,
                    before: old.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Publishes the version list: from here on devices take what it names. `text` goes out as it is.
pub fn publish(
    bucket: &Bucket,
    keys: &PublicKeys,
    text: &[u8],
    dropped: &[Platform],
) -> Result<Versions, ListError> {
    let versions = read(text)?;
    check(bucket, keys, &versions, dropped)?;
    bucket.replace(VERSIONS, text)?;
    Ok(versions)
}

/// Publishes `version.txt`, which people read and agents do not.
pub fn publish_version(bucket: &Bucket, version: &str) -> Result<(), ListError> {
    Ok(bucket.replace(VERSION, format!("{version}\n").as_bytes())?)
}

/// Copies the version of `production` to the path segment `latest`, for people. Answers where it lies now.
pub fn publish_latest(
    bucket: &Bucket,
    keys: &PublicKeys,
    versions: &Versions,
) -> Result<Vec<String>, ListError> {
    let Some(version) = versions.get("production") else {
        return Err(ListError::Channel("production"));
    };
    let names = bucket.list("")?;
    let live = current(bucket)?.unwrap_or_default();
    let platforms = if live.get("production") == Some(version) {
        verify::present(&names, version)?
    } else {
        verify::version(bucket, &names, keys, version)?
    };
    let mut copies = Vec::new();
    for platform in platforms {
        let (binary, checksum) = verify::old_style(bucket, &platform, version)?;
        for (to, content) in [
            (platform.binary(LATEST), binary),
            (platform.checksum(LATEST), checksum),
        ] {
            bucket.replace(&to, &content)?;
            copies.push(to);
        }
    }
    Ok(copies)
}
