//! The agent's own log (`logs-terminal-tunnel.md` 2.14, `session-and-api.md` 1.6, 1.7): JSON lines in a size-capped
//! file, start-up lines on stdout, with `-prettyLogging` all lines on stdout too. A log that cannot be written never
//! stops the agent. Must not know what is logged; secrets are masked by whoever logs ([`Masked`]).
//!
//! Lines are written where they arise, one `write` each, without a queue: the agent writes a few lines per minute, a
//! write to the page cache takes microseconds, and a crash then loses no line and a flood needs no memory.

mod file;
mod limit;
mod line;
pub mod query;

use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt as _};

pub use file::LogPlace;
pub use limit::{Limiter, Verdict};

use crate::local_time;
use crate::settings::Settings;
use file::LogFile;
use line::Line;

/// Target of the start-up lines of 1.6: `tracing::info!(target: journal::START_UP, "Connected!")` appears on stdout as
/// plain text (with `-prettyLogging` in console format) and in the log file either way (weakness R36).
pub const START_UP: &str = "reagent::start_up";

/// Makes the log of this process as `settings` say. Call once; what cannot be done is said on stderr.
pub fn start(settings: &Settings) {
    let (place, renamed) = LogPlace::of(settings);
    if renamed {
        complain(&format!(
            "a log file of that name in -agentDir would be taken for an agent binary, logging to {} instead",
            place.file.display()
        ));
    }
    let log = LogFile::open(place);
    if tracing::subscriber::set_global_default(subscriber(settings, log)).is_err() {
        complain("the log was already set up");
    }
    let early = EARLY.lock().unwrap_or_else(PoisonError::into_inner).take();
    for complaint in early.unwrap_or_default() {
        tracing::warn!("{complaint}");
    }
}

/// One plain line on stdout and nowhere else; a closed stdout is nobody's problem.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// One plain line on stderr, for what happens before or outside of the log (weakness R35). What was said before the log
/// opened goes there, too: where nobody reads stderr, the log can still be asked for.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "reagent: {text}");
    if let Some(early) = EARLY.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        && early.len() < EARLY_COMPLAINTS
    {
        early.push(text.to_owned());
    }
}

/// As many are kept; a launcher, which never opens a log, keeps the first ones in vain.
const EARLY_COMPLAINTS: usize = 32;

/// What was complained about before the log opened; `None`: it is open.
static EARLY: Mutex<Option<Vec<String>>> = Mutex::new(Some(Vec::new()));

/// An error with its causes, `what: cause: cause`.
#[derive(Debug)]
pub struct Chain<'a, E: ?Sized>(pub &'a E);

impl<E: Error + ?Sized> fmt::Display for Chain<'_, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A secret in a log line: shows only whether there is one.
pub struct Masked<'a>(pub &'a str);

impl fmt::Display for Masked<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "(empty)" } else { "(masked)" })
    }
}

impl fmt::Debug for Masked<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

fn subscriber(settings: &Settings, log: LogFile) -> impl Subscriber + Send + Sync + use<> {
    let most = if settings.debug { Level::DEBUG } else { Level::INFO };
    let messaging = settings.debug && settings.debug_messaging;
    let wanted = filter_fn(move |metadata| is_wanted(metadata, most, messaging))
        .with_max_level_hint(LevelFilter::from_level(most));
    tracing_subscriber::registry()
        .with(wanted)
        .with(FileLayer { log: Mutex::new(log) })
        .with(ConsoleLayer {
            pretty: settings.pretty_logging,
        })
}

/// Our own lines up to `most`, the WAMP client's debug lines with `-debugMessaging`, of libraries warnings only.
fn is_wanted(metadata: &Metadata<'_>, most: Level, messaging: bool) -> bool {
    let room = metadata.target().split("::").next().unwrap_or_default();
    let limit = match room {
        "reagent" | "protocol" => most,
        "wamp" if messaging => Level::DEBUG,
        "wamp" => Level::INFO,
        _ => Level::WARN,
    };
    *metadata.level() <= limit
}

/// Every line as JSON into the log file.
struct FileLayer {
    log: Mutex<LogFile>,
}

impl<S: Subscriber> Layer<S> for FileLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = Line::of(event, &local_time::now()).to_json();
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&line);
    }
}

/// Lines for people on stdout: all of them when `pretty`, else the start-up lines without decoration.
struct ConsoleLayer {
    pretty: bool,
}

impl<S: Subscriber> Layer<S> for ConsoleLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if self.pretty {
            say(&Line::of(event, &local_time::now()).to_console());
        } else if event.metadata().target() == START_UP {
            say(&Line::of(event, &local_time::now()).message);
        }
    }
}

#[cfg(test)]
mod tests;
