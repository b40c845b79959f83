//! Follows all containers of a compose project (weakness L4): one follower per container, told by the daemon's events
//! when to look again. Knows nothing of apps and of what becomes of the lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::{ContainerFacts, Engine};

use super::cursor::Cursor;
use super::follower::{self, Followed, Follower};
use super::ledger;
use super::news::{Moved, News};

/// Labels that compose puts on what it makes.
pub(super) const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const NUMBER: &str = "com.docker.compose.container-number";
/// `True` on the container of a `compose run`, which `compose logs` does not show either.
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// Pause before a list that the daemon did not give is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// The watch over one project.
pub(super) struct Project {
    pub(super) engine: Engine,
    /// Its name, as in the label.
    pub(super) project: String,
    /// Whom the lines are for.
    pub(super) topic: Arc<str>,
    /// Where the logs were read to, by container; those of other containers do no harm.
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// How far viewers have them, where that differs.
    pub(super) published: BTreeMap<String, Cursor>,
    /// As in [`Follower`]; containers that come later are read from when the watch began.
    pub(super) since: Option<u64>,
    pub(super) news: News,
    /// Cancelled: what was printed until now is read, then it is over.
    pub(super) finish: CancellationToken,
    /// Full: followers stop reading, and the daemon keeps the rest.
    pub(super) out: mpsc::Sender<Followed>,
}

/// A container of the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Followed,
    /// Something happened to it since its follower was started.
    Again,
    /// Read to its end.
    Read,
}

impl Project {
    /// Runs until no container of the project is left, or until it is to finish. A daemon that does not answer is waited
    /// for.
    pub(super) async fn run(mut self) {
        let began = follower::now();
        let listened = self.published.remove(ledger::SINCE);
        // Heard before the first look: nothing happens unheard in between.
        let mut news = self.news.hearer();
        let mut followers: JoinSet<(String, Option<Cursor>)> = JoinSet::new();
        let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
        let mut first = true;
        let mut looked = false;
        // Something happened to these since the last look.
        let mut moved = BTreeSet::new();
        let mut failed = false;
        let mut finishing = false;
        loop {
            tokio::select! {
                biased;
                () = std::future::ready(()), if !looked => looked = true,
                () = self.finish.cancelled(), if !finishing => {
                    finishing = true;
                    // Whoever was read to the end may have been started again since.
                    let read = watched.iter().filter(|(_, state)| **state == Watched::Read);
                    moved.extend(read.map(|(name, _)| name.clone()));
                }
                event = news.next(), if !finishing => match event {
                    Moved::All => moved.extend(watched.keys().cloned()),
                    Moved::One(name) => drop(moved.insert(name.to_string())),
                },
                Some(ended) = followers.join_next() => {
                    let Ok((name, cursor)) = ended else { continue };
                    let before = watched.insert(name.clone(), Watched::Read);
                    if let Some(cursor) = cursor {
                        self.cursors.insert(name.clone(), cursor);
                    }
                    if before == Some(Watched::Again) && !finishing {
                        moved.insert(name);
                    }
                }
                () = sleep(RETRY), if failed => {}
            }
            let containers = match self.engine.list_labelled(PROJECT, &self.project).await {
                Ok(containers) => containers,
                Err(error) => {
                    tracing::debug!(project = %self.project, %error, "compose project not listed");
                    failed = true;
                    continue;
                }
            };
            failed = false;
            if containers.is_empty() && followers.is_empty() {
                break;
            }
            watched.retain(|name, state| {
                *state != Watched::Read || containers.iter().any(|facts| facts.name == *name)
            });
            for facts in containers {
                let state = watched.get(&facts.name).copied();
                let news = moved.contains(&facts.name);
                match state {
                    None => {}
                    Some(Watched::Read) if news => {}
                    Some(Watched::Followed) if news => {
                        watched.insert(facts.name, Watched::Again);
                        continue;
                    }
                    Some(Watched::Followed | Watched::Again | Watched::Read) => continue,
                }
                let Some(prefix) = prefix(&facts) else { continue };
                let mut follower = Follower::new(
                    self.engine.clone(),
                    Arc::clone(&self.topic),
                    &facts.name,
                    &self.news,
                    self.out.clone(),
                )
                .with_prefix(prefix)
                .until(self.finish.clone())
                .from(
                    self.cursors.get(&facts.name).cloned(),
                    self.published.remove(&facts.name).or_else(|| listened.clone()),
                    if first { self.since } else { Some(began) },
                );
                watched.insert(facts.name.clone(), Watched::Followed);
                followers.spawn(async move {
                    let cursor = follower.follow().await;
                    (facts.name, cursor)
                });
            }
            first = false;
            moved.clear();
            if finishing && followers.is_empty() {
                break;
            }
        }
        // The pipeline is gone: shutdown.
        let _ = self.out.send(Followed::Ended { topic: self.topic }).await;
    }
}

/// What `docker compose logs` writes before the lines of a container (`logs-terminal-tunnel.md` 2.6). Not padded to the
/// longest name: the same line looks the same however many services there are. `None` for what is no service.
pub(super) fn prefix(facts: &ContainerFacts) -> Option<String> {
    let label = |name: &str| facts.labels.get(name).map(String::as_str);
    if label(ONE_OFF).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    Some(match (label(SERVICE), label(NUMBER)) {
        (Some(service), Some(number)) => format!("{service}-{number}  | "),
        (Some(service), None) => format!("{service}  | "),
        (None, _) => format!("{}  | ", facts.name),
    })
}
