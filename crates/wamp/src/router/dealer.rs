//! The dealer's registrations: who offers which procedure, and whose turn it is.
//!
//! Calls under way are in `calls`. Contract: `wamp-interop.md` 3.3, cases R-R3 to R-R8 and R-R22.

use super::broker::About;
use super::directory::{Members, is_reserved};
use super::id_map::IdMap;
use super::pattern::MatchPolicy;
use super::permission::Action;
use super::realm::Realm;
use super::refusal::{Refusal, choice, flag};
use super::session::Session;
use crate::Id;
use crate::message::Message;
use crate::uri::error;
use crate::value::{Dict, Value};

/// How a call chooses among the callees of a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum InvokePolicy {
    /// One callee only.
    #[default]
    Single,
    /// The one that registered first.
    First,
    /// The one that registered last.
    Last,
    /// In turn, in the order of registration.
    RoundRobin,
    /// Any.
    Random,
}

impl InvokePolicy {
    fn from_name(name: &str) -> Option<InvokePolicy> {
        match name {
            "single" => Some(InvokePolicy::Single),
            "first" => Some(InvokePolicy::First),
            "last" => Some(InvokePolicy::Last),
            "roundrobin" => Some(InvokePolicy::RoundRobin),
            "random" => Some(InvokePolicy::Random),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            InvokePolicy::Single => "single",
            InvokePolicy::First => "first",
            InvokePolicy::Last => "last",
            InvokePolicy::RoundRobin => "roundrobin",
            InvokePolicy::Random => "random",
        }
    }
}

/// The callees of a registration, in the order they registered. Never empty.
#[derive(Debug)]
pub(super) struct Callees {
    invoke: InvokePolicy,
    sessions: Vec<Id>,
    /// Round robin: who is next.
    turn: usize,
}

impl Callees {
    /// The callee of the next call.
    pub(super) fn choose(&mut self, random: &mut fastrand::Rng) -> Option<Id> {
        let count = self.sessions.len();
        match self.invoke {
            InvokePolicy::Single | InvokePolicy::First => self.sessions.first().copied(),
            InvokePolicy::Last => self.sessions.last().copied(),
            InvokePolicy::RoundRobin => {
                let chosen = self.sessions.get(self.turn % count.max(1)).copied();
                self.turn = (self.turn + 1) % count.max(1);
                chosen
            }
            InvokePolicy::Random => (count > 0).then(|| self.sessions[random.usize(..count)]),
        }
    }

    fn remove(&mut self, session: Id) {
        if let Some(position) = self.sessions.iter().position(|callee| *callee == session) {
            self.sessions.remove(position);
            // Those behind move up by one; the turn moves with them.
            if position < self.turn {
                self.turn -= 1;
            }
        }
    }
}

impl Members for Callees {
    fn ids(&self) -> Vec<Id> {
        self.sessions.clone()
    }

    fn describe(&self, details: &mut Dict) {
        details.insert("invoke".to_owned(), self.invoke.name().into());
    }
}

impl Realm {
    /// REGISTER.
    pub(super) fn register(
        &mut self,
        session: Id,
        request: Id,
        options: &Dict,
        uri: String,
    ) -> Result<(), Refusal> {
        let policy = choice(options, "match", MatchPolicy::Exact, MatchPolicy::from_name)?;
        let invoke = choice(options, "invoke", InvokePolicy::Single, InvokePolicy::from_name)?;
        let force = flag(options, "force_reregister")?.unwrap_or(false);
        if !policy.accepts(&uri, self.uris) || is_reserved(&uri) {
            return Err(Refusal::uri(&uri));
        }
        let Some(owner) = self.sessions.get(&session) else {
            return Ok(());
        };
        // Permission first: whether somebody offers the procedure is nobody's business without it.
        if !owner.rights.allows_registration(policy, &uri) {
            return Err(self.not_authorized(session, Action::Register, &uri));
        }
        if force && !owner.rights.allows_eviction(&uri) {
            return Err(Refusal::error(
                error::NOT_AUTHORIZED,
                format!("role {:?} may not take {uri:?} over", owner.rights.role()),
            ));
        }
        let most = self.limits.max_registrations;
        if owner.registrations.len() >= most {
            return Err(Refusal::limit(
                error::RUNTIME_ERROR,
                format!("a session has {most} registrations at most"),
            ));
        }
        let registration = match self.registrations.find(policy, &uri) {
            Some(existing) if force => {
                self.evict(existing);
                None
            }
            Some(existing) => {
                self.share(existing, session, invoke, &uri)?;
                Some(existing)
            }
            None => None,
        };
        let created = registration.is_none();
        let registration = registration.unwrap_or_else(|| {
            let callees = Callees {
                invoke,
                sessions: vec![session],
                turn: 0,
            };
            self.registrations.create(policy, uri, callees, &mut self.random)
        });
        if let Some(owner) = self.sessions.get_mut(&session) {
            owner.registrations.insert(registration);
        }
        self.outbox.send(
            session,
            Message::Registered {
                request,
                registration,
            },
        );
        if created {
            self.registration_created(session, registration);
        }
        self.registration_event("wamp.registration.on_register", session, registration);
        Ok(())
    }

