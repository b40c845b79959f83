//! Brings one file of known size and digest onto the disk: with resume, retries, and a bound on everything
//! (`update-and-system.md` 9.1 U7 to U9, 9.2 A2). Must not know what the file is for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::disk;
use super::http::{Client, HttpError};
use super::progress::Meter;
use crate::link::Pauses;

/// Attempts in a row that bring nothing new.
const ATTEMPTS: u32 = 5;

/// What is to be fetched.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub url: String,
    pub sha256: String,
    pub size: u64,
    /// Name under which people know it, for errors.
    pub name: String,
}

/// Bounds that do not depend on the order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// All attempts together.
    pub total: Duration,
    pub pauses: Pauses,
}

/// Why it did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("{0} could not be downloaded")]
    Http(String, #[source] HttpError),
    #[error("{name} was not there within {limit:?}")]
    Late { name: String, limit: Duration },
    #[error("{name} has another content than its manifest says")]
    Digest { name: String },
    // How much is free differs each time, and the same cause is told once.
    #[error("there is no room on the disk for {name}: {needed} bytes, and 64 MiB that have to stay free")]
    Space { name: String, needed: u64 },
    #[error("{name} cannot be written to disk")]
    Disk {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// Fetches the file to `<sha256>.part` in `directory` and returns that path; the digest is proven. What is there
/// already is not fetched again; on an error that time may heal it stays for the next attempt. The caller makes sure
/// that a file is fetched by one task only. `needed`: bytes that will be written besides.
pub(crate) async fn fetch(
    client: &Client,
    directory: &Path,
    order: &Order,
    needed: u64,
    patience: &Patience,
    meter: &mut Meter,
) -> Result<PathBuf, DownloadError> {
    let part = directory.join(format!("{}.part", order.sha256));
    let deadline = Instant::now() + patience.total;
    let late = || DownloadError::Late {
        name: order.name.clone(),
        limit: patience.total,
    };
    let mut transfer = Transfer::resume(order, &part).await?;
    transfer.check_space(directory, needed)?;
    let mut pauses = patience.pauses.start();
    let mut attempts = 0;
    let mut restarted = false;
    meter.begin(transfer.length, order.size);
    loop {
        let before = transfer.length;
        let went = tokio::time::timeout_at(deadline, transfer.go_on(client, meter))
            .await
            .map_err(|_| late())?;
        match went {
            Ok(()) => {}
            Err(DownloadError::Http(_, failure)) if failure.is_transient() => {
                attempts += 1;
                if transfer.length > before {
                    attempts = 1;
                    pauses = patience.pauses.start();
                }
                let pause = pauses.pause();
                tracing::warn!(
                    url = order.url, have = transfer.length, size = order.size, attempts, ?pause,
                    error = %crate::journal::Chain(&failure), "a download was interrupted"
                );
                if attempts >= ATTEMPTS {
                    return Err(DownloadError::Http(order.name.clone(), failure));
                }
                tokio::time::timeout_at(deadline, tokio::time::sleep(pause))
                    .await
                    .map_err(|_| late())?;
                continue;
            }
            Err(failure) => return Err(failure),
        }
        if transfer.length == order.size && transfer.digest() == order.sha256 {
            // On a full disk room is made at the price of downloads.
            if let Err(source) = tokio::fs::metadata(&part).await {
                return Err(transfer.disk(source));
            }
            meter.end(order.size);
            return Ok(part);
        }
        // What was there from before may have been at fault, once.
        disk::remove(&part).map_err(|source| transfer.disk(source))?;
        if !transfer.resumed || restarted {
            return Err(DownloadError::Digest {
                name: order.name.clone(),
            });
        }
        restarted = true;
        transfer = Transfer::resume(order, &part).await?;
    }
}

/// A file on its way.
struct Transfer<'a> {
    order: &'a Order,
    file: fs::File,
    /// Of what is on disk.
    length: u64,
    hash: Sha256,
    /// Some of it is from an earlier attempt.
    resumed: bool,
}

impl<'a> Transfer<'a> {
    async fn resume(order: &'a Order, part: &Path) -> Result<Transfer<'a>, DownloadError> {
        let path = part.to_owned();
        let size = order.size;
        let found = tokio::task::spawn_blocking(move || open(&path, size)).await;
        let (file, length, hash) = found
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| DownloadError::Disk {
                name: order.name.clone(),
                source,
            })?;
        Ok(Transfer {
            order,
            file,
            length,
            hash,
            resumed: length > 0,
        })
    }

    fn check_space(&self, directory: &Path, besides: u64) -> Result<(), DownloadError> {
        let free = disk::free_space(directory).map_err(|source| self.disk(source))?;
        let missing = (self.order.size - self.length).saturating_add(besides);
        if missing > free.saturating_sub(disk::RESERVE) {
            tracing::warn!(name = self.order.name, free, missing, "no room on the disk");
            return Err(DownloadError::Space {
                name: self.order.name.clone(),
                needed: self.order.size.saturating_add(besides),
            });
        }
        Ok(())
    }

    async fn go_on(&mut self, client: &Client, meter: &mut Meter) -> Result<(), DownloadError> {
        if self.length == self.order.size {
            return Ok(());
        }
        let http = |failure| DownloadError::Http(self.order.name.clone(), failure);
        let mut download = client.open(&self.order.url, self.length).await.map_err(http)?;
        if download.starts_at == 0 && self.length > 0 {
            // A server without ranges: what is on disk comes once more.
            self.file.set_len(0).map_err(|source| self.disk(source))?;
            self.length = 0;
            self.hash = Sha256::new();
            self.resumed = false;
        }
        loop {
            let http = |failure| DownloadError::Http(self.order.name.clone(), failure);
            let Some(part) = download.next().await.map_err(http)? else {
                return Ok(());
            };
            if self.length + part.len() as u64 > self.order.size {
                // Whatever this is, it is not what was ordered.
                return Err(DownloadError::Http(
                    self.order.name.clone(),
                    HttpError::TooLarge {
                        host: download.host().to_owned(),
                        limit: self.order.size,
                    },
                ));
            }
            // Into the page cache: a disk that is slower than the network slows the download down, nothing else.
            disk::append(&self.file, &part).map_err(|source| self.disk(source))?;
            self.hash.update(&part);
            self.length += part.len() as u64;
            meter.advance(part.len() as u64, self.length);
        }
    }

    fn digest(&self) -> String {
        disk::hex(&self.hash.clone().finalize())
    }

    fn disk(&self, source: io::Error) -> DownloadError {
        DownloadError::Disk {
            name: self.order.name.clone(),
            source,
        }
    }
}

/// Opens a part and hashes what is in it; what is too long is worth nothing.
fn open(path: &Path, size: u64) -> io::Result<(fs::File, u64, Sha256)> {
    let file = disk::open_part(path)?;
    let mut length = file.metadata()?.len();
    let mut hash = Sha256::new();
    if length > size {
        file.set_len(0)?;
        length = 0;
    }
    if length > 0 {
        let mut there = fs::File::open(path)?;
        length = io::copy(&mut there, &mut HashWriter(&mut hash))?;
    }
    Ok((file, length, hash))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.0.update(content);
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
