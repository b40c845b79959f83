//! The receive path of the router without sockets, for fuzzing: frames of several sessions in, encoded frames out.
//!
//! A script has one step per line: the digit of a session, then what it does. `+` joins, `!` is the loss of its
//! connection, `?` has it read what it was sent; everything else is a frame, written in JSON and given to the router in
//! the session's own encoding. `$` and a digit stand for one of the ids that the router has given out so far, which a
//! script cannot know. Session 3 reads only when told to, so that its queue fills up.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::hub::Hub;
use super::joining::Seats;
use super::outbox::Undeliverable;
use super::queue::{Next, Queue};
use super::realm::Realm;
use super::session::{Features, Identity};
use super::{Limits, Permission, RealmConfig};
use crate::message::Message;
use crate::value::Dict;
use crate::{Codec, Id};

/// Encodings of the four sessions; the last one also stands for a peer that announces no feature and may do less.
const CODECS: [Codec; 4] = [Codec::Json, Codec::MessagePack, Codec::Cbor, Codec::MessagePack];

/// Steps beyond are not played: they would find nothing that fewer do not.
const MOST_STEPS: usize = 200;

/// Plays a script and checks that the router writes only what a client can read and holds nothing in the end.
pub fn play(script: &[u8]) {
    let mut stage = Stage::new();
    for who in 0..CODECS.len() {
        stage.join(who);
    }
    for line in script.split(|byte| *byte == b'\n').take(MOST_STEPS) {
        stage.step(line);
    }
    for who in 0..CODECS.len() {
        stage.lose(who);
    }
    let counters = stage.hub.counters();
    assert_eq!(counters.sessions, 0);
    assert_eq!(counters.registrations, 0);
    assert_eq!(counters.subscriptions, 0);
    assert_eq!((counters.queues.messages, counters.queues.bytes), (0, 0));
}

struct Stage {
    hub: Hub,
    sessions: [Option<(Id, Arc<Queue>)>; CODECS.len()],
    joined: Id,
    /// Ids that the router has given out.
    ids: Vec<Id>,
}

impl Stage {
    fn new() -> Stage {
        let limits = Limits {
            send_queue_messages: 16,
            send_queue_bytes: 4096,
            max_pending_calls: 8,
            max_registrations: 8,
            max_subscriptions: 8,
            max_testaments: 4,
            max_retained: 4,
            ..Limits::default()
        };
        let seats = Arc::new(Seats::new(limits.max_sessions));
        let random = fastrand::Rng::with_seed(7);
        let realm = Realm::new("realm1", &config(), &Arc::new(limits), &seats, random);
        Stage {
            hub: Hub::new(realm),
            sessions: Default::default(),
            joined: 0,
            ids: Vec::new(),
        }
    }

    fn step(&mut self, line: &[u8]) {
        let Some((digit, rest)) = line.split_first() else {
            return;
        };
        let who = usize::from(digit.wrapping_sub(b'0'));
        if who >= CODECS.len() {
            return;
        }
        match rest {
            b"+" => self.join(who),
            b"!" => self.lose(who),
            b"?" => self.read(who),
            frame => self.receive(who, frame),
        }
        for reader in 0..3 {
            self.read(reader);
        }
    }

    fn join(&mut self, who: usize) {
        if self.sessions[who].is_some() {
            return;
        }
        self.joined += 1;
        let id = self.joined;
        let identity = identity(who);
        let queue = Queue::new(16, 4096).telling_dropped(identity.features.dropped_events);
        let queue = Arc::new(queue);
        // Only its place at the head of the queue matters.
        let welcome = Message::Welcome {
            session: id,
            details: Dict::new(),
        };
        self.hub
            .join(id, identity, welcome, &queue, 0)
            .expect("a seat and a role");
        self.sessions[who] = Some((id, queue));
    }

    fn lose(&mut self, who: usize) {
        if let Some((id, _)) = self.sessions[who].take() {
            self.hub.lose(id);
        }
    }

