//! Where lines wait when the link is down for longer than memory has room: a file that has no name, so that it is gone
//! with the process. Container output is not lost with it: the container's log and the [`super::ledger`] have it.
//!
//! The oldest lines are kept, not the newest: so an outage costs the flash no more than the cap, however long it is.
//! What comes when the cap is reached is counted, and the count follows the last line that was kept.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::batch::{Cause, Chunk, Item};
use crate::os::{FileExt as _, OpenOptionsExt as _};

/// Most on disk for one topic, bytes.
const TOPIC: usize = 8 << 20;
/// Most on disk for all topics.
const ALL: usize = 32 << 20;

/// Makes spools, and knows how much all of them take.
#[derive(Debug)]
pub(super) struct Spools {
    /// `None`: there is no place for files, everything is counted.
    directory: Option<PathBuf>,
    taken: Arc<AtomicUsize>,
    /// Most for one topic, bytes.
    topic: usize,
}

/// Items of one topic, first in, first out.
#[derive(Debug)]
pub(super) struct Spool {
    file: Option<File>,
    /// Most that is written, bytes.
    most: usize,
    read: u64,
    written: u64,
    taken: Arc<AtomicUsize>,
    /// Output that is not written yet: it waits for more.
    open: Option<Chunk>,
    /// Lines for which there was no room.
    lost: u64,
}

impl Spools {
    pub(super) fn in_directory(directory: Option<PathBuf>) -> Spools {
        Spools {
            directory,
            taken: Arc::default(),
            topic: TOPIC,
        }
    }

    /// An empty one. Without a file when none can be made: then it only counts.
    pub(super) fn open(&self) -> Spool {
        let file = self.directory.as_deref().and_then(|directory| {
            nameless(directory)
                .inspect_err(|error| tracing::warn!(%error, "no file for log lines that wait for the link"))
                .ok()
        });
        Spool {
            file,
            most: self.topic,
            read: 0,
            written: 0,
            taken: Arc::clone(&self.taken),
            open: None,
            lost: 0,
        }
    }
}

fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join("log-lines.spool");
    // One that an agent left which was killed in between.
    let _ = std::fs::remove_file(&path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl Spool {
    /// Adds an item, or counts its lines when there is no room. What follows a loss is lost too: the order stays.
    pub(super) fn push(&mut self, item: Item) {
        let Item::Output(chunk) = item else {
            self.settle();
            return self.write_or_count(item);
        };
        // What is on disk takes no room of the follower's.
        let chunk = Chunk {
            room: Vec::new(),
            ..chunk
        };
        let rest = match &mut self.open {
            Some(open) => open.absorb(chunk),
            None => Err(chunk),
        };
        if let Err(chunk) = rest {
            self.settle();
            self.open = Some(chunk);
        }
    }

    fn settle(&mut self) {
        if let Some(chunk) = self.open.take() {
            self.write_or_count(Item::Output(chunk));
        }
    }

    fn write_or_count(&mut self, item: Item) {
        if self.lost > 0 || self.write(&item).is_none() {
            self.lost += item.lines();
        }
    }

    fn write(&mut self, item: &Item) -> Option<()> {
        let file = self.file.as_ref()?;
        let text = serde_json::to_vec(item).ok()?;
        let size = text.len() + 4;
        let mine = usize::try_from(self.written).ok()?;
        if mine + size > self.most || self.taken.load(Ordering::Relaxed) + size > ALL {
            return None;
        }
        let length = u32::try_from(text.len()).ok()?.to_be_bytes();
        let record = [&length[..], &text].concat();
        if let Err(error) = file.write_all_at(&record, self.written) {
            tracing::warn!(%error, "log lines that wait for the link cannot be written");
            return None;
        }
        self.written += record.len() as u64;
        self.taken.fetch_add(record.len(), Ordering::Relaxed);
        Some(())
    }

    /// The oldest item; after the last one the gap, if there is one; then nothing.
    pub(super) fn pop(&mut self) -> Option<Item> {
        if self.read < self.written {
            match self.read_next() {
                Ok(item) => return Some(item),
                Err(error) => {
                    tracing::warn!(%error, "log lines that waited for the link cannot be read");
                    // How many lines the rest has is not known any more; that there were some is said.
                    self.lost += 1;
                    self.read = self.written;
                }
            }
        }
        if self.lost == 0
            && let Some(chunk) = self.open.take()
        {
            return Some(Item::Output(chunk));
        }
        let lost = std::mem::take(&mut self.lost);
        match lost + self.open.take().map_or(0, |chunk| chunk.lines) {
            0 => None,
            lines => Some(Item::Gap {
                lines,
                cause: Cause::Link,
            }),
        }
    }

    fn read_next(&mut self) -> io::Result<Item> {
        let file = self
            .file
            .as_ref()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut length = [0; 4];
        file.read_exact_at(&mut length, self.read)?;
        let length = u32::from_be_bytes(length);
        let mut text = vec![0; length as usize];
        file.read_exact_at(&mut text, self.read + 4)?;
        let item = serde_json::from_slice(&text)?;
        self.read += u64::from(length) + 4;
        Ok(item)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let mine = usize::try_from(self.written).unwrap_or(usize::MAX);
        self.taken.fetch_sub(mine, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::batch::Chunk;
    use super::*;

    fn line(number: u64, size: usize) -> Item {
        Item::Output(Chunk::line(format!("{number} {}", "ü\"\n".repeat(size / 4))))
    }

    #[test]
    fn nothing_is_left_in_the_directory_and_what_does_not_fit_is_counted_behind_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let spools = Spools::in_directory(Some(directory.path().to_owned()));
        let mut spool = spools.open();
        for number in 0..20 {
            spool.push(line(number, 1 << 20));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut kept = 0;
        let lost = loop {
            match spool.pop().unwrap() {
                Item::Output(chunk) => {
                    assert!(chunk.text.starts_with(&format!("{kept} ")));
                    kept += 1;
                }
                Item::Gap { lines, cause } => {
                    assert_eq!(cause, Cause::Link);
                    break lines;
                }
                Item::Agent(_) | Item::Rotated => panic!("nobody wrote one"),
            }
        };
        assert!((4..8).contains(&kept), "{kept}");
        assert_eq!(kept + lost, 20);
        assert!(spool.pop().is_none());
        drop(spool);
        assert_eq!(spools.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_a_place_everything_is_counted() {
        for directory in [None, Some(PathBuf::from("/nonexistent/directory"))] {
            let mut spool = Spools::in_directory(directory).open();
            spool.push(line(1, 10));
            spool.push(Item::Agent("x".to_owned()));
            spool.push(Item::Gap {
                lines: 3,
                cause: Cause::Rate,
            });
            assert!(matches!(
                spool.pop(),
                Some(Item::Gap {
                    lines: 5,
                    cause: Cause::Link
                })
            ));
            assert!(spool.pop().is_none());
        }
    }

    #[test]
    fn all_topics_together_have_a_cap_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let spools = Spools::in_directory(Some(directory.path().to_owned()));
        let mut open: Vec<Spool> = (0..8).map(|_| spools.open()).collect();
        for spool in &mut open {
            for number in 0..7 {
                spool.push(line(number, 900 << 10));
            }
        }
        assert!(spools.taken.load(Ordering::Relaxed) <= ALL);
        assert!(open.last().unwrap().lost > 0);
        open.clear();
        assert_eq!(spools.taken.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn beyond_the_cap_every_line_comes_out_or_is_in_a_gap_in_its_place(
            sizes in prop::collection::vec((0_usize..3000, prop::bool::weighted(0.2)), 60..120),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut spools = Spools::in_directory(Some(directory.path().to_owned()));
            spools.topic = 30_000;
            let mut spool = spools.open();
            let (mut next, mut offered, mut lost) = (0, 0, 0);
            let mut check = |item: Item| match item {
                Item::Output(chunk) => {
                    let first = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
                    for line in chunk.text.split('\n').filter(first) {
                        assert!(line.starts_with(&format!("{next} ")), "{next}: {line}");
                        next += 1;
                    }
                }
                Item::Gap { lines, cause } => {
                    assert_eq!(cause, Cause::Link);
                    next += lines;
                    lost += lines;
                }
                Item::Agent(_) | Item::Rotated => panic!("nobody wrote one"),
            };
            // In the end nobody reads any more, so that the cap is reached whatever came before.
            let unread = (0..60).map(|_| (1500, false));
            for (size, pop) in sizes.into_iter().chain(unread) {
                spool.push(line(offered, size));
                offered += 1;
                if pop && let Some(item) = spool.pop() {
                    check(item);
                }
            }
            while let Some(item) = spool.pop() {
                check(item);
            }
            prop_assert_eq!(next, offered);
            prop_assert!(lost > 0, "the cap was reached");
        }

        #[test]
        fn what_goes_in_comes_out_in_order(sizes in prop::collection::vec((0_usize..3000, prop::bool::ANY), 0..80)) {
            let directory = tempfile::tempdir().unwrap();
            let mut spool = Spools::in_directory(Some(directory.path().to_owned())).open();
            let (mut next, mut offered) = (0, 0);
            let mut check = |item: Item| {
                let Item::Output(chunk) = item else { panic!("there was room for all") };
                let numbered = chunk.text.split('\n').filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
                for line in numbered {
                    assert!(line.starts_with(&format!("{next} ")));
                    next += 1;
                }
            };
            for (size, pop) in sizes {
                spool.push(line(offered, size));
                offered += 1;
                if pop && let Some(item) = spool.pop() {
                    check(item);
                }
            }
            while let Some(item) = spool.pop() {
                check(item);
            }
            prop_assert_eq!(next, offered);
        }
    }
}
