//! What a device is asked and what it answers (`update-and-system.md` 1.11, 9.4 F3). Must not know of waves.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use wamp::client::{CallOptions, Event, RequestError, Session, WampError};
use wamp::uri::error;
use wamp::{Dict, Payload};

use crate::keys::{AccountKey, DeviceAuthid};

/// One call of `update_agent`.
pub(super) struct Question {
    pub(super) serial: String,
    pub(super) version: String,
    pub(super) account: AccountKey,
    /// The device shall also try again what failed there.
    pub(super) force: bool,
    /// What the device shall call the outcome.
    pub(super) id: String,
    pub(super) deadline: Duration,
}

/// For what a device remembers; it may look up its newest version meanwhile.
const LOOK: Duration = Duration::from_secs(15);
/// Of a text in which a device gives its reasons, so many characters count.
const REASON: usize = 500;
/// The answer of agents that were ending, before they said that by an error.
const STOPPING: &str = "the agent is stopping";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The version is on the device; how it does is said later.
    Staged,
    UpToDate,
    Refused(String),
    /// Nothing is decided: busy, or gone.
    Later(String),
    /// The call did not reach the device: it is not there, or not quite yet.
    Absent,
}

/// The reply of the contract; an agent of the reference leaves most of it empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Reply {
    current_version: String,
    latest_version: String,
    message: String,
    did_agent_update: bool,
    in_progress: bool,
}

/// Asks; answers when the device has the version or does not want it.
pub(super) async fn ask(session: &Session, question: &Question) -> Answer {
    let mut kwargs = Dict::from([
        ("requestor_account_key".to_owned(), question.account.0.into()),
        ("version".to_owned(), question.version.as_str().into()),
        ("id".to_owned(), question.id.as_str().into()),
    ]);
    if question.force {
        kwargs.insert("force".to_owned(), true.into());
    }
    let procedure = protocol::uri::device(&question.serial, "update_agent");
    let options = CallOptions::timeout(question.deadline);
    match session
        .call(&procedure, Payload::from_kwargs(kwargs), options)
        .await
    {
        Ok(result) => match result.payload.first::<Reply>() {
            Ok(Some(reply)) => read(&reply, &question.version),
            Ok(None) | Err(_) => Answer::Refused("its answer is unreadable".to_owned()),
        },
        Err(RequestError::Peer(answer)) => no(&answer),
        Err(failure) => Answer::Later(failure.to_string()),
    }
}

/// What an error means. Those of agents come under the URI of a canceled call as well, with a dictionary (contract 0) that
/// a router's have not; the code in it is an addition of this agent. Neither agent answers under the URI of a call that lasted
/// too long: that is a router's word, and says nothing about what the device did.
fn no(answer: &WampError) -> Answer {
    let args = answer.payload.args().unwrap_or_default();
    let told = |name: &str| args.first()?.get(name)?.as_str();
    match (answer.uri.as_str(), told("error")) {
        (error::CANCELED, Some(text)) if told("code") != Some("unavailable") => Answer::Refused(plain(text)),
        (error::NO_SUCH_PROCEDURE, _) => Answer::Absent,
        (error::CANCELED | error::TIMEOUT | error::NETWORK_FAILURE, _) => Answer::Later(answer.to_string()),
        _ => Answer::Refused(plain(&answer.to_string())),
    }
}

/// A device's own words as they are stored and shown: without what would steer a terminal, and not longer than a reason.
fn plain(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(REASON).map(visible).collect()
}

fn read(reply: &Reply, wanted: &str) -> Answer {
    if reply.did_agent_update {
        return Answer::Staged;
    }
    if reply.in_progress {
        return Answer::Later("another update is in progress there".to_owned());
    }
    if reply.message == STOPPING {
        return Answer::Later(STOPPING.to_owned());
    }
    // It waits to prove itself, or does so already: the final word comes later.
    if reply.message.ends_with("waits to prove itself") {
        return match reply.latest_version == wanted {
            true => Answer::Staged,
            false => Answer::Later(format!("there, {}", plain(&reply.message))),
        };
    }
    if reply.current_version == wanted {
        return Answer::UpToDate;
    }
    Answer::Refused(match reply.message.as_str() {
        "" => "it did not update and gave no reason".to_owned(),
        message => plain(message),
    })
}

