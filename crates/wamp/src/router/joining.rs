//! Joining a realm: room, role, and the sessions of the router itself, which nobody sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::counters::Cause;
use super::journal::Note;
use super::permission::Rights;
use super::realm::{Realm, TRUSTED};
use super::session::{Identity, Session};
use crate::uri::error;
use crate::{Id, MAX_ID};

/// Room for sessions, shared by all realms of a router.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    taken: AtomicUsize,
}

impl Seats {
    pub(super) fn new(most: usize) -> Seats {
        Seats {
            most,
            taken: AtomicUsize::new(0),
        }
    }

    fn take(&self) -> bool {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    pub(super) fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why an authenticated peer does not get a session.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JoinError {
    #[error("realm {realm:?} has no role {role:?}")]
    NoSuchRole { realm: String, role: String },
    #[error("the router has no room for more than {0} sessions")]
    Full(usize),
    #[error("the realm has no room for more than {0} sessions of one authid")]
    Crowded(usize),
    #[error("session id {0} is taken")]
    Taken(Id),
}

impl JoinError {
    /// The reason of the ABORT. A full router is not the peer's fault, so no credential failure.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            JoinError::NoSuchRole { .. } => error::NO_SUCH_ROLE,
            JoinError::Full(_) | JoinError::Crowded(_) | JoinError::Taken(_) => error::RUNTIME_ERROR,
        }
    }
}

impl Realm {
    /// Adds a session. The caller queues WELCOME before anything in the outbox is delivered.
    pub(super) fn join(&mut self, id: Id, identity: Identity) -> Result<(), JoinError> {
        let (authid, peer) = (identity.authid.clone(), identity.peer.clone());
        let joined = self.admit(id, identity);
        let cause = match &joined {
            Ok(()) | Err(JoinError::Taken(_)) => return joined,
            Err(JoinError::NoSuchRole { .. }) => Cause::NoSuchRole,
            Err(JoinError::Full(_) | JoinError::Crowded(_)) => Cause::Full,
        };
        self.tally.refused_sessions.count(cause);
        self.journal.push(Note::Refused {
            authid,
            peer,
            reason: cause.name(),
        });
        joined
    }

    fn admit(&mut self, id: Id, identity: Identity) -> Result<(), JoinError> {
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
        let alike = self.limits.max_sessions_per_authid;
        if self
            .crowd
            .get(&identity.authid)
            .is_some_and(|count| *count >= alike)
            || alike == 0
        {
            return Err(JoinError::Crowded(alike));
        }
        if !self.seats.take() {
            return Err(JoinError::Full(self.seats.most));
        }
        if alike != usize::MAX {
            *self.crowd.entry(identity.authid.clone()).or_default() += 1;
        }
        self.journal.push(Note::Joined {
            session: id,
            authid: identity.authid.clone(),
            authrole: identity.authrole.clone(),
            authmethod: identity.authmethod,
            peer: identity.peer.clone(),
        });
        let session = Session::new(identity, rights);
        let details = session.details(id, &self.name);
        self.sessions.insert(id, session);
        self.publish_meta("wamp.session.on_join", None, || vec![details.into()]);
        Ok(())
    }

    /// Adds a session of the router itself, which nobody sees: not counted, not listed, not announced.
    pub(super) fn join_service(&mut self) -> Id {
        let id = loop {
            let id = self.random.u64(1..=MAX_ID);
            if !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let rights = Rights::new(Arc::clone(&self.trusted), None);
        self.services += 1;
        self.sessions
            .insert(id, Session::new(Identity::service(TRUSTED), rights));
        id
    }

    /// The sessions that are not the router's own.
    pub(super) fn clients(&self) -> impl Iterator<Item = (Id, &Session)> {
        self.sessions
            .iter()
            .filter(|(_, session)| !session.identity.is_service())
            .map(|(id, session)| (*id, session))
    }

    /// A session that is not the router's own.
    pub(super) fn client(&self, id: Id) -> Option<&Session> {
        self.sessions
            .get(&id)
            .filter(|session| !session.identity.is_service())
    }
}
