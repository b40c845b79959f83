//! A directory on its way to a device: packed, then sent piece by piece (`logs-terminal-tunnel.md` 5).

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::api::{CallDevice, uri};
use crate::command::client::{Client, DEADLINE};
use crate::exit::{Exit, Failure};

/// Bytes per call; twice as many characters.
const PIECE: usize = 256 << 10;
/// Not part of what is built.
const LEFT_OUT: &str = ".git";

/// Where the archive goes.
pub(super) struct Target<'a> {
    pub(super) device: &'a str,
    pub(super) file_name: String,
    /// Names the upload, and the log in which the device speaks of it.
    pub(super) container: String,
}

/// Packs a directory into a temporary file that has no name.
pub(super) fn pack(directory: &Path) -> Result<std::fs::File, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Usage, format!("packing {}: {error}", directory.display()))
    };
    let file = tempfile::tempfile().map_err(failed)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    archive.follow_symlinks(false);
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(failed)?
        .into_iter()
        .map(|entry| entry.file_name())
        .filter(|name| name != LEFT_OUT)
        .collect();
    names.sort();
    for name in names {
        let path = directory.join(&name);
        let added = match path.symlink_metadata().map_err(failed)?.is_dir() {
            true => archive.append_dir_all(&name, &path),
            false => archive.append_path_with_name(&path, &name),
        };
        added.map_err(failed)?;
    }
    let mut file = archive.into_inner().and_then(GzEncoder::finish).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

/// Sends an archive; `progress` hears how many percent the device has.
pub(super) async fn send(
    client: &Client,
    target: &Target<'_>,
    mut file: std::fs::File,
    mut progress: impl FnMut(u64),
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, format!("reading the archive: {error}"));
    let total = file.metadata().map_err(failed)?.len();
    // Tells this upload from another one of the same app.
    let id = format!("{:016x}", fastrand::u64(..));
    let call = async |chunk: &str, digest: Option<&str>| {
        let mut args = vec![
            json!(chunk),
            json!(target.file_name),
            json!(target.container),
            json!(total),
            json!(id),
        ];
        args.extend(digest.map(Value::from));
        let request = CallDevice {
            device: target.device.to_owned(),
            procedure: "write_data".to_owned(),
            args,
            kwargs: Map::new(),
            timeout: None,
        };
        client.send(uri::DEVICE_CALL, &request, DEADLINE).await
    };
    call("BEGIN", None).await?;
    let mut digest = Sha256::new();
    let mut sent = 0;
    let mut piece = vec![0; PIECE];
    loop {
        let length = file.read(&mut piece).map_err(failed)?;
        if length == 0 {
            break;
        }
        digest.update(&piece[..length]);
        call(&hex::encode(&piece[..length]), None).await?;
        sent += length as u64;
        progress(sent * 100 / total.max(1));
    }
    call("END", Some(&hex::encode(digest.finalize()))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_packed_without_its_history() {
        let home = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("Dockerfile", "FROM scratch"),
            ("src/main.c", "x"),
            (".git/HEAD", "ref"),
            (".dockerignore", "*.o"),
        ] {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::os::unix::fs::symlink("Dockerfile", home.path().join("link")).unwrap();
        let file = pack(home.path()).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            // How a directory is written is the packer's business.
            .map(|name| name.trim_end_matches('/').to_owned())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [".dockerignore", "Dockerfile", "link", "src", "src/main.c"]
        );
        assert!(pack(&home.path().join("none")).is_err());
    }
}
