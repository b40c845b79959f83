//! Who listens to our log topics: the router's subscription meta API (`logs-terminal-tunnel.md` 2.4, 2.9).
//!
//! One task per session. It asks for every topic that the pipeline knows and follows what changes, and says only
//! whether a topic has listeners. Knows nothing of lines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use protocol::{number, uri};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wamp::Value;
use wamp::client::{CallOptions, Event, RequestError, Session, Subscription};
use wamp::payload::Payload;
use wamp::uri::error;
use wamp::value::Dict;

/// Bound of one question.
const ANSWER: Duration = Duration::from_secs(5);
/// First and longest pause before a question without answer is asked again.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Ended subscriptions remembered. Their creation may still be under way to us: the two meta topics are two streams.
const ENDED: usize = 64;

/// What the pipeline is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Whether this container's topic has listeners.
    Topic { container: String, open: bool },
    /// The router cannot tell: everything is published.
    AlwaysOpen,
    /// The containers known when the session was attached have been asked for.
    Attached,
}

/// Which subscriptions match which topic. Pure.
#[derive(Debug, Default)]
struct Listeners {
    topics: BTreeMap<String, BTreeSet<u64>>,
    ended: VecDeque<u64>,
}

impl Listeners {
    /// The router's answer for one topic. Says whether it has listeners.
    fn answered(&mut self, container: &str, ids: impl IntoIterator<Item = u64>) -> bool {
        let ids: BTreeSet<u64> = ids.into_iter().filter(|id| !self.ended.contains(id)).collect();
        let open = !ids.is_empty();
        self.topics.insert(container.to_owned(), ids);
        open
    }

    /// A subscription of a topic came up. `true` when that opens its gate.
    fn created(&mut self, container: &str, id: u64) -> bool {
        if self.ended.contains(&id) {
            return false;
        }
        self.topics.get_mut(container).is_some_and(|ids| {
            ids.insert(id);
            ids.len() == 1
        })
    }

    /// A subscription went away. Returns the topics whose gate closes with it; one that another subscription keeps
    /// open stays open.
    fn deleted(&mut self, id: u64) -> Vec<String> {
        self.ended.push_back(id);
        if self.ended.len() > ENDED {
            self.ended.pop_front();
        }
        let closed = self
            .topics
            .iter_mut()
            .filter_map(|(container, ids)| (ids.remove(&id) && ids.is_empty()).then(|| container.clone()));
        closed.collect()
    }
}

/// What a created subscription means for us.
#[derive(Debug, PartialEq, Eq)]
enum Created {
    /// It is for this container's topic.
    Topic {
        container: String,
        id: u64,
    },
    /// A pattern that may match topics of ours.
    Pattern,
    Foreign,
}

/// Reads the arguments of `wamp.subscription.on_create`: session id, dictionary with `uri`, `id` and perhaps `match`.
fn read_created(prefix: &str, args: &[Value]) -> Created {
    let Some(details) = args.get(1) else {
        return Created::Foreign;
    };
    let Some(topic) = details.get("uri").and_then(Value::as_str) else {
        return Created::Foreign;
    };
    let exact = details
        .get("match")
        .and_then(Value::as_str)
        .is_none_or(|policy| policy == "exact");
    match topic.strip_prefix(prefix) {
        Some(rest) if exact && !rest.is_empty() => match details.get("id").and_then(id_of) {
            Some(id) => Created::Topic {
                // Names of apps may have dots; what names nothing of ours finds nothing.
                container: rest.to_owned(),
                id,
            },
            None => Created::Foreign,
        },
        _ if details.get("match").and_then(Value::as_str) == Some("wildcard") => Created::Pattern,
        _ if prefix.starts_with(topic) || (!exact && topic.starts_with(prefix)) => Created::Pattern,
        _ => Created::Foreign,
    }
}

/// The ids in an answer of `wamp.subscription.match`: null, a list, or (tolerated) one bare id.
fn read_match(answer: Option<&Value>) -> Vec<u64> {
    match answer {
        Some(Value::List(ids)) => ids.iter().filter_map(id_of).collect(),
        Some(bare) => id_of(bare).into_iter().collect(),
        None => Vec::new(),
    }
}

fn id_of(value: &Value) -> Option<u64> {
    number::whole(&value.to_json())
}

