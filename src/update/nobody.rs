//! In place of the launcher, which is for Linux: elsewhere no installed binary starts another one.

use std::io;
use std::path::Path;

use super::boot::Boot;
use super::custody::Custody;
use super::setup::Setup;
use crate::settings::Settings;

/// This process is the agent, and no other version is tried.
pub(super) fn run(_: &Settings, _: &Setup) -> Boot {
    Boot::GoOn(Custody::Nobody)
}

/// Nothing can be started in the place of this process.
pub fn start_over(_: &Custody) -> io::Error {
    io::Error::other("nobody starts another version here")
}

/// There is none.
pub(super) fn end_with_launcher(_: Option<u32>) -> bool {
    true
}

/// Nobody counts them.
pub(super) fn forget_starts(_: &Path) {}
