//! A file that stands for room on the disk: the state of updates is written into it when there is no other. A version
//! under test that fills the disk must not get starts that nobody counts. Must not know what is written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::durable;
use crate::os::{self, OpenOptionsExt as _};

/// File name below the agent directory. Without `reagent-`, which the manager script would take for a binary.
const FILE: &str = ".update-state.spare";
/// More than a state takes in which every list is full.
const SIZE: u64 = 32 * 1024;
/// Written in one go.
const BLOCK: usize = 4 * 1024;

fn path(agent_dir: &Path) -> PathBuf {
    agent_dir.join(FILE)
}

/// Whether that failed because nothing more fits on the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether `content` fits into the room that is kept.
#[cfg(test)]
pub(crate) fn has_room_for(content: &[u8]) -> bool {
    content.len() as u64 <= SIZE
}

/// Makes sure that there is room, for good.
pub(crate) fn keep(agent_dir: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path(agent_dir))?;
    let before = file.metadata()?.len();
    if before >= SIZE {
        return Ok(());
    }
    // Real content: what is only reserved, or a hole, may need more room when it is written.
    let blanks = vec![b' '; usize::try_from(SIZE - before).unwrap_or_default()];
    blanks
        .chunks(BLOCK)
        .try_for_each(|block| file.write_all(block))
        .and_then(|()| file.sync_all())
        .and_then(|()| durable::sync_directory(agent_dir))
        .or_else(|error| {
            // What was there stays room, and as a rule is enough.
            let _ = file.set_len(before);
            match before > 0 && is_full(&error) {
                true => Ok(()),
                false => Err(error),
            }
        })
}

/// While room is kept, `content` takes as much: what it takes now is the room for the next one.
pub(crate) fn padded(agent_dir: &Path, mut content: Vec<u8>) -> Vec<u8> {
    let size = SIZE as usize;
    if content.len() < size && path(agent_dir).exists() {
        content.resize(size, b' ');
    }
    content
}

/// Gives the room up, if there is any.
pub(crate) fn give_up(agent_dir: &Path) {
    if let Err(error) = fs::remove_file(path(agent_dir))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the room for the update state stays");
    }
}

/// Replaces what `target` in the agent directory holds by `content`, which as many blanks follow as there is room for, on
/// a full disk. Blocks until it is there for good; on an error the old content is untouched.
pub(crate) fn replace(agent_dir: &Path, target: &Path, content: &[u8]) -> io::Result<()> {
    let Err(error) = swap_in(agent_dir, target, content) else {
        return Ok(());
    };
    // Some file systems never write over what is there, or cannot exchange names.
    fs::remove_file(path(agent_dir)).map_err(|_| error)?;
    durable::replace(target, content, 0o600)?;
    // From what the old content took, if nobody else was faster.
    let _ = keep(agent_dir);
    Ok(())
}

/// Writes over the spare file and has it change names with `target`: nobody else can take that room in between, and
/// what held the old content is the room for the next time.
fn swap_in(agent_dir: &Path, target: &Path, content: &[u8]) -> io::Result<()> {
    let spare = path(agent_dir);
    let mut file = OpenOptions::new().write(true).open(&spare)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    file.write_all(content)?;
    // Not shorter than it was: its blocks stay its own.
    let blanks = length.min(SIZE as usize).saturating_sub(content.len());
    file.write_all(&vec![b' '; blanks])?;
    file.set_len((content.len() + blanks) as u64)?;
    file.sync_all()?;
    os::exchange(&spare, &fs::canonicalize(target)?)?;
    durable::sync_directory(agent_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_never_shrinks_however_often_it_changes_places() {
        let directory = tempfile::tempdir().unwrap();
        let (agent_dir, target) = (directory.path(), directory.path().join("state"));
        assert_eq!(padded(agent_dir, b"{}".to_vec()), b"{}", "no room is kept");
        keep(agent_dir).unwrap();
        let length = |path: &Path| fs::metadata(path).unwrap().len();
        durable::replace(&target, &padded(agent_dir, b"{}".to_vec()), 0o600).unwrap();
        for content in [&b"{\"a\": 1}"[..], b"{}"] {
            replace(agent_dir, &target, content).unwrap();
            assert_eq!((length(&target), length(&path(agent_dir))), (SIZE, SIZE));
            let read: serde_json::Value = serde_json::from_slice(&fs::read(&target).unwrap()).unwrap();
            assert_eq!(
                read,
                serde_json::from_slice::<serde_json::Value>(content).unwrap()
            );
        }
    }
}
