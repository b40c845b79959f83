//! Windows. It has no permission bits: who may read a file is decided by its directory, which the installation of the
//! service keeps to SYSTEM and administrators (`update-and-system.md` 8.1).

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::FileExt as _;
use std::path::Path;

use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, CtrlShutdown};

use super::Space;

/// The file system of the system itself, as a path from the root of the current drive.
pub(crate) const ROOT: &str = "/";

/// What a file may be, where the system has permission bits.
pub(crate) trait OpenOptionsExt {
    /// Nothing to set.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, _: u32) -> &mut OpenOptions {
        self
    }
}

/// What a directory may be, where the system has permission bits.
pub(crate) trait DirBuilderExt {
    /// Nothing to set.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, _: u32) -> &mut DirBuilder {
        self
    }
}

/// Reading and writing at a place, as the standard library has it elsewhere.
pub(crate) trait FileExt {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()>;
}

impl FileExt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.seek_read(buffer, offset)
    }

    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.seek_read(buffer, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => {
                    buffer = &mut buffer[length..];
                    offset += length as u64;
                }
            }
        }
        Ok(())
    }

    fn write_all_at(&self, mut content: &[u8], mut offset: u64) -> io::Result<()> {
        while !content.is_empty() {
            match self.seek_write(content, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                length => {
                    content = &content[length..];
                    offset += length as u64;
                }
            }
        }
        Ok(())
    }
}

/// There are none: what a new file gets elsewhere.
pub(crate) fn mode(_: &Metadata) -> u32 {
    0o600
}

/// Files have no number that can be asked for without opening them.
pub(crate) fn inode(_: &Metadata) -> u64 {
    0
}

/// There are none to set.
pub(crate) fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

/// There are none to set.
pub(crate) fn set_mode_at(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

/// Owners come from the directory.
pub(crate) fn take_owner(_: &File, _: &Metadata) {}

/// NTFS writes renames into its journal in their order; a directory cannot be flushed.
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Opens a file whose content or time is about to become durable: only what may be written can be flushed.
pub(crate) fn open_to_sync(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Nothing here changes two names in one step.
pub(crate) fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes `link` a link to `target`, which may not exist.
pub(crate) fn link_file(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

/// Makes `link` a link to the directory `target`. Not everybody may.
pub(crate) fn link_directory(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_dir(target, link)
}

/// The space where `path` lies.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let found = win32::space(path)?;
    Ok(Space {
        total: found.total,
        free: found.free,
        available: found.available,
    })
}

/// Version of the kernel.
pub(crate) fn kernel() -> String {
    let (major, minor, build) = win32::version();
    format!("{major}.{minor}.{build}")
}

/// Ends this process as a power cut would: in debug builds, for tests.
#[cfg(debug_assertions)]
pub(crate) fn die() {
    std::process::abort();
}

/// What asks this process to end: keys and the end of a session in a console, a stop of the service.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: CtrlC,
    abort: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Signals {
    /// Hears them from now on. Within a runtime.
    pub(crate) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: tokio::signal::windows::ctrl_c()?,
            abort: tokio::signal::windows::ctrl_break()?,
            close: tokio::signal::windows::ctrl_close()?,
            shutdown: tokio::signal::windows::ctrl_shutdown()?,
        })
    }

    /// Waits for one and returns its name. May be dropped at any time.
    pub(crate) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "CTRL-C",
            _ = self.abort.recv() => "CTRL-BREAK",
            _ = self.close.recv() => "the end of the console",
            _ = self.shutdown.recv() => "the end of the system",
            () = crate::service::stop_asked() => "a stop of the service",
        }
    }
}
