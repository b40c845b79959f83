//! The session's own task: owns the receiving half of the transport and every invocation, and ends the session.
//!
//! It never waits for anything but its select: a handler, a slow subscriber or a full send queue do not delay reading.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::error::{CloseReason, RequestError, WampError, chain};
use super::invocation::{self, Invocation};
use super::join::violation_abort;
use super::link::{Received, Source};
use super::outbox::{CLOSE_TIMEOUT, Farewell};
use super::parts::{self, PART_QUEUE, more_follow};
use super::state::{Pending, Registered, Running, Shared, Tables};
use super::{CallResult, Event, MAX_INVOCATIONS, Registration, Subscription, events};
use crate::message::{DROPPED, Message, code};
use crate::payload::Payload;
use crate::transport::keepalive::{Due, Keepalive};
use crate::transport::{Incoming, TransportError};
use crate::value::{Dict, Value};
use crate::{Id, uri};

pub(super) struct SessionTask {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Source,
    pub(super) keepalive: Keepalive,
    pub(super) writer: JoinHandle<Result<(), TransportError>>,
    pub(super) farewell: oneshot::Sender<Farewell>,
}

/// How the session ends.
struct End {
    reason: CloseReason,
    /// What is still said to the router; `None` when nobody would hear it.
    farewell: Option<Farewell>,
}

impl End {
    fn lost(what: impl Into<String>) -> End {
        End {
            reason: CloseReason::Lost(what.into()),
            farewell: None,
        }
    }
}

/// Invocations of one session and what bounds them.
struct Invocations {
    running: JoinSet<()>,
    places: Arc<Semaphore>,
}

