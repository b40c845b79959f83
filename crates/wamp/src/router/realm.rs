//! The realm: every session's state and what each incoming message does to it.
//!
//! Pure and synchronous: messages, joins, losses and expired deadlines go in, messages to sessions come out through
//! the [`Outbox`]. Knows nothing of sockets, tasks and encodings, which makes it testable message by message. The
//! rules of RPC are in `dealer` and `calls`, those of publish/subscribe in `broker`, the router's own procedures in
//! `meta`; those of joining in `joining`; this file dispatches and frees.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::broker::Subscribers;
use super::counters::Counters;
use super::dealer::Callees;
use super::directory::Directory;
use super::id_map::IdMap;
use super::joining::Seats;
use super::journal::{Note, Why};
use super::outbox::{Ending, Outbox, violation};
use super::permission::{Lines, Role};
use super::refusal::Refusal;
use super::retained::Retained;
use super::session::Session;
use super::{Limits, Permission, RealmConfig};
use crate::message::{Message, code};
use crate::payload::Payload;
use crate::uri::{UriRule, close, error};
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// State of one realm.
#[derive(Debug)]
pub(super) struct Realm {
    pub(super) name: String,
    pub(super) roles: HashMap<String, Arc<Role>>,
    /// Everything allowed and disclosed: the router's own sessions.
    pub(super) trusted: Arc<Role>,
    pub(super) limits: Arc<Limits>,
    pub(super) uris: UriRule,
    strict_request_ids: bool,
    pub(super) seats: Arc<Seats>,
    pub(super) sessions: IdMap<Session>,
    /// How many of the sessions are the router's own.
    pub(super) services: usize,
    /// Sessions per authid; empty while there is no bound for them.
    pub(super) crowd: HashMap<String, usize>,
    pub(super) registrations: Directory<Callees>,
    pub(super) subscriptions: Directory<Subscribers>,
    pub(super) retained: Retained,
    pub(super) random: fastrand::Rng,
    pub(super) outbox: Outbox,
    /// Matching subscriptions of the publication in hand; kept for its capacity.
    pub(super) matched: Vec<Id>,
    /// Totals; the gauges in it are filled in by [`Realm::counters`].
    pub(super) tally: Counters,
    /// For the log, once the realm is no longer locked.
    pub(super) journal: Vec<Note>,
}

/// Role of the router's own sessions, as at Crossbar.io. A configured role of that name is another one.
pub(super) const TRUSTED: &str = "trusted";

impl Realm {
    pub(super) fn new(
        name: &str,
        config: &RealmConfig,
        limits: &Arc<Limits>,
        seats: &Arc<Seats>,
        random: fastrand::Rng,
    ) -> Realm {
        let everything = Permission {
            uri: String::new(),
            prefix: true,
            call: true,
            register: true,
            publish: true,
            subscribe: true,
            force_register: true,
            disclose: true,
        };
        let roles = config.roles.iter();
        Realm {
            name: name.to_owned(),
            roles: roles
                .map(|(name, permissions)| (name.clone(), Arc::new(Role::new(name, permissions))))
                .collect(),
            trusted: Arc::new(Role::new(TRUSTED, &[everything])),
            limits: Arc::clone(limits),
            uris: config.uris,
            strict_request_ids: config.strict_request_ids,
            seats: Arc::clone(seats),
            sessions: IdMap::default(),
            services: 0,
            crowd: HashMap::new(),
            registrations: Directory::new(),
            subscriptions: Directory::new(),
            retained: Retained::new(limits.max_retained, limits.max_retained_bytes),
            random,
            outbox: Outbox::default(),
            matched: Vec::new(),
            tally: Counters::default(),
            journal: Vec::new(),
        }
    }