/// Follows one session's subscriptions until it ends. `asked` brings containers to ask for; `gates` is read by the
/// pipeline, which always reads.
pub(super) async fn watch(
    session: Session,
    serial: String,
    known: Vec<String>,
    mut asked: mpsc::Receiver<String>,
    gates: mpsc::Sender<Gate>,
) {
    let over = session.clone();
    let mut watch = Watch {
        prefix: uri::logs(&serial, ""),
        session,
        listeners: Listeners::default(),
        unanswered: known.into_iter().collect(),
        gates,
    };
    tokio::select! {
        ended = watch.run(&mut asked) => match ended {
            Ended::CannotTell => {
                tracing::info!("the router does not tell who listens to logs: all of them are published");
                let _ = watch.gates.send(Gate::AlwaysOpen).await;
                let _ = watch.gates.send(Gate::Attached).await;
            }
            Ended::Unneeded => {}
        },
        reason = over.closed() => tracing::debug!(?reason, "log listeners: session over"),
    }
}

enum Ended {
    CannotTell,
    Unneeded,
}

struct Watch {
    prefix: String,
    session: Session,
    listeners: Listeners,
    /// Topics of which we do not know whether anybody listens.
    unanswered: BTreeSet<String>,
    gates: mpsc::Sender<Gate>,
}

