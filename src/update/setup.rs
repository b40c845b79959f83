//! What decides about updates besides the contract: keys and spans of time. The product's are compiled in; tests and
//! developers of releases put others into a JSON file that the environment names. Must not know what they are for.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::download::Patience;
use super::http::Limits;
use super::manifest::Keys;
use crate::link::Pauses;

/// Names the file. Whoever sets it decides which code runs here as root, as with the command line itself.
const VARIABLE: &str = "REAGENT_UPDATE_SETUP";

/// Keys and spans of time.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(crate) keys: Keys,
    /// The first check comes within this time, at a place that depends on the serial number (F1).
    pub(crate) start_delay: Duration,
    /// Between checks, half of it more or less (F1).
    pub(crate) period: Duration,
    /// Pauses after checks that came to nothing because the bucket could not be reached (U10).
    pub(crate) retry: Pauses,
    /// An update that nobody asked for waits for the end of long work of the device (R4): how often it looks, and at the
    /// most.
    pub(crate) idle_look: Duration,
    pub(crate) idle_limit: Duration,
    /// A new version has this long to prove itself while the router can be reached (R2).
    pub(crate) proof: Duration,
    /// A start of a new version that could not reach the router for so long does not count as one of its three.
    pub(crate) outage: Duration,
    /// A version beside its launcher that has said nothing for so long hangs, whether it is on trial or has proven
    /// itself.
    pub(crate) silence: Duration,
    /// A version that has not proven itself for so long looks for a newer one all the same: it may be what keeps the
    /// device from connecting (R9).
    pub(crate) isolation: Duration,
    /// A staged version that nobody has started for so long makes room for others.
    pub(crate) ignored: Duration,
    /// Between looks at a version under test.
    pub(crate) tick: Duration,
    /// Between the staging of a version and its start: the answer to `update_agent` has to leave.
    pub(crate) activation: Duration,
    /// For `--version` (U2).
    pub(crate) version_run: Duration,
    pub(crate) limits: Limits,
    pub(crate) patience: Patience,
    /// In place of the link's own.
    pub(crate) heartbeat: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            keys: Keys::compiled_in(),
            start_delay: Duration::from_secs(10 * 60),
            period: Duration::from_secs(6 * 60 * 60),
            retry: Pauses {
                first: Duration::from_secs(60),
                cap: Duration::from_secs(30 * 60),
            },
            idle_look: Duration::from_secs(60),
            idle_limit: Duration::from_secs(60 * 60),
            proof: Duration::from_secs(10 * 60),
            outage: Duration::from_secs(60),
            silence: Duration::from_secs(2 * 60),
            isolation: Duration::from_secs(15 * 60),
            ignored: Duration::from_secs(60 * 60),
            tick: Duration::from_secs(5),
            activation: Duration::from_secs(2),
            version_run: Duration::from_secs(5),
            limits: Limits::default(),
            patience: Patience {
                total: Duration::from_secs(30 * 60),
                pauses: Pauses {
                    first: Duration::from_secs(2),
                    cap: Duration::from_secs(60),
                },
            },
            heartbeat: None,
        }
    }
}

/// The file: everything in it is optional, spans are milliseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    /// minisign public key files.
    keys: Vec<String>,
    start_delay: Option<u64>,
    period: Option<u64>,
    retry: Option<u64>,
    proof: Option<u64>,
    outage: Option<u64>,
    silence: Option<u64>,
    isolation: Option<u64>,
    ignored: Option<u64>,
    tick: Option<u64>,
    activation: Option<u64>,
    version_run: Option<u64>,
    idle: Option<u64>,
    total: Option<u64>,
    pause: Option<u64>,
    heartbeat: Option<u64>,
}

/// Why there is no setup.
#[derive(Debug, thiserror::Error)]
#[error("the file {path} that {VARIABLE} names cannot be used")]
pub struct SetupError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Setup {
    /// The product's, or the developer's if the environment names a file.
    pub fn from_environment() -> Result<Setup, SetupError> {
        let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            return Ok(Setup::default());
        };
        std::fs::read(&path)
            .and_then(|content| serde_json::from_slice(&content).map_err(std::io::Error::other))
            .map(File::into_setup)
            .map_err(|source| SetupError { path, source })
    }
}

impl File {
    fn into_setup(self) -> Setup {
        let mut setup = Setup::default();
        if !self.keys.is_empty() {
            setup.keys = Keys::read(self.keys.iter().map(String::as_str));
        }
        let set = |span: &mut Duration, given: Option<u64>| {
            if let Some(milliseconds) = given {
                *span = Duration::from_millis(milliseconds);
            }
        };
        set(&mut setup.start_delay, self.start_delay);
        set(&mut setup.period, self.period);
        set(&mut setup.retry.first, self.retry);
        set(&mut setup.retry.cap, self.retry);
        set(&mut setup.proof, self.proof);
        set(&mut setup.outage, self.outage);
        set(&mut setup.silence, self.silence);
        set(&mut setup.isolation, self.isolation);
        set(&mut setup.ignored, self.ignored);
        set(&mut setup.tick, self.tick);
        set(&mut setup.activation, self.activation);
        set(&mut setup.version_run, self.version_run);
        set(&mut setup.limits.idle, self.idle);
        set(&mut setup.patience.total, self.total);
        set(&mut setup.patience.pauses.first, self.pause);
        set(&mut setup.patience.pauses.cap, self.pause);
        setup.heartbeat = self.heartbeat.map(Duration::from_millis);
        setup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/SPECIFICATION.md` states them.
    #[test]
    fn the_product_keeps_its_stated_times() {
        let setup = Setup::default();
        let minutes = |span: Duration| span.as_secs_f64() / 60.0;
        let stated = [
            (setup.start_delay, 10.0),
            (setup.period, 360.0),
            (setup.retry.first, 1.0),
            (setup.retry.cap, 30.0),
            (setup.idle_look, 1.0),
            (setup.idle_limit, 60.0),
            (setup.proof, 10.0),
            (setup.outage, 1.0),
            (setup.silence, 2.0),
            (setup.isolation, 15.0),
            (setup.ignored, 60.0),
            (setup.patience.total, 30.0),
            (setup.limits.idle, 0.5),
        ];
        for (span, stated) in stated {
            assert!(
                (minutes(span) - stated).abs() < f64::EPSILON,
                "{span:?} is not {stated} min"
            );
        }
    }

    #[test]
    fn a_developers_file_changes_what_it_names_and_nothing_else() {
        let file: File = serde_json::from_str(r#"{"proof": 1500, "idle": 20}"#).unwrap();
        let setup = file.into_setup();
        assert_eq!(setup.proof, Duration::from_millis(1500));
        assert_eq!(setup.limits.idle, Duration::from_millis(20));
        assert_eq!(setup.period, Setup::default().period);
        serde_json::from_str::<File>(r#"{"prof": 1500}"#).unwrap_err();
    }
}
