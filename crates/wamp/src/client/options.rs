//! What can be said with a request, by name. What has no name here goes into `extra`, as it is on the wire.

use std::time::Duration;

use crate::Id;
use crate::value::{Dict, Value};

/// Which URIs a subscription or registration stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Match {
    /// The URI itself.
    #[default]
    Exact,
    /// Every URI that begins with it, component by component or not.
    Prefix,
    /// Every URI with the same components, an empty one standing for any.
    Wildcard,
}

impl Match {
    fn name(self) -> &'static str {
        match self {
            Match::Exact => "exact",
            Match::Prefix => "prefix",
            Match::Wildcard => "wildcard",
        }
    }
}

/// Who of several callees of one procedure gets a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Invoke {
    /// There may be one only.
    #[default]
    Single,
    First,
    Last,
    RoundRobin,
    Random,
}

impl Invoke {
    fn name(self) -> &'static str {
        match self {
            Invoke::Single => "single",
            Invoke::First => "first",
            Invoke::Last => "last",
            Invoke::RoundRobin => "roundrobin",
            Invoke::Random => "random",
        }
    }
}

/// What the callee is told when the caller gives a call up. The call itself ends at once in every mode: some routers
/// never answer a CANCEL (`wamp-interop.md` rules 1 and 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CancelMode {
    /// Nothing: it works on.
    Skip,
    /// To stop; the router waits for its answer.
    Kill,
    /// To stop; nobody waits for its answer.
    #[default]
    KillNoWait,
}

impl CancelMode {
    pub(super) fn name(self) -> &'static str {
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
    /// Local deadline; on expiry CANCEL goes out and the call ends at once. `None`: as long as the session.
    pub timeout: Option<Duration>,
    /// What CANCEL says when the call ends before its answer.
    pub cancel: CancelMode,
    /// Asks the router to tell the callee who we are. Crossbar.io decides that by itself.
    pub disclose_me: bool,
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

    pub(super) fn into_wire(self) -> Dict {
        let mut wire = self.extra;
        flag(&mut wire, "disclose_me", self.disclose_me);
        wire
    }
}

/// Options of a registration.
#[derive(Clone, Debug, Default)]
pub struct RegisterOptions {
    /// Takes the procedure from whoever has it.
    pub force_reregister: bool,
    pub match_policy: Match,
    pub invoke: Invoke,
    /// Asks the router to tell us who calls. Crossbar.io decides that by itself, nexus needs it.
    pub disclose_caller: bool,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

impl RegisterOptions {
    pub(super) fn into_wire(self) -> Dict {
        let mut wire = self.extra;
        flag(&mut wire, "force_reregister", self.force_reregister);
        flag(&mut wire, "disclose_caller", self.disclose_caller);
        name(
            &mut wire,
            "match",
            self.match_policy.name(),
            self.match_policy != Match::Exact,
        );
        name(
            &mut wire,
            "invoke",
            self.invoke.name(),
            self.invoke != Invoke::Single,
        );
        wire
    }
}

/// Options of a subscription.
#[derive(Clone, Debug, Default)]
pub struct SubscribeOptions {
    pub match_policy: Match,
    /// Wants the event that the router has kept, if there is one.
    pub get_retained: bool,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

impl SubscribeOptions {
    pub(super) fn into_wire(self) -> Dict {
        let mut wire = self.extra;
        flag(&mut wire, "get_retained", self.get_retained);
        name(
            &mut wire,
            "match",
            self.match_policy.name(),
            self.match_policy != Match::Exact,
        );
        wire
    }
}

impl From<Match> for SubscribeOptions {
    fn from(match_policy: Match) -> SubscribeOptions {
        SubscribeOptions {
            match_policy,
            ..SubscribeOptions::default()
        }
    }
}

impl From<Dict> for SubscribeOptions {
    fn from(extra: Dict) -> SubscribeOptions {
        SubscribeOptions {
            extra,
            ..SubscribeOptions::default()
        }
    }
}

/// Options of a publication.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// Our own subscriptions get the event, too.
    pub include_me: bool,
    /// Who does not get it.
    pub exclude: Receivers,
    /// Who alone may get it; `None`: everybody. An empty list means nobody (Crossbar.io: everybody).
    pub eligible: Option<Receivers>,
    /// The router keeps the event for subscribers that come later.
    pub retain: bool,
    /// Asks the router to tell subscribers who we are. Crossbar.io decides that by itself.
    pub disclose_me: bool,
    /// Further options for the wire, as they are.
    pub extra: Dict,
}

/// Sessions by what they are. A session has to be in each list that is not `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    pub sessions: Option<Vec<Id>>,
    pub authids: Option<Vec<String>>,
    pub authroles: Option<Vec<String>>,
}