    /// Adds a callee to a shared registration.
    fn share(
        &mut self,
        registration: Id,
        session: Id,
        invoke: InvokePolicy,
        uri: &str,
    ) -> Result<(), Refusal> {
        let Some(entry) = self.registrations.get_mut(registration) else {
            return Ok(());
        };
        let callees = &mut entry.members;
        if callees.invoke == InvokePolicy::Single || callees.sessions.contains(&session) {
            return Err(Refusal::error(
                error::PROCEDURE_ALREADY_EXISTS,
                format!("register for already registered procedure {uri:?}"),
            ));
        }
        if callees.invoke != invoke {
            return Err(Refusal::error(
                error::PROCEDURE_EXISTS_WITH_DIFFERENT_POLICY,
                format!(
                    "procedure {uri:?} is registered with invocation policy {:?}",
                    callees.invoke.name()
                ),
            ));
        }
        callees.sessions.push(session);
        Ok(())
    }

    /// Takes a registration from all its callees and tells each of them. Their invocations under way go on.
    fn evict(&mut self, registration: Id) {
        let Some(entry) = self.registrations.get(registration) else {
            return;
        };
        for callee in entry.members.ids() {
            self.revoke_registration(callee, registration, error::UNREGISTERED);
        }
    }

    /// UNREGISTER.
    pub(super) fn unregister(&mut self, session: Id, request: Id, registration: Id) -> Result<(), Refusal> {
        let owned = self
            .sessions
            .get_mut(&session)
            .is_some_and(|session| session.registrations.remove(&registration));
        if !owned {
            return Err(Refusal::error(
                error::NO_SUCH_REGISTRATION,
                format!("this session has no registration {registration}"),
            ));
        }
        let details = Dict::new();
        self.outbox
            .send(session, Message::Unregistered { request, details });
        self.drop_callee(registration, session);
        Ok(())
    }

    /// Takes from a session the registrations that it may not have any more. Its invocations under way go on.
    pub(super) fn revoke_registrations(&mut self, session: Id) {
        let Some(owner) = self.sessions.get_mut(&session) else {
            return;
        };
        let mut revoked = Vec::new();
        for id in &owner.registrations {
            if let Some(entry) = self.registrations.get(*id)
                && !owner.rights.allows_registration(entry.policy, &entry.uri)
            {
                revoked.push(*id);
            }
        }
        for registration in revoked {
            self.revoke_registration(session, registration, error::NOT_AUTHORIZED);
        }
    }

    /// Takes a registration from a callee and tells it; `false` when it has no such registration.
    pub(super) fn revoke_registration(&mut self, session: Id, registration: Id, reason: &str) -> bool {
        let owned = owner_forgets(&mut self.sessions, session, registration);
        if owned {
            self.outbox.send(session, revocation(registration, reason));
            self.drop_callee(registration, session);
        }
        owned
    }

    /// Removes a callee from a registration, and the registration with its last callee. The session's own list is the
    /// caller's business.
    pub(super) fn drop_callee(&mut self, registration: Id, callee: Id) {
        let Some(entry) = self.registrations.get_mut(registration) else {
            return;
        };
        entry.members.remove(callee);
        let last = entry.members.sessions.is_empty();
        self.registration_event("wamp.registration.on_unregister", callee, registration);
        if last {
            self.registration_event("wamp.registration.on_delete", callee, registration);
            self.registrations.remove(registration);
        }
    }

    fn registration_created(&mut self, session: Id, registration: Id) {
        let Some(entry) = self.registrations.get(registration) else {
            return;
        };
        let (details, policy, uri) = (entry.details(), entry.policy, entry.uri.clone());
        let about = About::registration(policy, &uri);
        self.publish_meta("wamp.registration.on_create", Some(about), || {
            vec![Value::Uint(session), details.into()]
        });
    }

    fn registration_event(&mut self, topic: &'static str, session: Id, registration: Id) {
        let Some(entry) = self.registrations.get(registration) else {
            return;
        };
        let (policy, uri) = (entry.policy, entry.uri.clone());
        let about = About::registration(policy, &uri);
        self.publish_meta(topic, Some(about), || {
            vec![Value::Uint(session), Value::Uint(registration)]
        });
    }

    /// ERROR for a missing permission.
    pub(super) fn not_authorized(&self, session: Id, action: Action, uri: &str) -> Refusal {
        let role = self
            .sessions
            .get(&session)
            .map_or("", |session| session.rights.role());
        Refusal::error(
            error::NOT_AUTHORIZED,
            format!("role {role:?} may not {} {uri:?}", action.verb()),
        )
    }
}

fn owner_forgets(sessions: &mut IdMap<Session>, owner: Id, registration: Id) -> bool {
    sessions
        .get_mut(&owner)
        .is_some_and(|session| session.registrations.remove(&registration))
}

/// UNREGISTERED that nobody asked for.
fn revocation(registration: Id, reason: &str) -> Message {
    let details = Dict::from([
        ("registration".to_owned(), Value::Uint(registration)),
        ("reason".to_owned(), reason.into()),
    ]);
    Message::Unregistered { request: 0, details }
}
