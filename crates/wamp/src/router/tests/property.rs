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
    Register(usize, usize, usize, bool),
    Unregister(usize, usize),
    Subscribe(usize, usize, usize),
    Unsubscribe(usize, usize),
    Publish(usize, usize),
    Call(usize, usize, u64),
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
        4 => (who.clone(), uri.clone(), 0..INVOKE.len(), any::<bool>())
            .prop_map(|(who, uri, invoke, force)| Step::Register(who, uri, invoke, force)),
        1 => (who.clone(), 0..8_usize).prop_map(|(who, which)| Step::Unregister(who, which)),
        3 => (who.clone(), uri.clone(), policy).prop_map(|(who, uri, policy)| Step::Subscribe(who, uri, policy)),
        1 => (who.clone(), 0..8_usize).prop_map(|(who, which)| Step::Unsubscribe(who, which)),
        3 => (who.clone(), uri.clone()).prop_map(|(who, uri)| Step::Publish(who, uri)),
        6 => (who.clone(), uri, 0..3_u64).prop_map(|(who, uri, timeout)| Step::Call(who, uri, timeout * 100)),
        2 => (who.clone(), 0..3_usize).prop_map(|(who, mode)| Step::Cancel(who, mode)),
        5 => (who, 0..8_usize, 0..3_usize).prop_map(|(who, which, how)| Step::Answer(who, which, how)),
        1 => (0..300_u64).prop_map(Step::Wait),
    ]
}

const URIS: [&str; 4] = ["a.b", "a.b.c", "a.c", "x.b.c"];
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
    registrations: BTreeSet<Id>,
    /// UNREGISTERED names no registration, only the request.
    unregistering: HashMap<Id, Id>,
    subscriptions: BTreeSet<Id>,
    /// Invocations not answered yet, and the highest id seen.
    invocations: Vec<Id>,
    last_invocation: Id,
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
                if self.clients.len() < 4 {
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
                self.say(killer, |client| {
                    Some(Message::Call {
                        request: client.next(),
                        options: Dict::new(),
                        procedure: "wamp.session.kill".to_owned(),
                        payload: args(json!([victim])),
                    })
                });
            }
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
            Step::Subscribe(who, uri, policy) => self.say(who, |client| {
                Some(subscribe(
                    client.next(),
                    URIS[uri],
                    json!({"match": POLICIES[policy]}),
                ))
            }),
            Step::Unsubscribe(who, which) => self.say(who, |client| {
                let id = pick(&client.subscriptions, which)?;
                client.subscriptions.remove(&id);
                Some(unsubscribe(client.next(), id))
            }),
            Step::Publish(who, uri) => self.say(who, |client| {
                Some(publish(
                    client.next(),
                    URIS[uri],
                    json!({"acknowledge": true, "exclude_me": false}),
                ))
            }),
            Step::Call(who, uri, timeout) => self.say(who, |client| {
                let request = client.next();
                client.calls.insert(request);
                Some(call(request, URIS[uri], json!({"timeout": timeout})))
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
                Message::Unsubscribed { request, .. } | Message::Published { request, .. } => {
                    assert!(client.open.remove(&request));
                }
                Message::Result { request, details, .. } => {
                    assert!(!details.contains_key("progress"), "nobody asked");
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
                    ..
                } => {
                    assert!(client.registrations.contains(&registration));
                    assert_eq!(request, client.last_invocation + 1);
                    client.last_invocation = request;
                    client.invocations.push(request);
                }
                Message::Interrupt { request, .. } => assert!(client.invocations.contains(&request)),
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
            world: World::new(),
            clients: Vec::new(),
            gone: HashSet::new(),
        };
        for step in steps {
            play.play(step);
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
        prop_assert_eq!(realm.registrations.len() + realm.subscriptions.len(), 0);
    }
}
