//! What a session remembers: requests without an answer, registrations, subscriptions, running invocations.
//!
//! Handles and the session's task share it under a lock that is held for a table look-up and for encoding one message,
//! never across an await: the id of a request and its place in the send queue must be given out together, because some
//! routers insist on consecutive ids.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::error::{CloseReason, RequestError};
use super::events::Subscriber;
use super::invocation::Handler;
use super::link::{Form, Parcel};
use super::outbox::{Outbox, Place};
use super::{CallResult, CancelMode};
use crate::message::Message;
use crate::payload::Payload;
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// Partial results of one call that wait for its receiver. Beyond it the call is cancelled.
pub(super) const PARTIAL_QUEUE: usize = 1024;

/// Invocations remembered in [`Tables::cut_short`].
const CUT_SHORT: usize = 64;

pub(super) type Answer<T> = oneshot::Sender<Result<T, RequestError>>;

/// The common ground of a session's handles and its task.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) form: Form,
    /// Longest message that is sent, bytes.
    max_sent: usize,
    pub(super) reply_timeout: Duration,
    pub(super) outbox: Outbox,
    /// Cancelled to drop the transport at once.
    pub(super) abort: CancellationToken,
    /// Cancelled when the task is done and the socket closed.
    pub(super) finished: CancellationToken,
    pub(super) ended: watch::Sender<Option<CloseReason>>,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
pub(super) struct Tables {
    phase: Phase,
    next_request: Id,
    pub(super) pending: HashMap<Id, Pending>,
    pub(super) registrations: HashMap<Id, Registered>,
    pub(super) subscriptions: HashMap<Id, Vec<Subscriber>>,
    /// Invocations that have no final answer yet.
    pub(super) invocations: HashMap<Id, Running>,
    /// Invocations that were answered before all their parts had come. Some may still be on their way, and must not be
    /// taken for new invocations. The oldest give way.
    pub(super) cut_short: VecDeque<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// GOODBYE is on its way: nothing may follow it.
    Leaving,
    Ended,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) enum Pending {
    Call {
        /// Where partial results go, if they were asked for.
        partial: Option<mpsc::Sender<CallResult>>,
        /// What CANCEL says when the call is given up.
        cancel: CancelMode,
        answer: Answer<CallResult>,
    },
    Register {
        handler: HandlerSlot,
        answer: Answer<super::Registration>,
    },
    Unregister {
        registration: Id,
        answer: Answer<()>,
    },
    Subscribe {
        answer: Answer<super::Subscription>,
    },
    Unsubscribe {
        subscription: Id,
        answer: Answer<()>,
    },
    Publish {
        answer: Answer<Id>,
    },
}

/// A handler, in a shape that can be printed.
#[derive(Clone)]
pub(super) struct HandlerSlot(pub(super) Handler);

impl std::fmt::Debug for HandlerSlot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Handler")
    }
}

/// An invocation whose handler works.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) cancelled: CancellationToken,
    /// Where further parts of its arguments go, as long as some follow.
    pub(super) parts: Option<mpsc::Sender<Payload>>,
}

#[derive(Debug)]
pub(super) struct Registered {
    pub(super) handler: HandlerSlot,
    pub(super) revoked: CancellationToken,
}

impl Pending {
    /// Ends the request. A receiver that has gone away does not mind.
    pub(super) fn fail(self, error: RequestError) {
        match self {
            Pending::Call { answer, .. } => drop(answer.send(Err(error))),
            Pending::Register { answer, .. } => drop(answer.send(Err(error))),
            Pending::Subscribe { answer } => drop(answer.send(Err(error))),
            Pending::Publish { answer } => drop(answer.send(Err(error))),
            Pending::Unregister { answer, .. } | Pending::Unsubscribe { answer, .. } => {
                drop(answer.send(Err(error)));
            }
        }
    }
}

