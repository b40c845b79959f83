//! Power cuts on purpose, for tests: a debug build kills itself before or after a named step that leaves something
//! behind (a commit, a change in Docker). Not in release builds.
//!
//! A point is called `before STEP` or `after STEP`; when a process comes by again, `before STEP 2` and so on.
//! `REAGENT_CRASH_AT` names the one at which the agent dies. Every point that is reached is appended as a line to the
//! file that `REAGENT_CRASH_LOG` names, so that a test knows that it has left none out.

/// The step begins here.
#[inline(always)]
pub(crate) fn before(step: &str) {
    #[cfg(debug_assertions)]
    on_purpose::point("before", step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

/// The step has ended here, well or not.
#[inline(always)]
pub(crate) fn after(step: &str) {
    #[cfg(debug_assertions)]
    on_purpose::point("after", step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

#[cfg(debug_assertions)]
mod on_purpose {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::{Mutex, OnceLock, PoisonError};

    #[derive(Default)]
    struct Points {
        /// Where the agent dies; empty: nowhere.
        at: String,
        log: Option<File>,
        passed: Mutex<BTreeMap<String, u32>>,
    }

    static POINTS: OnceLock<Points> = OnceLock::new();

    pub(super) fn point(when: &str, step: &str) {
        let points = POINTS.get_or_init(|| Points {
            at: std::env::var("REAGENT_CRASH_AT").unwrap_or_default(),
            log: std::env::var_os("REAGENT_CRASH_LOG")
                .and_then(|path| File::options().create(true).append(true).open(path).ok()),
            passed: Mutex::default(),
        });
        if points.at.is_empty() && points.log.is_none() {
            return;
        }
        // Held until the end: who comes second waits, or dies here.
        let mut passed = points.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = format!("{when} {step}");
        let times = passed.entry(name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            name = format!("{name} {times}");
        }
        if let Some(mut log) = points.log.as_ref() {
            let _ = log.write_all(format!("{name}\n").as_bytes());
        }
        if name == points.at {
            crate::os::die();
            loop {
                std::thread::park();
            }
        }
    }
}
