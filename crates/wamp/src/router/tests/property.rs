//! Any sequence of valid messages: one reply per request, ids and ownership kept, nothing left at the end.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

/// One step of a session, chosen by number so that shrinking works.
#[derive(Clone, Debug)]
enum Step {
    Join,
    Lose(usize),
    Goodbye(usize),
    Kill(usize, usize),
    KillAll(usize),
    /// Takes a subscription or a registration from somebody.
    Remove(usize, usize, usize, bool),
    Testament(usize, usize, bool),
    FlushTestaments(usize),
    Register(usize, usize, usize, bool),
    Unregister(usize, usize),
    Subscribe(usize, usize, usize, bool),
    Unsubscribe(usize, usize),
    Publish(usize, usize, bool),
    /// Caller, procedure, timeout, partial results wanted, sent in parts.
    Call(usize, usize, u64, bool, bool),
    /// A further part of a call, and whether more follow.
    Part(usize, usize, bool),
    Cancel(usize, usize),
    Answer(usize, usize, usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..4_usize;
    let uri = 0..URIS.len();
    let policy = 0..3_usize;
    prop_oneof![
        2 => Just(Step::Join),
        1 => who.clone().prop_map(Step::Lose),
        1 => who.clone().prop_map(Step::Goodbye),
        1 => (who.clone(), who.clone()).prop_map(|(killer, victim)| Step::Kill(killer, victim)),
        1 => who.clone().prop_map(Step::KillAll),
        1 => (who.clone(), who.clone(), 0..8_usize, any::<bool>())
            .prop_map(|(who, whose, which, callee)| Step::Remove(who, whose, which, callee)),
        2 => (who.clone(), uri.clone(), any::<bool>())
            .prop_map(|(who, uri, detached)| Step::Testament(who, uri, detached)),
        1 => who.clone().prop_map(Step::FlushTestaments),
        4 => (who.clone(), uri.clone(), 0..INVOKE.len(), any::<bool>())
            .prop_map(|(who, uri, invoke, force)| Step::Register(who, uri, invoke, force)),
        1 => (who.clone(), 0..8_usize).prop_map(|(who, which)| Step::Unregister(who, which)),
        3 => (who.clone(), 0..TOPICS.len(), policy, any::<bool>())
            .prop_map(|(who, uri, policy, retained)| Step::Subscribe(who, uri, policy, retained)),
        1 => (who.clone(), 0..8_usize).prop_map(|(who, which)| Step::Unsubscribe(who, which)),
        3 => (who.clone(), uri.clone(), any::<bool>())
            .prop_map(|(who, uri, retain)| Step::Publish(who, uri, retain)),
        6 => (who.clone(), uri, 0..3_u64, any::<bool>(), any::<bool>())
            .prop_map(|(who, uri, timeout, progress, parts)| Step::Call(who, uri, timeout * 100, progress, parts)),
        5 => (who.clone(), 0..8_usize, any::<bool>()).prop_map(|(who, which, more)| Step::Part(who, which, more)),
        2 => (who.clone(), 0..3_usize).prop_map(|(who, mode)| Step::Cancel(who, mode)),
        5 => (who, 0..8_usize, 0..3_usize).prop_map(|(who, which, how)| Step::Answer(who, which, how)),
        1 => (0..300_u64).prop_map(Step::Wait),
    ]
}

const URIS: [&str; 4] = ["a.b", "a.b.c", "a.c", "x.b.c"];
const TOPICS: [&str; 6] = [
    "a.b",
    "a.b.c",
    "a.c",
    "x.b.c",
    "wamp.session.on_leave",
    "wamp.subscription.on_delete",
];
/// Retained events that the realm keeps, fewer than there are topics.
const RETAINED: usize = 3;
const CLIENTS: usize = 4;
const POLICIES: [&str; 3] = ["exact", "prefix", "wildcard"];
const INVOKE: [&str; 3] = ["single", "roundrobin", "first"];
const MODES: [&str; 3] = ["skip", "kill", "killnowait"];

/// What a client knows of its own session.
#[derive(Default)]
struct Client {
    request: Id,
    /// Requests without a final reply.
    open: BTreeSet<Id>,
    calls: BTreeSet<Id>,
    /// Calls that asked for partial results.
    progressive: BTreeSet<Id>,
    /// Calls whose last part has not been sent, whether they are still pending or not.
    unfinished: BTreeSet<Id>,
    registrations: BTreeSet<Id>,
    /// UNREGISTERED names no registration, only the request.
    unregistering: HashMap<Id, Id>,
    subscriptions: BTreeSet<Id>,
    /// Invocations not answered yet, and the highest id seen.
    invocations: Vec<Id>,
    last_invocation: Id,
    /// Invocations that have further parts to come and were not interrupted.
    incomplete: BTreeSet<Id>,
}

impl Client {
    fn next(&mut self) -> Id {
        self.request += 1;
        self.open.insert(self.request);
        self.request
    }
}

struct Play {
    world: World,
    clients: Vec<(Id, Client)>,
    gone: HashSet<Id>,
}

impl Play {
    fn client(&mut self, who: usize) -> Option<&mut (Id, Client)> {
        let count = self.clients.len();
        (count > 0).then(|| &mut self.clients[who % count])
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Join => {
                if self.clients.len() < CLIENTS {
                    let id = self.world.join("someone");
                    self.clients.push((id, Client::default()));
                    let sent = self.world.drain();
                    self.absorb(sent);
                }
            }
            Step::Lose(who) => {
                if let Some((id, _)) = self.client(who) {
                    let id = *id;
                    self.forget(id);
                    let sent = self.world.lose(id);
                    self.absorb(sent);
                }
            }
            Step::Goodbye(who) => self.say(who, |_| Some(goodbye())),
            Step::Kill(killer, victim) => {
                let Some((victim, _)) = self.client(victim) else {
                    return;
                };
                let victim = *victim;
                self.meta(killer, "wamp.session.kill", json!([victim]));
            }
            Step::KillAll(who) => self.meta(who, "wamp.session.kill_all", json!([])),
            Step::Remove(who, whose, which, callee) => {
                let Some((id, client)) = self.client(whose) else {
                    return;
                };
                let (procedure, ids) = match callee {
                    true => ("wamp.registration.remove_callee", &client.registrations),
                    false => ("wamp.subscription.remove_subscriber", &client.subscriptions),
                };
                let (id, from) = (*id, pick(ids, which).unwrap_or(7));
                self.meta(who, procedure, json!([from, id]));
            }
            Step::Testament(who, uri, detached) => {
                let scope = if detached { "detached" } else { "destroyed" };
                let arguments = json!([URIS[uri], ["gone"], {}, {"retain": detached}, scope]);
                self.meta(who, "wamp.session.add_testament", arguments);
            }
            Step::FlushTestaments(who) => self.meta(who, "wamp.session.flush_testaments", json!([])),
            Step::Register(who, uri, invoke, force) => self.say(who, |client| {
                let options = json!({"invoke": INVOKE[invoke], "force_reregister": force});
                Some(register(client.next(), URIS[uri], options))
            }),
            Step::Unregister(who, which) => self.say(who, |client| {
                let id = pick(&client.registrations, which)?;
                let request = client.next();
                client.unregistering.insert(request, id);
                Some(unregister(request, id))
            }),
            Step::Subscribe(who, uri, policy, retained) => self.say(who, |client| {
                let options = json!({"match": POLICIES[policy], "get_retained": retained});
                Some(subscribe(client.next(), TOPICS[uri], options))
            }),
            Step::Unsubscribe(who, which) => self.say(who, |client| {
                let id = pick(&client.subscriptions, which)?;
                client.subscriptions.remove(&id);
                Some(unsubscribe(client.next(), id))
            }),
            Step::Publish(who, uri, retain) => self.say(who, |client| {
                let options = json!({"acknowledge": true, "exclude_me": false, "retain": retain});
                Some(publish(client.next(), URIS[uri], options))
            }),
            Step::Call(who, uri, timeout, progress, parts) => self.say(who, |client| {
                let request = client.next();
                client.calls.insert(request);
                if progress {
                    client.progressive.insert(request);
                }
                if parts {
                    client.unfinished.insert(request);
                }
                let options = json!({"timeout": timeout, "receive_progress": progress, "progress": parts});
                Some(call(request, URIS[uri], options))
            }),
            Step::Part(who, which, more) => self.say(who, |client| {
                let request = pick(&client.unfinished, which)?;
                if !more {
                    client.unfinished.remove(&request);
                }
                Some(call(request, "a.b", json!({"progress": more})))
            }),
            Step::Cancel(who, mode) => self.say(who, |client| {
                let request = *client.calls.first()?;
                Some(cancel(request, json!({"mode": MODES[mode]})))
            }),
            Step::Answer(who, which, how) => self.say(who, |client| {
                if client.invocations.is_empty() {
                    return None;
                }
                let which = which % client.invocations.len();
                let id = client.invocations[which];
                if how == 0 {
                    return Some(yields(id, json!({"progress": true}), Payload::Empty));
                }
                client.invocations.remove(which);
                client.incomplete.remove(&id);
                Some(match how {
                    1 => yields(id, json!({}), Payload::Empty),
                    _ => fails(id, "my.error", Payload::Empty),
                })
            }),
            Step::Wait(milliseconds) => {
                self.world.now += Duration::from_millis(milliseconds);
                for id in self.clients.iter().map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.world.realm.expire(id, self.world.now);
                }
                let sent = self.world.drain();
                self.absorb(sent);
            }
        }
    }

    fn meta(&mut self, who: usize, procedure: &str, arguments: serde_json::Value) {
        self.say(who, |client| {
            Some(Message::Call {
                request: client.next(),
                options: Dict::new(),
                procedure: procedure.to_owned(),
                payload: args(arguments),
            })
        });
    }

    fn say(&mut self, who: usize, message: impl FnOnce(&mut Client) -> Option<Message>) {
        let Some((id, client)) = self.client(who) else {
            return;
        };
        let id = *id;
        if let Some(message) = message(client) {
            let sent = self.world.send(id, message);
            self.absorb(sent);
        }
    }

    fn forget(&mut self, id: Id) {
        self.clients.retain(|(client, _)| *client != id);
        self.gone.insert(id);
    }

    /// Every message the router sent has to fit what its receiver knows.
    fn absorb(&mut self, sent: Sent) {
        for (id, message) in sent {
            assert!(!self.gone.contains(&id), "{message:?} for a session that is gone");
            let (_, client) = self.clients.iter_mut().find(|(client, _)| *client == id).unwrap();
            match message {
                Message::Registered {
                    request,
                    registration,
                } => {
                    assert!(client.open.remove(&request));
                    assert!(client.registrations.insert(registration));
                }
                Message::Unregistered { request: 0, details } => {
                    let registration = details["registration"].as_u64().unwrap();
                    assert!(client.registrations.remove(&registration));
                }
                Message::Unregistered { request, .. } => {
                    assert!(client.open.remove(&request));
                    let registration = client.unregistering.remove(&request).unwrap();
                    assert!(client.registrations.remove(&registration));
                }
                Message::Subscribed {
                    request,
                    subscription,
                } => {
                    assert!(client.open.remove(&request));
                    client.subscriptions.insert(subscription);
                }
                Message::Unsubscribed { request: 0, details } => {
                    let subscription = details["subscription"].as_u64().unwrap();
                    assert!(client.subscriptions.remove(&subscription));
                }
                Message::Unsubscribed { request, .. } | Message::Published { request, .. } => {
                    assert!(client.open.remove(&request));
                }
                Message::Result { request, details, .. } if details.contains_key("progress") => {
                    assert!(client.progressive.contains(&request), "nobody asked");
                    assert!(client.open.contains(&request), "after the final reply");
                }
                Message::Result { request, .. } => {
                    assert!(client.open.remove(&request), "second reply");
                    client.calls.remove(&request);
                }
                Message::Error { request, .. } => {
                    assert!(client.open.remove(&request), "second reply");
                    client.calls.remove(&request);
                }
                Message::Event { subscription, .. } => {
                    assert!(client.subscriptions.contains(&subscription));
                }
                Message::Invocation {
                    request,
                    registration,
                    details,
                    ..
                } => {
                    if request <= client.last_invocation {
                        assert!(
                            client.incomplete.contains(&request),
                            "a part that was not announced"
                        );
                    } else {
                        assert!(client.registrations.contains(&registration));
                        assert_eq!(request, client.last_invocation + 1);
                        client.last_invocation = request;
                        client.invocations.push(request);
                    }
                    match details.contains_key("progress") {
                        true => client.incomplete.insert(request),
                        false => client.incomplete.remove(&request),
                    };
                }
                Message::Interrupt { request, .. } => {
                    assert!(client.invocations.contains(&request));
                    client.incomplete.remove(&request);
                }
                Message::Goodbye { .. } => self.forget(id),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

fn pick(ids: &BTreeSet<Id>, which: usize) -> Option<Id> {
    (!ids.is_empty()).then(|| *ids.iter().nth(which % ids.len()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_has_one_reply_and_nothing_is_left(steps in prop::collection::vec(step(), 1..120)) {
        let mut play = Play {
            world: World::bounded(Limits {
                max_sessions: CLIENTS,
                max_sessions_per_authid: CLIENTS,
                max_testaments: 2,
                max_retained: RETAINED,
                ..Limits::default()
            }),
            clients: Vec::new(),
            gone: HashSet::new(),
        };
        for step in steps {
            play.play(step);
            let counters = play.world.realm.counters();
            prop_assert!(counters.retained_events <= RETAINED);
            prop_assert_eq!(counters.violations, 0, "every message was valid");
            for (id, client) in &play.clients {
                let session = &play.world.realm.sessions[id];
                prop_assert_eq!(&session.registrations, &client.registrations);
                prop_assert_eq!(&session.subscriptions, &client.subscriptions);
                prop_assert!(client.open.iter().all(|request| client.calls.contains(request)), "only calls wait");
                prop_assert_eq!(session.calls.len(), client.calls.len());
                prop_assert_eq!(session.invocations.len(), client.invocations.len());
            }
        }
        // Every callee answers, so no caller waits any more.
        while let Some(who) = play.clients.iter().position(|(_, client)| !client.invocations.is_empty()) {
            play.play(Step::Answer(who, 0, 1));
        }
        for (_, client) in &play.clients {
            prop_assert!(client.open.is_empty(), "unanswered: {:?}", client.open);
        }
        while !play.clients.is_empty() {
            play.play(Step::Lose(0));
        }
        let realm = &play.world.realm;
        prop_assert!(realm.sessions.is_empty());
        prop_assert_eq!(realm.counters().sessions, 0);
        prop_assert_eq!(realm.registrations.len() + realm.subscriptions.len(), 0);
    }
}
