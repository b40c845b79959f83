//! The realm without I/O, message by message. Every test that covers a case of `wamp-interop.md` 5 carries its number.

mod bounds;
mod parts;
mod property;
mod pubsub;
mod removal;
mod retained;
mod rights;
mod rpc;
mod rpc_end;
mod sessions;
mod shared;
mod testaments;
mod views;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::joining::Seats;
use super::outbox::{Delivery, Ending};
use super::realm::Realm;
use super::session::{Features, Identity};
use super::{Limits, Permission, RealmConfig};
use crate::message::Message;
use crate::payload::Payload;
use crate::value::{Dict, Value};
use crate::{Id, uri};

/// A realm with a clock and a record of who was told to go.
struct World {
    realm: Realm,
    now: Instant,
    next_id: Id,
    ended: Vec<(Id, Ending)>,
    /// What the last meta call caused besides its answer.
    aside: Sent,
}

/// Messages in the order they were sent, with their receivers.
type Sent = Vec<(Id, Message)>;

impl World {
    fn new() -> World {
        World::with(vec![entry("", true)])
    }

    /// A world whose role `device` has these permissions; `backend` may do everything, undisclosed.
    fn with(device: Vec<Permission>) -> World {
        let limits = Limits {
            max_sessions: 100,
            ..Limits::default()
        };
        World::of(&realm_config(device), limits)
    }

    fn bounded(limits: Limits) -> World {
        World::of(&realm_config(vec![entry("", true)]), limits)
    }

    /// A world with strict URIs and request ids.
    fn strict() -> World {
        let mut config = realm_config(vec![entry("", true)]);
        config.uris = uri::UriRule::Strict;
        config.strict_request_ids = true;
        World::of(&config, Limits::default())
    }

    fn of(config: &RealmConfig, limits: Limits) -> World {
        let seats = Arc::new(Seats::new(limits.max_sessions));
        let random = fastrand::Rng::with_seed(7);
        World {
            realm: Realm::new("realm1", config, &Arc::new(limits), &seats, random),
            now: Instant::now(),
            next_id: 1000,
            ended: Vec::new(),
            aside: Vec::new(),
        }
    }

    /// Joins as `device` with every feature announced.
    fn join(&mut self, authid: &str) -> Id {
        self.join_as(authid, "device", true)
    }

    fn join_as(&mut self, authid: &str, role: &str, able: bool) -> Id {
        self.next_id += 1;
        let id = self.next_id;
        self.realm
            .join(id, identity(authid, role, able))
            .expect("the role exists");
        id
    }

    fn send(&mut self, session: Id, message: Message) -> Sent {
        self.realm.receive(session, message, self.now);
        self.drain()
    }

    fn lose(&mut self, session: Id) -> Sent {
        self.realm.lose(session);
        self.drain()
    }

