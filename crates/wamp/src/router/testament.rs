//! Testaments: what a session wants published when it ends, however it ends.
//!
//! `wamp.session.add_testament` and `flush_testaments` with positional or keyword arguments (`wamp-interop.md` 3.5,
//! cases R-M6 and R-M7). Topic and options are checked when the testament is added, where somebody still listens to
//! the answer.

use super::audience::Audience;
use super::directory::is_reserved;
use super::meta::Arguments;
use super::permission::Action;
use super::realm::Realm;
use super::refusal::{Refusal, flag};
use crate::codec::Codec;
use crate::payload::Payload;
use crate::uri::error;
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// Publish options a testament may carry; another one is an error of the caller.
const OPTIONS: [&str; 12] = [
    "acknowledge",
    "exclude_me",
    "exclude",
    "exclude_authid",
    "exclude_authrole",
    "eligible",
    "eligible_authid",
    "eligible_authrole",
    "disclose_me",
    "retain",
    "forward_for",
    "transaction_hash",
];

/// One publication to come.
#[derive(Debug)]
pub(super) struct Testament {
    pub(super) publication: Id,
    pub(super) topic: String,
    pub(super) audience: Audience,
    pub(super) retain: bool,
    pub(super) payload: Payload,
}

/// A session's testaments, in the order they were added.
#[derive(Debug, Default)]
pub(super) struct Testaments {
    detached: Vec<Testament>,
    destroyed: Vec<Testament>,
}

impl Testaments {
    fn scope(&mut self, name: &str) -> Result<&mut Vec<Testament>, Refusal> {
        match name {
            "detached" => Ok(&mut self.detached),
            "destroyed" => Ok(&mut self.destroyed),
            _ => Err(Refusal::error(
                error::TESTAMENT_ERROR,
                format!("scope {name:?} is neither \"detached\" nor \"destroyed\""),
            )),
        }
    }

    fn bytes(&self) -> usize {
        let all = self.detached.iter().chain(&self.destroyed);
        all.map(|testament| testament.payload.encoded_len()).sum()
    }

    /// Everything, in the order of publication.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Testament> + use<> {
        let detached = std::mem::take(&mut self.detached);
        let destroyed = std::mem::take(&mut self.destroyed);
        detached.into_iter().chain(destroyed)
    }
}

impl Realm {
    pub(super) fn add_testament(&mut self, session: Id, arguments: &Arguments) -> Result<Value, Refusal> {
        let topic = arguments
            .find(0, "topic")
            .and_then(Value::as_str)
            .ok_or_else(|| missing("topic", "text"))?;
        let args = arguments
            .find(1, "args")
            .and_then(Value::as_list)
            .ok_or_else(|| missing("args", "a list"))?;
        let kwargs = arguments
            .find(2, "kwargs")
            .and_then(Value::as_dict)
            .ok_or_else(|| missing("kwargs", "a dictionary"))?;
        let options = match arguments.find(3, "publish_options") {
            None | Some(Value::Null) => Dict::new(),
            Some(Value::Dict(options)) => options.clone(),
            Some(_) => return Err(missing("publish_options", "a dictionary")),
        };
        let scope = scope(arguments.find(4, "scope"))?;
        if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
            return Err(Refusal::error(
                error::RUNTIME_ERROR,
                format!("unknown publish option {unknown:?}"),
            ));
        }
        if !self.uris.accepts(topic) || is_reserved(topic) {
            return Err(Refusal::uri(topic));
        }
        let allowed = self
            .sessions
            .get(&session)
            .is_some_and(|session| session.rights.allows(Action::Publish, topic));
        if !allowed {
            return Err(self.not_authorized(session, Action::Publish, topic));
        }
        let testament = Testament {
            publication: self.random.u64(1..=MAX_ID),
            topic: topic.to_owned(),
            audience: Audience::from_options(&options)?,
            retain: flag(&options, "retain")?.unwrap_or(false),
            // Encoded, it takes no more memory than its sender paid for on the wire.
            payload: Codec::MessagePack
                .encode_payload(&Payload::from_parts(args.to_vec(), kwargs.clone()))
                .map_err(|_| Refusal::argument("the arguments cannot be encoded"))?,
        };
        let publication = testament.publication;
        if let Some(session) = self.sessions.get_mut(&session) {
            let most = self.limits.max_testament_bytes;
            if session.testaments.bytes() + testament.payload.encoded_len() > most {
                return Err(Refusal::limit(
                    error::PAYLOAD_SIZE_EXCEEDED,
                    format!("the testaments of a session have {most} bytes of arguments at most"),
                ));
            }
            let testaments = session.testaments.scope(scope)?;
            let most = self.limits.max_testaments;
            if testaments.len() >= most {
                return Err(Refusal::limit(
                    error::TESTAMENT_ERROR,
                    format!("a session has {most} testaments per scope at most"),
                ));
            }
            testaments.push(testament);
        }
        Ok(Value::Uint(publication))
    }

    pub(super) fn flush_testaments(&mut self, session: Id, arguments: &Arguments) -> Result<Value, Refusal> {
        let scope = scope(arguments.find(0, "scope"))?;
        let Some(session) = self.sessions.get_mut(&session) else {
            return Ok(Value::Uint(0));
        };
        let flushed = std::mem::take(session.testaments.scope(scope)?);
        Ok(Value::Uint(flushed.len() as u64))
    }
}

fn scope(value: Option<&Value>) -> Result<&str, Refusal> {
    match value {
        None | Some(Value::Null) => Ok("destroyed"),
        Some(Value::Str(scope)) => Ok(scope),
        Some(_) => Err(Refusal::error(error::TESTAMENT_ERROR, "scope is not text")),
    }
}

fn missing(name: &str, kind: &str) -> Refusal {
    Refusal::error(
        error::RUNTIME_ERROR,
        format!("argument {name} is missing or not {kind}"),
    )
}
