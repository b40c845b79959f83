//! Whether the daemon has put a new file in place of a container's log (`logs-terminal-tunnel.md` 2.15).
//!
//! A daemon that sends a log while it is written goes on with the newest file when one is full: one that is slower than
//! the app leaves out the files in between, and some (20.10) send lines twice. It says neither. What it found when it was
//! asked is complete and in order; what came later is so as long as the file is the same.

use std::time::SystemTime;

use crate::os;

/// The file that the daemon writes a container's log to. Where it cannot be looked at (other log drivers, a daemon on
/// another machine), it never changes.
#[derive(Debug)]
pub(super) struct LogFile {
    path: String,
    seen: Option<Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// A number may be given again at once, a birthday is not. `0` where files have none.
    inode: u64,
    born: Option<SystemTime>,
    size: u64,
}

impl LogFile {
    /// The file as it is now. `path` is empty for a log that is none.
    pub(super) async fn at(path: &str) -> LogFile {
        LogFile {
            seen: look(path).await,
            path: path.to_owned(),
        }
    }

    /// Whether it is another one than before, or was shortened.
    pub(super) async fn is_replaced(&mut self) -> bool {
        let Some(before) = self.seen else { return false };
        // Between two files there is none for a moment.
        let Some(now) = look(&self.path).await else {
            return true;
        };
        self.seen = Some(now);
        (now.inode, now.born) != (before.inode, before.born) || now.size < before.size
    }
}

async fn look(path: &str) -> Option<Seen> {
    if path.is_empty() {
        return None;
    }
    let file = tokio::fs::metadata(path).await.ok()?;
    Some(Seen {
        inode: os::inode(&file),
        born: file.created().ok(),
        size: file.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_grows_stays_and_one_that_is_rotated_or_shortened_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one").unwrap();
        let mut file = LogFile::at(path.to_str().unwrap()).await;
        assert!(!file.is_replaced().await);
        std::fs::write(&path, "one more").unwrap();
        assert!(!file.is_replaced().await);
        std::fs::write(&path, "").unwrap();
        assert!(file.is_replaced().await && !file.is_replaced().await);
        std::fs::rename(&path, directory.path().join("log.1")).unwrap();
        assert!(file.is_replaced().await, "there is none");
        std::fs::write(&path, "another one").unwrap();
        assert!(file.is_replaced().await && !file.is_replaced().await);
    }

    #[tokio::test]
    async fn what_cannot_be_seen_does_not_change() {
        for path in ["", "/nonexistent/log"] {
            assert!(!LogFile::at(path).await.is_replaced().await);
        }
    }
}
