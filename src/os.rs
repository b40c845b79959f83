//! Where operating systems differ in small things: each function and trait here exists for every system and means the
//! same on all of them, as far as that goes. Larger differences have a file per system beside what they belong to. Must
//! not know who asks.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    pub total: u64,
    pub free: u64,
    /// Of these, what this process may use.
    pub available: u64,
}
