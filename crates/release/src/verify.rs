//! Whether what lies in a bucket is what devices may be sent to: looked at before a list names a version, and whenever
//! somebody asks. Must not change anything.

use jiff::Timestamp;

use crate::bucket::{Bucket, BucketError};
use crate::keys::PublicKeys;
use crate::layout::{self, Platform};
use crate::manifest::Manifest;

/// Why a version must not be offered.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("version {0} is not published for any platform")]
    Unpublished(String),
    #[error("{name} is missing")]
    Missing { name: String },
    #[error(
        "{name} is not signed by a key that devices know: 'release renew --replace-unproven' issues it again"
    )]
    Signature { name: String },
    #[error("{name} cannot be read")]
    Malformed {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{name} is not what belongs there: {what}")]
    Differs { name: String, what: &'static str },
    #[error("{name} expired at {at}: issue it again with 'release renew'")]
    Expired { name: String, at: Timestamp },
}

/// The platforms that the bucket has `version` for, by the names of its objects.
pub fn platforms(names: &[String], version: &str) -> Vec<Platform> {
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|name| layout::parse(name))
        .filter(|(platform, named, file)| *named == version && *file == platform.program())
        .map(|(platform, _, _)| platform)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Proves `version` for all of its platforms; answers them.
pub fn version(
    bucket: &Bucket,
    names: &[String],
    keys: &PublicKeys,
    version: &str,
) -> Result<Vec<Platform>, VerifyError> {
    let platforms = platforms(names, version);
    if platforms.is_empty() {
        return Err(VerifyError::Unpublished(version.to_owned()));
    }
    for platform in &platforms {
        let manifest = manifest(bucket, keys, platform, version)?;
        let name = platform.manifest(version);
        if manifest.expires < Timestamp::now() {
            return Err(VerifyError::Expired {
                name,
                at: manifest.expires,
            });
        }
        objects(bucket, platform, &manifest)?;
    }
    Ok(platforms)
}

/// The platforms of a version that devices were sent to before: binary and old-style checksum still lie there. It may be
/// older than manifests, or its manifests may have expired.
pub fn present(names: &[String], version: &str) -> Result<Vec<Platform>, VerifyError> {
    let platforms = platforms(names, version);
    if platforms.is_empty() {
        return Err(VerifyError::Unpublished(version.to_owned()));
    }
    let mut checksums = platforms.iter().map(|platform| platform.checksum(version));
    match checksums.find(|checksum| !names.contains(checksum)) {
        Some(name) => Err(VerifyError::Missing { name }),
        None => Ok(platforms),
    }
}

/// The manifest of a platform, proven.
pub fn manifest(
    bucket: &Bucket,
    keys: &PublicKeys,
    platform: &Platform,
    version: &str,
) -> Result<Manifest, VerifyError> {
    let name = platform.manifest(version);
    let content = required(bucket, &name)?;
    let signature = required(bucket, &platform.signature(version))?;
    if !keys.believe(&content, &signature) {
        return Err(VerifyError::Signature { name });
    }
    read_manifest(name, &content, platform, version)
}

/// The manifest of a platform whose signature is not its own, as a write that broke off between the two leaves it.
/// Everything that it names lies in the bucket as it says; that it says the truth is for somebody else to know.
pub fn unproven(bucket: &Bucket, platform: &Platform, version: &str) -> Result<Manifest, VerifyError> {
    let name = platform.manifest(version);
    let content = required(bucket, &name)?;
    let manifest = read_manifest(name, &content, platform, version)?;
    objects(bucket, platform, &manifest)?;
    Ok(manifest)
}

fn read_manifest(
    name: String,
    content: &[u8],
    platform: &Platform,
    version: &str,
) -> Result<Manifest, VerifyError> {
    let manifest: Manifest = serde_json::from_slice(content).map_err(|source| VerifyError::Malformed {
        name: name.clone(),
        source,
    })?;
    let is_for = manifest.product == "reagent"
        && manifest.version == version
        && manifest.os == platform.os
        && manifest.arch == platform.arch;
    match is_for {
        true => Ok(manifest),
        false => Err(VerifyError::Differs {
            name,
            what: "it is for something else",
        }),
    }
}

/// The binary and the file with its old-style checksum, which have to agree: all that a Go agent looks at.
pub fn old_style(
    bucket: &Bucket,
    platform: &Platform,
    version: &str,
) -> Result<(Vec<u8>, Vec<u8>), VerifyError> {
    let binary = required(bucket, &platform.binary(version))?;
    let name = platform.checksum(version);
    let checksum = required(bucket, &name)?;
    let digest = crate::digest(&binary);
    match String::from_utf8_lossy(&checksum).split_whitespace().next() == Some(digest.as_str()) {
        true => Ok((binary, checksum)),
        false => Err(VerifyError::Differs {
            name,
            what: "another digest",
        }),
    }
}

/// The binary, its old-style checksum and its patches.
fn objects(bucket: &Bucket, platform: &Platform, manifest: &Manifest) -> Result<(), VerifyError> {
    let differs = |name: &str, what| {
        Err(VerifyError::Differs {
            name: name.to_owned(),
            what,
        })
    };
    let (binary, _) = old_style(bucket, platform, &manifest.version)?;
    if binary.len() as u64 != manifest.size || crate::digest(&binary) != manifest.sha256 {
        return differs(&platform.binary(&manifest.version), "other bytes");
    }
    for delta in &manifest.deltas {
        let name = format!("{}{}", platform.directory(&manifest.version), delta.name);
        if crate::digest(&required(bucket, &name)?) != delta.sha256 {
            return differs(&name, "other bytes");
        }
    }
    Ok(())
}

fn required(bucket: &Bucket, name: &str) -> Result<Vec<u8>, VerifyError> {
    bucket.read(name)?.ok_or_else(|| VerifyError::Missing {
        name: name.to_owned(),
    })
}