    /// Totals and gauges; queues and uptime are known outside.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            sessions: self.sessions.len() - self.services,
            registrations: self.registrations.len(),
            subscriptions: self.subscriptions.len(),
            retained_events: self.retained.len(),
            ..self.tally
        }
    }

    /// Handles one message of a session. Messages of a session that has ended are ignored.
    pub(super) fn receive(&mut self, session: Id, message: Message, now: Instant) {
        let Some(sender) = self.sessions.get_mut(&session) else {
            return;
        };
        let request_type = message.code();
        let request = client_request(&message);
        if request.is_some_and(|id| id == 0 || id > MAX_ID) {
            self.violate(session, "request id out of range");
            return;
        }
        if self.strict_request_ids
            && let Some(request) = numbered_request(&message)
            && !sender.count_request(request, request_type == code::CALL)
        {
            self.violate(session, "request ids have to count 1, 2, 3");
            return;
        }
        match self.dispatch(session, message, now) {
            Ok(()) => {}
            Err(Refusal::Violation(text)) => self.violate(session, &text),
            Err(refusal @ (Refusal::Error { .. } | Refusal::Limit { .. })) => {
                self.note_refusal(session, request_type, &refusal);
                let (Refusal::Error { uri, text } | Refusal::Limit { uri, text }) = refusal else {
                    return;
                };
                // Only requests are refused with an ERROR; `client_request` knows the id of each of them.
                self.send_error(session, request_type, request.unwrap_or_default(), uri, &text);
            }
        }
    }

    /// Counts a request that was not carried out.
    pub(super) fn note_refusal(&mut self, session: Id, request_type: u64, refusal: &Refusal) {
        let tally = &mut self.tally;
        match refusal {
            Refusal::Limit { .. } => tally.limited_requests += 1,
            Refusal::Error {
                uri: error::NOT_AUTHORIZED,
                text,
            } => {
                let (count, action) = match request_type {
                    code::CALL => (&mut tally.denied.call, "call"),
                    code::REGISTER => (&mut tally.denied.register, "register"),
                    code::PUBLISH => (&mut tally.denied.publish, "publish"),
                    _ => (&mut tally.denied.subscribe, "subscribe"),
                };
                *count += 1;
                if tracing::enabled!(tracing::Level::DEBUG)
                    && let Some(session_state) = self.sessions.get(&session)
                {
                    self.journal.push(Note::Denied {
                        session,
                        authid: session_state.identity.authid.clone(),
                        action,
                        text: text.clone(),
                    });
                }
            }
            Refusal::Error {
                uri: error::INVALID_URI | error::INVALID_ARGUMENT,
                ..
            } => tally.invalid_requests += 1,
            Refusal::Error { .. } | Refusal::Violation(_) => {}
        }
    }

    fn dispatch(&mut self, session: Id, message: Message, now: Instant) -> Result<(), Refusal> {
        match message {
            Message::Call {
                request,
                options,
                procedure,
                payload,
            } => self.call(session, request, &options, &procedure, payload, now),
            Message::Yield {
                request,
                options,
                payload,
            } => self.yielded(session, request, &options, payload),
            Message::Error {
                request_type,
                request,
                error,
                payload,
                ..
            } => self.failed(session, request_type, request, error, payload),
            Message::Cancel { request, options } => self.cancel(session, request, &options),
            Message::Publish {
                request,
                options,
                topic,
                payload,
            } => self.publish(session, request, &options, &topic, payload),
            Message::Subscribe {
                request,
                options,
                topic,
            } => self.subscribe(session, request, &options, topic),
            Message::Unsubscribe {
                request,
                subscription,
            } => self.unsubscribe(session, request, subscription),
            Message::Register {
                request,
                options,
                procedure,
            } => self.register(session, request, &options, procedure),
            Message::Unregister {
                request,
                registration,
            } => self.unregister(session, request, registration),
            Message::Goodbye { .. } => {
                let reply = goodbye(close::GOODBYE_AND_OUT, None);
                self.remove(session, Why::Goodbye);
                self.outbox.end(session, Some(reply), Ending::Left);
                Ok(())
            }
            Message::Abort { .. } => {
                self.remove(session, Why::Aborted);
                self.outbox.end(session, None, Ending::Aborted);
                Ok(())
            }
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Challenge { .. }
            | Message::Authenticate { .. }
            | Message::Published { .. }
            | Message::Subscribed { .. }
            | Message::Unsubscribed { .. }
            | Message::Event { .. }
            | Message::Result { .. }
            | Message::Registered { .. }
            | Message::Unregistered { .. }
            | Message::Invocation { .. }
            | Message::Interrupt { .. } => Err(Refusal::Violation(format!(
                "message type {} is not expected from a client in a session",
                message.code()
            ))),
        }
    }

    /// The peer broke the protocol: state freed, ABORT, close.
    pub(super) fn violate(&mut self, session: Id, text: &str) {
        if self.sessions.contains_key(&session) {
            self.tally.violations += 1;
            self.remove(session, Why::Violation(text.to_owned()));
            self.outbox.end(session, Some(violation(text)), Ending::Violation);
        }
    }

    /// The transport is gone.
    pub(super) fn lose(&mut self, session: Id) {
        self.remove(session, Why::Lost);
    }

    /// The session's send queue is full of what may not be dropped; its transport is being closed.
    pub(super) fn overflow(&mut self, session: Id) {
        self.tally.overflowed_sessions += 1;
        self.remove(session, Why::Overflow);
    }

    /// The router ends a session: state freed, GOODBYE. `false` when there is no such session.
    pub(super) fn dismiss(&mut self, session: Id, reason: &str, message: Option<&str>) -> bool {
        if !self.sessions.contains_key(&session) {
            return false;
        }
        self.remove(session, Why::Dismissed(reason.to_owned()));
        self.outbox
            .end(session, Some(goodbye(reason, message)), Ending::Dismissed);
        true
    }

    /// Ends the calls of a session whose deadline has passed (R-R17).
    pub(super) fn expire(&mut self, session: Id, now: Instant) {
        while let Some(request) = self
            .sessions
            .get_mut(&session)
            .and_then(|session| session.take_expired(now))
        {
            self.time_out(session, request);
        }
    }

    /// Gives every session of `authid` other permissions of its own. What it holds and may not hold any more is taken
    /// from it, with the notice that the protocol has for that.
    pub(super) fn set_own_rights(&mut self, authid: &str, own: &Arc<Lines>) {
        let concerned = self
            .sessions
            .iter_mut()
            .filter(|(_, session)| session.identity.authid == authid && !session.identity.is_service());
        let concerned: Vec<Id> = concerned
            .map(|(id, session)| {
                session.rights.replace_own(Arc::clone(own));
                *id
            })
            .collect();
        for id in concerned {
            self.revoke_subscriptions(id);
            self.revoke_registrations(id);
        }
    }

    /// When [`Realm::expire`] has something to do for this session.
    pub(super) fn next_deadline(&self, session: Id) -> Option<Instant> {
        self.sessions.get(&session).and_then(Session::next_deadline)
    }

    /// Frees everything a session had. The testaments are published first, `on_leave` comes last.
    fn remove(&mut self, id: Id, why: Why) {
        let Some(mut session) = self.sessions.remove(&id) else {
            return;
        };
        // A session hears nothing of its own end.
        for subscription in &session.subscriptions {
            if let Some(entry) = self.subscriptions.get_mut(*subscription) {
                entry.members.remove(&id);
            }
        }
        for testament in session.testaments.take_all() {
            self.publish_testament(id, &session, testament);
        }
        self.abandon_calls(&mut session);
        self.fail_invocations(&mut session);
        for registration in std::mem::take(&mut session.registrations) {
            self.drop_callee(registration, id);
        }
        for subscription in std::mem::take(&mut session.subscriptions) {
            self.drop_subscriber(subscription, id);
        }
        if session.identity.is_service() {
            self.services -= 1;
            return;
        }
        self.seats.leave();
        if let Some(count) = self.crowd.get_mut(&session.identity.authid) {
            *count -= 1;
            if *count == 0 {
                self.crowd.remove(&session.identity.authid);
            }
        }
        self.journal.push(Note::Left {
            session: id,
            authid: session.identity.authid.clone(),
            why,
        });
        self.publish_meta("wamp.session.on_leave", None, || {
            vec![
                Value::Uint(id),
                session.identity.authid.into(),
                session.identity.authrole.into(),
            ]
        });
    }

    pub(super) fn send_error(&mut self, session: Id, request_type: u64, request: Id, uri: &str, text: &str) {
        let payload = Payload::from_args(vec![text.into()]);
        self.send_error_payload(session, request_type, request, uri, payload);
    }

    pub(super) fn send_error_payload(
        &mut self,
        session: Id,
        request_type: u64,
        request: Id,
        uri: &str,
        payload: Payload,
    ) {
        let message = Message::Error {
            request_type,
            request,
            details: Dict::new(),
            error: uri.to_owned(),
            payload,
        };
        self.outbox.send(session, message);
    }
}

