//! Follows the log of one container for as long as it runs, across hiccups of the daemon, each line once.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::engine::{ContainerStatus, Engine, LogLine, LogRange};

use super::ring;

/// Pause before looking again after a stream ended.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Text handed on at once, bytes; more only in a single line.
const PORTION: usize = 256 << 10;

/// The last line that was handed on. A container of the same name but another id has a log of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    container_id: String,
    /// Since 1970.
    nanoseconds: u64,
}

/// What the pipeline receives.
#[derive(Debug)]
pub(super) enum Followed {
    /// `cursor` is that of the last one.
    Lines {
        topic: Arc<str>,
        container: Arc<str>,
        lines: Vec<String>,
        cursor: Option<Cursor>,
    },
    /// Nothing follows for this topic any more.
    Ended { topic: Arc<str> },
}

pub(super) struct Follower {
    pub(super) engine: Engine,
    /// Whom the lines are for.
    pub(super) topic: Arc<str>,
    pub(super) container: Arc<str>,
    /// Goes before every line.
    pub(super) prefix: String,
    pub(super) cursor: Option<Cursor>,
    /// When the history was cleared (nanoseconds since 1970), just before the app was started: a log without cursor
    /// is read from there on. Otherwise the app ran before we did, and of its log only the end is wanted (L8).
    pub(super) since: Option<u64>,
    /// Full: we stop reading, and the daemon keeps the rest.
    pub(super) out: mpsc::Sender<Followed>,
}

impl Follower {
    /// Runs until the container is gone or does not run any more and all it printed was handed on. A daemon that does
    /// not answer is waited for.
    pub(super) async fn run(mut self) {
        self.follow().await;
        let Follower { topic, out, .. } = self;
        // The pipeline is gone: shutdown.
        let _ = out.send(Followed::Ended { topic }).await;
    }

    /// The same without a last word.
    pub(super) async fn follow(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.engine.inspect(&self.container).await {
                Ok(None) => break,
                Ok(Some(facts)) => {
                    let running = match facts.status {
                        ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting => {
                            true
                        }
                        ContainerStatus::Created
                        | ContainerStatus::Removing
                        | ContainerStatus::Exited
                        | ContainerStatus::Dead
                        | ContainerStatus::Unknown => false,
                    };
                    // Also after the end: a daemon may close a followed log before the last words are in it.
                    if self.read(&facts.id, running).await {
                        pause = FIRST_PAUSE;
                    }
                    if !running {
                        break;
                    }
                }
                Err(error) => tracing::debug!(container = %self.container, %error, "log follower waits"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads one stream to its end. Says whether a line came.
    async fn read(&mut self, id: &str, follow: bool) -> bool {
        let mut range = LogRange {
            follow,
            timestamps: true,
            ..LogRange::default()
        };
        match (&self.cursor, self.since) {
            // Not beyond now: after the clock was set back, "since" would hide all that is printed until it gets there.
            (Some(cursor), _) if cursor.container_id == id => {
                range.since = Some(docker_time((cursor.nanoseconds + 1).min(now())));
            }
            (_, Some(since)) => range.since = Some(docker_time(since)),
            (_, None) => range.tail = u32::try_from(ring::ENTRIES).ok(),
        }
        let mut receiver = self.engine.logs(&self.container, range);
        let mut came = false;
        let mut lines = Vec::new();
        let mut size = 0;
        loop {
            let next = match receiver.try_recv() {
                Ok(next) => Some(next),
                // Nothing ready: hand on what there is, then wait.
                Err(_) => {
                    size = 0;
                    if !self.hand_on(&mut lines).await {
                        return came;
                    }
                    receiver.recv().await
                }
            };
            let line = match next {
                Some(Ok(line)) => line,
                Some(Err(error)) => {
                    tracing::debug!(container = %self.container, %error, "log stream broke");
                    return came;
                }
                None => return came,
            };
            came = true;
            let LogLine { timestamp, text } = line;
            if let Some(nanoseconds) = timestamp.as_deref().and_then(nanoseconds) {
                self.cursor = Some(Cursor {
                    container_id: id.to_owned(),
                    nanoseconds,
                });
            }
            size += text.len();
            lines.push(if self.prefix.is_empty() {
                text
            } else {
                format!("{}{text}", self.prefix)
            });
            if size >= PORTION {
                size = 0;
                if !self.hand_on(&mut lines).await {
                    return came;
                }
            }
        }
    }

    /// `false` when the pipeline is gone.
    async fn hand_on(&self, lines: &mut Vec<String>) -> bool {
        if lines.is_empty() {
            return true;
        }
        let followed = Followed::Lines {
            topic: Arc::clone(&self.topic),
            container: Arc::clone(&self.container),
            lines: std::mem::take(lines),
            cursor: self.cursor.clone(),
        };
        self.out.send(followed).await.is_ok()
    }
}

/// Now, in nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

fn nanoseconds(timestamp: &str) -> Option<u64> {
    let moment: jiff::Timestamp = timestamp.parse().ok()?;
    u64::try_from(moment.as_nanosecond()).ok()
}

fn docker_time(nanoseconds: u64) -> String {
    format!(
        "{}.{:09}",
        nanoseconds / 1_000_000_000,
        nanoseconds % 1_000_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_the_way_to_docker_and_back() {
        assert_eq!(
            nanoseconds("2026-08-04T09:12:04.000000042Z")
                .map(docker_time)
                .as_deref(),
            Some("1785834724.000000042")
        );
        assert_eq!(nanoseconds("hello"), None);
    }
}
