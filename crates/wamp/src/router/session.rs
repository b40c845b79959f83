//! What the realm keeps for one joined session. Plain data; the rules are in `dealer`, `broker` and `realm`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::id_map::IdMap;
use super::permission::{Lines, Rights};
use super::testament::Testaments;
use crate::message::DROPPED_EVENTS;
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// Most calls in parts that a session may leave unfinished and still be told apart from new ones.
const MAX_CUT_SHORT: usize = 1024;

/// Who joined, as the handshake established it.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) authid: String,
    pub(super) authrole: String,
    pub(super) authmethod: &'static str,
    pub(super) authextra: Dict,
    /// Where the peer comes from, for people.
    pub(super) peer: String,
    pub(super) features: Features,
    /// What this principal may do beside what its role may.
    pub(super) own_rights: Option<Arc<Lines>>,
}

/// How the router's own sessions are authenticated: not at all.
const SERVICE: &str = "service";

impl Identity {
    /// A session of the router itself.
    pub(super) fn service(role: &str) -> Identity {
        Identity {
            authid: "router".to_owned(),
            authrole: role.to_owned(),
            authmethod: SERVICE,
            authextra: Dict::new(),
            peer: String::new(),
            features: Features::default(),
            own_rights: None,
        }
    }

    pub(super) fn is_service(&self) -> bool {
        self.authmethod == SERVICE
    }
}

/// What the peer announced in HELLO, as far as the router behaves differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// Callee: `call_canceling`, it understands INTERRUPT.
    pub(super) callee_canceling: bool,
    /// Callee: `caller_identification`.
    pub(super) callee_identification: bool,
    /// Callee: `progressive_call_invocations`.
    pub(super) callee_streaming: bool,
    /// Caller: `progressive_call_invocations`.
    pub(super) caller_streaming: bool,
    /// Subscriber: [`DROPPED_EVENTS`], it knows EVENTs that only say how many were dropped.
    pub(super) dropped_events: bool,
}

impl Features {
    /// Those of our own client.
    #[cfg(feature = "client")]
    pub(super) fn ours() -> Features {
        Features {
            callee_canceling: true,
            callee_identification: true,
            callee_streaming: true,
            caller_streaming: true,
            dropped_events: true,
        }
    }

    /// Reads the `roles` of HELLO; `None` when none of the four client roles is announced (R-S5).
    pub(super) fn from_hello(details: &Dict) -> Option<Features> {
        let roles = details.get("roles").and_then(Value::as_dict)?;
        if !["caller", "callee", "publisher", "subscriber"]
            .iter()
            .any(|role| roles.get(*role).is_some_and(|role| role.as_dict().is_some()))
        {
            return None;
        }
        let announced = |role: &str, feature: &str| {
            roles
                .get(role)
                .and_then(|role| role.get("features"))
                .and_then(|features| features.get(feature))
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        Some(Features {
            callee_canceling: announced("callee", "call_canceling"),
            callee_identification: announced("callee", "caller_identification"),
            callee_streaming: announced("callee", "progressive_call_invocations"),
            caller_streaming: announced("caller", "progressive_call_invocations"),
            dropped_events: announced("subscriber", DROPPED_EVENTS),
        })
    }
}

/// A call as its caller's session knows it.
#[derive(Debug)]
pub(super) struct PendingCall {
    pub(super) callee: Id,
    /// Request id of the INVOCATION in the callee's session.
    pub(super) invocation: Id,
    pub(super) deadline: Option<Instant>,
    /// The caller sends it in parts, and the last one has not come yet.
    pub(super) stream: Option<Box<Stream>>,
}

/// What the first part of a call decides for all that follow.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) registration: Id,
    /// Details of each INVOCATION but `progress`.
    pub(super) details: Dict,
}

/// An invocation as its callee's session knows it. It stays until the callee answers, even when nobody waits any more:
/// that is what makes a late answer legal.
#[derive(Debug)]
pub(super) struct PendingInvocation {
    /// Session and CALL request id that get the answer; `None` once they have their reply.
    pub(super) caller: Option<(Id, Id)>,
    /// The caller asked for partial results.
    pub(super) progress: bool,
    /// CANCEL `kill` is under way: whatever the callee answers, the call ends as cancelled.
    pub(super) killed: bool,
    /// More than the first part of the call has been sent to the callee.
    pub(super) continued: bool,
}

