//! Brings the binary of a manifest to this device: what is there already, a patch for the running binary, or the whole.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::{InstallError, Installer, has_digest};
use crate::journal::Chain;
use crate::update::download::{self, Patience};
use crate::update::manifest::{Delta, Manifest};
use crate::update::progress::Meter;
use crate::update::{custody, delta, disk, litter};

impl Installer {
    /// The binary as a complete file in the download directory: by a patch if there is one for the running binary.
    pub(super) async fn bring(
        &self,
        manifest: &Manifest,
        meter: &mut Meter,
    ) -> Result<PathBuf, InstallError> {
        let directory = self.context.settings.downloads_dir();
        // Before anything is refused for want of room.
        litter::sweep(&self.context.settings.agent_dir, &self.memory.current());
        litter::sweep_downloads(&directory, manifest);
        let part = directory.join(format!("{}.part", manifest.sha256));
        let begun = tokio::fs::metadata(&part).await.map_or(0, |part| part.len());
        if begun == manifest.size && has_digest(&part, &manifest.sha256).await {
            meter.there(manifest.size);
            return Ok(part);
        }
        let own = spawn_blocking(|| {
            let path = custody::myself().ok()?;
            Some((disk::digest(&path).ok()?, path))
        });
        // Where the whole was begun a patch was of no use, and would take the place of what came since.
        if begun == 0
            && let Some((digest, own)) = own.await.ok().flatten()
            && let Some(delta) = manifest.delta_from(&digest)
        {
            match self.patch(manifest, delta, own, &directory).await {
                Ok(made) => {
                    meter.there(manifest.size);
                    return Ok(made);
                }
                Err(why) => tracing::warn!(why, "the patch is of no use, fetching the whole binary"),
            }
        }
        let order = download::Order {
            url: self.bucket().binary(&manifest.version),
            sha256: manifest.sha256.clone(),
            size: manifest.size,
            name: format!("version {}", manifest.version),
        };
        let patience = &self.context.footing.setup.patience;
        download::fetch(&self.client, &directory, &order, 0, patience, meter)
            .await
            .map_err(InstallError::Download)
    }

    /// `Err`: why there is no binary, for the log; the whole one is fetched then.
    async fn patch(
        &self,
        manifest: &Manifest,
        delta: &Delta,
        own: PathBuf,
        directory: &Path,
    ) -> Result<PathBuf, String> {
        let order = download::Order {
            url: self.bucket().beside(&manifest.version, &delta.name),
            sha256: delta.sha256.clone(),
            size: delta.size,
            name: format!("the patch to version {}", manifest.version),
        };
        let whole = &self.context.footing.setup.patience;
        // What is left of the time that a caller waits has to be enough for the whole binary.
        let patience = Patience {
            total: whole.total / 3,
            ..*whole
        };
        // It is small, and of another size than the binary that people wait for.
        let mut unheard = Meter::new(None);
        let patch = download::fetch(
            &self.client,
            directory,
            &order,
            manifest.size,
            &patience,
            &mut unheard,
        )
        .await
        .map_err(|failure| Chain(&failure).to_string())?;
        let made = directory.join(format!("{}.part", manifest.sha256));
        let (limit, expected) = (manifest.size, manifest.sha256.clone());
        let applied = spawn_blocking(move || {
            let applied = delta::apply(&own, &patch, &made, limit).and_then(|()| disk::digest(&made));
            let _ = disk::remove(&patch);
            match applied {
                Ok(digest) if digest == expected => Ok(made),
                other => {
                    // It would be taken for the beginning of the whole binary.
                    let _ = disk::remove(&made);
                    Err(match other {
                        Ok(_) => "it makes another binary".to_owned(),
                        Err(error) => error.to_string(),
                    })
                }
            }
        });
        applied.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_download_that_takes_too_long_is_gone_on_with_soon_and_nobody_has_to_mend_the_release() {
        let late = InstallError::Download(download::DownloadError::Late {
            name: "version 1".to_owned(),
            limit: Duration::from_secs(1),
        });
        assert!(late.is_transient() && !late.is_about_the_release());
        let wrong = InstallError::Download(download::DownloadError::Digest {
            name: "version 1".to_owned(),
        });
        assert!(!wrong.is_transient() && wrong.is_about_the_release());
    }
}
