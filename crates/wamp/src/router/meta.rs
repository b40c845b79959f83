//! The router's own procedures: sessions, subscriptions, registrations and testaments (`wamp-interop.md` 3.6, cases
//! R-M3, R-M5 and R-M7). Whether the caller may call them was checked before.

use super::broker::{About, Subscribers};
use super::dealer::Callees;
use super::directory::{Directory, Entry, Members};
use super::journal::Note;
use super::pattern::MatchPolicy;
use super::permission::Rights;
use super::realm::Realm;
use super::refusal::{Refusal, choice};
use crate::payload::Payload;
use crate::uri::{close, error};
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
                let view = View {
                    directory: &self.subscriptions,
                    rights: self.rights_of(caller),
                    about: About::subscription,
                    kind: SUBSCRIPTION,
                };
                let of = |session: Id| self.sessions.get(&session).map(|session| &session.subscriptions);
                match name {
                    "get_events" => {
                        view.named(&arguments)?;
                        return Err(Refusal::error(
                            error::HISTORY_UNAVAILABLE,
                            "the router keeps no event history",
                        ));
                    }
                    "remove_subscriber" => {
                        let subscription = view.removable(&arguments)?;
                        let (session, reason) = self.removal(&arguments, error::UNSUBSCRIBED)?;
                        if !self.revoke_subscription(session, subscription, reason) {
                            return Err(no_such_session(session));
                        }
                        Some(Value::Null)
                    }
                    "match" => Some(matching_subscriptions(&view, &arguments)?),
                    "list_subscribers" => Some(view.members(&arguments)?.into()),
                    "count_subscribers" => Some(view.count(&arguments)?),
                    _ => view.call(name, &arguments, of)?,
                }
            }
            "registration" => {
                let view = View {
                    directory: &self.registrations,
                    rights: self.rights_of(caller),
                    about: About::registration,
                    kind: REGISTRATION,
                };
                let of = |session: Id| self.sessions.get(&session).map(|session| &session.registrations);
                match name {
                    "remove_callee" => {
                        let registration = view.removable(&arguments)?;
                        let (session, reason) = self.removal(&arguments, error::UNREGISTERED)?;
                        if !self.revoke_registration(session, registration, reason) {
                            return Err(no_such_session(session));
                        }
                        Some(Value::Null)
                    }
                    "match" => Some(best_registration(&view, &arguments)?),
                    "list_callees" => Some(view.members(&arguments)?.into()),
                    "count_callees" => Some(view.count(&arguments)?),
                    _ => view.call(name, &arguments, of)?,
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
                let session = self.client(id).ok_or_else(|| no_such_session(id))?;
                session.details(id, &self.name).into()
            }
            "kill" => {
                let id = arguments.id(0, "session")?;
                let (reason, message) = self.farewell(arguments)?;
                // Killing oneself would take away the session that waits for the answer (R-M5).
                if id == caller || self.client(id).is_none() {
                    return Err(no_such_session(id));
                }
                self.kill(id, caller, reason, message);
                Value::Null
            }
            "kill_by_authid" => {
                let authid = arguments.text(0, "authid")?;
                ids(self.kill_where(caller, arguments, |identity| identity.authid == authid)?).into()
            }
            "kill_by_authrole" => {
                let authrole = arguments.text(0, "authrole")?;
                ids(self.kill_where(caller, arguments, |identity| identity.authrole == authrole)?).into()
            }
            "kill_all" => {
                let killed = self.kill_where(caller, arguments, |_| true)?;
                Value::Uint(killed.len() as u64)
            }
            "add_testament" => self.add_testament(caller, arguments)?,
            "flush_testaments" => self.flush_testaments(caller, arguments)?,
            _ => return Ok(None),
        };
        Ok(Some(result))
    }

    fn rights_of(&self, session: Id) -> Option<&Rights> {
        self.sessions.get(&session).map(|session| &session.rights)
    }

    fn sessions_of_roles(&self, arguments: &Arguments) -> Result<Vec<Id>, Refusal> {
        let roles = match arguments.find(0, "filter_authroles") {
            None | Some(Value::Null) => None,
            Some(Value::List(roles)) => Some(roles),
            Some(_) => return Err(Refusal::argument("argument filter_authroles is not a list")),
        };
        Ok(self
            .clients()
            .filter(|(_, session)| {
                roles.is_none_or(|roles| {
                    roles
                        .iter()
                        .any(|role| role.as_str() == Some(&session.identity.authrole))
                })
            })
            .map(|(id, _)| id)
            .collect())
    }

    fn kill_where(
        &mut self,
        caller: Id,
        arguments: &Arguments,
        matches: impl Fn(&super::session::Identity) -> bool,
    ) -> Result<Vec<Id>, Refusal> {
        let (reason, message) = self.farewell(arguments)?;
        let doomed: Vec<Id> = self
            .clients()
            .filter(|(id, session)| *id != caller && matches(&session.identity))
            .map(|(id, _)| id)
            .collect();
        for id in &doomed {
            self.kill(*id, caller, reason, message);
        }
        Ok(doomed)
    }

    fn kill(&mut self, session: Id, by: Id, reason: &str, message: Option<&str>) {
        self.journal.push(Note::Killed {
            session,
            by,
            reason: reason.to_owned(),
        });
        self.dismiss(session, reason, message);
    }

    /// `reason` and `message` of a kill.
    fn farewell<'a>(&self, arguments: &'a Arguments) -> Result<(&'a str, Option<&'a str>), Refusal> {
        let reason = optional_text(arguments.kwargs.get("reason"), "reason")?.unwrap_or(close::KILLED);
        if !self.uris.accepts(reason) {
            return Err(Refusal::uri(reason));
        }
        let message = optional_text(arguments.kwargs.get("message"), "message")?;
        Ok((reason, message))
    }

    /// Who is removed from a subscription or registration, and why.
    fn removal<'a>(&self, arguments: &'a Arguments, default: &'static str) -> Result<(Id, &'a str), Refusal> {
        let session = arguments.id(1, "session")?;
        let reason = optional_text(arguments.find(2, "reason"), "reason")?.unwrap_or(default);
        if !self.uris.accepts(reason) {
            return Err(Refusal::uri(reason));
        }
        Ok((session, reason))
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

/// A directory as one session may see it.
struct View<'r, M> {
    directory: &'r Directory<M>,
    /// `None`: the session has ended and sees nothing.
    rights: Option<&'r Rights>,
    about: fn(MatchPolicy, &'r str) -> About<'r>,
    kind: Kind,
}

impl<'r, M: Members> View<'r, M> {
    fn shows(&self, entry: &'r Entry<M>) -> bool {
        let about = (self.about)(entry.policy, &entry.uri);
        !entry.is_hidden() && self.rights.is_some_and(|rights| about.concerns(rights))
    }

    fn get(&self, id: Id) -> Option<&'r Entry<M>> {
        self.directory.get(id).filter(|entry| self.shows(entry))
    }

    /// The entry that an argument names.
    fn named(&self, arguments: &Arguments) -> Result<&'r Entry<M>, Refusal> {
        let kind = self.kind;
        let id = arguments.id(0, kind.argument)?;
        self.get(id)
            .ok_or_else(|| Refusal::error(kind.missing, format!("there is no {} {id}", kind.argument)))
    }

    /// The entry that an argument names, if the session may take it from others. A role with a prefix for all of
    /// `wamp.subscription.` is there to look, so this needs the right to evict for what the entry is about.
    fn removable(&self, arguments: &Arguments) -> Result<Id, Refusal> {
        let entry = self.named(arguments)?;
        if self
            .rights
            .is_some_and(|rights| rights.allows_eviction(&entry.uri))
        {
            return Ok(entry.id);
        }
        Err(Refusal::error(
            error::NOT_AUTHORIZED,
            format!("this session may not take {:?} from others", entry.uri),
        ))
    }

    fn members(&self, arguments: &Arguments) -> Result<Vec<Value>, Refusal> {
        Ok(ids(self.named(arguments)?.members.ids()))
    }

    fn count(&self, arguments: &Arguments) -> Result<Value, Refusal> {
        Ok(Value::Uint(self.named(arguments)?.members.ids().len() as u64))
    }

    /// The procedures that subscriptions and registrations have in common. `of` gives the entries of one session.
    fn call(
        &self,
        name: &str,
        arguments: &Arguments,
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
                self.directory
                    .find(policy, uri)
                    .and_then(|id| self.get(id))
                    .map_or(Value::Null, |entry| Value::Uint(entry.id))
            }
            "get" => self.named(arguments)?.details().into(),
            "list" => match arguments.find(0, "session") {
                None | Some(Value::Null) => {
                    by_policy(self.directory.entries().filter(|entry| self.shows(entry)))
                }
                Some(_) => {
                    let session = arguments.id(0, "session")?;
                    let owned = of(session).ok_or_else(|| no_such_session(session))?;
                    by_policy(owned.iter().filter_map(|id| self.get(*id)))
                }
            },
            _ => return Ok(None),
        }))
    }
}

fn matching_subscriptions(view: &View<'_, Subscribers>, arguments: &Arguments) -> Result<Value, Refusal> {
    let mut matched = Vec::new();
    view.directory.all(arguments.text(0, "topic")?, &mut matched);
    matched.retain(|id| view.get(*id).is_some());
    Ok(if matched.is_empty() {
        Value::Null
    } else {
        ids(matched).into()
    })
}

fn best_registration(view: &View<'_, Callees>, arguments: &Arguments) -> Result<Value, Refusal> {
    let best = view.directory.best(arguments.text(0, "procedure")?);
    let shown = best.and_then(|id| view.get(id));
    Ok(shown.map_or(Value::Null, |entry| Value::Uint(entry.id)))
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

fn optional_text<'a>(value: Option<&'a Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Str(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Refusal::argument(format!("argument {name} is not text"))),
    }
}

fn ids(ids: Vec<Id>) -> Vec<Value> {
    ids.into_iter().map(Value::Uint).collect()
}

fn no_such_session(id: Id) -> Refusal {
    Refusal::error(error::NO_SUCH_SESSION, format!("there is no session {id}"))
}