impl Shared {
    pub(super) fn new(form: Form, max_sent: usize, reply_timeout: Duration, outbox: Outbox) -> Shared {
        Shared {
            form,
            max_sent,
            reply_timeout,
            outbox,
            abort: CancellationToken::new(),
            finished: CancellationToken::new(),
            ended: watch::Sender::new(None),
            tables: Mutex::new(Tables {
                phase: Phase::Open,
                next_request: 1,
                pending: HashMap::new(),
                registrations: HashMap::new(),
                subscriptions: HashMap::new(),
                invocations: HashMap::new(),
                cut_short: VecDeque::new(),
            }),
        }
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        // Nothing that runs under the lock leaves the tables half-changed, so a panic elsewhere does not spoil them.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes a message of ours, within the size that routers accept.
    fn encode(&self, message: &Message) -> Result<Parcel, RequestError> {
        let encoded = self
            .form
            .pack(message)
            .map_err(|error| RequestError::Encode(error.to_string()))?;
        match encoded.len() {
            len if len > self.max_sent => Err(RequestError::TooLarge(len)),
            _ => Ok(encoded),
        }
    }

    /// Encodes arguments outside the lock.
    pub(super) fn encode_payload(&self, payload: &Payload) -> Result<Payload, RequestError> {
        let encoded = self
            .form
            .pack_payload(payload)
            .map_err(|error| RequestError::Encode(error.to_string()))?;
        match encoded.encoded_len() {
            len if len > self.max_sent => Err(RequestError::TooLarge(len)),
            _ => Ok(encoded),
        }
    }

    /// Sends a request under the next id. `pending` is entered before the message can leave; without one no answer is
    /// expected.
    pub(super) fn submit(
        &self,
        place: Place,
        build: impl FnOnce(Id) -> Message,
        pending: Option<Pending>,
    ) -> Result<Id, RequestError> {
        let mut tables = self.tables();
        if tables.phase != Phase::Open {
            return Err(RequestError::ConnectionLost);
        }
        let request = tables.next_request;
        let message = self.encode(&build(request))?;
        tables.next_request = if request == MAX_ID { 1 } else { request + 1 };
        if let Some(pending) = pending {
            tables.pending.insert(request, pending);
        }
        self.outbox.push(place, message);
        Ok(request)
    }

    /// Sends a short message of the session itself, without waiting.
    fn push_urgent(&self, tables: &Tables, message: &Message) {
        if tables.phase != Phase::Open {
            return;
        }
        match (self.outbox.urgent_place(), self.encode(message)) {
            (Some(place), Ok(message)) => self.outbox.push(place, message),
            (None, _) => {
                tracing::warn!("the router does not read; giving the connection up");
                self.abort.cancel();
            }
            (_, Err(error)) => tracing::warn!(%error, "an answer could not be encoded"),
        }
    }

    /// [`Shared::push_urgent`] for the receive path.
    pub(super) fn send_urgent(&self, message: &Message) {
        self.push_urgent(&self.tables(), message);
    }

    /// Sends a short request of the session itself, whose answer nobody waits for.
    pub(super) fn submit_urgent(&self, build: impl FnOnce(Id) -> Message) {
        match self.outbox.urgent_place() {
            Some(place) => drop(self.submit(place, build, None)),
            None => self.abort.cancel(),
        }
    }

    /// Gives up waiting for a request. A call is cancelled at the router as well.
    pub(super) fn abandon(&self, request: Id) {
        let mut tables = self.tables();
        let Some(pending) = tables.pending.remove(&request) else {
            return;
        };
        if let Pending::Call { cancel, .. } = &pending {
            self.push_cancel(&tables, request, *cancel);
        }
        drop(tables);
        // Of a call in parts the other half may still be there. A handler is not dropped under the lock.
        pending.fail(RequestError::Cancelled);
    }

    /// Sends a further part of a call, unless the call has ended.
    pub(super) fn submit_part(
        &self,
        place: Place,
        request: Id,
        message: &Message,
    ) -> Result<bool, RequestError> {
        let tables = self.tables();
        if tables.phase != Phase::Open {
            return Err(RequestError::ConnectionLost);
        }
        if !tables.pending.contains_key(&request) {
            return Ok(false);
        }
        self.outbox.push(place, self.encode(message)?);
        Ok(true)
    }

    pub(super) fn push_cancel(&self, tables: &Tables, request: Id, mode: CancelMode) {
        let options = Dict::from([("mode".to_owned(), Value::from(mode.name()))]);
        self.push_urgent(tables, &Message::Cancel { request, options });
    }

    /// Sends an answer of invocation `request`, unless its final answer has been sent already.
    pub(super) fn answer(
        &self,
        place: Place,
        request: Id,
        message: &Message,
        last: bool,
    ) -> Result<bool, RequestError> {
        let mut tables = self.tables();
        if tables.phase != Phase::Open || !tables.invocations.contains_key(&request) {
            return Ok(false);
        }
        let message = self.encode(message)?;
        if last && let Some(Running { parts: Some(_), .. }) = tables.invocations.remove(&request) {
            tables.cut_short.truncate(CUT_SHORT - 1);
            tables.cut_short.push_front(request);
        }
        self.outbox.push(place, message);
        Ok(true)
    }

    /// Sends GOODBYE, once. `false` when the session is not open any more.
    pub(super) fn say_goodbye(&self, goodbye: &Message) -> bool {
        let mut tables = self.tables();
        if tables.phase != Phase::Open {
            return false;
        }
        self.push_urgent(&tables, goodbye);
        tables.phase = Phase::Leaving;
        true
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.tables().phase == Phase::Leaving
    }

    pub(super) fn is_open(&self) -> bool {
        self.tables().phase == Phase::Open && !self.abort.is_cancelled()
    }

    /// Ends the session for everybody who waits for something of it.
    pub(super) fn end(&self, reason: CloseReason) {
        let (pending, registrations, invocations) = {
            let mut tables = self.tables();
            tables.phase = Phase::Ended;
            tables.subscriptions.clear();
            (
                std::mem::take(&mut tables.pending),
                std::mem::take(&mut tables.registrations),
                std::mem::take(&mut tables.invocations),
            )
        };
        self.outbox.close();
        self.ended.send_replace(Some(reason));
        for pending in pending.into_values() {
            pending.fail(RequestError::ConnectionLost);
        }
        for registered in registrations.into_values() {
            registered.revoked.cancel();
        }
        for running in invocations.into_values() {
            running.cancelled.cancel();
        }
    }
}