/// One joined session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) rights: Rights,
    pub(super) registrations: BTreeSet<Id>,
    pub(super) subscriptions: BTreeSet<Id>,
    /// Calls of this session without a final reply, by CALL request id.
    pub(super) calls: IdMap<PendingCall>,
    /// Invocations of this session without a final answer, by INVOCATION request id.
    pub(super) invocations: IdMap<PendingInvocation>,
    /// Request id of the last INVOCATION sent; ids count from 1 (R-R23).
    pub(super) last_invocation: Id,
    /// Request id of the last request, while the realm checks them.
    last_request: Id,
    /// Calls in parts that have ended before their last part came: what still comes goes nowhere.
    cut_short: BTreeSet<Id>,
    /// Deadlines of this session's calls with their request ids.
    pub(super) deadlines: BTreeSet<(Instant, Id)>,
    pub(super) testaments: Testaments,
}

impl Session {
    pub(super) fn new(identity: Identity, rights: Rights) -> Session {
        Session {
            identity,
            rights,
            registrations: BTreeSet::new(),
            subscriptions: BTreeSet::new(),
            calls: IdMap::default(),
            invocations: IdMap::default(),
            last_invocation: 0,
            last_request: 0,
            cut_short: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            testaments: Testaments::default(),
        }
    }

    /// Whether `request` is the one that comes next; the further parts of a call come under its id (R-V5).
    pub(super) fn count_request(&mut self, request: Id, is_call: bool) -> bool {
        let next = if self.last_request == MAX_ID {
            1
        } else {
            self.last_request + 1
        };
        if request == next {
            self.last_request = request;
            return true;
        }
        let continues = || self.calls.get(&request).is_some_and(|call| call.stream.is_some());
        is_call && (continues() || self.cut_short.contains(&request))
    }

    /// As if the session had made this many requests.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, request: Id) {
        self.last_request = request;
    }

    /// Whether a part of a call belongs to one that has ended before; `more`: further parts follow.
    pub(super) fn is_cut_short(&mut self, request: Id, more: bool) -> bool {
        match more {
            true => self.cut_short.contains(&request),
            false => self.cut_short.remove(&request),
        }
    }

    /// Has further parts of a call ignored. Of too many such calls the one with the lowest id is forgotten; a peer that
    /// leaves so many unfinished can expect no better than a second answer.
    pub(super) fn cut_short(&mut self, request: Id) {
        self.cut_short.insert(request);
        if self.cut_short.len() > MAX_CUT_SHORT {
            self.cut_short.pop_first();
        }
    }

    /// Records a call.
    pub(super) fn add_call(&mut self, request: Id, call: PendingCall) {
        if let Some(deadline) = call.deadline {
            self.deadlines.insert((deadline, request));
        }
        self.calls.insert(request, call);
    }

    /// Forgets a call together with its deadline.
    pub(super) fn take_call(&mut self, request: Id) -> Option<PendingCall> {
        let call = self.calls.remove(&request)?;
        if let Some(deadline) = call.deadline {
            self.deadlines.remove(&(deadline, request));
        }
        if call.stream.is_some() {
            self.cut_short(request);
        }
        Some(call)
    }

    /// The request id of a call whose deadline has passed; each is returned once.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Id> {
        let (deadline, _) = self.deadlines.first()?;
        if *deadline > now {
            return None;
        }
        self.deadlines.pop_first().map(|(_, request)| request)
    }

    /// When the earliest call of this session times out.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// `wamp.session.get` and `wamp.session.on_join`.
    pub(super) fn details(&self, id: Id, realm: &str) -> Dict {
        let identity = &self.identity;
        Dict::from([
            ("session".to_owned(), Value::Uint(id)),
            ("realm".to_owned(), realm.into()),
            ("authid".to_owned(), identity.authid.as_str().into()),
            ("authrole".to_owned(), identity.authrole.as_str().into()),
            ("authmethod".to_owned(), identity.authmethod.into()),
            ("authprovider".to_owned(), AUTH_PROVIDER.into()),
            ("authextra".to_owned(), identity.authextra.clone().into()),
            (
                "transport".to_owned(),
                Dict::from([("peer".to_owned(), identity.peer.as_str().into())]).into(),
            ),
        ])
    }
}

/// Who vouches for an identity: always the router's authentication callback.
pub(super) const AUTH_PROVIDER: &str = "dynamic";

/// A deadline `timeout` from `now`; a timeout too long to represent never passes.
pub(super) fn deadline(now: Instant, timeout: Duration) -> Option<Instant> {
    now.checked_add(timeout)
}
