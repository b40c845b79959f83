//! What can be asked for with a request: each kind of request has its options as a type, and one function that puts
//! them on the wire. What is at its default is left out. `extra` goes in last, so that it decides.

use std::time::Duration;

use crate::Id;
use crate::value::{Dict, Value};

/// How a topic or a procedure is compared with a URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MatchPolicy {
    /// The same text.
    #[default]
    Exact,
    /// The URI begins with it; a component may be cut anywhere.
    Prefix,
    /// As many components, of which the empty ones match anything.
    Wildcard,
}

impl MatchPolicy {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            MatchPolicy::Exact => "exact",
            MatchPolicy::Prefix => "prefix",
            MatchPolicy::Wildcard => "wildcard",
        }
    }
}

/// Which of several callees of one procedure gets a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InvokePolicy {
    /// There is only one callee; a second registration is refused.
    #[default]
    Single,
    /// The one that registered first.
    First,
    /// The one that registered last.
    Last,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

impl InvokePolicy {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            InvokePolicy::Single => "single",
            InvokePolicy::First => "first",
            InvokePolicy::Last => "last",
            InvokePolicy::RoundRobin => "roundrobin",
            InvokePolicy::Random => "random",
        }
    }
}

/// What becomes of the callee when the caller gives a call up. The call itself ends at once in every mode: some routers
/// never answer a CANCEL (rules 1 and 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CancelMode {
    /// It is not told and works on.
    Skip,
    /// It is interrupted, and the router waits for its answer.
    Kill,
    /// It is interrupted, and nobody waits for it.
    #[default]
    KillNoWait,
}

impl CancelMode {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            CancelMode::Skip => "skip",
            CancelMode::Kill => "kill",
            CancelMode::KillNoWait => "killnowait",
        }
    }
}

/// Options of a call.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// Local deadline; on expiry CANCEL goes out and the call ends at once. `None`: as long as the session. The router
    /// is not told, because routers do not agree on the unit (rule 2).
    pub timeout: Option<Duration>,
    /// Asks the router to tell the callee who is calling. Some routers decide that by the caller's role alone.
    pub disclose_me: bool,
    /// What the callee is told when the call ends early.
    pub cancel: CancelMode,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

impl CallOptions {
    /// Options with a deadline.
    pub fn timeout(timeout: Duration) -> CallOptions {
        CallOptions {
            timeout: Some(timeout),
            ..CallOptions::default()
        }
    }

    pub(super) fn into_details(self) -> Dict {
        let mut details = Dict::new();
        flag(&mut details, "disclose_me", self.disclose_me);
        details.extend(self.extra);
        details
    }
}

/// Options of a registration.
#[derive(Clone, Debug, Default)]
pub struct RegisterOptions {
    pub match_policy: MatchPolicy,
    pub invoke: InvokePolicy,
    /// Calls that the router lets run at the same time; further ones it refuses. Not every router knows this.
    pub concurrency: Option<u64>,
    /// Takes the procedure away from whoever has it (rule 11). Not together with a shared `invoke`: some routers then
    /// never answer.
    pub force_reregister: bool,
    /// Asks the router to tell who is calling. Some routers decide that by the caller's role alone.
    pub disclose_caller: bool,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

impl RegisterOptions {
    /// Taking the procedure from whoever has it.
    pub fn force() -> RegisterOptions {
        RegisterOptions {
            force_reregister: true,
            ..RegisterOptions::default()
        }
    }

