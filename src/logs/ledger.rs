//! What viewers have got, for a restart of the agent: the topics that were listened to, and how far each container's
//! log was published on them.
//!
//! One small file, overwritten in place whenever the router has confirmed a message, and never synced: it has to
//! survive a kill, which the page cache does. After a power cut it may be older than the truth or unreadable; then lines
//! are repeated. Written only while somebody listens.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::batch::Mark;
use super::cursor::Cursor;
use crate::os::{FileExt as _, OpenOptionsExt as _};

/// By topic (its last component), by container.
pub(super) type Published = BTreeMap<String, BTreeMap<String, Cursor>>;

/// In place of a container: since when the topic has been listened to. What a container printed that is not named beside
/// it, viewers have not got from then on.
pub(super) const SINCE: &str = "";
/// Topics remembered. Those of apps that were removed while the agent did not run stay until there are so many.
const MAX_TOPICS: usize = 256;
const FILE: &str = "log-cursors.json";

/// The file and what it says.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    file: Option<File>,
    published: Published,
    changed: bool,
}

impl Ledger {
    /// Opens it. Without a directory, or when it cannot be written, nothing is remembered.
    pub(super) fn open(directory: Option<&Path>) -> Ledger {
        let Some(directory) = directory else {
            return Ledger::default();
        };
        let path = directory.join(FILE);
        let opened = std::fs::create_dir_all(directory).and_then(|()| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
        });
        match opened {
            Ok(file) => Ledger {
                published: read(&file).unwrap_or_default(),
                file: Some(file),
                changed: false,
            },
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a restart will not know which log lines viewers have");
                Ledger::default()
            }
        }
    }

    /// What it says.
    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// Somebody may listen to `topic`, whose logs were read up to `cursors` by `now` (nanoseconds since 1970).
    pub(super) fn begin(&mut self, topic: &str, now: u64, mut cursors: BTreeMap<String, Cursor>) {
        if self.published.len() >= MAX_TOPICS && !self.published.contains_key(topic) {
            self.published.pop_first();
        }
        cursors.insert(SINCE.to_owned(), Cursor::from_moment(now));
        self.published.insert(topic.to_owned(), cursors);
        self.changed = true;
    }

    /// Nobody waits for lines of `topic` any more.
    pub(super) fn end(&mut self, topic: &str) {
        self.changed |= self.published.remove(topic).is_some();
    }

    /// The router has these lines.
    pub(super) fn advance(&mut self, topic: &str, marks: Vec<Mark>) {
        let Some(cursors) = self.published.get_mut(topic) else {
            return;
        };
        for mark in marks {
            cursors.insert(mark.container, mark.cursor);
            self.changed = true;
        }
    }

    /// Writes what changed: to the page cache, one write.
    pub(super) fn save(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| self.changed) else {
            return;
        };
        self.changed = false;
        let Ok(mut text) = serde_json::to_vec(&self.published) else {
            return;
        };
        // What an older, longer one leaves behind the line end is not read.
        text.push(b'\n');
        if let Err(error) = file.write_all_at(&text, 0) {
            tracing::debug!(%error, "log cursors not written");
        }
    }
}

fn read(file: &File) -> io::Result<Published> {
    /// Far above what all apps of a device need.
    const MOST: u64 = 1 << 20;
    let mut text = vec![0; usize::try_from(file.metadata()?.len().min(MOST)).unwrap_or_default()];
    file.read_exact_at(&mut text, 0)?;
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(container: &str, nanoseconds: u64) -> Mark {
        Mark {
            container: container.to_owned(),
            cursor: Cursor::from_moment(nanoseconds),
        }
    }

    #[test]
    fn the_next_run_reads_what_was_published_where_somebody_listened() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("not/there/yet");
        let mut ledger = Ledger::open(Some(&place));
        ledger.begin("prod_1_a", 1, BTreeMap::new());
        ledger.begin(
            "prod_2_b",
            1,
            BTreeMap::from([("prod_2_b".to_owned(), Cursor::from_moment(5))]),
        );
        ledger.advance("prod_1_a", vec![mark("a-web-1", 7), mark("a-web-1", 8)]);
        ledger.advance("prod_3_c", vec![mark("prod_3_c", 9)]);
        ledger.save();
        let text = |ledger: &Ledger| serde_json::to_string(ledger.published()).unwrap();
        let before = text(&ledger);
        assert!(
            before.contains("a-web-1") && !before.contains("prod_3_c"),
            "{before}"
        );
        drop(ledger);

        let mut ledger = Ledger::open(Some(&place));
        assert_eq!(text(&ledger), before);
        // Shorter than before: the rest of the old text does no harm.
        ledger.end("prod_1_a");
        ledger.save();
        assert_eq!(Ledger::open(Some(&place)).published().len(), 1);
    }

    #[test]
    fn an_unreadable_file_or_no_place_is_nothing_known() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{\"prod_1_a\":{\"x\"").unwrap();
        for place in [Some(directory.path()), Some(Path::new("/proc/none")), None] {
            let mut ledger = Ledger::open(place);
            assert!(ledger.published().is_empty());
            ledger.begin("prod_1_a", 1, BTreeMap::new());
            ledger.save();
        }
        assert_eq!(Ledger::open(Some(directory.path())).published().len(), 1);
    }
}
