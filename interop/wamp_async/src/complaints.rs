//! What wamp_async logs as a warning or an error. It returns nothing when a router sends a message that it did not ask
//! for; the log is the only place where that shows.

use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Ear;

impl Log for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wamp_async")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            heard().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Starts listening. Once per process.
pub(crate) fn listen() -> Result<(), SetLoggerError> {
    log::set_logger(&Ear)?;
    log::set_max_level(LevelFilter::Warn);
    Ok(())
}

/// Everything since the last time.
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut *heard())
}

fn heard() -> std::sync::MutexGuard<'static, Vec<String>> {
    HEARD.lock().expect("nobody panics while it is held")
}