    fn receive(&mut self, who: usize, frame: &[u8]) {
        let Some((id, _)) = self.sessions[who] else {
            return;
        };
        let frame = Bytes::from(self.fill_in(frame));
        let message = Codec::Json.decode(&frame).and_then(|message| {
            let frame = CODECS[who].encode(&message)?;
            CODECS[who].decode(&frame)
        });
        match message {
            Ok(message) => {
                self.hub.receive(id, message);
            }
            Err(error) => self.hub.violate(id, &error.to_string()),
        }
    }

    /// The frame with ids instead of their places.
    fn fill_in(&self, frame: &[u8]) -> Vec<u8> {
        let mut filled = Vec::with_capacity(frame.len());
        let mut rest = frame.iter().copied();
        while let Some(byte) = rest.next() {
            if byte != b'$' {
                filled.push(byte);
                continue;
            }
            let place = usize::from(rest.next().unwrap_or_default().wrapping_sub(b'0'));
            let id = self.ids.get(place).copied().unwrap_or(1);
            filled.extend_from_slice(id.to_string().as_bytes());
        }
        filled
    }

    /// Writes what is queued for a session, as its connection would.
    fn read(&mut self, who: usize) {
        let Some((id, queue)) = self.sessions[who].clone() else {
            return;
        };
        while let Some(next) = queue.try_pop() {
            match next {
                Next::Message(outgoing) => match outgoing.encode(CODECS[who]) {
                    Ok(frame) => self.understand(who, &frame),
                    Err(error) => self
                        .hub
                        .fail(id, outgoing.message(), &Undeliverable::Unencodable(error)),
                },
                Next::Ping => {}
                Next::End(last, _) => {
                    if let Some(last) = last {
                        let frame = CODECS[who].encode(&last).expect("the router's own message");
                        self.understand(who, &frame);
                    }
                    return self.lose(who);
                }
                Next::Overflow => return self.lose(who),
            }
        }
    }

    fn understand(&mut self, who: usize, frame: &Bytes) {
        let message = CODECS[who].decode(frame).expect("a client can read it");
        let id = match message {
            Message::Welcome { session: id, .. }
            | Message::Subscribed { subscription: id, .. }
            | Message::Registered { registration: id, .. }
            | Message::Invocation { request: id, .. } => id,
            _ => return,
        };
        self.ids.push(id);
    }
}

fn config() -> RealmConfig {
    let entry = |uri: &str, allowed: bool| Permission {
        uri: uri.to_owned(),
        prefix: true,
        call: allowed,
        register: allowed,
        publish: allowed,
        subscribe: allowed,
        force_register: allowed,
        disclose: allowed,
    };
    let roles = HashMap::from([
        ("much".to_owned(), vec![entry("", true)]),
        ("little".to_owned(), vec![entry("", false), entry("a.", true)]),
    ]);
    RealmConfig::new(roles, Arc::new(|_| unreachable!("there is no handshake here")))
}

fn identity(who: usize) -> Identity {
    let able = who < 3;
    Identity {
        authid: format!("peer{who}"),
        authrole: if able { "much" } else { "little" }.to_owned(),
        authmethod: "anonymous",
        authextra: Dict::new(),
        peer: "fuzz".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::code;

    #[test]
    fn every_script_of_the_corpus_leaves_nothing_behind() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/realm");
        let mut scripts = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            play(&std::fs::read(entry.unwrap().path()).unwrap());
            scripts += 1;
        }
        assert!(scripts > 0, "the corpus is empty");
    }

    #[test]
    fn a_call_passes_from_one_encoding_to_another_and_back() {
        let mut stage = Stage::new();
        (0..CODECS.len()).for_each(|who| stage.join(who));
        stage.step(b"1[64,1,{},\"a.b\"]");
        stage.step(b"2[48,1,{},\"a.b\",[1.5,\"x\"]]");
        let places = stage.ids.len();
        assert!(places > 0, "{places} ids were given out");
        stage.step(format!("1[70,${},{{}},[null]]", places - 1).as_bytes());
        let counters = stage.hub.counters();
        assert_eq!(counters.received.of(code::CALL), 1);
        assert_eq!(counters.sent.of(code::RESULT), 1);
    }
}
