//! The realm behind its lock, and the send queues of its sessions.
//!
//! One std mutex protects realm and queues together: a message is routed and queued for its receivers in one short
//! critical section, so that all receivers see one order. Frames are decoded before and encoded after it, by the tasks
//! of the sessions, which run in parallel; nothing is awaited and nobody is woken while the lock is held. That keeps
//! the section well below a microsecond per receiver, and a single thread loses nothing to coordination.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

use super::Counters;
use super::counters::Cause;
use super::id_map::IdMap;
use super::joining::JoinError;
use super::outbox::{Delivery, Outgoing, Undeliverable};
use super::permission::Lines;
use super::queue::{Pushed, Queue};
use super::realm::Realm;
use super::session::Identity;
use crate::Id;
use crate::message::Message;
use crate::uri::error;

#[derive(Debug)]
pub(super) struct Hub {
    /// The realm's name.
    name: String,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    realm: Realm,
    peers: IdMap<Peer>,
}

/// Where the messages of a session go.
#[derive(Clone, Debug)]
struct Peer {
    queue: Arc<Queue>,
    /// Which call of `serve` accepted the session.
    listener: u64,
}

impl Hub {
    /// The listener of sessions that outlive all of them.
    pub(super) const NO_LISTENER: u64 = u64::MAX;

    pub(super) fn new(realm: Realm) -> Hub {
        Hub {
            name: realm.name.clone(),
            started: Instant::now(),
            state: Mutex::new(State {
                realm,
                peers: IdMap::default(),
            }),
        }
    }

    /// The realm's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds a session of the router itself, which nobody sees.
    pub(super) fn join_service(&self, queue: &Arc<Queue>) -> Id {
        self.with(|state| {
            let id = state.realm.join_service();
            let queue = Arc::clone(queue);
            let listener = Hub::NO_LISTENER;
            state.peers.insert(id, Peer { queue, listener });
            id
        })
    }

    /// Counts a peer that wanted to join and was refused.
    pub(super) fn count_refusal(&self, cause: Cause) {
        self.with(|state| state.realm.tally.refused_sessions.count(cause));
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
            state.realm.tally.sent.count(welcome.code());
            queue.push(Outgoing::One(welcome));
            let queue = Arc::clone(queue);
            state.peers.insert(id, Peer { queue, listener });
            Ok(())
        })
    }

    /// Handles one message; returns when the session's next call times out.
    pub(super) fn receive(&self, id: Id, message: Message) -> Option<Instant> {
        self.with(|state| {
            state.realm.tally.received.count(message.code());
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

    /// A message could not be given to its session: whoever waits for it gets an ERROR instead.
    pub(super) fn fail(&self, id: Id, message: &Message, undeliverable: &Undeliverable) {
        let text = undeliverable.to_string();
        let too_large = matches!(undeliverable, Undeliverable::TooLarge(_));
        let uri = |unencodable| {
            if too_large {
                error::PAYLOAD_SIZE_EXCEEDED
            } else {
                unencodable
            }
        };
        self.with(|state| match message {
            Message::Event {
                subscription,
                details,
                ..
            } => {
                if let Some(peer) = state.peers.get(&id) {
                    peer.queue.undelivered(*subscription, details);
                }
                let dropped = &mut state.realm.tally.dropped_events;
                *(if too_large {
                    &mut dropped.too_large
                } else {
                    &mut dropped.unencodable
                }) += 1;
            }
            Message::Invocation { request, .. } => {
                let uri = uri(error::INVALID_ARGUMENT);
                state.realm.fail_invocation(id, *request, uri, &text);
            }
            Message::Result { request, .. } => {
                state
                    .realm
                    .fail_call(id, *request, uri(error::RUNTIME_ERROR), &text);
            }
            Message::Error {
                request_type,
                request,
                error,
                ..
            } => state.realm.send_error(id, *request_type, *request, error, &text),
            // The router made every other message itself, from text and numbers.
            _ => state.realm.violate(id, &text),
        });
    }

    pub(super) fn counters(&self) -> Counters {
        let mut counters = self.with(|state| state.counters());
        counters.uptime = self.started.elapsed();
        counters
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut wakers = Vec::new();
        // A panic in here is a bug, but one request's bug: the other sessions go on with what state there is.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state);
        state.deliver(&mut wakers, self.started);
        let notes = std::mem::take(&mut state.realm.journal);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        notes.iter().for_each(|note| note.log(&self.name));
        result
    }
}

impl State {
    fn counters(&self) -> Counters {
        let mut counters = self.realm.counters();
        for peer in self.peers.values() {
            let (messages, bytes) = peer.queue.depth();
            counters.queues.add(messages, bytes);
        }
        counters
    }

    /// Moves the outbox into the queues. Sessions that overflow are freed and refused calls answered, which may fill the
    /// outbox again.
    fn deliver(&mut self, wakers: &mut Vec<Waker>, started: Instant) {
        let mut overflowed = Vec::new();
        let mut refused = Vec::new();
        let mut asking = Vec::new();
        while !self.realm.outbox.is_empty() {
            for (id, delivery) in self.realm.outbox.drain() {
                match delivery {
                    Delivery::Send(message) => {
                        let Some(peer) = self.peers.get(&id) else {
                            continue;
                        };
                        let code = message.message().code();
                        let (pushed, waker) = peer.queue.push(message);
                        wakers.extend(waker);
                        match pushed {
                            Pushed::Queued => self.realm.tally.sent.count(code),
                            Pushed::Skipped => {}
                            Pushed::Refused(invocation) => refused.push((id, invocation)),
                            Pushed::Dropped => self.realm.tally.dropped_events.queue_full += 1,
                            Pushed::Overflow => {
                                wakers.extend(peer.queue.overflow());
                                self.peers.remove(&id);
                                overflowed.push(id);
                            }
                        }
                    }
                    Delivery::Forget(subscription) => {
                        if let Some(peer) = self.peers.get(&id) {
                            peer.queue.forget(subscription);
                        }
                    }
                    Delivery::Counters(request) => asking.push((id, request)),
                    Delivery::End(message, ending) => {
                        if let Some(message) = &message {
                            self.realm.tally.sent.count(message.code());
                        }
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
                self.realm.overflow(id);
            }
            for (id, request) in asking.drain(..) {
                let mut counters = self.counters();
                counters.uptime = started.elapsed();
                let result = Message::Result {
                    request,
                    details: crate::Dict::new(),
                    payload: crate::Payload::from_args(vec![counters.to_dict().into()]),
                };
                self.realm.outbox.send(id, result);
            }
        }
    }
}
