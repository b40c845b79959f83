//! The release side of self-update (`update-and-system.md` 2, 9.5): signs what was built and brings it into a bucket, so
//! that nothing is ever offered to a device before it lies there whole, and nothing that lies there is ever replaced by
//! something else.
//!
//! Runs on the machine of whoever makes releases, never on a device. What it writes is what `src/update` of the agent
//! reads. Must not know how binaries are built.

pub mod bucket;
pub mod built;
pub mod delta;
pub mod keys;
pub mod layout;
pub mod lists;
pub mod manifest;
pub mod publish;
pub mod schedule;
pub mod verify;

use sha2::{Digest as _, Sha256};

/// What is done about something in the bucket that its signature does not fit: a write that broke off between the two
/// leaves that, and so does somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    Refuse,
    /// It is replaced: somebody has said so.
    Replace,
}

/// SHA-256 as the bucket and the manifests write it: 64 lower-case hex digits.
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
