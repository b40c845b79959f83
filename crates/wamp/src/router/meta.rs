//! The router's own procedures: sessions, subscriptions, registrations and testaments (`wamp-interop.md` 3.6, cases
//! R-M3, R-M5 and R-M7). Whether the caller may call them was checked before.

use super::directory::{Directory, Entry, Members};
use super::pattern::MatchPolicy;
use super::realm::Realm;
use super::refusal::{Refusal, choice};
use crate::payload::Payload;
use crate::uri::{self, close, error};
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// Arguments of a meta call.
pub(super) struct Arguments {
    args: Vec<Value>,
    kwargs: Dict,
}

impl Arguments {
    fn decode(payload: &Payload) -> Result<Arguments, Refusal> {
        let unreadable = |_| Refusal::argument("the arguments cannot be decoded");
        Ok(Arguments {
            args: payload.args().map_err(unreadable)?,
            kwargs: payload.kwargs().map_err(unreadable)?,
        })
    }

    /// The argument at `position` or, failing that, of this name.
    pub(super) fn find(&self, position: usize, name: &str) -> Option<&Value> {
        self.args.get(position).or_else(|| self.kwargs.get(name))
    }

    fn id(&self, position: usize, name: &str) -> Result<Id, Refusal> {
        let id = match self.find(position, name) {
            Some(Value::Uint(id)) => Some(*id),
            Some(Value::Float(id)) if id.fract() == 0.0 && *id >= 0.0 && *id <= MAX_ID as f64 => {
                Some(*id as u64)
            }
            _ => None,
        };
        id.ok_or_else(|| Refusal::argument(format!("argument {name} is not an id")))
    }

    fn text(&self, position: usize, name: &str) -> Result<&str, Refusal> {
        self.find(position, name)
            .and_then(Value::as_str)
            .ok_or_else(|| Refusal::argument(format!("argument {name} is not text")))
    }
}

impl Realm {
    /// Answers a call below `wamp.`.
    pub(super) fn meta_call(
        &mut self,
        caller: Id,
        procedure: &str,
        payload: &Payload,
    ) -> Result<Value, Refusal> {
        let arguments = Arguments::decode(payload)?;
        let unknown = || {
            Refusal::error(
                error::NO_SUCH_PROCEDURE,
                format!("the router has no procedure {procedure:?}"),
            )
        };
        let (group, name) = procedure
            .strip_prefix("wamp.")
            .and_then(|rest| rest.split_once('.'))
            .ok_or_else(unknown)?;
        match group {
            "session" => self.session_call(caller, name, &arguments)?,
            "subscription" => {
                let of = |session: Id| self.sessions.get(&session).map(|session| &session.subscriptions);
                match name {
                    "match" => Some(matching_subscriptions(self, &arguments)?),
                    "list_subscribers" => {
                        Some(members(&self.subscriptions, &arguments, SUBSCRIPTION)?.into())
                    }
                    "count_subscribers" => Some(count(&self.subscriptions, &arguments, SUBSCRIPTION)?),
                    _ => directory_call(&self.subscriptions, name, &arguments, SUBSCRIPTION, of)?,
                }
            }
            "registration" => {
                let of = |session: Id| self.sessions.get(&session).map(|session| &session.registrations);
                match name {
                    "match" => Some(best_registration(self, &arguments)?),
                    "list_callees" => Some(members(&self.registrations, &arguments, REGISTRATION)?.into()),
                    "count_callees" => Some(count(&self.registrations, &arguments, REGISTRATION)?),
                    _ => directory_call(&self.registrations, name, &arguments, REGISTRATION, of)?,
                }
            }
            _ => None,
        }
        .ok_or_else(unknown)
    }

    fn session_call(
        &mut self,
        caller: Id,
        name: &str,
        arguments: &Arguments,
    ) -> Result<Option<Value>, Refusal> {
        let result = match name {
            "count" => Value::Uint(self.sessions_of_roles(arguments)?.len() as u64),
            "list" => ids(self.sessions_of_roles(arguments)?).into(),
            "get" => {
                let id = arguments.id(0, "session")?;
                let session = self.sessions.get(&id).ok_or_else(|| no_such_session(id))?;
                session.details(id, &self.name).into()
            }
            "kill" => {
                let id = arguments.id(0, "session")?;
                let (reason, message) = farewell(arguments)?;
                // Killing oneself would take away the session that waits for the answer (R-M5).
                if id == caller || !self.dismiss(id, reason, message) {
                    return Err(no_such_session(id));
                }
                Value::Null
            }
            "kill_by_authid" => {
                let authid = arguments.text(0, "authid")?;
                self.kill_where(caller, arguments, |identity| identity.authid == authid)?
            }
            "kill_by_authrole" => {
                let authrole = arguments.text(0, "authrole")?;
                self.kill_where(caller, arguments, |identity| identity.authrole == authrole)?
            }
            "add_testament" => self.add_testament(caller, arguments)?,
            "flush_testaments" => self.flush_testaments(caller, arguments)?,
            _ => return Ok(None),
        };
        Ok(Some(result))
    }

    fn sessions_of_roles(&self, arguments: &Arguments) -> Result<Vec<Id>, Refusal> {
        let roles = match arguments.find(0, "filter_authroles") {
            None | Some(Value::Null) => None,
            Some(Value::List(roles)) => Some(roles),
            Some(_) => return Err(Refusal::argument("argument filter_authroles is not a list")),
        };
        Ok(self
            .sessions
            .iter()
            .filter(|(_, session)| {
                roles.is_none_or(|roles| {
                    roles
                        .iter()
                        .any(|role| role.as_str() == Some(&session.identity.authrole))
                })
            })
            .map(|(id, _)| *id)
            .collect())
    }

