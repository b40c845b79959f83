//! Brings a version into a bucket (`update-and-system.md` 2.4, 9.5): binaries, patches and checksums of all platforms
//! first, the signed manifests after them. Broken off anywhere and run again it goes on; run once more it changes
//! nothing. No list is touched: afterwards the version is there, and offered to nobody.

use std::collections::BTreeSet;
use std::io;

use jiff::Timestamp;

use crate::Unproven;
use crate::bucket::{Bucket, BucketError, Created};
use crate::built::{Built, BuiltError};
use crate::delta;
use crate::keys::{KeyError, PublicKeys, Signer};
use crate::layout::{self, Platform};
use crate::lists;
use crate::manifest::{Changes, Delta, Manifest, Terms};
use crate::verify::{self, VerifyError};

/// Why a version was not published, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{0:?} is no version: agents in the field read X.Y.Z only")]
    Version(String),
    #[error(transparent)]
    Built(#[from] BuiltError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(
        "the clock of this machine is behind {name}, issued at {issued}: devices that have seen that would refuse what is \
         issued now. Set the clock; if that date is wrong, 'release renew' it"
    )]
    Clock { name: String, issued: Timestamp },
    #[error("{name} is published with {published}, not with {wanted}: 'release renew' changes that")]
    Terms {
        name: String,
        published: Box<Terms>,
        wanted: Box<Terms>,
    },
    #[error("{name} is replaced only if you say what it says, which nobody has signed: {said}")]
    Unsaid { name: String, said: Box<Terms> },
    #[error("no patch from version {from} for {platform} can be made")]
    Patch {
        from: String,
        platform: Platform,
        #[source]
        source: io::Error,
    },
}

/// What is published, and how.
#[derive(Debug)]
pub struct Release<'a> {
    pub version: &'a str,
    pub agents: &'a [Built],
    pub signer: &'a Signer,
    pub keys: &'a PublicKeys,
    pub terms: &'a Terms,
    /// Until the manifests have to be issued again.
    pub days: u32,
    /// From how many of the versions before patches are made.
    pub deltas: usize,
}

/// What came of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub platform: Platform,
    pub created: Created,
    /// Bytes of the binary, and of each patch with the version that it is from.
    pub size: u64,
    pub patches: Vec<(String, u64)>,
}

/// Publishes; reports each platform when its binary is there.
pub fn publish(
    bucket: &Bucket,
    release: &Release<'_>,
    mut report: impl FnMut(&Published),
) -> Result<Vec<Published>, PublishError> {
    if !layout::is_strict(release.version) {
        return Err(PublishError::Version(release.version.to_owned()));
    }
    release.keys.require(release.signer)?;
    check_clock(bucket, release.keys)?;
    for built in release.agents {
        built.check(release.version, release.keys)?;
        check_terms(bucket, release, built)?;
    }
    let mut waiting = Vec::new();
    let mut done = Vec::new();
    for built in release.agents {
        let (published, deltas) = binary(bucket, release, built)?;
        report(&published);
        done.push(published);
        waiting.push((built, deltas));
    }
    for (built, deltas) in waiting {
        if let Some(deltas) = deltas {
            let manifest = Manifest::issue(
                &built.platform,
                release.version,
                &built.content,
                deltas,
                release.terms,
                release.days,
            );
            put_manifest(bucket, release.signer, &built.platform, &manifest)?;
        }
    }
    let names = bucket.list("")?;
    verify::version(bucket, &names, release.keys, release.version)?;
    Ok(done)
}

/// What the version list names was seen by devices: nothing may be issued before it.
fn check_clock(bucket: &Bucket, keys: &PublicKeys) -> Result<(), PublishError> {
    let names = bucket.list("")?;
    let live = lists::current(bucket)?.unwrap_or_default();
    let now = Timestamp::now();
    for version in live.values().collect::<BTreeSet<_>>() {
        for platform in verify::platforms(&names, version) {
            // What cannot be proven, no device has believed.
            if let Ok(manifest) = verify::manifest(bucket, keys, &platform, version)
                && manifest.issued > now
            {
                return Err(PublishError::Clock {
                    name: platform.manifest(version),
                    issued: manifest.issued,
                });
            }
        }
    }
    Ok(())
}

/// A manifest that is there already stays as it is: then what it says has to be what is asked for.
fn check_terms(bucket: &Bucket, release: &Release<'_>, built: &Built) -> Result<(), PublishError> {
    match verify::manifest(bucket, release.keys, &built.platform, release.version) {
        Ok(manifest) if manifest.terms() != *release.terms => Err(PublishError::Terms {
            name: built.platform.manifest(release.version),
            published: Box::new(manifest.terms()),
            wanted: Box::new(release.terms.clone()),
        }),
        _ => Ok(()),
    }
}

