//! Building an image from an archive with the daemon's own builder, and naming images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures_util::stream;
use protocol::request::RegistryLogin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::compose::login_key;
use super::daemon::{Archive, Body, CHANGE, Raw, escaped, of_text};
use super::image::Reference;
use super::records::Operation;
use super::{Engine, EngineError};

const BUILD: Operation = Operation {
    name: "build",
    // A step may compile for long without a word.
    stall: Duration::from_secs(60 * 60),
    meaning: of_build,
};

/// The archive goes to the daemon in pieces of this size.
const PIECE: usize = 64 << 10;
/// Pieces read ahead. Full: reading waits for the daemon.
const READ_AHEAD: usize = 4;
/// More entries than this are not looked through for a Dockerfile.
const ENTRIES: usize = 100_000;

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildSpec<'a> {
    /// A tar, plain or packed as the daemon understands it.
    pub archive: &'a Path,
    /// File in the archive.
    pub dockerfile: &'a str,
    /// The reference that the image gets.
    pub tag: &'a str,
    /// Names the build in the daemon's own log.
    pub id: &'a str,
    /// Registry host to login, for base images.
    pub logins: &'a BTreeMap<String, RegistryLogin>,
}

impl Engine {
    /// Builds. Progress, cancel and bound as in [`Engine::pull`]; a build that says nothing for an hour has failed.
    /// Intermediate containers are removed, also those of a build that fails (weakness W25).
    pub async fn build(
        &self,
        spec: BuildSpec<'_>,
        progress: mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let Some(Reference { repository, version }) = Reference::parse(spec.tag) else {
            return Err(EngineError::Other(format!(
                "invalid reference format: {:?}",
                spec.tag
            )));
        };
        let path = format!(
            "/build?t={}&dockerfile={}&buildid={}&rm=1&forcerm=1",
            escaped(&format!("{repository}:{version}")),
            escaped(spec.dockerfile),
            escaped(spec.id),
        );
        let archive = pieces(spec.archive).map_err(|error| EngineError::NoArchive(error.to_string()))?;
        let raw = Raw {
            credentials: (!spec.logins.is_empty()).then(|| config_header(spec.logins)),
            body: Some(Body::Archive(archive)),
            ..Raw::post(path)
        };
        self.follow_records(BUILD, raw, progress, cancel).await
    }

    /// Gives an image that is here another name.
    pub async fn tag(&self, source: &str, target: &str) -> Result<(), EngineError> {
        let Some(Reference { repository, version }) = Reference::parse(target) else {
            return Err(EngineError::Other(format!(
                "invalid reference format: {target:?}"
            )));
        };
        let path = format!(
            "/images/{}/tag?repo={}&tag={}",
            escaped(source),
            escaped(&repository),
            escaped(&version)
        );
        let tagged = self.send("tag image", CHANGE, source, Raw::post(path));
        tagged.await.map(drop)
    }
}

/// `Dockerfile.<arch>` if the archive has one at its root, else `Dockerfile` (W25: never one from further inside).
/// Reads through the archive, so it blocks. An archive that cannot be read here is left to the daemon's judgement.
pub fn dockerfile_in(archive: &Path, arch: &str) -> std::io::Result<String> {
    let wanted = format!("Dockerfile.{arch}");
    let mut file = File::open(archive)?;
    let mut magic = [0; 2];
    let packed = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    let file = File::open(archive)?;
    let reader: Box<dyn Read> = match packed {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut archive = tar::Archive::new(reader);
    let found = archive
        .entries()?
        .take(ENTRIES)
        .map_while(Result::ok)
        .any(|entry| {
            entry.header().entry_type().is_file()
                && entry.path().is_ok_and(|path| {
                    let plain = path.strip_prefix(".").unwrap_or(&path);
                    plain == Path::new(&wanted)
                })
        });
    Ok(match found {
        true => wanted,
        false => "Dockerfile".to_owned(),
    })
}

/// The archive in pieces, read on a blocking thread that ends with its reader.
fn pieces(archive: &Path) -> std::io::Result<Archive> {
    let mut file = File::open(archive)?;
    let (sender, pieces) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let piece = match file.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    Ok(Bytes::from(piece))
                }
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    Ok(Box::pin(stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    })))
}

/// `X-Registry-Config`: every login that a `FROM` may need.
fn config_header(logins: &BTreeMap<String, RegistryLogin>) -> (&'static str, String) {
    let config: serde_json::Map<_, _> = logins
        .iter()
        .map(|(registry, login)| {
            let login = serde_json::json!({"username": login.username, "password": login.password});
            (login_key(registry), login)
        })
        .collect();
    let text = serde_json::Value::Object(config).to_string();
    ("x-registry-config", URL_SAFE.encode(text))
}

/// The two mistakes that every developer makes have words of their own (`app-lifecycle.md` 3.5 "build").
fn of_build(message: String) -> EngineError {
    let lower = message.to_lowercase();
    if lower.contains("the dockerfile (") && lower.contains("cannot be empty") {
        EngineError::EmptyDockerfile
    } else if lower.contains("cannot locate specified dockerfile") {
        EngineError::NoDockerfile
    } else {
        of_text(message)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(names: &[&str], packed: bool) -> tempfile::NamedTempFile {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(4);
            header.set_cksum();
            builder.append_data(&mut header, name, &b"FROM"[..]).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        if packed {
            let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap();
        } else {
            file.write_all(&bytes).unwrap();
        }
        file
    }

    #[test]
    fn the_dockerfile_of_the_architecture_is_taken_from_the_root_only() {
        for (names, expected) in [
            (&["Dockerfile", "Dockerfile.amd64"][..], "Dockerfile.amd64"),
            (&["./Dockerfile.amd64"], "Dockerfile.amd64"),
            (&["Dockerfile", "vendor/Dockerfile.amd64"], "Dockerfile"),
            (&["Dockerfile", "Dockerfile.arm64"], "Dockerfile"),
            (&[], "Dockerfile"),
        ] {
            for packed in [false, true] {
                let file = archive(names, packed);
                assert_eq!(
                    dockerfile_in(file.path(), "amd64").unwrap(),
                    expected,
                    "{names:?} {packed}"
                );
            }
        }
        assert!(dockerfile_in(Path::new("/nonexistent.tgz"), "amd64").is_err());
    }

    #[test]
    fn an_archive_that_is_none_is_left_to_the_daemon() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"BZh9 something else").unwrap();
        assert_eq!(dockerfile_in(file.path(), "amd64").unwrap(), "Dockerfile");
    }

    #[test]
    fn the_mistakes_of_developers_are_told_apart() {
        for (text, expected) in [
            (
                "the Dockerfile (Dockerfile) cannot be empty",
                EngineError::EmptyDockerfile,
            ),
            (
                "Cannot locate specified Dockerfile: Dockerfile",
                EngineError::NoDockerfile,
            ),
            (
                "The command '/bin/sh -c false' returned a non-zero code: 1",
                EngineError::Other("The command '/bin/sh -c false' returned a non-zero code: 1".to_owned()),
            ),
        ] {
            assert_eq!(of_build(text.to_owned()), expected);
        }
    }
}
