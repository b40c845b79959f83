//! The task that owns all log state: topics with their histories and listeners, and followers.
//!
//! Waits for nobody: the store is written, the router asked and messages are sent by tasks of their own, which end
//! with this one.

mod sending;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wamp::client::Session;

use crate::engine::Engine;
use crate::store::{LogHistory, Store};

use super::batch::Chunk;
use super::cursor::Cursor;
use super::entry::{Audience, Entry, Following};
use super::follower::{self, Followed, Follower};
use super::ledger::{self, Ledger, Published};
use super::listeners::{self, Gate};
use super::lost::Lost;
use super::news::News;
use super::project::Project;
use super::publisher::Sent;
use super::ring::Ring;
use super::shelf::{CURSORS, Shelf};
use super::spool::Spools;
use super::{Container, Source};

/// Bound of reading what an earlier run stored.
const RESTORE: Duration = Duration::from_secs(2);
/// Topics to ask the router for. An app is asked for once per session.
const ASKED: usize = 1024;
/// News about gates. Full: the watch waits for us.
const GATES: usize = 64;
/// Portions of followed lines. Full: followers stop reading.
const FOLLOWED: usize = 4;
/// Containers of which we remember where their log was read to.
const MAX_CURSORS: usize = 256;
/// Messages on their way, of as many topics. Further ones wait in their topic, which drops the oldest and says so.
const SENDING: usize = 8;

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
    spools: Spools,
    ledger: Ledger,
    /// What an earlier run published, until a follower goes on from there.
    before: Published,
    entries: BTreeMap<String, Entry>,
    cursors: BTreeMap<String, Cursor>,
    attached: Option<Attached>,
    followed: mpsc::Sender<Followed>,
    followers: JoinSet<()>,
    news: News,
    /// One per session; the one before ends when its channels are dropped. And the one of the daemon's events.
    watches: JoinSet<()>,
    sending: JoinSet<Sent>,
}

impl Pipeline {
    /// `directory`: where lines and positions may be kept that are worth nothing after a power cut.
    pub(super) fn new(
        serial: Arc<str>,
        store: Store,
        engine: Engine,
        lost: Lost,
        directory: Option<PathBuf>,
    ) -> Pipeline {
        let ledger = Ledger::open(directory.as_deref());
        Pipeline {
            serial,
            store,
            engine,
            lost,
            shelf: Shelf::default(),
            spools: Spools::in_directory(directory),
            before: ledger.published().clone(),
            ledger,
            entries: BTreeMap::new(),
            cursors: BTreeMap::new(),
            attached: None,
            // Replaced when the loop begins.
            followed: mpsc::channel(1).0,
            followers: JoinSet::new(),
            news: News::new(),
            watches: JoinSet::new(),
            sending: JoinSet::new(),
        }
    }

    /// Runs until closed, or until every handle is gone; then saves the histories. With `stop` the followers end, while
    /// what the parts of the agent say during their own shutdown is still taken.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let written = CancellationToken::new();
        let shelf = self.shelf.clone();
        let writer = tokio::spawn(shelf.write(self.store.clone(), written.clone()));
        let (followed, mut lines) = mpsc::channel(FOLLOWED);
        self.followed = followed;
        self.restore_cursors().await;
        let mut stopping = false;