/// How an update ended, in the device's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) serial: String,
    /// Who published it, where the router says so.
    pub(super) author: Option<DeviceAuthid>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) result: String,
    pub(super) reason: String,
    /// Of the question that led to it, as far as the device knows one; older agents do not.
    pub(super) id: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    from: String,
    to: String,
    result: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    id: Option<String>,
}

impl Told {
    fn by(self, serial: String, author: Option<DeviceAuthid>) -> Outcome {
        // The texts that are compared stay as they are.
        Outcome {
            serial,
            author,
            from: self.from,
            to: self.to,
            result: plain(&self.result),
            reason: plain(&self.reason),
            id: self.id,
        }
    }
}

/// What runs on a device, and what it says about updates.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) version: String,
    /// The version that has yet to prove itself, empty: there is none. `None`: an agent that does not say so.
    pub(super) trial: Option<String>,
    /// How its last update ended, as far as it knows of one.
    pub(super) last: Option<Outcome>,
}

/// What counts of `get_agent_metadata`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    version: String,
    #[serde(default)]
    trial_version: Option<String>,
    #[serde(default)]
    last_update: Option<Told>,
}

impl Metadata {
    fn of(self, serial: &str) -> Report {
        Report {
            version: plain(&self.version),
            trial: self.trial_version,
            last: self.last_update.map(|told| told.by(serial.to_owned(), None)),
        }
    }
}

/// Asks a device how its last update ended, on the studio's own behalf: an account that may update a device need not
/// be one that may read there. `None`: it does not answer.
pub(super) async fn look(session: &Session, serial: &str) -> Option<Report> {
    let procedure = protocol::uri::device(serial, "get_agent_metadata");
    let options = CallOptions::timeout(LOOK);
    let answer = session
        .call(&procedure, Payload::Empty, options)
        .await
        .inspect_err(|error| tracing::debug!(serial, %error, "how its update ended is not known"))
        .ok()?;
    let metadata: Metadata = serde_json::from_value(answer.payload.first::<Value>().ok()??).ok()?;
    Some(metadata.of(serial))
}

