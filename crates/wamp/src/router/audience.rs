//! Who gets a publication: `exclude_me`, `exclude*` and `eligible*` of the publish options.
//!
//! Set semantics (case R-P5): a receiver must be in every `eligible` list that is present (an empty one admits nobody)
//! and in no `exclude` list. Knows nothing of subscriptions.

use std::collections::HashSet;
use std::hash::Hash;

use super::refusal::{Refusal, flag, list};
use super::session::Identity;
use crate::Id;
use crate::value::{Dict, Value};

/// The options of one publication that choose receivers.
#[derive(Clone, Debug, Default)]
pub(super) struct Audience {
    /// The publisher gets its own event.
    pub(super) include_publisher: bool,
    sessions: Lists<Id>,
    authids: Lists<String>,
    authroles: Lists<String>,
}

#[derive(Clone, Debug)]
struct Lists<T> {
    exclude: Option<HashSet<T>>,
    eligible: Option<HashSet<T>>,
}

impl<T> Default for Lists<T> {
    fn default() -> Lists<T> {
        Lists {
            exclude: None,
            eligible: None,
        }
    }
}

impl Audience {
    /// Reads the options of PUBLISH.
    pub(super) fn from_options(options: &Dict) -> Result<Audience, Refusal> {
        if options.is_empty() {
            return Ok(Audience::default());
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Audience {
            include_publisher: !flag(options, "exclude_me")?.unwrap_or(true),
            sessions: Lists::read(options, "exclude", "eligible", Value::as_u64)?,
            authids: Lists::read(options, "exclude_authid", "eligible_authid", text)?,
            authroles: Lists::read(options, "exclude_authrole", "eligible_authrole", text)?,
        })
    }

    /// Whether no list restricts the receivers.
    pub(super) fn is_everybody(&self) -> bool {
        self.sessions.is_open() && self.authids.is_open() && self.authroles.is_open()
    }

    /// Whether a session may get the event.
    pub(super) fn admits(&self, session: Id, identity: &Identity) -> bool {
        self.sessions.admit(&session)
            && self.authids.admit(identity.authid.as_str())
            && self.authroles.admit(identity.authrole.as_str())
    }
}

impl<T: Eq + Hash> Lists<T> {
    fn read(
        options: &Dict,
        exclude: &str,
        eligible: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<Lists<T>, Refusal> {
        let read = |key: &str| -> Result<Option<HashSet<T>>, Refusal> {
            let Some(values) = list(options, key)? else {
                return Ok(None);
            };
            let set: Option<HashSet<T>> = values.iter().map(&parse).collect();
            set.map(Some)
                .ok_or_else(|| Refusal::argument(format!("option {key} has an entry of the wrong type")))
        };
        Ok(Lists {
            exclude: read(exclude)?,
            eligible: read(eligible)?,
        })
    }

    fn is_open(&self) -> bool {
        self.exclude.is_none() && self.eligible.is_none()
    }

    fn admit<Q>(&self, member: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.eligible.as_ref().is_none_or(|set| set.contains(member))
            && self.exclude.as_ref().is_none_or(|set| !set.contains(member))
    }
}