    pub(super) fn into_details(self) -> Dict {
        let mut details = Dict::new();
        put_match(&mut details, self.match_policy);
        if self.invoke != InvokePolicy::default() {
            details.insert("invoke".to_owned(), Value::from(self.invoke.name()));
        }
        if let Some(concurrency) = self.concurrency {
            details.insert("concurrency".to_owned(), Value::Uint(concurrency));
        }
        flag(&mut details, "force_reregister", self.force_reregister);
        flag(&mut details, "disclose_caller", self.disclose_caller);
        details.extend(self.extra);
        details
    }
}

/// Options of a subscription.
#[derive(Clone, Debug, Default)]
pub struct SubscribeOptions {
    pub match_policy: MatchPolicy,
    /// Asks for the events that the router has retained; they come first and say `retained: true`.
    pub get_retained: bool,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

impl SubscribeOptions {
    pub(super) fn into_details(self) -> Dict {
        let mut details = Dict::new();
        put_match(&mut details, self.match_policy);
        flag(&mut details, "get_retained", self.get_retained);
        details.extend(self.extra);
        details
    }
}

impl From<MatchPolicy> for SubscribeOptions {
    fn from(match_policy: MatchPolicy) -> SubscribeOptions {
        SubscribeOptions {
            match_policy,
            ..SubscribeOptions::default()
        }
    }
}

/// As they are on the wire.
impl From<Dict> for SubscribeOptions {
    fn from(extra: Dict) -> SubscribeOptions {
        SubscribeOptions {
            extra,
            ..SubscribeOptions::default()
        }
    }
}

/// Options of a publication. Whether it is acknowledged is said by the function that publishes.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// Whether our own subscriptions are left out; the routers' default is that they are.
    pub exclude_me: Option<bool>,
    /// Sessions that do not get the event, and the same by authid and by role.
    pub exclude: Vec<Id>,
    pub exclude_authid: Vec<String>,
    pub exclude_authrole: Vec<String>,
    /// The only sessions that may get the event, and the same by authid and by role. An empty list is nobody, although
    /// some routers take it for everybody.
    pub eligible: Option<Vec<Id>>,
    pub eligible_authid: Option<Vec<String>>,
    pub eligible_authrole: Option<Vec<String>>,
    /// Keeps the event for those who subscribe later and ask for it.
    pub retain: bool,
    /// Asks the router to tell the subscribers who has published.
    pub disclose_me: bool,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

impl PublishOptions {
    pub(super) fn into_details(self) -> Dict {
        let mut details = Dict::new();
        if let Some(exclude_me) = self.exclude_me {
            details.insert("exclude_me".to_owned(), Value::Bool(exclude_me));
        }
        let lists = [
            ("exclude", some(ids(self.exclude))),
            ("exclude_authid", some(texts(self.exclude_authid))),
            ("exclude_authrole", some(texts(self.exclude_authrole))),
            ("eligible", self.eligible.map(ids)),
            ("eligible_authid", self.eligible_authid.map(texts)),
            ("eligible_authrole", self.eligible_authrole.map(texts)),
        ];
        for (key, list) in lists {
            if let Some(list) = list {
                details.insert(key.to_owned(), Value::List(list));
            }
        }
        flag(&mut details, "retain", self.retain);
        flag(&mut details, "disclose_me", self.disclose_me);
        details.extend(self.extra);
        details
    }
}

/// As they are on the wire.
impl From<Dict> for PublishOptions {
    fn from(extra: Dict) -> PublishOptions {
        PublishOptions {
            extra,
            ..PublishOptions::default()
        }
    }
}

fn flag(details: &mut Dict, key: &str, set: bool) {
    if set {
        details.insert(key.to_owned(), Value::Bool(true));
    }
}

fn put_match(details: &mut Dict, policy: MatchPolicy) {
    if policy != MatchPolicy::default() {
        details.insert("match".to_owned(), Value::from(policy.name()));
    }
}

fn ids(ids: Vec<Id>) -> Vec<Value> {
    ids.into_iter().map(Value::Uint).collect()
}

fn texts(texts: Vec<String>) -> Vec<Value> {
    texts.into_iter().map(Value::Str).collect()
}

/// Excluding nobody need not be said.
fn some(list: Vec<Value>) -> Option<Vec<Value>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn json(details: Dict) -> serde_json::Value {
        Value::Dict(details).to_json()
    }

    #[test]
    fn what_is_at_its_default_is_not_said() {
        assert_eq!(
            json(CallOptions::timeout(Duration::from_secs(1)).into_details()),
            json!({})
        );
        assert_eq!(json(RegisterOptions::default().into_details()), json!({}));
        assert_eq!(json(SubscribeOptions::default().into_details()), json!({}));
        assert_eq!(json(PublishOptions::default().into_details()), json!({}));
    }

    #[test]
    fn every_option_has_its_name_on_the_wire() {
        let call = CallOptions {
            disclose_me: true,
            ..CallOptions::default()
        };
        assert_eq!(json(call.into_details()), json!({"disclose_me": true}));
        let register = RegisterOptions {
            match_policy: MatchPolicy::Wildcard,
            invoke: InvokePolicy::RoundRobin,
            concurrency: Some(3),
            force_reregister: true,
            disclose_caller: true,
            extra: Dict::from([("x".to_owned(), Value::Null)]),
        };
        assert_eq!(
            json(register.into_details()),
            json!({"match": "wildcard", "invoke": "roundrobin", "concurrency": 3, "force_reregister": true,
                "disclose_caller": true, "x": null})
        );
        let subscribe = SubscribeOptions {
            get_retained: true,
            ..SubscribeOptions::from(MatchPolicy::Prefix)
        };
        assert_eq!(
            json(subscribe.into_details()),
            json!({"match": "prefix", "get_retained": true})
        );
        let publish = PublishOptions {
            exclude_me: Some(false),
            exclude: vec![1],
            exclude_authid: vec!["a".to_owned()],
            exclude_authrole: vec!["r".to_owned()],
            eligible: Some(Vec::new()),
            eligible_authid: Some(vec!["b".to_owned()]),
            eligible_authrole: Some(vec!["s".to_owned()]),
            retain: true,
            disclose_me: true,
            extra: Dict::new(),
        };
        assert_eq!(
            json(publish.into_details()),
            json!({"exclude_me": false, "exclude": [1], "exclude_authid": ["a"], "exclude_authrole": ["r"],
                "eligible": [], "eligible_authid": ["b"], "eligible_authrole": ["s"], "retain": true,
                "disclose_me": true})
        );
    }

    #[test]
    fn what_is_extra_decides() {
        let options = SubscribeOptions {
            match_policy: MatchPolicy::Prefix,
            extra: Dict::from([("match".to_owned(), Value::from("wildcard"))]),
            ..SubscribeOptions::default()
        };
        assert_eq!(json(options.into_details()), json!({"match": "wildcard"}));
    }
}
