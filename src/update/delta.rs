//! Makes a new binary out of the running one and a patch (zstd with the old binary as prefix). Says nothing about what
//! came out: the digest decides. Must not know where the patch came from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::os::OpenOptionsExt as _;

/// Windows up to 32 MiB: what patching a binary of that size needs, and a bound on memory.
const WINDOW_LOG: u32 = 25;
/// Decoded in one go.
const BLOCK: usize = 256 * 1024;

/// Writes to `result` what `patch` makes of `old`: at most `limit` bytes, else it is an error. Blocks; takes the size
/// of the old binary and of the window in memory.
pub(crate) fn apply(old: &Path, patch: &Path, result: &Path, limit: u64) -> io::Result<()> {
    let old = fs::read(old)?;
    let patch = io::BufReader::new(File::open(patch)?);
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(patch, &old)?;
    decoder.window_log_max(WINDOW_LOG)?;
    let mut output = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(result)?;
    let mut block = vec![0; BLOCK];
    let mut written = 0;
    loop {
        let length = decoder.read(&mut block)?;
        if length == 0 {
            return Ok(());
        }
        written += length as u64;
        if written > limit {
            return Err(io::Error::other("the patch makes more than was announced"));
        }
        output.write_all(&block[..length])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use testkit::release;

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }
    }

    fn files() -> (Files, Vec<u8>) {
        let files = Files {
            directory: tempfile::tempdir().unwrap(),
        };
        let mut random = fastrand::Rng::with_seed(7);
        let old: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(900_000).collect();
        let mut new = old.clone();
        new.splice(1000..1200, b"another piece of program".iter().copied());
        new.extend_from_slice(b"and some more");
        let patch = release::patch(&old, &new);
        assert!(patch.len() < 2000, "{}", patch.len());
        fs::write(files.path("old"), &old).unwrap();
        fs::write(files.path("patch"), patch).unwrap();
        (files, new)
    }

    #[test]
    fn a_small_patch_makes_the_new_binary_out_of_the_old_one() {
        let (files, new) = files();
        let limit = new.len() as u64;
        apply(
            &files.path("old"),
            &files.path("patch"),
            &files.path("new"),
            limit,
        )
        .unwrap();
        assert!(fs::read(files.path("new")).unwrap() == new);
    }

    #[test]
    fn a_patch_for_another_binary_or_a_broken_one_never_makes_the_new_one() {
        let (files, new) = files();
        let limit = new.len() as u64;
        let attempt = || {
            let made = apply(
                &files.path("old"),
                &files.path("patch"),
                &files.path("new"),
                limit,
            );
            made.is_ok() && fs::read(files.path("new")).unwrap() == new
        };
        assert!(attempt());
        let patch = fs::read(files.path("patch")).unwrap();
        fs::write(files.path("patch"), &patch[..patch.len() / 2]).unwrap();
        assert!(!attempt());
        fs::write(files.path("patch"), "no patch at all").unwrap();
        assert!(!attempt());
        fs::write(files.path("patch"), &patch).unwrap();
        let mut other = fs::read(files.path("old")).unwrap();
        other.rotate_left(10);
        fs::write(files.path("old"), other).unwrap();
        assert!(!attempt());
    }

    #[test]
    fn what_grows_beyond_the_announced_size_is_stopped() {
        let (files, new) = files();
        let error = apply(
            &files.path("old"),
            &files.path("patch"),
            &files.path("new"),
            new.len() as u64 - 1,
        )
        .unwrap_err();
        assert!(error.to_string().contains("announced"), "{error}");
    }
}