impl SessionTask {
    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        let mut invocations = Invocations {
            running: JoinSet::new(),
            places: Arc::new(Semaphore::new(MAX_INVOCATIONS)),
        };
        let end = self.serve(&mut invocations).await;
        tracing::debug!(reason = ?end.reason, "session ended");
        shared.end(end.reason);
        self.hang_up(end.farewell).await;
        shared.finished.cancel();
        // Handlers have been told; what they have begun they may bring to an end.
        while invocations.running.join_next().await.is_some() {}
    }

    async fn serve(&mut self, invocations: &mut Invocations) -> End {
        loop {
            tokio::select! {
                () = self.shared.abort.cancelled() => return End::lost("dropped by us"),
                incoming = self.source.next() => {
                    if let Some(end) = self.incoming(incoming, invocations) {
                        return end;
                    }
                }
                due = self.keepalive.due() => match due {
                    Due::Ping => self.shared.outbox.ping(),
                    Due::Dead => return End::lost("the router does not answer pings"),
                },
                Some(_) = invocations.running.join_next() => {}
                written = &mut self.writer => {
                    return match written {
                        Ok(Err(error)) => End::lost(chain(&error)),
                        Ok(Ok(())) | Err(_) => End::lost("sending stopped"),
                    };
                }
            }
        }
    }

    /// Says goodbye and waits, for a bounded time, until the router has hung up.
    async fn hang_up(self, farewell: Option<Farewell>) {
        let SessionTask {
            shared,
            mut source,
            mut writer,
            farewell: sender,
            ..
        } = self;
        if let Some(farewell) = farewell
            && !writer.is_finished()
            && sender.send(farewell).is_ok()
        {
            let quiet = async {
                let hear = async { while let Some(Ok(_)) = source.next().await {} };
                tokio::join!(hear, async { drop((&mut writer).await) })
            };
            tokio::select! {
                _ = tokio::time::timeout(CLOSE_TIMEOUT, quiet) => {}
                () = shared.abort.cancelled() => {}
            }
        }
        writer.abort();
    }

    fn incoming(
        &mut self,
        incoming: Option<Result<Received, TransportError>>,
        invocations: &mut Invocations,
    ) -> Option<End> {
        match incoming {
            Some(Ok(Received::Message(message))) => self.message(message, invocations),
            Some(Ok(Received::Incoming(Incoming::Data(frame)))) => self.frame(&frame, invocations),
            // Any byte has already been noted as a sign of life.
            Some(Ok(Received::Incoming(Incoming::Pong(_)))) => None,
            Some(Ok(Received::Incoming(Incoming::Close { code, reason }))) => {
                let code = code.map_or_else(String::new, |code| format!(" with code {code}"));
                let what = format!("the router closed the connection{code} {reason}");
                Some(self.closed(what.trim_end().to_owned()))
            }
            Some(Err(error)) => Some(End {
                farewell: error.close_code().map(|code| Farewell {
                    message: None,
                    code,
                    reason: "",
                }),
                reason: CloseReason::Lost(chain(&error)),
            }),
            None => Some(self.closed("the router hung up".to_owned())),
        }
    }

    /// The transport was closed in good order: after our GOODBYE that is an answer, too.
    fn closed(&self, what: String) -> End {
        match self.shared.is_leaving() {
            true => End {
                reason: CloseReason::Left,
                farewell: None,
            },
            false => End::lost(what),
        }
    }

    fn violation(&self, what: String) -> Option<End> {
        tracing::warn!(what, "the router broke the protocol");
        let abort = self.shared.form.pack(&violation_abort(&what));
        Some(End {
            reason: CloseReason::Lost(format!("protocol violation by the router: {what}")),
            farewell: Some(Farewell {
                message: abort.ok(),
                code: 1002,
                reason: "protocol violation",
            }),
        })
    }

    fn frame(&mut self, frame: &Bytes, invocations: &mut Invocations) -> Option<End> {
        let decoded = self.shared.form.codec().map(|codec| codec.decode(frame));
        match decoded {
            Some(Ok(message)) => self.message(message, invocations),
            Some(Err(error)) => {
                tracing::warn!(%error, "an unreadable message was skipped");
                None
            }
            None => None,
        }
    }

    fn message(&mut self, message: Message, invocations: &mut Invocations) -> Option<End> {
        match message {
            Message::Result {
                request,
                details,
                payload,
            } => self.result(request, CallResult { details, payload }),
            Message::Error {
                request,
                error,
                payload,
                ..
            } => self.error(request, WampError { uri: error, payload }),
            Message::Event {
                subscription,
                publication,
                mut details,
                payload,
            } => {
                let dropped = details.remove(DROPPED);
                let event = Event {
                    publication,
                    details,
                    payload,
                    missed: dropped.as_ref().and_then(Value::as_u64).unwrap_or_default(),
                };
                self.event(subscription, event);
            }
            Message::Invocation {
                request,
                registration,
                details,
                payload,
            } => self.invocation(request, registration, details, payload, invocations),
            Message::Interrupt { request, .. } => self.interrupt(request),
            Message::Registered {
                request,
                registration,
            } => self.registered(request, registration),
            Message::Unregistered { request: 0, details } => self.revoked(&details),
            Message::Subscribed {
                request,
                subscription,
            } => self.subscribed(request, subscription),
            Message::Unsubscribed { request: 0, details } => self.unsubscribed_by_router(&details),
            Message::Published { request, publication } => self.published(request, publication),
            Message::Unregistered { request, .. } | Message::Unsubscribed { request, .. } => {
                self.taken_back(request);
            }
            Message::Goodbye { reason, .. } => return Some(self.goodbye(reason)),
            Message::Abort { reason, .. } => {
                return Some(End {
                    reason: CloseReason::Aborted(reason),
                    farewell: Some(Farewell {
                        message: None,
                        code: 1000,
                        reason: "aborted",
                    }),
                });
            }
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Challenge { .. }
            | Message::Authenticate { .. }
            | Message::Publish { .. }
            | Message::Subscribe { .. }
            | Message::Unsubscribe { .. }
            | Message::Call { .. }
            | Message::Cancel { .. }
            | Message::Register { .. }
            | Message::Unregister { .. }
            | Message::Yield { .. } => {
                return self.violation(format!("message type {} inside a session", message.code()));
            }
        }
        None
    }

    fn goodbye(&self, reason: String) -> End {
        let farewell = |message| Farewell {
            message,
            code: 1000,
            reason: "goodbye",
        };
        // When both sides leave at once, ours is the answer to theirs.
        if self.shared.is_leaving() {
            return End {
                reason: CloseReason::Left,
                farewell: Some(farewell(None)),
            };
        }
        let answer = Message::Goodbye {
            details: Dict::new(),
            reason: uri::close::GOODBYE_AND_OUT.to_owned(),
        };
        End {
            reason: CloseReason::Goodbye(reason),
            farewell: Some(farewell(self.shared.form.pack(&answer).ok())),
        }
    }

    fn result(&self, request: Id, result: CallResult) {
        let progress = result.details.get("progress").and_then(Value::as_bool) == Some(true);
        let mut tables = self.shared.tables();
        match tables.pending.get(&request) {
            Some(Pending::Call { partial, cancel, .. }) if progress => {
                let Some(partial) = partial else {
                    // Some routers forward partial results that nobody asked for.
                    return;
                };
                let Err(mpsc::error::TrySendError::Full(_)) = partial.try_send(result) else {
                    return;
                };
                let cancel = *cancel;
                if let Some(call) = tables.pending.remove(&request) {
                    call.fail(RequestError::Cancelled);
                }
                self.shared.push_cancel(&tables, request, cancel);
            }
            Some(Pending::Call { .. }) => {
                if let Some(Pending::Call { answer, .. }) = tables.pending.remove(&request) {
                    drop(answer.send(Ok(result)));
                }
            }
            Some(_) => tracing::debug!(request, "a RESULT for something that is no call was ignored"),
            None => tracing::debug!(request, "a RESULT that nobody waits for was ignored"),
        }
    }

    fn error(&self, request: Id, error: WampError) {
        let pending = self.shared.tables().pending.remove(&request);
        let Some(pending) = pending else {
            tracing::debug!(
                request,
                uri = error.uri,
                "an ERROR that nobody waits for was ignored"
            );
            return;
        };
        // What the router does not know cannot stay with us either.
        match &pending {
            Pending::Unregister { registration, .. } if error.uri == uri::error::NO_SUCH_REGISTRATION => {
                self.forget_registration(*registration);
            }
            Pending::Unsubscribe { subscription, .. } if error.uri == uri::error::NO_SUCH_SUBSCRIPTION => {
                self.forget_subscription(*subscription);
            }
            _ => {}
        }
        pending.fail(RequestError::Peer(error));
    }

    fn forget_registration(&self, registration: Id) {
        let removed = self.shared.tables().registrations.remove(&registration);
        drop(removed);
    }

    fn forget_subscription(&self, subscription: Id) {
        let removed = self.shared.tables().subscriptions.remove(&subscription);
        drop(removed);
    }

    fn event(&self, subscription: Id, event: Event) {
        let tables = self.shared.tables();
        match tables.subscriptions.get(&subscription) {
            Some(subscribers) => subscribers
                .iter()
                .for_each(|subscriber| subscriber.deliver(event.clone())),
            None => tracing::debug!(subscription, "an EVENT of an unknown subscription was ignored"),
        }
    }

    fn invocation(
        &self,
        request: Id,
        registration: Id,
        details: Dict,
        payload: Payload,
        invocations: &mut Invocations,
    ) {
        let refuse = |uri: &str, text: String| {
            self.shared.send_urgent(&Message::Error {
                request_type: code::INVOCATION,
                request,
                details: Dict::new(),
                error: uri.to_owned(),
                payload: Payload::from_args(vec![Value::from(text)]),
            });
        };
        let mut tables = self.shared.tables();
        let more = more_follow(&details);
        if self.is_part(&mut tables, request, &payload, more) {
            return;
        }
        let Some(registered) = tables.registrations.get(&registration) else {
            drop(tables);
            let text = format!("client has no handler for registration {registration}");
            return refuse(uri::error::NO_SUCH_PROCEDURE, text);
        };
        let handler = registered.handler.0.clone();
        let Ok(place) = invocations.places.clone().try_acquire_owned() else {
            drop(tables);
            let text = format!("more than {MAX_INVOCATIONS} calls are being worked on");
            return refuse(uri::error::RUNTIME_ERROR, text);
        };
        let cancelled = CancellationToken::new();
        let (parts, incoming) = match more {
            true => Some(mpsc::channel(PART_QUEUE)).unzip(),
            false => (None, None),
        };
        let running = Running {
            cancelled: cancelled.clone(),
            parts,
        };
        tables.invocations.insert(request, running);
        drop(tables);
        let incoming = parts::Incoming::new(incoming);
        let invocation = Invocation::new(
            self.shared.clone(),
            request,
            details,
            payload,
            cancelled,
            incoming,
        );
        invocations.running.spawn(async move {
            invocation::run(handler, invocation).await;
            drop(place);
        });
    }

    /// Hands a further part of a running invocation to its handler. `false` when this is a new invocation.
    fn is_part(&self, tables: &mut Tables, request: Id, payload: &Payload, more: bool) -> bool {
        let Some(running) = tables.invocations.get_mut(&request) else {
            let Some(place) = tables.cut_short.iter().position(|id| *id == request) else {
                return false;
            };
            if !more {
                tables.cut_short.remove(place);
            }
            return true;
        };
        let Some(parts) = &running.parts else {
            tracing::warn!(
                request,
                "a second INVOCATION with the id of a running one was ignored"
            );
            return true;
        };
        // A handler that does not want them has dropped the receiver.
        if let Err(mpsc::error::TrySendError::Full(_)) = parts.try_send(payload.clone()) {
            tracing::warn!(
                request,
                "an invocation that does not take its parts was cancelled"
            );
            running.cancelled.cancel();
        }
        if !more {
            running.parts = None;
        }
        true
    }

    /// The invocation's task answers, whatever the mode: for `kill` the caller waits for it, for the others the router
    /// discards it.
    fn interrupt(&self, request: Id) {
        let tables = self.shared.tables();
        match tables.invocations.get(&request) {
            Some(running) => running.cancelled.cancel(),
            None => tracing::debug!(request, "an INTERRUPT of a finished invocation was ignored"),
        }
    }

    fn registered(&self, request: Id, registration: Id) {
        let mut tables = self.shared.tables();
        let Some(Pending::Register { handler, answer }) = take(&mut tables.pending, request, |pending| {
            matches!(pending, Pending::Register { .. })
        }) else {
            let known = tables.registrations.contains_key(&registration);
            drop(tables);
            if !known {
                // Its owner gave up waiting: calls must not come here for ever.
                self.shared.submit_urgent(|request| Message::Unregister {
                    request,
                    registration,
                });
            }
            return;
        };
        let revoked = CancellationToken::new();
        // Entered before the next message is read, which may be the first INVOCATION.
        tables.registrations.insert(
            registration,
            Registered {
                handler,
                revoked: revoked.clone(),
            },
        );
        drop(tables);
        drop(answer.send(Ok(Registration {
            id: registration,
            revoked,
        })));
    }

    fn revoked(&self, details: &Dict) {
        let registration = details.get("registration").and_then(Value::as_u64);
        // Handlers are never dropped under the lock: what they hold may want to use the session.
        let removed =
            registration.and_then(|registration| self.shared.tables().registrations.remove(&registration));
        match removed {
            Some(registered) => registered.revoked.cancel(),
            None => tracing::debug!(
                registration,
                "the revocation of an unknown registration was ignored"
            ),
        }
    }

    fn subscribed(&self, request: Id, subscription: Id) {
        let mut tables = self.shared.tables();
        let Some(Pending::Subscribe { answer }) = take(&mut tables.pending, request, |pending| {
            matches!(pending, Pending::Subscribe { .. })
        }) else {
            let known = tables.subscriptions.contains_key(&subscription);
            drop(tables);
            if !known {
                self.shared.submit_urgent(|request| Message::Unsubscribe {
                    request,
                    subscription,
                });
            }
            return;
        };
        let (subscriber, events) = events::channel();
        // Subscribing to the same topic twice gives the same id: both get every event.
        let subscribers = tables.subscriptions.entry(subscription).or_default();
        // Who subscribes again and again and drops what it got must not make the list grow.
        subscribers.retain(|subscriber| !subscriber.is_gone());
        subscribers.push(subscriber);
        drop(tables);
        drop(answer.send(Ok(Subscription {
            id: subscription,
            events,
        })));
    }

    fn unsubscribed_by_router(&self, details: &Dict) {
        let subscription = details.get("subscription").and_then(Value::as_u64);
        let mut tables = self.shared.tables();
        // Dropping the senders ends the receivers' streams.
        if subscription
            .and_then(|subscription| tables.subscriptions.remove(&subscription))
            .is_none()
        {
            tracing::debug!(
                subscription,
                "the revocation of an unknown subscription was ignored"
            );
        }
    }

    fn published(&self, request: Id, publication: Id) {
        let mut tables = self.shared.tables();
        match take(&mut tables.pending, request, |pending| {
            matches!(pending, Pending::Publish { .. })
        }) {
            Some(Pending::Publish { answer }) => drop(answer.send(Ok(publication))),
            _ => tracing::debug!(request, "a PUBLISHED that nobody waits for was ignored"),
        }
    }

    /// UNREGISTERED or UNSUBSCRIBED as the answer to a request of ours.
    fn taken_back(&self, request: Id) {
        let pending = take(&mut self.shared.tables().pending, request, |pending| {
            matches!(pending, Pending::Unregister { .. } | Pending::Unsubscribe { .. })
        });
        match pending {
            Some(Pending::Unregister { registration, answer }) => {
                self.forget_registration(registration);
                drop(answer.send(Ok(())));
            }
            Some(Pending::Unsubscribe { subscription, answer }) => {
                self.forget_subscription(subscription);
                drop(answer.send(Ok(())));
            }
            _ => tracing::debug!(request, "an answer that nobody waits for was ignored"),
        }
    }
}

/// Removes the pending request if it is of the expected kind.
fn take(
    pending: &mut std::collections::HashMap<Id, Pending>,
    request: Id,
    expected: impl FnOnce(&Pending) -> bool,
) -> Option<Pending> {
    match pending.get(&request) {
        Some(found) if expected(found) => pending.remove(&request),
        _ => None,
    }
}