    fn advance(&mut self, session: Id, by: Duration) -> Sent {
        self.now += by;
        self.realm.expire(session, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Sent {
        let mut sent = Vec::new();
        let counters = self.realm.counters().to_dict();
        for (id, delivery) in self.realm.outbox.drain() {
            match delivery {
                Delivery::Send(outgoing) => sent.push((id, outgoing.message().clone())),
                Delivery::Forget(_) => {}
                Delivery::Counters(request) => {
                    let result = Message::Result {
                        request,
                        details: Dict::new(),
                        payload: Payload::from_args(vec![counters.clone().into()]),
                    };
                    sent.push((id, result));
                }
                Delivery::End(message, ending) => {
                    self.ended.push((id, ending));
                    sent.extend(message.map(|message| (id, message)));
                }
            }
        }
        sent
    }

    fn register(&mut self, session: Id, procedure: &str) -> Id {
        self.register_with(session, procedure, json!({}))
    }

    fn register_with(&mut self, session: Id, procedure: &str, options: serde_json::Value) -> Id {
        let sent = self.send(session, register(1, procedure, options));
        sent.iter()
            .find_map(|(_, message)| match message {
                Message::Registered { registration, .. } => Some(*registration),
                _ => None,
            })
            .unwrap_or_else(|| panic!("not registered: {sent:?}"))
    }

    fn subscribe(&mut self, session: Id, topic: &str, options: serde_json::Value) -> Id {
        let sent = self.send(session, subscribe(1, topic, options));
        sent.iter()
            .find_map(|(_, message)| match message {
                Message::Subscribed { subscription, .. } => Some(*subscription),
                _ => None,
            })
            .unwrap_or_else(|| panic!("not subscribed: {sent:?}"))
    }

    /// Calls a procedure of the router.
    fn meta(&mut self, session: Id, procedure: &str, args: serde_json::Value) -> Result<Value, String> {
        self.meta_with(session, procedure, args, json!({}))
    }

    fn meta_with(
        &mut self,
        session: Id,
        procedure: &str,
        args: serde_json::Value,
        kwargs: serde_json::Value,
    ) -> Result<Value, String> {
        let payload = Payload::from_parts(list(args), dict(kwargs));
        let call = Message::Call {
            request: 77,
            options: Dict::new(),
            procedure: procedure.to_owned(),
            payload,
        };
        self.realm.receive(session, call, self.now);
        let mut answer = None;
        let mut others = Vec::new();
        for (id, message) in self.drain() {
            match message {
                Message::Result {
                    request: 77, payload, ..
                } if id == session => {
                    answer = Some(Ok(payload.args().unwrap().remove(0)));
                }
                Message::Error {
                    request: 77, error, ..
                } if id == session => answer = Some(Err(error)),
                other => others.push((id, other)),
            }
        }
        self.aside = others;
        answer.expect("every call is answered")
    }
}

fn realm_config(device: Vec<Permission>) -> RealmConfig {
    let mut open = entry("", true);
    open.disclose = false;
    let roles = HashMap::from([("device".to_owned(), device), ("backend".to_owned(), vec![open])]);
    RealmConfig::new(roles, Arc::new(|_| unreachable!("no handshake here")))
}

fn entry(uri: &str, allowed: bool) -> Permission {
    Permission {
        uri: uri.to_owned(),
        prefix: true,
        call: allowed,
        register: allowed,
        publish: allowed,
        subscribe: allowed,
        force_register: allowed,
        disclose: allowed,
    }
}

fn identity(authid: &str, role: &str, able: bool) -> Identity {
    Identity {
        authid: authid.to_owned(),
        authrole: role.to_owned(),
        authmethod: "wampcra",
        authextra: Dict::new(),
        peer: "test".to_owned(),
        features: Features {
            callee_canceling: able,
            callee_identification: able,
            callee_streaming: able,
            caller_streaming: able,
            dropped_events: able,
        },
        own_rights: None,
    }
}

fn dict(json: serde_json::Value) -> Dict {
    match Value::from(json) {
        Value::Dict(dict) => dict,
        other => panic!("not a dictionary: {other:?}"),
    }
}

fn list(json: serde_json::Value) -> Vec<Value> {
    match Value::from(json) {
        Value::List(list) => list,
        other => panic!("not a list: {other:?}"),
    }
}

fn args(json: serde_json::Value) -> Payload {
    Payload::from_args(list(json))
}

fn register(request: Id, procedure: &str, options: serde_json::Value) -> Message {
    Message::Register {
        request,
        options: dict(options),
        procedure: procedure.to_owned(),
    }
}

fn subscribe(request: Id, topic: &str, options: serde_json::Value) -> Message {
    Message::Subscribe {
        request,
        options: dict(options),
        topic: topic.to_owned(),
    }
}

fn publish(request: Id, topic: &str, options: serde_json::Value) -> Message {
    Message::Publish {
        request,
        options: dict(options),
        topic: topic.to_owned(),
        payload: args(json!(["event"])),
    }
}

fn call(request: Id, procedure: &str, options: serde_json::Value) -> Message {
    Message::Call {
        request,
        options: dict(options),
        procedure: procedure.to_owned(),
        payload: args(json!([1, "two"])),
    }
}

fn cancel(request: Id, options: serde_json::Value) -> Message {
    Message::Cancel {
        request,
        options: dict(options),
    }
}

fn yields(request: Id, options: serde_json::Value, payload: Payload) -> Message {
    Message::Yield {
        request,
        options: dict(options),
        payload,
    }
}

fn fails(request: Id, error: &str, payload: Payload) -> Message {
    Message::Error {
        request_type: crate::message::code::INVOCATION,
        request,
        details: Dict::new(),
        error: error.to_owned(),
        payload,
    }
}

fn unregister(request: Id, registration: Id) -> Message {
    Message::Unregister {
        request,
        registration,
    }
}

fn unsubscribe(request: Id, subscription: Id) -> Message {
    Message::Unsubscribe {
        request,
        subscription,
    }
}

fn goodbye() -> Message {
    Message::Goodbye {
        details: Dict::new(),
        reason: uri::close::CLOSE_REALM.to_owned(),
    }
}

/// `(request type, request, error)` of the only message sent, which has to be an ERROR to `session`.
#[track_caller]
fn refusal(sent: Sent, session: Id) -> (u64, Id, String) {
    match sent.as_slice() {
        [
            (
                id,
                Message::Error {
                    request_type,
                    request,
                    error,
                    ..
                },
            ),
        ] if *id == session => (*request_type, *request, error.clone()),
        other => panic!("expected one ERROR for {session}: {other:?}"),
    }
}

/// The ERROR URI of the only message sent.
#[track_caller]
fn refused(sent: Sent, session: Id) -> String {
    refusal(sent, session).2
}

/// `(callee, request, registration, details)` of the only message sent, which has to be an INVOCATION.
#[track_caller]
fn invocation(sent: Sent) -> (Id, Id, Id, Dict) {
    match sent.as_slice() {
        [
            (
                callee,
                Message::Invocation {
                    request,
                    registration,
                    details,
                    ..
                },
            ),
        ] => (*callee, *request, *registration, details.clone()),
        other => panic!("expected one INVOCATION: {other:?}"),
    }
}

/// `(receiver, subscription, publication, details)` of every EVENT sent.
fn events(sent: &Sent) -> Vec<(Id, Id, Id, Dict)> {
    sent.iter()
        .filter_map(|(receiver, message)| match message {
            Message::Event {
                subscription,
                publication,
                details,
                ..
            } => Some((*receiver, *subscription, *publication, details.clone())),
            _ => None,
        })
        .collect()
}

/// Receivers of the EVENTs sent, sorted.
fn receivers(sent: &Sent) -> Vec<Id> {
    let mut receivers: Vec<Id> = events(sent).into_iter().map(|(receiver, ..)| receiver).collect();
    receivers.sort_unstable();
    receivers
}

/// Arguments of every EVENT that `session` got, in order.
fn heard(sent: &Sent, session: Id) -> Vec<(Id, Vec<Value>)> {
    sent.iter()
        .filter(|(receiver, _)| *receiver == session)
        .filter_map(|(_, message)| match message {
            Message::Event {
                subscription,
                payload,
                ..
            } => Some((*subscription, payload.args().unwrap())),
            _ => None,
        })
        .collect()
}
