//! The realm behind its lock, and the send queues of its sessions.
//!
//! One std mutex protects realm and queues together: a message is routed and queued for its receivers in one short
//! critical section, so that all receivers see one order. Frames are decoded before and encoded after it, by the tasks
//! of the sessions, which run in parallel; nothing is awaited and nobody is woken while the lock is held. That keeps
//! the section well below a microsecond per receiver, and a single thread loses nothing to coordination.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

use super::outbox::{Delivery, Outgoing};
use super::permission::Lines;
use super::queue::{Pushed, Queue};
use super::realm::{JoinError, Realm};
use super::session::Identity;
use super::{Counters, Dropped};
use crate::Id;
use crate::message::{Message, code};
use crate::uri::error;

#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    realm: Realm,
    peers: HashMap<Id, Peer>,
    dropped: Dropped,
    overflowed: u64,
}

/// Where the messages of a session go.
#[derive(Clone, Debug)]
struct Peer {
    queue: Arc<Queue>,
    /// Which call of `serve` accepted the session.
    listener: u64,
}

impl Hub {
    pub(super) fn new(realm: Realm) -> Hub {
        Hub {
            state: Mutex::new(State {
                realm,
                peers: HashMap::new(),
                dropped: Dropped::default(),
                overflowed: 0,
            }),
        }
    }

    /// An id for a session that is about to join.
    pub(super) fn fresh_id(&self) -> Id {
        self.with(|state| state.realm.fresh_id())
    }

    /// Adds a session; `welcome` is the first message in its queue.
    pub(super) fn join(
        &self,
        id: Id,
        identity: Identity,
        welcome: Message,
        queue: &Arc<Queue>,
        listener: u64,
    ) -> Result<(), JoinError> {
        self.with(|state| {
            state.realm.join(id, identity)?;
            queue.push(Outgoing::One(welcome));
            let queue = Arc::clone(queue);
            state.peers.insert(id, Peer { queue, listener });
            Ok(())
        })
    }

    /// Handles one message; returns when the session's next call times out.
    pub(super) fn receive(&self, id: Id, message: Message) -> Option<Instant> {
        self.with(|state| {
            state.realm.receive(id, message, Instant::now());
            state.realm.next_deadline(id)
        })
    }

    /// Ends the calls of a session whose time is up; returns when the next one is.
    pub(super) fn expire(&self, id: Id) -> Option<Instant> {
        self.with(|state| {
            state.realm.expire(id, Instant::now());
            state.realm.next_deadline(id)
        })
    }

    /// The peer sent something that is not a message.
    pub(super) fn violate(&self, id: Id, text: &str) {
        self.with(|state| state.realm.violate(id, text));
    }

    /// The transport of a session is gone. Does nothing when the session has ended before.
    pub(super) fn lose(&self, id: Id) {
        self.with(|state| {
            state.realm.lose(id);
            state.peers.remove(&id);
        });
    }

    /// Says GOODBYE to a session.
    pub(super) fn dismiss(&self, id: Id, reason: &str) {
        self.with(|state| state.realm.dismiss(id, reason, None));
    }

    /// Gives every session of `authid` other permissions of its own.
    pub(super) fn set_own_rights(&self, authid: &str, own: &Arc<Lines>) {
        self.with(|state| state.realm.set_own_rights(authid, own));
    }

    /// Says GOODBYE to every session of a listener.
    pub(super) fn dismiss_all(&self, listener: u64, reason: &str) {
        self.with(|state| {
            let ids: Vec<Id> = state
                .peers
                .iter()
                .filter(|(_, peer)| peer.listener == listener)
                .map(|(id, _)| *id)
                .collect();
            for id in ids {
                state.realm.dismiss(id, reason, None);
            }
        });
    }

    /// A message could not be put into the session's encoding: whoever waits for it gets an ERROR instead.
    pub(super) fn unencodable(&self, id: Id, message: &Message, cause: &str) {
        self.with(|state| match message {
            Message::Event { .. } => state.dropped.unencodable += 1,
            Message::Invocation { request, .. } => {
                let failed = Message::Error {
                    request_type: code::INVOCATION,
                    request: *request,
                    details: crate::Dict::new(),
                    error: error::INVALID_ARGUMENT.to_owned(),
                    payload: crate::Payload::from_args(vec![cause.into()]),
                };
                state.realm.receive(id, failed, Instant::now());
            }
            Message::Result { request, .. } => state.realm.fail_call(id, *request, cause),
            Message::Error {
                request_type,
                request,
                error,
                ..
            } => state.realm.send_error(id, *request_type, *request, error, cause),
            // The router made every other message itself, from text and numbers.
            _ => state.realm.violate(id, cause),
        });
    }

    pub(super) fn counters(&self) -> Counters {
        self.with(|state| Counters {
            sessions: state.realm.sessions.len(),
            registrations: state.realm.registrations.len(),
            subscriptions: state.realm.subscriptions.len(),
            dropped_events: state.dropped,
            overflowed_sessions: state.overflowed,
        })
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut wakers = Vec::new();
        // A panic in here is a bug, but one request's bug: the other sessions go on with what state there is.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state);
        state.deliver(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl State {
    /// Moves the outbox into the queues. Sessions that overflow are freed and refused calls answered, which may fill the
    /// outbox again.
    fn deliver(&mut self, wakers: &mut Vec<Waker>) {
        let mut overflowed = Vec::new();
        let mut refused = Vec::new();
        while !self.realm.outbox.is_empty() {
            for (id, delivery) in self.realm.outbox.drain() {
                match delivery {
                    Delivery::Send(message) => {
                        let Some(peer) = self.peers.get(&id) else {
                            continue;
                        };
                        let (pushed, waker) = peer.queue.push(message);
                        wakers.extend(waker);
                        match pushed {
                            Pushed::Queued | Pushed::Skipped => {}
                            Pushed::Refused(invocation) => refused.push((id, invocation)),
                            Pushed::Dropped => self.dropped.queue_full += 1,
                            Pushed::Overflow => {
                                wakers.extend(peer.queue.overflow());
                                self.peers.remove(&id);
                                overflowed.push(id);
                            }
                        }
                    }
                    Delivery::End(message, ending) => {
                        if let Some(peer) = self.peers.remove(&id) {
                            wakers.extend(peer.queue.end(message, ending));
                        }
                    }
                }
            }
            for (id, invocation) in refused.drain(..) {
                self.realm.refuse_invocation(id, invocation);
            }
            for id in overflowed.drain(..) {
                self.overflowed += 1;
                tracing::warn!(session = id, "session closed: it does not read what it is sent");
                self.realm.lose(id);
            }
        }
    }
}