impl Receivers {
    fn write(self, wire: &mut Dict, prefix: &str) {
        let mut list = |suffix: &str, values: Option<Vec<Value>>| {
            if let Some(values) = values {
                wire.insert(format!("{prefix}{suffix}"), Value::List(values));
            }
        };
        let texts =
            |texts: Option<Vec<String>>| texts.map(|texts| texts.into_iter().map(Value::Str).collect());
        let ids = self
            .sessions
            .map(|ids| ids.into_iter().map(Value::Uint).collect());
        list("", ids);
        list("_authid", texts(self.authids));
        list("_authrole", texts(self.authroles));
    }
}

impl PublishOptions {
    pub(super) fn into_wire(self) -> Dict {
        let mut wire = self.extra;
        if self.include_me {
            wire.insert("exclude_me".to_owned(), Value::Bool(false));
        }
        flag(&mut wire, "retain", self.retain);
        flag(&mut wire, "disclose_me", self.disclose_me);
        self.exclude.write(&mut wire, "exclude");
        if let Some(eligible) = self.eligible {
            eligible.write(&mut wire, "eligible");
        }
        wire
    }
}

impl From<Dict> for PublishOptions {
    fn from(extra: Dict) -> PublishOptions {
        PublishOptions {
            extra,
            ..PublishOptions::default()
        }
    }
}

fn flag(wire: &mut Dict, key: &str, set: bool) {
    if set {
        wire.insert(key.to_owned(), Value::Bool(true));
    }
}

fn name(wire: &mut Dict, key: &str, value: &str, unusual: bool) {
    if unusual {
        wire.insert(key.to_owned(), Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(wire: Dict) -> serde_json::Value {
        Value::Dict(wire).to_json()
    }

    #[test]
    fn defaults_say_nothing() {
        assert_eq!(CallOptions::default().into_wire(), Dict::new());
        assert_eq!(RegisterOptions::default().into_wire(), Dict::new());
        assert_eq!(SubscribeOptions::default().into_wire(), Dict::new());
        assert_eq!(PublishOptions::default().into_wire(), Dict::new());
    }

    #[test]
    fn every_option_has_its_word_on_the_wire() {
        let extra = Dict::from([("x_own".to_owned(), Value::Uint(1))]);
        let call = CallOptions {
            timeout: Some(Duration::from_secs(1)),
            cancel: CancelMode::Skip,
            disclose_me: true,
            extra: extra.clone(),
        };
        assert_eq!(
            json(call.into_wire()),
            serde_json::json!({"disclose_me": true, "x_own": 1})
        );
        let register = RegisterOptions {
            force_reregister: true,
            match_policy: Match::Wildcard,
            invoke: Invoke::RoundRobin,
            disclose_caller: true,
            extra: Dict::new(),
        };
        assert_eq!(
            json(register.into_wire()),
            serde_json::json!({"force_reregister": true, "match": "wildcard", "invoke": "roundrobin",
                "disclose_caller": true})
        );
        let subscribe = SubscribeOptions {
            get_retained: true,
            ..Match::Prefix.into()
        };
        assert_eq!(
            json(subscribe.into_wire()),
            serde_json::json!({"match": "prefix", "get_retained": true})
        );
        let publish = PublishOptions {
            include_me: true,
            exclude: Receivers {
                sessions: Some(vec![7]),
                ..Receivers::default()
            },
            eligible: Some(Receivers {
                sessions: None,
                authids: Some(vec!["a".to_owned()]),
                authroles: Some(Vec::new()),
            }),
            retain: true,
            disclose_me: true,
            extra,
        };
        assert_eq!(
            json(publish.into_wire()),
            serde_json::json!({"exclude_me": false, "exclude": [7], "eligible_authid": ["a"], "eligible_authrole": [],
                "retain": true, "disclose_me": true, "x_own": 1})
        );
    }
}
