//! The task that owns all log state: topics with their histories and listeners, and followers.
//!
//! Waits for nobody: the store is read and written, the router asked and messages are sent by tasks of their own, which
//! end with this one.

mod following;
mod sending;
mod storing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wamp::client::Session;

use crate::engine::Engine;
use crate::store::Store;

use super::batch::Chunk;
use super::cursor::Cursor;
use super::entry::{Audience, Entry};
use super::follower::{self, Followed};
use super::ledger::{Ledger, Published};
use super::listeners::{self, Gate};
use super::lost::Lost;
use super::news::News;
use super::publisher::Sent;
use super::ring::Ring;
use super::shelf::Shelf;
use super::spool::Spools;
use super::{Container, Source};
use storing::{RESTORE, Restored};

/// Topics to ask the router for. An app is asked for once per session.
const ASKED: usize = 1024;
/// News about gates. Full: the watch waits for us.
const GATES: usize = 64;
/// Portions of followed lines. Full: followers stop reading.
const FOLLOWED: usize = 4;
/// Containers of which we remember where their log was read to.
const MAX_CURSORS: usize = 256;

/// The newest lines of a topic, and whether one of them is output.
pub(super) type History = (Vec<String>, bool);

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
        /// Of the operation's, which has it again when the line leaves.
        room: Option<OwnedSemaphorePermit>,
        /// Over when this has been taken.
        _turn: Option<OwnedSemaphorePermit>,
    },
    ClearViewers(Container),
    ClearHistory(Container),
    Follow {
        container: Container,
        source: Source,
    },
    /// Answered when what the containers have printed until now has been read; they are not followed any more.
    ReadOut {
        container: Container,
        source: Source,
        done: oneshot::Sender<()>,
    },
    /// Answered with the lines and whether one of them is output; `None` when nothing is known.
    History {
        container: Container,
        reply: oneshot::Sender<Option<History>>,
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
    /// Those that an earlier run stored are not among them yet, and followers wait for that until then.
    awaits_cursors: bool,
    cursors_by: Option<Instant>,
    /// The followers that wait.
    wanted: Vec<(String, Source)>,
    /// By container: the topic whose history cannot be saved yet, and how far the stored one has its log.
    held: BTreeMap<String, (String, Option<Cursor>)>,
    /// There was something to save that was not.
    cursors_unsaved: bool,
    restoring: JoinSet<Restored>,
    attached: Option<Attached>,
    followed: mpsc::Sender<Followed>,
    followers: JoinSet<()>,
    /// Until the agent ends.
    reads: bool,
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
            awaits_cursors: true,
            cursors_by: None,
            wanted: Vec::new(),
            held: BTreeMap::new(),
            cursors_unsaved: false,
            restoring: JoinSet::new(),
            attached: None,
            // Replaced when the loop begins.
            followed: mpsc::channel(1).0,
            followers: JoinSet::new(),
            reads: true,
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
        self.restore_cursors();
        loop {
            let now = Instant::now();
            self.look_after_entries(now);
            self.notice_loss_of_session();
            self.send(now);
            let live = self.is_live();
            let deadlines = self.entries.values().flat_map(|entry| entry.deadlines(live));
            let deadlines = deadlines.chain(self.cursors_by);
            // What is due already waits for a message to arrive.
            let next = deadlines.filter(|deadline| *deadline > now).min();
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.reads => {
                    self.followers.abort_all();
                    // Not to the end: who waits for that learns it from the channel, which is gone.
                    self.entries.values_mut().for_each(|entry| entry.waiting_for_end.clear());
                    self.reads = false;
                }
                Some(restored) = self.restoring.join_next() => self.on_restored(restored),
                Some(sent) = self.sending.join_next() => self.on_sent(sent),
                Some(gate) = next_gate(&mut self.attached) => self.on_gate(gate),
                () = self.lost.added() => self.on_lost(),
                command = commands.recv() => match command {
                    Some(Command::Close) | None => break,
                    Some(command) => self.on_command(command),
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
        self.finish_restoring().await;
        self.save_all();
        written.cancel();
        let _ = writer.await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::AgentLine { container, text } => {
                let name = self.entry(container, true);
                self.agent_line(&name, text.clone());
                let Some(entry) = self.entries.get_mut(&name) else {
                    return;
                };
                entry.ring.push_agent(text);
                entry.changed();
            }
            Command::OutputLine {
                container,
                line,
                room,
                ..
            } => {
                let name = self.entry(container, true);
                let chunk = Chunk {
                    room: room.into_iter().collect(),
                    ..Chunk::line(line)
                };
                self.output(&name, chunk, true, true);
            }
            Command::ClearViewers(container) => {
                let name = self.entry(container, true);
                self.agent_line(&name, "LOGGER_CLEAR".to_owned());
            }
            Command::ClearHistory(container) => {
                let name = self.entry(container, false);
                self.history_is_known(&name);
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
                let name = self.entry(container, true);
                self.follow_or_later(&name, source);
            }
            Command::ReadOut {
                container,
                source,
                done,
            } => {
                let name = self.entry(container, true);
                if self.reads {
                    self.read_out(&name, source, done);
                }
            }
            Command::History { container, reply } => match self.entries.get_mut(&container.name) {
                Some(entry) if entry.awaits_stored => {
                    entry.asking.push(reply);
                    entry.answer_by.get_or_insert_with(|| Instant::now() + RESTORE);
                }
                entry => {
                    // Nobody waits any more: the caller's deadline passed.
                    let _ = reply.send(entry.and_then(|entry| entry.history()));
                }
            },
            Command::Attach { session, attached } => self.attach(session, attached),
            Command::Close => {}
        }
    }

    /// Makes the entry of a topic when it is new. `restore`: with the lines that an earlier run of the agent stored.
    fn entry(&mut self, container: Container, restore: bool) -> String {
        let name = container.name.clone();
        if self.entries.contains_key(&name) {
            return name;
        }
        let audience = match self.before.contains_key(&name) {
            true => Audience::Held,
            false => Audience::Nobody,
        };
        let mut entry = Entry::new(container, Ring::default(), audience);
        if restore && entry.container.is_stored() {
            self.restore_history(&mut entry);
        }
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
            entry.gaps(self.lost.gaps(name), &self.spools);
            entry.agent_line(text, live, &self.spools);
        }
    }

    /// Lines that a container or an operation printed.
    fn output(&mut self, name: &str, chunk: Chunk, for_history: bool, for_viewers: bool) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.gaps(self.lost.gaps(name), &self.spools);
        if for_history {
            entry.ring.push_text(&chunk.text);
            entry.changed();
        }
        if for_viewers {
            entry.output(chunk, &self.spools);
        }
    }

    /// Lines were lost: should no other line come, that is said by itself.
    fn on_lost(&mut self) {
        for name in self.lost.of() {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.has_lost();
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
