//! What a router tells of itself: [`Router::counters`](super::Router::counters) for the process that runs it,
//! `wamp.router.counters` for a session with the permission to call it, about its own realm.
//!
//! The realm counts into a [`Counters`] of its own under its lock; a snapshot adds the gauges. Plain numbers: knows
//! nothing of messages and sessions.

use std::time::Duration;

use crate::message::code;
use crate::value::{Dict, Value};

/// What the router holds (gauges) and what has happened since it was made (totals).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Joined sessions.
    pub sessions: usize,
    /// Registrations, shared ones counted once.
    pub registrations: usize,
    /// Subscriptions, counted once however many subscribers they have.
    pub subscriptions: usize,
    /// Retained events.
    pub retained_events: usize,
    /// What waits in the send queues at this moment.
    pub queues: Queues,
    /// Messages of joined sessions that were read, by type.
    pub received: Traffic,
    /// Messages to joined sessions that were queued, by type.
    pub sent: Traffic,
    pub dropped_events: Dropped,
    /// Sessions closed because they did not read replies or invocations.
    pub overflowed_sessions: u64,
    /// Peers that did not get a session.
    pub refused_sessions: Refused,
    /// Sessions that ended because they sent something that is no message or is not expected.
    pub violations: u64,
    /// Requests that the role or principal may not make.
    pub denied: Denied,
    /// Requests with a malformed URI, option or argument.
    pub invalid_requests: u64,
    /// Requests that a bound of [`Limits`](super::Limits) refused.
    pub limited_requests: u64,
    /// Retained events that gave way to newer ones.
    pub replaced_retained: u64,
    /// Since the router was made.
    pub uptime: Duration,
}

/// EVENTs that were not delivered, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The receiver's send queue was full.
    pub queue_full: u64,
    /// The payload has no form in the receiver's encoding.
    pub unencodable: u64,
    /// The receiver takes no message as large as that (RawSocket).
    pub too_large: u64,
}

/// Peers refused before WELCOME, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The realm does not exist, or none was named or assigned.
    pub no_such_realm: u64,
    /// Wrong secret, ticket or key, or unknown authid.
    pub credentials: u64,
    /// No common authentication method.
    pub no_auth_method: u64,
    /// The authenticator refused with a reason of its own, did not answer or gave an unusable answer.
    pub authenticator: u64,
    /// The principal's role does not exist in the realm.
    pub no_such_role: u64,
    /// Too many sessions, or connections without one, in all.
    pub full: u64,
    /// Too many sessions of this authid.
    pub crowded: u64,
    /// The handshake of the transport, HELLO or AUTHENTICATE did not come in time.
    pub timeout: u64,
    /// Something else than the handshake.
    pub violation: u64,
}

/// Why a peer did not get a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    NoSuchRealm,
    Credentials,
    NoAuthMethod,
    Authenticator,
    NoSuchRole,
    Full,
    Crowded,
    Timeout,
    Violation,
}

impl Cause {
    /// For logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Cause::NoSuchRealm => "no such realm",
            Cause::Credentials => "credentials",
            Cause::NoAuthMethod => "no authentication method",
            Cause::Authenticator => "authenticator",
            Cause::NoSuchRole => "no such role",
            Cause::Full => "too many sessions",
            Cause::Crowded => "too many sessions of this authid",
            Cause::Timeout => "timeout",
            Cause::Violation => "protocol violation",
        }
    }
}

impl Refused {
    pub(super) fn count(&mut self, cause: Cause) {
        let count = match cause {
            Cause::NoSuchRealm => &mut self.no_such_realm,
            Cause::Credentials => &mut self.credentials,
            Cause::NoAuthMethod => &mut self.no_auth_method,
            Cause::Authenticator => &mut self.authenticator,
            Cause::NoSuchRole => &mut self.no_such_role,
            Cause::Full => &mut self.full,
            Cause::Crowded => &mut self.crowded,
            Cause::Timeout => &mut self.timeout,
            Cause::Violation => &mut self.violation,
        };
        *count += 1;
    }
}

/// Requests without permission, by what they wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    pub call: u64,
    pub register: u64,
    pub publish: u64,
    pub subscribe: u64,
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// In all sessions together.
    pub messages: usize,
    /// In all sessions together, as [`Limits::send_queue_bytes`](super::Limits::send_queue_bytes) counts them.
    pub bytes: usize,
    /// In the session with the most messages.
    pub most_messages: usize,
    /// In the session with the most bytes.
    pub most_bytes: usize,
}

impl Queues {
    /// Adds the queue of one session.
    pub(super) fn add(&mut self, messages: usize, bytes: usize) {
        self.messages += messages;
        self.bytes += bytes;
        self.most_messages = self.most_messages.max(messages);
        self.most_bytes = self.most_bytes.max(bytes);
    }
}

/// The message types with their names, in the order of [`Traffic`].
const TYPES: [(u64, &str); 24] = [
    (code::HELLO, "hello"),
    (code::WELCOME, "welcome"),
    (code::ABORT, "abort"),
    (code::CHALLENGE, "challenge"),
    (code::AUTHENTICATE, "authenticate"),
    (code::GOODBYE, "goodbye"),
    (code::ERROR, "error"),
    (code::PUBLISH, "publish"),
    (code::PUBLISHED, "published"),
    (code::SUBSCRIBE, "subscribe"),
    (code::SUBSCRIBED, "subscribed"),
    (code::UNSUBSCRIBE, "unsubscribe"),
    (code::UNSUBSCRIBED, "unsubscribed"),
    (code::EVENT, "event"),
    (code::CALL, "call"),
    (code::CANCEL, "cancel"),
    (code::RESULT, "result"),
    (code::REGISTER, "register"),
    (code::REGISTERED, "registered"),
    (code::UNREGISTER, "unregister"),
    (code::UNREGISTERED, "unregistered"),
    (code::INVOCATION, "invocation"),
    (code::INTERRUPT, "interrupt"),
    (code::YIELD, "yield"),
];