    fn kill_where(
        &mut self,
        caller: Id,
        arguments: &Arguments,
        matches: impl Fn(&super::session::Identity) -> bool,
    ) -> Result<Value, Refusal> {
        let (reason, message) = farewell(arguments)?;
        let doomed: Vec<Id> = self
            .sessions
            .iter()
            .filter(|(id, session)| **id != caller && matches(&session.identity))
            .map(|(id, _)| *id)
            .collect();
        for id in &doomed {
            self.dismiss(*id, reason, message);
        }
        Ok(ids(doomed).into())
    }
}

/// What the members of a directory are called.
#[derive(Clone, Copy)]
struct Kind {
    argument: &'static str,
    missing: &'static str,
}

const SUBSCRIPTION: Kind = Kind {
    argument: "subscription",
    missing: error::NO_SUCH_SUBSCRIPTION,
};
const REGISTRATION: Kind = Kind {
    argument: "registration",
    missing: error::NO_SUCH_REGISTRATION,
};

/// The procedures that subscriptions and registrations have in common. `of` gives the entries of one session.
fn directory_call<'r, M: Members>(
    directory: &'r Directory<M>,
    name: &str,
    arguments: &Arguments,
    kind: Kind,
    of: impl Fn(Id) -> Option<&'r std::collections::BTreeSet<Id>>,
) -> Result<Option<Value>, Refusal> {
    Ok(Some(match name {
        "lookup" => {
            let uri = arguments.text(0, "uri")?;
            let policy = match arguments.find(1, "options") {
                Some(Value::Dict(options)) => {
                    choice(options, "match", MatchPolicy::Exact, MatchPolicy::from_name)?
                }
                _ => MatchPolicy::Exact,
            };
            directory
                .find(policy, uri)
                .and_then(|id| directory.get(id))
                .filter(|entry| !entry.is_hidden())
                .map_or(Value::Null, |entry| Value::Uint(entry.id))
        }
        "get" => visible(directory, arguments, kind)?.details().into(),
        "list" => match arguments.find(0, "session") {
            None | Some(Value::Null) => by_policy(directory.visible()),
            Some(_) => {
                let session = arguments.id(0, "session")?;
                let owned = of(session).ok_or_else(|| no_such_session(session))?;
                by_policy(
                    owned
                        .iter()
                        .filter_map(|id| directory.get(*id))
                        .filter(|entry| !entry.is_hidden()),
                )
            }
        },
        _ => return Ok(None),
    }))
}

fn matching_subscriptions(realm: &Realm, arguments: &Arguments) -> Result<Value, Refusal> {
    let mut matched = Vec::new();
    realm.subscriptions.all(arguments.text(0, "topic")?, &mut matched);
    matched.retain(|id| {
        realm
            .subscriptions
            .get(*id)
            .is_some_and(|entry| !entry.is_hidden())
    });
    Ok(if matched.is_empty() {
        Value::Null
    } else {
        ids(matched).into()
    })
}

fn best_registration(realm: &Realm, arguments: &Arguments) -> Result<Value, Refusal> {
    let best = realm.registrations.best(arguments.text(0, "procedure")?);
    Ok(best.map_or(Value::Null, Value::Uint))
}

fn visible<'d, M: Members>(
    directory: &'d Directory<M>,
    arguments: &Arguments,
    kind: Kind,
) -> Result<&'d Entry<M>, Refusal> {
    let id = arguments.id(0, kind.argument)?;
    directory
        .get(id)
        .filter(|entry| !entry.is_hidden())
        .ok_or_else(|| Refusal::error(kind.missing, format!("there is no {} {id}", kind.argument)))
}

fn members<M: Members>(
    directory: &Directory<M>,
    arguments: &Arguments,
    kind: Kind,
) -> Result<Vec<Value>, Refusal> {
    Ok(ids(visible(directory, arguments, kind)?.members.ids()))
}

fn count<M: Members>(directory: &Directory<M>, arguments: &Arguments, kind: Kind) -> Result<Value, Refusal> {
    let members = visible(directory, arguments, kind)?.members.ids();
    Ok(Value::Uint(members.len() as u64))
}

fn by_policy<'d, M: Members + 'd>(entries: impl Iterator<Item = &'d Entry<M>>) -> Value {
    let mut lists = Dict::new();
    for policy in [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard] {
        lists.insert(policy.name().to_owned(), Value::List(Vec::new()));
    }
    for entry in entries {
        if let Some(Value::List(list)) = lists.get_mut(entry.policy.name()) {
            list.push(Value::Uint(entry.id));
        }
    }
    lists.into()
}

/// `reason` and `message` of a kill.
fn farewell(arguments: &Arguments) -> Result<(&str, Option<&str>), Refusal> {
    let text = |name: &str| match arguments.kwargs.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Str(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Refusal::argument(format!("argument {name} is not text"))),
    };
    let reason = text("reason")?.unwrap_or(close::KILLED);
    if !uri::is_loose(reason) {
        return Err(Refusal::uri(reason));
    }
    Ok((reason, text("message")?))
}

fn ids(ids: Vec<Id>) -> Vec<Value> {
    ids.into_iter().map(Value::Uint).collect()
}

fn no_such_session(id: Id) -> Refusal {
    Refusal::error(error::NO_SUCH_SESSION, format!("there is no session {id}"))
}
