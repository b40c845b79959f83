//! Calls of Windows behind safe functions: named mutexes, jobs, space on disks, memory, processor times, version. Must
//! not know what they are for.
#![cfg(windows)]

use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::path::Path;
use std::ptr::null;

use windows_sys::Wdk::System::SystemServices::RtlGetVersion;
use windows_sys::Win32::Foundation::{ERROR_ALREADY_EXISTS, FILETIME, GetLastError};
use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX, OSVERSIONINFOW};
use windows_sys::Win32::System::Threading::{CreateMutexW, GetCurrentProcess, GetSystemTimes};

/// A mutex of the whole machine that this process made; it goes with the process.
#[derive(Debug)]
pub struct NamedMutex {
    _handle: OwnedHandle,
}

impl NamedMutex {
    /// Makes it. `None`: there is one of that name already. An error of the kind `PermissionDenied` says that there is
    /// one which this process may not open, or that it may make none.
    pub fn create(name: &str) -> io::Result<Option<NamedMutex>> {
        let name = wide(name.as_ref());
        // SAFETY: the name ends with a zero and outlives the call; no security attributes are given.
        let handle = unsafe { CreateMutexW(null(), 0, name.as_ptr()) };
        // SAFETY: reads a value of this thread.
        let existed = unsafe { GetLastError() } == ERROR_ALREADY_EXISTS;
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle was just made for us and is given away nowhere else.
        let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
        Ok((!existed).then_some(NamedMutex { _handle: handle }))
    }
}

/// A job that ends its processes when it is closed, which it is at the latest when this process ends.
#[derive(Debug)]
pub struct Job {
    _handle: OwnedHandle,
}

impl Job {
    /// Puts this process, and so whatever it starts from now on, into a job. Dropping it ends this process.
    pub fn of_this_process() -> io::Result<Job> {
        // SAFETY: neither attributes nor a name are given.
        let raw = unsafe { CreateJobObjectW(null(), null()) };
        if raw.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle was just made for us and is given away nowhere else.
        let handle = unsafe { OwnedHandle::from_raw_handle(raw) };
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        let size = size_of_u32::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>();
        let given: *const JOBOBJECT_EXTENDED_LIMIT_INFORMATION = &limits;
        // SAFETY: the pointer leads to a structure of the kind and size that are named.
        let set = unsafe {
            SetInformationJobObject(
                handle.as_raw_handle(),
                JobObjectExtendedLimitInformation,
                given.cast(),
                size,
            )
        };
        checked(set)?;
        // SAFETY: a constant that needs no closing.
        let myself = unsafe { GetCurrentProcess() };
        // SAFETY: both handles are open.
        checked(unsafe { AssignProcessToJobObject(handle.as_raw_handle(), myself) })?;
        Ok(Job { _handle: handle })
    }
}

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub free: u64,
    /// Of these, what the caller may use.
    pub available: u64,
}

/// The space where `directory`, which exists, lies.
pub fn space(directory: &Path) -> io::Result<Space> {
    let name = wide(directory.as_os_str());
    let mut space = Space::default();
    // SAFETY: the name ends with a zero, and all pointers lead to values that outlive the call.
    let known = unsafe {
        GetDiskFreeSpaceExW(
            name.as_ptr(),
            &mut space.available,
            &mut space.total,
            &mut space.free,
        )
    };
    checked(known).map(|()| space)
}

/// Bytes of memory: all of it, and what programs may still have.
pub fn memory() -> io::Result<(u64, u64)> {
    let mut status = MEMORYSTATUSEX {
        dwLength: size_of_u32::<MEMORYSTATUSEX>(),
        ..MEMORYSTATUSEX::default()
    };
    // SAFETY: the structure says its own size.
    checked(unsafe { GlobalMemoryStatusEx(&mut status) })?;
    Ok((status.ullTotalPhys, status.ullAvailPhys))
}

/// Units of 100 ns that all processors together spent since the start of the machine: all, and those with work.
pub fn processor_times() -> io::Result<(u64, u64)> {
    let (mut idle, mut kernel, mut user) = (FILETIME::default(), FILETIME::default(), FILETIME::default());
    // SAFETY: all three pointers lead to values that outlive the call.
    checked(unsafe { GetSystemTimes(&mut idle, &mut kernel, &mut user) })?;
    let units = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    // Idle time is part of the kernel's.
    let total = units(kernel).saturating_add(units(user));
    Ok((total, total.saturating_sub(units(idle))))
}

/// Major, minor and build number, whatever the program's manifest says.
pub fn version() -> (u32, u32, u32) {
    let mut found = OSVERSIONINFOW {
        dwOSVersionInfoSize: size_of_u32::<OSVERSIONINFOW>(),
        ..OSVERSIONINFOW::default()
    };
    // SAFETY: the structure says its own size. The call cannot fail.
    unsafe { RtlGetVersion(&mut found) };
    (found.dwMajorVersion, found.dwMinorVersion, found.dwBuildNumber)
}

fn wide(text: &std::ffi::OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

fn checked(success: i32) -> io::Result<()> {
    match success {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}