fn goodbye(reason: &str, message: Option<&str>) -> Message {
    Message::Goodbye {
        details: message
            .map(|text| ("message".to_owned(), text.into()))
            .into_iter()
            .collect(),
        reason: reason.to_owned(),
    }
}

/// The request id of a message that a client numbers itself or refers to with one.
fn client_request(message: &Message) -> Option<Id> {
    match message {
        Message::Call { request, .. }
        | Message::Cancel { request, .. }
        | Message::Publish { request, .. }
        | Message::Subscribe { request, .. }
        | Message::Unsubscribe { request, .. }
        | Message::Register { request, .. }
        | Message::Unregister { request, .. }
        | Message::Yield { request, .. }
        | Message::Error { request, .. } => Some(*request),
        Message::Hello { .. }
        | Message::Welcome { .. }
        | Message::Abort { .. }
        | Message::Challenge { .. }
        | Message::Authenticate { .. }
        | Message::Goodbye { .. }
        | Message::Published { .. }
        | Message::Subscribed { .. }
        | Message::Unsubscribed { .. }
        | Message::Event { .. }
        | Message::Result { .. }
        | Message::Registered { .. }
        | Message::Unregistered { .. }
        | Message::Invocation { .. }
        | Message::Interrupt { .. } => None,
    }
}

/// The request id of a message that a client numbers itself.
fn numbered_request(message: &Message) -> Option<Id> {
    match message {
        Message::Cancel { .. } | Message::Yield { .. } | Message::Error { .. } => None,
        numbered => client_request(numbered),
    }
}