/// Largest type code.
const MAX_CODE: usize = code::YIELD as usize;

/// Messages by type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Traffic([u64; MAX_CODE + 1]);

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic([0; MAX_CODE + 1])
    }
}

impl std::fmt::Debug for Traffic {
    /// Types that have occurred.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl Traffic {
    pub(super) fn count(&mut self, code: u64) {
        if let Some(count) = usize::try_from(code).ok().and_then(|code| self.0.get_mut(code)) {
            *count += 1;
        }
    }

    /// Messages of this [type](crate::message::code); 0 for an unknown one.
    pub fn of(&self, code: u64) -> u64 {
        usize::try_from(code)
            .ok()
            .and_then(|code| self.0.get(code))
            .copied()
            .unwrap_or(0)
    }

    /// Types that have occurred, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        TYPES
            .iter()
            .map(|(code, name)| (*name, self.of(*code)))
            .filter(|(_, count)| *count > 0)
    }

    /// Messages of all types.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Counters {
    /// Adds what another realm has counted.
    pub(super) fn add(&mut self, other: &Counters) {
        self.sessions += other.sessions;
        self.registrations += other.registrations;
        self.subscriptions += other.subscriptions;
        self.retained_events += other.retained_events;
        self.queues.messages += other.queues.messages;
        self.queues.bytes += other.queues.bytes;
        self.queues.most_messages = self.queues.most_messages.max(other.queues.most_messages);
        self.queues.most_bytes = self.queues.most_bytes.max(other.queues.most_bytes);
        for (here, there) in [
            (&mut self.received, &other.received),
            (&mut self.sent, &other.sent),
        ] {
            for (sum, count) in here.0.iter_mut().zip(there.0) {
                *sum += count;
            }
        }
        self.dropped_events.queue_full += other.dropped_events.queue_full;
        self.dropped_events.unencodable += other.dropped_events.unencodable;
        self.dropped_events.too_large += other.dropped_events.too_large;
        self.overflowed_sessions += other.overflowed_sessions;
        let (refused, more) = (&mut self.refused_sessions, &other.refused_sessions);
        refused.no_such_realm += more.no_such_realm;
        refused.credentials += more.credentials;
        refused.no_auth_method += more.no_auth_method;
        refused.authenticator += more.authenticator;
        refused.no_such_role += more.no_such_role;
        refused.full += more.full;
        refused.crowded += more.crowded;
        refused.timeout += more.timeout;
        refused.violation += more.violation;
        self.violations += other.violations;
        self.denied.call += other.denied.call;
        self.denied.register += other.denied.register;
        self.denied.publish += other.denied.publish;
        self.denied.subscribe += other.denied.subscribe;
        self.invalid_requests += other.invalid_requests;
        self.limited_requests += other.limited_requests;
        self.replaced_retained += other.replaced_retained;
    }

    /// The result of `wamp.router.counters`: the same names, nested in the same way; `uptime` in whole seconds.
    pub(super) fn to_dict(self) -> Dict {
        let Counters {
            queues,
            dropped_events: dropped,
            refused_sessions: refused,
            denied,
            ..
        } = self;
        let dict = |entries: &[(&str, u64)]| -> Value {
            let entries = entries
                .iter()
                .map(|(name, count)| ((*name).to_owned(), Value::Uint(*count)));
            entries.collect::<Dict>().into()
        };
        let traffic = |traffic: Traffic| dict(&traffic.iter().collect::<Vec<_>>());
        let mut counters = Dict::from([
            (
                "queues".to_owned(),
                dict(&[
                    ("messages", queues.messages as u64),
                    ("bytes", queues.bytes as u64),
                    ("most_messages", queues.most_messages as u64),
                    ("most_bytes", queues.most_bytes as u64),
                ]),
            ),
            ("received".to_owned(), traffic(self.received)),
            ("sent".to_owned(), traffic(self.sent)),
            (
                "dropped_events".to_owned(),
                dict(&[
                    ("queue_full", dropped.queue_full),
                    ("unencodable", dropped.unencodable),
                    ("too_large", dropped.too_large),
                ]),
            ),
            (
                "refused_sessions".to_owned(),
                dict(&[
                    ("no_such_realm", refused.no_such_realm),
                    ("credentials", refused.credentials),
                    ("no_auth_method", refused.no_auth_method),
                    ("authenticator", refused.authenticator),
                    ("no_such_role", refused.no_such_role),
                    ("full", refused.full),
                    ("crowded", refused.crowded),
                    ("timeout", refused.timeout),
                    ("violation", refused.violation),
                ]),
            ),
            (
                "denied".to_owned(),
                dict(&[
                    ("call", denied.call),
                    ("register", denied.register),
                    ("publish", denied.publish),
                    ("subscribe", denied.subscribe),
                ]),
            ),
        ]);
        for (name, count) in [
            ("sessions", self.sessions as u64),
            ("registrations", self.registrations as u64),
            ("subscriptions", self.subscriptions as u64),
            ("retained_events", self.retained_events as u64),
            ("overflowed_sessions", self.overflowed_sessions),
            ("violations", self.violations),
            ("invalid_requests", self.invalid_requests),
            ("limited_requests", self.limited_requests),
            ("replaced_retained", self.replaced_retained),
            ("uptime", self.uptime.as_secs()),
        ] {
            counters.insert(name.to_owned(), Value::Uint(count));
        }
        counters
    }
}