/// Reads the event; what no device published is none.
pub(super) fn outcome(event: &Event) -> Option<Outcome> {
    let text = |name: &str| event.details.get(name).and_then(wamp::Value::as_str);
    let topic = text("topic")?;
    let (prefix, suffix) = super::RESULTS.split_once("..")?;
    let serial = topic
        .strip_prefix(prefix)?
        .strip_prefix('.')?
        .strip_suffix(suffix)?
        .strip_suffix('.')?;
    let author = match text("publisher_authid") {
        Some(authid) => Some(DeviceAuthid::parse(authid)?),
        None => None,
    };
    let told: Told = event
        .payload
        .first::<Value>()
        .ok()
        .flatten()
        .and_then(|value| serde_json::from_value(value).ok())?;
    Some(told.by(serial.to_owned(), author))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(value: Value) -> Answer {
        read(&serde_json::from_value(value).unwrap(), "1.0.1")
    }

    #[test]
    fn the_answer_of_either_agent_says_what_comes_next() {
        let base = json!({
            "CurrentVersion": "1.0.0", "LatestVersion": "1.0.1", "Message": "", "DidAgentUpdate": false,
            "DidTunnelUpdate": false, "DidUpdate": false, "InProgress": false, "TotalFileSize": 0,
        });
        let with = |changes: Value| {
            let mut reply = base.clone();
            reply
                .as_object_mut()
                .unwrap()
                .extend(changes.as_object().unwrap().clone());
            answer(reply)
        };
        assert_eq!(with(json!({"DidAgentUpdate": true})), Answer::Staged);
        assert!(matches!(with(json!({"InProgress": true})), Answer::Later(_)));
        assert_eq!(
            with(json!({"CurrentVersion": "1.0.1", "Message": "version 1.0.1 is up to date"})),
            Answer::UpToDate
        );
        assert_eq!(
            with(json!({"CurrentVersion": "1.0.1", "Message": "version 1.0.1 waits to prove itself"})),
            Answer::Staged
        );
        let other = json!({"LatestVersion": "1.0.9", "Message": "version 1.0.9 waits to prove itself"});
        assert!(
            matches!(with(other), Answer::Later(_)),
            "another one is being tried"
        );
        assert_eq!(
            with(json!({"Message": "the release was refused"})),
            Answer::Refused("the release was refused".to_owned())
        );
        // It was asked as it ended.
        assert!(matches!(
            with(json!({"Message": "the agent is stopping"})),
            Answer::Later(_)
        ));
        // A Go agent says nothing.
        assert!(matches!(
            with(json!({"CurrentVersion": "", "LatestVersion": ""})),
            Answer::Refused(_)
        ));
        assert!(matches!(answer(json!({})), Answer::Refused(_)));
    }

    #[test]
    fn what_devices_say_steers_no_terminal_and_has_an_end() {
        let hostile = format!("\u{1b}]0;pwned\u{7}\u{9b}2J{}", "x".repeat(10_000));
        let seen = |text: &str| {
            assert!(text.starts_with("?]0;pwned??2Jxx"), "{text}");
            assert_eq!(text.chars().count(), 500);
        };
        match answer(json!({"Message": hostile})) {
            Answer::Refused(text) => seen(&text),
            other => panic!("{other:?}"),
        }
        let event = Event {
            payload: Payload::one(&json!({
                "from": "1.0.0", "to": "1.0.1", "result": "rolledback", "reason": hostile,
            }))
            .unwrap(),
            details: Dict::from([("topic".to_owned(), "re.mgmt.f00d.agent_update_result".into())]),
            publication: 1,
            missed: 0,
        };
        seen(&outcome(&event).unwrap().reason);
        let metadata: Metadata = serde_json::from_value(json!({"version": hostile})).unwrap();
        seen(&metadata.of("f00d").version);
    }

    #[test]
    fn every_agent_says_what_it_knows_about_updates() {
        let report = |value: Value| serde_json::from_value::<Metadata>(value).unwrap().of("f00d");
        let go = report(json!({"version": "0.20.20", "canUpdate": true, "latestVersion": "0.20.21"}));
        assert_eq!(
            go,
            Report {
                version: "0.20.20".to_owned(),
                trial: None,
                last: None,
            }
        );
        let own = report(json!({"version": "1.0.1", "trialVersion": "", "lastUpdate": {
            "from": "1.0.0", "to": "1.0.1", "result": "updated", "reason": "", "id": "1-1000",
        }}));
        assert_eq!(own.trial.as_deref(), Some(""));
        assert_eq!(own.last.unwrap().id.as_deref(), Some("1-1000"));
    }

    #[test]
    fn an_error_of_a_device_is_its_answer_and_one_of_the_way_to_it_is_none() {
        let error = |uri: &str, value: Value| {
            no(&WampError {
                uri: uri.to_owned(),
                payload: Payload::one(&value).unwrap(),
            })
        };
        let denied = "insufficient privileges to update reagent";
        for told in [
            // A Go agent, and this one.
            json!({"error": denied}),
            json!({"error": denied, "code": "denied"}),
        ] {
            assert_eq!(error(error::CANCELED, told), Answer::Refused(denied.to_owned()));
        }
        for (uri, told) in [
            (
                error::CANCELED,
                json!({"error": "not finished within 9 s", "code": "unavailable"}),
            ),
            (
                error::CANCELED,
                json!({"error": "the agent is stopping", "code": "unavailable"}),
            ),
            // The router's own.
            (error::CANCELED, json!("the callee left")),
            // Crossbar.io's, when the call has lasted too long.
            (error::TIMEOUT, json!("the call timed out")),
            (error::NETWORK_FAILURE, json!({})),
        ] {
            let answer = error(uri, told);
            assert!(matches!(answer, Answer::Later(_)), "{uri}: {answer:?}");
        }
        let answer = error(error::NO_SUCH_PROCEDURE, json!("no callee"));
        assert_eq!(answer, Answer::Absent);
        let answer = error(error::NOT_AUTHORIZED, json!({}));
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    }
}