        loop {
            let now = Instant::now();
            self.look_after_entries(now);
            self.notice_loss_of_session();
            while self.sending.len() < SENDING && self.send_next(now) {}
            let live = self.is_live();
            let deadlines = self.entries.values().filter_map(|entry| entry.deadline(live));
            // What is due already waits for a message to arrive.
            let next = deadlines.filter(|deadline| *deadline > now).min();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.followers.abort_all();
                }
                Some(sent) = self.sending.join_next() => self.on_sent(sent),
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
        self.finish_sending().await;
        self.ledger.save();
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

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::AgentLine { container, text } => {
                let name = self.entry(container, true).await;
                self.agent_line(&name, text.clone());
                let Some(entry) = self.entries.get_mut(&name) else {
                    return;
                };
                entry.ring.push_agent(text);
                entry.changed();
            }
            Command::OutputLine { container, line } => {
                let name = self.entry(container, true).await;
                self.output(&name, Chunk::line(line), true, true);
            }
            Command::ClearViewers(container) => {
                let name = self.entry(container, true).await;
                self.agent_line(&name, "LOGGER_CLEAR".to_owned());
            }
            Command::ClearHistory(container) => {
                let name = self.entry(container, false).await;
                let Some(entry) = self.entries.get_mut(&name) else {
                    return;
                };
                entry.ring.clear();
                let now = follower::now();
                entry.cleared = Some(now);
                // At once: should we be killed, the next run reads the new container's log from here.
                entry.save_at = Some(Instant::now());
                self.remember(name, Cursor::from_moment(now));
            }
            Command::Follow { container, source } => {
                let name = self.entry(container, true).await;
                self.follow_or_later(&name, source);
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

    /// Makes the entry of a topic when it is new. `restore`: with the lines that an earlier run of the agent stored.
    async fn entry(&mut self, container: Container, restore: bool) -> String {
        let name = container.name.clone();
        if self.entries.contains_key(&name) {
            return name;
        }
        let mut ring = Ring::default();
        if restore && container.is_stored() {
            let stored = tokio::time::timeout(RESTORE, self.store.log_history(container.app)).await;
            if let Ok(Ok(lines)) = stored {
                ring.restore(lines);
            }
        }
        let audience = match self.before.contains_key(&name) {
            true => Audience::Held,
            false => Audience::Nobody,
        };
        let mut entry = Entry::new(container, ring, audience);
        if let Some(attached) = &self.attached {
            if attached.always_open {
                entry.listened();
            } else if attached.asked.try_send(name.clone()).is_ok() {
                entry.asked();
            } else {
                tracing::debug!(container = %name, "not asked for listeners");
            }
        }
        self.entries.insert(name.clone(), entry);
        self.note_listeners(&name, false);
        name
    }

    fn agent_line(&mut self, name: &str, text: String) {
        let live = self.is_live();
        if let Some(entry) = self.entries.get_mut(name) {
            entry.gap(self.lost.gap(name), &self.spools);
            entry.agent_line(text, live, &self.spools);
        }
    }

    /// Lines that a container or an operation printed.
    fn output(&mut self, name: &str, chunk: Chunk, for_history: bool, for_viewers: bool) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.gap(self.lost.gap(name), &self.spools);
        if for_history {
            entry.ring.push_text(&chunk.text);
            entry.changed();
        }
        if for_viewers {
            entry.output(chunk, &self.spools);
        }
    }

    fn on_followed(&mut self, followed: Followed) {
        match followed {
            Followed::Lines {
                topic,
                chunk,
                read,
                for_history,
                for_viewers,
            } => {
                if let Some(entry) = self.entries.get_mut(&*topic) {
                    for mark in &chunk.marks {
                        if !entry.sources.contains(&mark.container) {
                            entry.sources.insert(mark.container.clone());
                        }
                    }
                }
                self.output(&topic, chunk, for_history, for_viewers);
                if let Some(mark) = read {
                    self.remember(mark.container, mark.cursor);
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
                    self.follow_or_later(&topic, source);
                }
            }
        }
    }

