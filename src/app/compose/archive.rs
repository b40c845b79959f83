//! Unpacking an uploaded project (`app-lifecycle.md` 3.5 "build – compose"; `logs-terminal-tunnel.md` 8.5, F10): nothing
//! is ever written outside the directory it is unpacked into. Blocks.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path};

use tar::{Archive, Entry, EntryType};
use tokio_util::sync::CancellationToken;

/// Bounds of an archive: a project is sources, not a disk image.
const ENTRIES: usize = 200_000;
const BYTES: u64 = 8 << 30;

/// Replaces what is in `directory` by what is in `archive`, a tar, plain or packed with gzip. Ends early when `cancel`
/// fires; a directory that is half filled is replaced by the next attempt.
pub(crate) fn unpack(archive: &Path, directory: &Path, cancel: &CancellationToken) -> io::Result<()> {
    let mut file = File::open(archive)?;
    let mut magic = [0; 2];
    let packed = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    let file = File::open(archive)?;
    let reader: Box<dyn Read> = match packed {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(directory)?;
    let mut archive = Archive::new(reader);
    let mut bytes = 0_u64;
    for (number, entry) in archive.entries()?.enumerate() {
        if cancel.is_cancelled() {
            return Ok(());
        }
        let mut entry = entry?;
        bytes = bytes.saturating_add(entry.size());
        if number >= ENTRIES || bytes > BYTES {
            return Err(refused("the archive is too large"));
        }
        check(&entry)?;
        // Follows no link on the way to the entry's place that leads out of the directory.
        if !entry.unpack_in(directory)? {
            return Err(refused(&format!("{} leaves the directory", name(&entry))));
        }
    }
    Ok(())
}

fn check<R: Read>(entry: &Entry<'_, R>) -> io::Result<()> {
    let path = entry.path()?;
    if depth(&path).is_none() {
        return Err(refused(&format!("{} leaves the directory", name(entry))));
    }
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::Directory => Ok(()),
        // About the entries that follow.
        EntryType::XGlobalHeader => Ok(()),
        EntryType::Symlink => {
            let target = entry.link_name()?.unwrap_or_default();
            let place = path.parent().unwrap_or(Path::new(""));
            match depth(&place.join(&target)) {
                Some(_) if !target.is_absolute() => Ok(()),
                _ => Err(refused(&format!(
                    "the link {} leads out of the directory",
                    name(entry)
                ))),
            }
        }
        // A second name for a file of the same archive.
        EntryType::Link => match entry.link_name()?.and_then(|target| depth(&target)) {
            Some(_) => Ok(()),
            None => Err(refused(&format!(
                "the link {} leads out of the directory",
                name(entry)
            ))),
        },
        _ => Err(refused(&format!(
            "{} is neither file, directory nor link",
            name(entry)
        ))),
    }
}

/// How deep a relative path ends, `None` when it leaves its start anywhere on the way.
fn depth(path: &Path) -> Option<usize> {
    let mut depth = 0_usize;
    for component in path.components() {
        depth = match component {
            Component::Normal(_) => depth + 1,
            Component::CurDir => depth,
            Component::ParentDir => depth.checked_sub(1)?,
            Component::RootDir | Component::Prefix(_) => return None,
        };
    }
    Some(depth)
}

fn name<R: Read>(entry: &Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).into_owned()
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tar::{Builder, Header};

    use super::*;

    /// Kind, name, target of a link or content, mode.
    type Member<'a> = (EntryType, &'a str, &'a str, u32);

    fn packed(members: &[Member<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, name, content, mode) in members {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            // Past the checks of the library: others write such archives.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let content = match kind {
                EntryType::Regular => *content,
                _ => {
                    let link = &mut header.as_old_mut().linkname;
                    link[..content.len()].copy_from_slice(content.as_bytes());
                    ""
                }
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(home: &Path, members: &[Member<'_>]) -> io::Result<()> {
        fs::write(home.join("app.tgz"), packed(members)).unwrap();
        unpack(
            &home.join("app.tgz"),
            &home.join("app"),
            &CancellationToken::new(),
        )
    }

    #[test]
    fn files_get_their_modes_and_parents_and_replace_what_was_there() {
        use EntryType::{Directory, Regular, Symlink};
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("app")).unwrap();
        fs::write(home.path().join("app/stale"), "x").unwrap();
        let members = [
            (Directory, "./", "", 0o755),
            (Regular, "web/src/run.sh", "#!/bin/sh", 0o4755),
            (Regular, "web/readme", "hello", 0o644),
            (Symlink, "web/link", "../web/readme", 0o777),
        ];
        unpacked(home.path(), &members).unwrap();
        let app = home.path().join("app");
        assert!(!app.join("stale").exists());
        assert_eq!(fs::read_to_string(app.join("web/link")).unwrap(), "hello");
        let mode = |file: &str| fs::metadata(app.join(file)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("web/src/run.sh"), 0o755);
        assert_eq!(mode("web/readme"), 0o644);
    }

    #[test]
    fn nothing_is_written_outside() {
        use EntryType::{Fifo, Link, Regular, Symlink};
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("victim"), "kept").unwrap();
        for members in [
            &[(Regular, "../victim", "x", 0o644)][..],
            &[(Regular, "a/../../victim", "x", 0o644)],
            &[(Regular, "/victim", "x", 0o644)],
            &[(Symlink, "link", "../victim", 0o777)],
            &[(Symlink, "link", "/etc", 0o777)],
            &[(Symlink, "a/link", "../../victim", 0o777)],
            &[(Link, "link", "../victim", 0o644), (Regular, "link", "x", 0o644)],
            &[(Fifo, "pipe", "", 0o644)],
        ] {
            let refusal = unpacked(home.path(), members).unwrap_err();
            assert_eq!(refusal.kind(), ErrorKind::InvalidData, "{members:?}");
        }
        // A link to a directory of its own is followed no further than that.
        let members = [
            (Symlink, "a", ".", 0o777),
            (Symlink, "a/b", "..", 0o777),
            (Regular, "a/b/victim", "x", 0o644),
        ];
        unpacked(home.path(), &members).unwrap_err();
        assert_eq!(fs::read_to_string(home.path().join("victim")).unwrap(), "kept");
    }

    #[test]
    fn a_packed_archive_is_read_and_one_that_is_none_is_refused() {
        use std::io::Write as _;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("app.tgz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder
            .write_all(&packed(&[(EntryType::Regular, "a", "1", 0o644)]))
            .unwrap();
        fs::write(&file, encoder.finish().unwrap()).unwrap();
        let directory = home.path().join("app");
        unpack(&file, &directory, &CancellationToken::new()).unwrap();
        assert_eq!(fs::read_to_string(directory.join("a")).unwrap(), "1");
        fs::write(&file, "not an archive at all, whatever its name says").unwrap();
        assert!(unpack(&file, &directory, &CancellationToken::new()).is_err());
        assert!(unpack(&home.path().join("none"), &directory, &CancellationToken::new()).is_err());
    }
}