impl Watch {
    async fn run(&mut self, asked: &mut mpsc::Receiver<String>) -> Ended {
        let mut pause = FIRST_PAUSE;
        // First the changes, then the state: what changes in between is heard twice and not missed (L11).
        let (mut created, mut deleted) = loop {
            let created = self.subscribe(uri::meta::SUBSCRIPTION_ON_CREATE).await;
            let deleted = self.subscribe(uri::meta::SUBSCRIPTION_ON_DELETE).await;
            match (created, deleted) {
                (Ok(created), Ok(deleted)) => break (created, deleted),
                (Err(RequestError::Peer(_)), _) | (_, Err(RequestError::Peer(_))) => {
                    return Ended::CannotTell;
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::debug!(%error, "log listeners: no subscription");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let mut told = false;
        let mut look = true;
        pause = FIRST_PAUSE;
        let mut again = Instant::now();
        loop {
            if look {
                if self.ask().await.is_err() {
                    return Ended::CannotTell;
                }
                again = Instant::now() + pause;
            }
            if !told && self.gates.send(Gate::Attached).await.is_err() {
                return Ended::Unneeded;
            }
            told = true;
            if self.unanswered.is_empty() {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                event = created.events.recv() => match event {
                    Some(event) => look = self.on_create(&event).await,
                    None => return Ended::Unneeded,
                },
                event = deleted.events.recv() => match event {
                    Some(event) => look = self.on_delete(&event).await,
                    None => return Ended::Unneeded,
                },
                container = asked.recv() => match container {
                    Some(container) => {
                        self.unanswered.insert(container);
                        look = true;
                    }
                    None => return Ended::Unneeded,
                },
                () = tokio::time::sleep_until(again), if !self.unanswered.is_empty() => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    look = true;
                }
            }
        }
    }

    /// Asks for every topic of which we do not know. An error only when the router has no such procedure or does not
    /// let us call it; without an answer in time a topic stays unknown, and its gate as it is (L2, L19).
    async fn ask(&mut self) -> Result<(), ()> {
        for container in std::mem::take(&mut self.unanswered) {
            let topic = Payload::from_args(vec![Value::from(format!("{}{container}", self.prefix))]);
            let options = CallOptions::timeout(ANSWER);
            match self
                .session
                .call(uri::meta::SUBSCRIPTION_MATCH, topic, options)
                .await
            {
                Ok(answer) => {
                    let answer = answer.payload.args().unwrap_or_default();
                    let open = self.listeners.answered(&container, read_match(answer.first()));
                    self.tell(container, open).await;
                }
                Err(RequestError::Peer(refused))
                    if matches!(
                        refused.uri.as_str(),
                        error::NO_SUCH_PROCEDURE | error::NOT_AUTHORIZED
                    ) =>
                {
                    return Err(());
                }
                Err(error) => {
                    tracing::debug!(%container, %error, "log listeners: no answer");
                    self.unanswered.insert(container);
                }
            }
        }
        Ok(())
    }

    /// `true` when everything has to be asked for again.
    async fn on_create(&mut self, event: &Event) -> bool {
        let args = event.payload.args().unwrap_or_default();
        match read_created(&self.prefix, &args) {
            Created::Topic { container, id } => {
                if self.listeners.created(&container, id) {
                    self.tell(container, true).await;
                }
            }
            Created::Pattern => return self.forget(),
            Created::Foreign => {}
        }
        event.missed > 0 && self.forget()
    }

    /// `true` when everything has to be asked for again.
    async fn on_delete(&mut self, event: &Event) -> bool {
        let args = event.payload.args().unwrap_or_default();
        if let Some(id) = args.get(1).and_then(id_of) {
            for container in self.listeners.deleted(id) {
                self.tell(container, false).await;
            }
        }
        event.missed > 0 && self.forget()
    }

    fn forget(&mut self) -> bool {
        self.unanswered.extend(self.listeners.topics.keys().cloned());
        true
    }

    async fn tell(&self, container: String, open: bool) {
        // The pipeline is gone: then nobody needs to know.
        let _ = self.gates.send(Gate::Topic { container, open }).await;
    }

    async fn subscribe(&self, topic: &str) -> Result<Subscription, RequestError> {
        tokio::time::timeout(ANSWER, self.session.subscribe(topic, Dict::new()))
            .await
            .unwrap_or(Err(RequestError::Timeout(ANSWER)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn created(details: serde_json::Value) -> Created {
        read_created("reswarm.logs.S.", &[Value::Uint(1), Value::from(details)])
    }

    #[test]
    fn a_created_subscription_is_ours_foreign_or_a_pattern() {
        let ours = |id| Created::Topic {
            container: "prod_1_x".to_owned(),
            id,
        };
        for id in [json!(7), json!("7"), json!(7.0)] {
            assert_eq!(
                created(json!({"uri": "reswarm.logs.S.prod_1_x", "id": id})),
                ours(7)
            );
        }
        let dotted = Created::Topic {
            container: "prod_1_x.y".to_owned(),
            id: 7,
        };
        assert_eq!(
            created(json!({"uri": "reswarm.logs.S.prod_1_x.y", "id": 7})),
            dotted
        );
        let exact = json!({"uri": "reswarm.logs.S.prod_1_x", "id": 8, "match": "exact", "created": "2026"});
        assert_eq!(created(exact), ours(8));
        for pattern in [
            json!({"uri": "reswarm.logs.", "id": 7, "match": "prefix"}),
            json!({"uri": "reswarm.logs.S.prod_", "id": 7, "match": "prefix"}),
            json!({"uri": "reswarm.logs", "id": 7}),
            json!({"uri": "..S.", "id": 7, "match": "wildcard"}),
        ] {
            assert_eq!(created(pattern.clone()), Created::Pattern, "{pattern}");
        }
        for foreign in [
            json!({"uri": "reswarm.logs.T.prod_1_x", "id": 7}),
            json!({"uri": "reswarm.logs.T.", "id": 7, "match": "prefix"}),
            json!({"uri": "re.mgmt.S.x", "id": 7}),
            json!({"uri": "reswarm.logs.S.prod_1_x"}),
            json!("reswarm.logs.S.prod_1_x"),
        ] {
            assert_eq!(created(foreign.clone()), Created::Foreign, "{foreign}");
        }
        assert_eq!(read_created("reswarm.logs.S.", &[]), Created::Foreign);
    }

    #[test]
    fn the_answer_of_match_may_be_null_a_list_or_an_id() {
        let of = |answer: serde_json::Value| read_match(Some(&Value::from(answer)));
        assert_eq!(of(json!([987_654])), [987_654]);
        assert_eq!(of(json!([1, "2"])), [1, 2]);
        assert_eq!(of(json!(5)), [5]);
        for nobody in [json!(null), json!([]), json!([null]), json!([[]])] {
            assert!(of(nobody.clone()).is_empty(), "{nobody}");
        }
        assert!(read_match(None).is_empty());
    }

    #[test]
    fn a_late_delete_of_the_old_subscription_leaves_the_gate_to_the_new_one() {
        let mut listeners = Listeners::default();
        assert!(!listeners.answered("x", []));
        assert!(listeners.created("x", 1));
        assert!(!listeners.created("x", 2), "open already");
        assert!(listeners.deleted(1).is_empty());
        assert_eq!(listeners.deleted(2), ["x"]);
        assert!(listeners.deleted(2).is_empty());
    }

    #[test]
    fn a_prefix_subscription_keeps_the_gate_open_after_the_exact_one_went() {
        let mut listeners = Listeners::default();
        assert!(listeners.answered("x", [10, 20]));
        assert!(listeners.answered("y", [20]));
        assert!(listeners.deleted(10).is_empty());
        assert_eq!(listeners.deleted(20), ["x", "y"]);
    }

    #[test]
    fn a_delete_that_overtakes_its_create_or_an_older_answer_wins() {
        let mut listeners = Listeners::default();
        listeners.answered("x", []);
        assert!(listeners.deleted(1).is_empty());
        assert!(!listeners.created("x", 1));
        assert!(!listeners.answered("x", [1]));
        assert!(
            !listeners.created("unknown", 3),
            "asked for when it becomes known"
        );
    }
}