    fn remember(&mut self, container: String, cursor: Cursor) {
        self.cursors.insert(container, cursor);
        if self.cursors.len() > MAX_CURSORS {
            let oldest = self.cursors.iter().min_by_key(|(_, cursor)| cursor.nanoseconds);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.cursors.remove(&name);
            }
        }
    }

    fn follow_or_later(&mut self, name: &str, source: Source) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if entry.following != Following::No {
            entry.following = Following::Again(source);
            return;
        }
        entry.following = Following::Yes;
        self.news.begin(&self.engine, &mut self.watches);
        let topic: Arc<str> = Arc::from(name);
        let (engine, out) = (self.engine.clone(), self.followed.clone());
        let mut published = self.before.remove(name).unwrap_or_default();
        match source {
            Source::Container => {
                let follower = Follower::new(engine, topic, name, &self.news, out).from(
                    self.cursors.get(name).cloned(),
                    published.remove(name).or_else(|| published.remove(ledger::SINCE)),
                    entry.cleared,
                );
                self.followers.spawn(follower.run());
            }
            Source::Project(project) => {
                // Of a run before ours, when it had not read anything since.
                let cleared = self.cursors.get(name).map(|cursor| cursor.nanoseconds);
                let project = Project {
                    engine,
                    project,
                    topic,
                    cursors: self.cursors.clone(),
                    published,
                    since: entry.cleared.or(cleared),
                    news: self.news.clone(),
                    out,
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
        for entry in self.entries.values_mut() {
            entry.asked();
        }
        let all: Vec<String> = self.entries.keys().cloned().collect();
        for name in all {
            self.note_listeners(&name, false);
        }
    }

    /// Nobody can be reached until the next session.
    fn detach(&mut self) {
        self.attached = None;
        for entry in self.entries.values_mut() {
            entry.unlinked();
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
            Gate::Topic {
                container,
                open: true,
            } => self.listened(&container),
            Gate::Topic {
                container,
                open: false,
            } => {
                if let Some(entry) = self.entries.get_mut(&container) {
                    entry.not_listened();
                    if !entry.keeps_output() {
                        self.ledger.end(&container);
                        self.ledger.save();
                    }
                }
            }
            Gate::AlwaysOpen => {
                attached.always_open = true;
                let all: Vec<String> = self.entries.keys().cloned().collect();
                for name in all {
                    self.listened(&name);
                }
            }
            Gate::Attached => {
                if let Some(waiting) = attached.waiting.take() {
                    // The caller's deadline may have passed.
                    let _ = waiting.send(());
                }
            }
        }
    }

    fn listened(&mut self, name: &str) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        // What those before did not get is forgotten.
        let anew = entry.is_parting();
        entry.listened();
        self.note_listeners(name, anew);
    }

    /// Notes, for the next run, from where on listeners wait for lines of a topic, if they may be there. `anew`: whatever
    /// was noted before.
    fn note_listeners(&mut self, name: &str, anew: bool) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        if !entry.keeps_output() || (self.ledger.published().contains_key(name) && !anew) {
            return;
        }
        let read = entry.sources.iter().filter_map(|container| {
            let cursor = self.cursors.get(container)?;
            Some((container.clone(), cursor.clone()))
        });
        self.ledger.begin(name, follower::now(), read.collect());
        self.ledger.save();
    }

    /// Saves histories and gives up waiting for listeners, where it is time.
    fn look_after_entries(&mut self, now: Instant) {
        let due = |entry: &Entry| entry.save_at.is_some_and(|at| at <= now);
        // All of them: the cursors go with them, and those of a history that is older than its cursor would leave a hole.
        if self.entries.values().any(due) {
            self.save_all();
        }
        for (name, entry) in &mut self.entries {
            if entry.is_abandoned(now) {
                entry.not_listened();
                self.ledger.end(name);
                self.ledger.save();
            }
        }
    }

    fn save_all(&mut self) {
        for entry in self.entries.values_mut() {
            if entry.save_at.is_some() {
                save(entry, &self.shelf);
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

fn save(entry: &mut Entry, shelf: &Shelf) {
    entry.save_at = None;
    if entry.container.is_stored() {
        shelf.save(LogHistory {
            app: entry.container.app,
            app_name: entry.container.app_name.clone(),
            lines: entry.ring.lines(),
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
