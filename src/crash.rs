//! Power cuts on purpose, for tests: with `REAGENT_CRASH_AT=n` in its environment a debug build kills itself at the n-th
//! step that leaves something behind (a commit, a change in Docker), before or after it. Not in release builds.

/// A step begins or has ended here.
#[cfg(debug_assertions)]
pub(crate) fn point() {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: OnceLock<u64> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let at = *AT.get_or_init(|| {
        let text = std::env::var("REAGENT_CRASH_AT").unwrap_or_default();
        text.parse().unwrap_or(0)
    });
    if at > 0 && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == at {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn point() {}
