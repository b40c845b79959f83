//! The realm: every session's state and what each incoming message does to it.
//!
//! Pure and synchronous: messages, joins, losses and expired deadlines go in, messages to sessions come out through
//! the [`Outbox`]. Knows nothing of sockets, tasks and encodings, which makes it testable message by message. The
//! rules of RPC are in `dealer` and `calls`, those of publish/subscribe in `broker`, the router's own procedures in
//! `meta`; this file joins, dispatches and frees.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Permission;
use super::broker::Subscribers;
use super::dealer::Callees;
use super::directory::Directory;
use super::outbox::{Ending, Outbox, violation};
use super::permission::{Lines, Rights, Role};
use super::refusal::Refusal;
use super::session::{Identity, Session};
use crate::message::Message;
use crate::payload::Payload;
use crate::uri::{close, error};
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// State of one realm.
#[derive(Debug)]
pub(super) struct Realm {
    pub(super) name: String,
    roles: HashMap<String, Arc<Role>>,
    max_sessions: usize,
    pub(super) sessions: HashMap<Id, Session>,
    pub(super) registrations: Directory<Callees>,
    pub(super) subscriptions: Directory<Subscribers>,
    pub(super) random: fastrand::Rng,
    pub(super) outbox: Outbox,
    /// Matching subscriptions of the publication in hand; kept for its capacity.
    pub(super) matched: Vec<Id>,
}

/// Why an authenticated peer does not get a session.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JoinError {
    #[error("realm {realm:?} has no role {role:?}")]
    NoSuchRole { realm: String, role: String },
    #[error("the router has no room for more than {0} sessions")]
    Full(usize),
    #[error("session id {0} is taken")]
    Taken(Id),
}

impl JoinError {
    /// The reason of the ABORT. A full router is not the peer's fault, so no credential failure.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            JoinError::NoSuchRole { .. } => error::NO_SUCH_ROLE,
            JoinError::Full(_) | JoinError::Taken(_) => error::RUNTIME_ERROR,
        }
    }
}

impl Realm {
    pub(super) fn new(
        name: &str,
        roles: &HashMap<String, Vec<Permission>>,
        max_sessions: usize,
        random: fastrand::Rng,
    ) -> Realm {
        Realm {
            name: name.to_owned(),
            roles: roles
                .iter()
                .map(|(name, permissions)| (name.clone(), Arc::new(Role::new(name, permissions))))
                .collect(),
            max_sessions,
            sessions: HashMap::new(),
            registrations: Directory::new(),
            subscriptions: Directory::new(),
            random,
            outbox: Outbox::default(),
            matched: Vec::new(),
        }
    }

    /// A random id for a session that is about to join; it appears in the challenge and in WELCOME.
    pub(super) fn fresh_id(&mut self) -> Id {
        loop {
            let id = self.random.u64(1..=MAX_ID);
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// Adds a session. The caller queues WELCOME before anything in the outbox is delivered.
    pub(super) fn join(&mut self, id: Id, identity: Identity) -> Result<(), JoinError> {
        if self.sessions.len() >= self.max_sessions {
            return Err(JoinError::Full(self.max_sessions));
        }
        if self.sessions.contains_key(&id) {
            return Err(JoinError::Taken(id));
        }
        let role = self
            .roles
            .get(&identity.authrole)
            .ok_or_else(|| JoinError::NoSuchRole {
                realm: self.name.clone(),
                role: identity.authrole.clone(),
            })?;
        let rights = Rights::new(Arc::clone(role), identity.own_rights.clone());
        let session = Session::new(identity, rights);
        let details = session.details(id, &self.name);
        self.sessions.insert(id, session);
        self.publish_meta("wamp.session.on_join", None, || vec![details.into()]);
        Ok(())
    }

    /// Handles one message of a session. Messages of a session that has ended are ignored.
    pub(super) fn receive(&mut self, session: Id, message: Message, now: Instant) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        let code = message.code();
        let request = client_request(&message);
        if request.is_some_and(|id| id == 0 || id > MAX_ID) {
            self.violate(session, "request id out of range");
            return;
        }
        match self.dispatch(session, message, now) {
            Ok(()) => {}
            Err(Refusal::Violation(text)) => self.violate(session, &text),
            Err(Refusal::Error { uri, text }) => {
                // Only requests are refused with an ERROR; `client_request` knows the id of each of them.
                self.send_error(session, code, request.unwrap_or_default(), uri, &text);
            }
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
                self.remove(session);
                self.outbox.end(session, Some(reply), Ending::Left);
                Ok(())
            }
            Message::Abort { .. } => {
                self.remove(session);
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
            self.remove(session);
            self.outbox.end(session, Some(violation(text)), Ending::Violation);
        }
    }

    /// The transport is gone.
    pub(super) fn lose(&mut self, session: Id) {
        self.remove(session);
    }

    /// The router ends a session: state freed, GOODBYE. `false` when there is no such session.
    pub(super) fn dismiss(&mut self, session: Id, reason: &str, message: Option<&str>) -> bool {
        if !self.sessions.contains_key(&session) {
            return false;
        }
        self.remove(session);
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
            .filter(|(_, session)| session.identity.authid == authid);
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
    fn remove(&mut self, id: Id) {
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
