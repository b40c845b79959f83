//! The task that owns all log state: histories, what waits to be published, gates, followers.
//!
//! Waits for nobody: the store is written, the router asked and messages are sent by tasks of their own, which end
//! with this one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wamp::client::Session;

use crate::engine::Engine;
use crate::store::{LogHistory, Store};

use super::batch::{Batch, MESSAGE};
use super::follower::{self, Cursor, Followed, Follower};
use super::listeners::{self, Gate};
use super::lost::Lost;
use super::project::Project;
use super::publisher::{self, Outgoing};
use super::ring::Ring;
use super::shelf::{CURSORS, Shelf};
use super::{Container, Source};

/// Output waits so long for company (`logs-terminal-tunnel.md` 2.7).
const FLUSH: Duration = Duration::from_millis(200);
/// A changing history is saved so often: flash wears, and the container's own log holds the rest (L13).
const SAVE: Duration = Duration::from_secs(30);
/// Bound of reading what an earlier run stored.
const RESTORE: Duration = Duration::from_secs(2);
/// Topics to ask the router for. An app is asked for once per session.
const ASKED: usize = 1024;
/// News about gates. Full: the watch waits for us.
const GATES: usize = 64;
/// Portions of followed lines. Full: followers stop reading.
const FOLLOWED: usize = 4;
/// Apps of which we remember where their log was read to.
const MAX_CURSORS: usize = 256;

/// What the handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    AgentLine {
        container: Container,
        text: String,
    },
    OutputLine {
        container: Container,
        line: String,
    },
    ClearViewers(Container),
    ClearHistory(Container),
    Follow {
        container: Container,
        source: Source,
    },
    /// Answered with the lines and whether one of them is output; `None` when nothing is known.
    History {
        container: Container,
        reply: oneshot::Sender<Option<(Vec<String>, bool)>>,
    },
    Attach {
        session: Session,
        attached: oneshot::Sender<()>,
    },
    Close,
}

/// One app.
#[derive(Debug)]
struct Entry {
    container: Container,
    ring: Ring,
    batch: Batch,
    /// When what waits is to be published.
    due: Option<Instant>,
    /// When the history is to be saved; `None` when the stored one is the same.
    save_at: Option<Instant>,
    listened: bool,
    following: Following,
    /// When the history was last cleared, nanoseconds since 1970.
    cleared: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Following {
    No,
    Yes,
    /// Asked for again meanwhile: the container may have been started anew.
    Again(Source),
}

/// The connection of the moment.
struct Attached {
    session: Session,
    always_open: bool,
    asked: mpsc::Sender<String>,
    gates: mpsc::Receiver<Gate>,
    /// Told when the first questions are answered.
    waiting: Option<oneshot::Sender<()>>,
}

pub(super) struct Pipeline {
    serial: Arc<str>,
    store: Store,
    engine: Engine,
    lost: Lost,
    shelf: Shelf,
    entries: BTreeMap<String, Entry>,
    cursors: BTreeMap<String, Cursor>,
    attached: Option<Attached>,
    followed: mpsc::Sender<Followed>,
    followers: JoinSet<()>,
    /// One per session; the one before ends when its channels are dropped.
    watches: JoinSet<()>,
}

impl Pipeline {
    pub(super) fn new(serial: Arc<str>, store: Store, engine: Engine, lost: Lost) -> Pipeline {
        Pipeline {
            serial,
            store,
            engine,
            lost,
            shelf: Shelf::default(),
            entries: BTreeMap::new(),
            cursors: BTreeMap::new(),
            attached: None,
            // Replaced when the loop begins.
            followed: mpsc::channel(1).0,
            followers: JoinSet::new(),
            watches: JoinSet::new(),
        }
    }

    /// Runs until closed, or until every handle is gone; then saves the histories. With `stop` the followers end, while
    /// what the parts of the agent say during their own shutdown is still taken.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let written = CancellationToken::new();
        let shelf = self.shelf.clone();
        let writer = tokio::spawn(shelf.write(self.store.clone(), written.clone()));
        let (outgoing, queue) = mpsc::channel(publisher::QUEUE);
        let publisher = tokio::spawn(publisher::run(queue, self.lost.clone()));
        let (followed, mut lines) = mpsc::channel(FOLLOWED);
        self.followed = followed;
        self.restore_cursors().await;
        let mut stopping = false;

        loop {
            let now = Instant::now();
            self.save_due(now);
            self.notice_loss_of_session();
            let ready = self
                .entries
                .values()
                .any(|entry| entry.due.is_some_and(|due| due <= now));
            let next = self.next_deadline(now);
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.followers.abort_all();
                }
                place = outgoing.reserve(), if ready => match place {
                    Ok(place) => self.publish_next(place),
                    // Cannot be: the publisher ends after us.
                    Err(_) => break,
                },
                Some(gate) = next_gate(&mut self.attached) => self.on_gate(gate),
                command = commands.recv() => match command {
                    Some(Command::Close) | None => break,
                    Some(command) => self.on_command(command).await,
                },
                Some(followed) = lines.recv() => self.on_followed(followed),
                Some(_) = self.followers.join_next() => {}
                Some(_) = self.watches.join_next() => {}
                () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
        }