/// What is issued again, and how.
#[derive(Debug)]
pub struct Renewal<'a> {
    pub version: &'a str,
    pub signer: &'a Signer,
    pub keys: &'a PublicKeys,
    pub days: u32,
    /// Everything else stays.
    pub changes: &'a Changes,
    pub unproven: Unproven,
}

/// Issues the manifests of a published version again; answers each as it is then.
pub fn renew(bucket: &Bucket, renewal: &Renewal<'_>) -> Result<Vec<(Platform, Manifest)>, PublishError> {
    let Renewal { version, keys, .. } = *renewal;
    keys.require(renewal.signer)?;
    let platforms = verify::platforms(&bucket.list("")?, version);
    if platforms.is_empty() {
        return Err(VerifyError::Unpublished(version.to_owned()).into());
    }
    let mut renewed = Vec::new();
    for platform in platforms {
        let mut manifest = match verify::manifest(bucket, keys, &platform, version) {
            Err(VerifyError::Signature { name }) if renewal.unproven == Unproven::Replace => {
                let manifest = verify::unproven(bucket, &platform, version)?;
                // Terms that somebody else wrote into it must not be signed unseen, nor ones of ours be lost.
                let said = Box::new(manifest.terms());
                if *said != renewal.changes.of(Terms::default()) {
                    return Err(PublishError::Unsaid { name, said });
                }
                manifest
            }
            proven => proven?,
        };
        manifest.renew(renewal.days, renewal.changes);
        put_manifest(bucket, renewal.signer, &platform, &manifest)?;
        renewed.push((platform, manifest));
    }
    Ok(renewed)
}

fn put_manifest(
    bucket: &Bucket,
    signer: &Signer,
    platform: &Platform,
    manifest: &Manifest,
) -> Result<(), PublishError> {
    let content = manifest.to_text();
    let comment = format!("reagent {} {platform}", manifest.version);
    let signature = signer.sign(&content, &comment)?;
    bucket.replace(&platform.manifest(&manifest.version), &content)?;
    bucket.replace(&platform.signature(&manifest.version), &signature)?;
    Ok(())
}

/// The binary, its patches and its checksum. The patches are `None` when a proper manifest is there already.
fn binary(
    bucket: &Bucket,
    release: &Release<'_>,
    built: &Built,
) -> Result<(Published, Option<Vec<Delta>>), PublishError> {
    let (platform, version) = (&built.platform, release.version);
    let created = bucket.create(&platform.binary(version), &built.content)?;
    let sha256 = crate::digest(&built.content);
    bucket.create(&platform.checksum(version), format!("{sha256}\n").as_bytes())?;
    let mut published = Published {
        platform: platform.clone(),
        created,
        size: built.content.len() as u64,
        patches: Vec::new(),
    };
    if created == Created::Same
        && let Ok(manifest) = verify::manifest(bucket, release.keys, platform, version)
        && manifest.sha256 == sha256
    {
        return Ok((published, None));
    }
    let mut deltas = Vec::new();
    for from in versions_before(
        &bucket.list(&format!("{platform}/"))?,
        platform,
        version,
        release.deltas,
    ) {
        let Some(old) = bucket.read(&platform.binary(&from))? else {
            continue;
        };
        let patch = delta::patch(&old, &built.content).map_err(|source| PublishError::Patch {
            from: from.clone(),
            platform: platform.clone(),
            source,
        })?;
        let Some(patch) = patch else { continue };
        let sha256 = crate::digest(&patch);
        // Another make of zstd may make another patch: then it is another object.
        let name = format!("patch-from-{from}-{}.zst", &sha256[..8]);
        bucket.create(&format!("{}{name}", platform.directory(version)), &patch)?;
        published.patches.push((from, patch.len() as u64));
        deltas.push(Delta {
            from_sha256: crate::digest(&old),
            name,
            sha256,
            size: patch.len() as u64,
        });
    }
    Ok((published, Some(deltas)))
}

/// The `count` newest versions below `version`, newest first.
fn versions_before(names: &[String], platform: &Platform, version: &str, count: usize) -> Vec<String> {
    let Ok(below) = semver::Version::parse(version) else {
        return Vec::new();
    };
    let mut versions: Vec<semver::Version> = names
        .iter()
        .filter_map(|name| layout::parse(name))
        .filter(|(_, named, file)| *file == platform.program() && layout::is_strict(named))
        .filter_map(|(_, named, _)| semver::Version::parse(named).ok())
        .filter(|found| *found < below)
        .collect();
    versions.sort();
    versions.reverse();
    versions.truncate(count);
    versions.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