        self.followers.shutdown().await;
        self.watches.shutdown().await;
        drop(outgoing);
        publisher.abort();
        self.save_all();
        written.cancel();
        let _ = writer.await;
    }

    async fn restore_cursors(&mut self) {
        let stored = tokio::time::timeout(RESTORE, self.store.fact(CURSORS)).await;
        if let Ok(Ok(Some(text))) = stored {
            // Unreadable: the end of each log is read again.
            self.cursors = serde_json::from_str(&text).unwrap_or_default();
        }
    }

    /// Messages' worth of lines that wait to be published for a container.
    #[cfg(test)]
    pub(super) fn waiting(&mut self, name: &str) -> usize {
        let batch = &mut self.entries.get_mut(name).expect("a known app").batch;
        std::iter::from_fn(|| batch.take()).count()
    }

    pub(super) async fn on_command(&mut self, command: Command) {
        match command {
            Command::AgentLine { container, text } => {
                let live = self.is_live();
                let entry = self.entry(container, true).await;
                entry.ring.push_agent(text.clone());
                entry.changed();
                if live {
                    entry.batch.push_agent(text);
                    entry.due = Some(Instant::now());
                }
            }
            Command::OutputLine { container, line } => {
                let name = self.entry(container, true).await.container.name.clone();
                self.output(&name, vec![line]);
            }
            Command::ClearViewers(container) => {
                let live = self.is_live();
                let entry = self.entry(container, true).await;
                if live {
                    entry.batch.push_agent("LOGGER_CLEAR".to_owned());
                    entry.due = Some(Instant::now());
                }
            }
            Command::ClearHistory(container) => {
                let entry = self.entry(container, false).await;
                entry.ring.clear();
                entry.changed();
                entry.cleared = Some(follower::now());
                let name = entry.container.name.clone();
                self.cursors.remove(&name);
            }
            Command::Follow { container, source } => {
                let entry = self.entry(container, true).await;
                match entry.following {
                    Following::No => {
                        let name = entry.container.name.clone();
                        self.follow(&name, source);
                    }
                    Following::Yes | Following::Again(_) => entry.following = Following::Again(source),
                }
            }
            Command::History { container, reply } => {
                let entry = self.entries.get(&container.name);
                let history = entry
                    .map(|entry| (entry.ring.lines(), entry.ring.has_output()))
                    .filter(|(lines, _)| !lines.is_empty());
                // Nobody waits any more: the caller's deadline passed.
                let _ = reply.send(history);
            }
            Command::Attach { session, attached } => self.attach(session, attached),
            Command::Close => {}
        }
    }

    /// The entry of an app, made when it is new. `restore`: with the lines that an earlier run of the agent stored.
    async fn entry(&mut self, container: Container, restore: bool) -> &mut Entry {
        let name = container.name.clone();
        if !self.entries.contains_key(&name) {
            let mut ring = Ring::default();
            if restore && container.is_stored() {
                let stored = tokio::time::timeout(RESTORE, self.store.log_history(container.app)).await;
                if let Ok(Ok(lines)) = stored {
                    ring.restore(lines);
                }
            }
            if let Some(attached) = &self.attached
                && attached.asked.try_send(name.clone()).is_err()
            {
                tracing::debug!(container = %name, "not asked for listeners");
            }
            let entry = Entry {
                container,
                ring,
                batch: Batch::default(),
                due: None,
                save_at: None,
                listened: false,
                following: Following::No,
                cleared: None,
            };
            self.entries.insert(name.clone(), entry);
        }
        self.entries
            .get_mut(&name)
            .expect("inserted above when it was missing")
    }

    /// Lines that a container or an operation printed.
    fn output(&mut self, name: &str, lines: Vec<String>) {
        let listened = self.is_live()
            && self
                .attached
                .as_ref()
                .is_some_and(|attached| attached.always_open);
        let live = self.is_live();
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let lost = self.lost.take(name);
        let open = live && (listened || entry.listened);
        if open {
            entry.batch.note_dropped(lost);
        }
        for line in lines {
            if open {
                entry.batch.push_output(line.clone());
            }
            entry.ring.push_output(line);
        }
        entry.changed();
        if open {
            let now = Instant::now();
            let soon = if entry.batch.bytes() >= MESSAGE {
                now
            } else {
                now + FLUSH
            };
            entry.due = Some(entry.due.map_or(soon, |due| due.min(soon)));
        }
    }

    fn on_followed(&mut self, followed: Followed) {
        match followed {
            Followed::Lines {
                topic,
                container,
                lines,
                cursor,
            } => {
                self.output(&topic, lines);
                if let Some(cursor) = cursor {
                    self.cursors.insert(container.to_string(), cursor);
                    if self.cursors.len() > MAX_CURSORS {
                        self.cursors.pop_first();
                    }
                }
            }
            Followed::Ended { topic } => {
                let Some(entry) = self.entries.get_mut(&*topic) else {
                    return;
                };
                // What the app said last is worth most.
                if entry.save_at.is_some() {
                    entry.save_at = Some(Instant::now());
                }
                if let Following::Again(source) = std::mem::replace(&mut entry.following, Following::No) {
                    self.follow(&topic, source);
                }
            }
        }
    }

    fn follow(&mut self, name: &str, source: Source) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.following = Following::Yes;
        let topic: Arc<str> = Arc::from(name);
        match source {
            Source::Container => {
                let follower = Follower {
                    engine: self.engine.clone(),
                    container: Arc::clone(&topic),
                    topic,
                    prefix: String::new(),
                    cursor: self.cursors.get(name).cloned(),
                    since: entry.cleared,
                    out: self.followed.clone(),
                };
                self.followers.spawn(follower.run());
            }
            Source::Project(project) => {
                let project = Project {
                    engine: self.engine.clone(),
                    project,
                    topic,
                    cursors: self.cursors.clone(),
                    since: entry.cleared,
                    out: self.followed.clone(),
                };
                self.followers.spawn(project.run());
            }
        }
    }

    fn attach(&mut self, session: Session, waiting: oneshot::Sender<()>) {
        self.detach();
        let (asked, questions) = mpsc::channel(ASKED);
        let (news, gates) = mpsc::channel(GATES);
        let known = self.entries.keys().cloned().collect();
        self.watches.spawn(listeners::watch(
            session.clone(),
            self.serial.to_string(),
            known,
            questions,
            news,
        ));
        self.attached = Some(Attached {
            session,
            always_open: false,
            asked,
            gates,
            waiting: Some(waiting),
        });
    }

    /// Nobody can be reached: what waits is forgotten, gates are closed until the next session tells.
    fn detach(&mut self) {
        self.attached = None;
        for entry in self.entries.values_mut() {
            entry.listened = false;
            entry.batch.clear();
            entry.due = None;
        }
    }

    fn notice_loss_of_session(&mut self) {
        if self
            .attached
            .as_ref()
            .is_some_and(|attached| !attached.session.is_open())
        {
            self.detach();
        }
    }

    fn is_live(&self) -> bool {
        self.attached
            .as_ref()
            .is_some_and(|attached| attached.session.is_open())
    }

    fn on_gate(&mut self, gate: Gate) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        match gate {
            Gate::Topic { container, open } => {
                if let Some(entry) = self.entries.get_mut(&container) {
                    entry.listened = open;
                }
            }
            Gate::AlwaysOpen => attached.always_open = true,
            Gate::Attached => {
                if let Some(waiting) = attached.waiting.take() {
                    // The caller's deadline may have passed.
                    let _ = waiting.send(());
                }
            }
        }
    }

    /// Publishes one message of the app that has waited longest.
    fn publish_next(&mut self, place: mpsc::Permit<'_, Outgoing>) {
        let Some(attached) = &self.attached else {
            return;
        };
        let due = self.entries.values_mut().filter(|entry| entry.due.is_some());
        let Some(entry) = due.min_by_key(|entry| entry.due) else {
            return;
        };
        let message = entry.batch.take();
        // Behind the others, should more wait.
        entry.due = (!entry.batch.is_empty()).then(Instant::now);
        if let Some(message) = message {
            place.send(Outgoing {
                session: attached.session.clone(),
                serial: Arc::clone(&self.serial),
                container: entry.container.name.clone(),
                message,
            });
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let publish = self
            .entries
            .values()
            .filter_map(|entry| entry.due)
            .filter(|due| *due > now);
        let save = self.entries.values().filter_map(|entry| entry.save_at);
        publish.chain(save).min()
    }

    fn save_due(&mut self, now: Instant) {
        let mut any = false;
        for entry in self.entries.values_mut() {
            if entry.save_at.is_some_and(|at| at <= now) {
                entry.save(&self.shelf);
                any = true;
            }
        }
        if any {
            self.save_cursors();
        }
    }

    fn save_all(&mut self) {
        for entry in self.entries.values_mut() {
            if entry.save_at.is_some() {
                entry.save(&self.shelf);
            }
        }
        self.save_cursors();
    }

    fn save_cursors(&self) {
        if let Ok(text) = serde_json::to_string(&self.cursors) {
            self.shelf.save_cursors(text);
        }
    }
}

impl Entry {
    /// The history is not the stored one any more.
    fn changed(&mut self) {
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE);
    }

    fn save(&mut self, shelf: &Shelf) {
        self.save_at = None;
        if !self.container.is_stored() {
            return;
        }
        shelf.save(LogHistory {
            app: self.container.app,
            app_name: self.container.app_name.clone(),
            lines: self.ring.lines(),
        });
    }
}

/// News of the session's watch; waits for ever without one.
async fn next_gate(attached: &mut Option<Attached>) -> Option<Gate> {
    match attached {
        Some(attached) => match attached.gates.recv().await {
            Some(gate) => Some(gate),
            // It ended with the session, or because the router cannot tell.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
