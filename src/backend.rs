//! Typed calls to the cloud, `reswarm.…` (`session-and-api.md` 7.1).
//!
//! Every call has a deadline (weakness R19) and fails with [`BackendError::NotConnected`] instead of pretending
//! success while there is no session (R45). Replies are read tolerantly; one that cannot be used is an error, never
//! an empty answer (R31, R32). Must not know who calls it or what is done with the answer.

use std::time::Duration;

use protocol::privilege::Privilege;
use protocol::report::{ArchitectureUpdate, PortReport, StateReport, StatusUpdate, Testament};
use protocol::{number, request, uri};
use serde::Serialize;
use serde_json::{Value, json};
use wamp::client::{CallOptions, RequestError, Session};
use wamp::{Dict, Payload};

use crate::app::Sync;
use crate::link::SessionWatch;

/// Deadline of every backend call (`session-and-api.md` 4.6).
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Calls the backend through whatever session is up.
#[derive(Clone, Debug)]
pub struct Backend {
    session: SessionWatch,
    deadline: Duration,
}

/// Why a backend call failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No session right now; nothing was sent.
    #[error("not connected")]
    NotConnected,
    /// The arguments could not be encoded: a bug.
    #[error("could not encode the arguments of {procedure}")]
    Encode {
        procedure: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// The call failed.
    #[error("backend call {procedure} failed")]
    Call {
        procedure: &'static str,
        #[source]
        source: RequestError,
    },
    /// The reply cannot be used.
    #[error("backend call {procedure} returned an unusable reply: {reason}")]
    Reply { procedure: &'static str, reason: String },
}

impl BackendError {
    /// Whether the router said that nobody is there who could answer.
    pub fn is_absence(&self) -> bool {
        let BackendError::Call { source, .. } = self else {
            return false;
        };
        matches!(source, RequestError::Peer(answer) if answer.uri == wamp::uri::error::NO_SUCH_PROCEDURE)
    }

    /// Whether the backend itself answered (with an error or nonsense), so that the link is known to work.
    pub fn is_answer(&self) -> bool {
        match self {
            BackendError::Call {
                source: RequestError::Peer(_),
                ..
            }
            | BackendError::Reply { .. } => true,
            BackendError::NotConnected | BackendError::Encode { .. } | BackendError::Call { .. } => false,
        }
    }

    /// Whether there is no session any more, or none yet.
    pub fn is_disconnected(&self) -> bool {
        matches!(
            self,
            BackendError::NotConnected
                | BackendError::Call {
                    source: RequestError::ConnectionLost,
                    ..
                }
        )
    }

    /// Whether nobody offers the procedure right now: the backend is not there, which is no answer of its own.
    pub fn is_no_such_procedure(&self) -> bool {
        matches!(self, BackendError::Call { source: RequestError::Peer(peer), .. }
            if peer.uri == wamp::uri::error::NO_SUCH_PROCEDURE)
    }
}

/// What `read_device_metadata` answers; missing or empty texts are `None` and change nothing (R31).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMetadata {
    pub device_name: Option<String>,
    pub swarm_name: Option<String>,
    pub owner_name: Option<String>,
    pub swarm_key: u64,
}

/// What `update_device_status` may answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusReply {
    /// The platform's base URL, `reswarmBaseURL`.
    pub base_url: Option<String>,
    /// Where to look for agent updates, `agentUpdateURL` (later revisions of the reference).
    pub update_url: Option<String>,
}

impl Backend {
    /// A backend reached through `session`.
    pub fn new(session: SessionWatch) -> Backend {
        Backend::with_deadline(session, CALL_DEADLINE)
    }

    /// The same with another deadline for every call.
    pub fn with_deadline(session: SessionWatch, deadline: Duration) -> Backend {
        Backend { session, deadline }
    }

    /// Adds the testament to this very session (`session-and-api.md` 4.11).
    pub async fn add_testament(&self, session: &Session, testament: &Testament) -> Result<(), BackendError> {
        let procedure = uri::meta::ADD_TESTAMENT;
        let args = [json!(uri::TESTAMENT_TOPIC), json!([testament]), json!({})];
        self.call_on(session, procedure, args.to_vec()).await.map(drop)
    }

    /// Current names and project of the device.
    pub async fn read_device_metadata(&self, device_key: u64) -> Result<DeviceMetadata, BackendError> {
        let procedure = uri::backend::READ_DEVICE_METADATA;
        let reply = self
            .call(procedure, vec![json!({ "device_key": device_key })])
            .await?;
        metadata(reply.first()).map_err(|reason| BackendError::Reply { procedure, reason })
    }

    /// The key from which app credentials are derived (`app-lifecycle.md` 6).
    pub async fn get_app_cred_key(&self) -> Result<String, BackendError> {
        let procedure = uri::backend::GET_APP_CRED_KEY;
        let reply = self.call(procedure, Vec::new()).await?;
        match reply.first() {
            Some(Value::String(key)) if !key.is_empty() => Ok(key.clone()),
            _ => Err(BackendError::Reply {
                procedure,
                reason: "not a non-empty text".to_owned(),
            }),
        }
    }

    /// Heartbeat and status. An empty or odd reply is fine: the call itself is the message.
    pub async fn update_device_status(&self, update: &StatusUpdate) -> Result<StatusReply, BackendError> {
        let procedure = uri::backend::UPDATE_DEVICE_STATUS;
        let reply = self.call(procedure, vec![encode(procedure, update)?]).await?;
        let text = |key: &str| {
            let value = reply.first()?.get(key)?.as_str()?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        Ok(StatusReply {
            base_url: text("reswarmBaseURL"),
            update_url: text("agentUpdateURL"),
        })
    }

    /// Platform facts, once per connect.
    pub async fn update_device_architecture(&self, update: &ArchitectureUpdate) -> Result<(), BackendError> {
        let procedure = uri::backend::UPDATE_DEVICE_ARCHITECTURE;
        self.call(procedure, vec![encode(procedure, update)?])
            .await
            .map(drop)
    }

    /// Whether `account` has `privilege` on this device.
    pub async fn check_privilege(
        &self,
        account: u64,
        privilege: Privilege,
        device_key: u64,
        swarm_key: u64,
    ) -> Result<bool, BackendError> {
        let procedure = uri::backend::CHECK_PRIVILEGE;
        let reply = self
            .call(
                procedure,
                vec![json!({
                    "privilege": privilege,
                    "entity": "DEVICE",
                    "entity_key": device_key,
                    "requestor_account_key": account,
                    "swarm_key": swarm_key,
                })],
            )
            .await?;
        match reply.first() {
            Some(Value::Bool(granted)) => Ok(*granted),
            _ => Err(BackendError::Reply {
                procedure,
                reason: "type of argument is not bool".to_owned(),
            }),
        }
    }

    /// What the backend wants on this device. Anything but a list is an error, never "no apps" (R32).
    pub async fn get_requested_app_states(&self, device_key: u64) -> Result<Sync, BackendError> {
        let procedure = uri::backend::GET_REQUESTED_APP_STATES;
        let reply = self
            .call(procedure, vec![json!({ "device_key": device_key })])
            .await?;
        let Some(Value::Array(rows)) = reply.first() else {
            return Err(BackendError::Reply {
                procedure,
                reason: "not a list".to_owned(),
            });
        };
        let mut sync = Sync {
            rows: Vec::with_capacity(rows.len()),
            unreadable: 0,
        };
        for (index, row) in rows.iter().enumerate() {
            match request::parse_row(row) {
                Ok(request) => sync.rows.push(request),
                Err(refused) => {
                    tracing::warn!(row = index, error = %refused, "skipped an unreadable row of the requested app states");
                    sync.unreadable += 1;
                }
            }
        }
        Ok(sync)
    }

    /// Reports one app state.
    pub async fn report_state(&self, report: &StateReport) -> Result<(), BackendError> {
        let procedure = uri::backend::UPDATE_APP_ON_DEVICE;
        self.call(procedure, vec![encode(procedure, report)?])
            .await
            .map(drop)
    }

    /// Reports the host ports of one app, the other shape of the same procedure (`app-lifecycle.md` 13.4).
    pub async fn report_ports(&self, report: &PortReport) -> Result<(), BackendError> {
        let procedure = uri::backend::UPDATE_APP_ON_DEVICE;
        self.call(procedure, vec![encode(procedure, report)?])
            .await
            .map(drop)
    }

    /// The registry user name for `account` (`app-lifecycle.md` 4.9); empty when the backend gives none.
    pub async fn registry_token(&self, account: u64) -> Result<String, BackendError> {
        let procedure = uri::backend::GET_REGISTRY_TOKEN;
        let reply = self.call(procedure, vec![json!({ "callerID": account })]).await?;
        match reply.first() {
            None => Ok(String::new()),
            Some(Value::String(token)) => Ok(token.clone()),
            Some(_) => Err(BackendError::Reply {
                procedure,
                reason: "invalid registry_token payload".to_owned(),
            }),
        }
    }

    /// Tells the viewers of an app's log how far an upload is (`logs-terminal-tunnel.md` 2.2). Nobody waits for it, and
    /// the next one says more.
    pub async fn transfer_progress(&self, serial: &str, container: &str, file_name: &str, progress: &str) {
        let Some(session) = self.session.borrow().clone() else {
            return;
        };
        let message = json!({ "id": file_name, "status": "Transfer Progress:", "progress": progress });
        let payload = Payload::from_args(vec![message.into()]);
        let topic = uri::logs(serial, container);
        let published = session.publish(&topic, Dict::new(), payload);
        match tokio::time::timeout(self.deadline, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the progress of an upload was not told"),
            Err(_) => tracing::debug!("the progress of an upload was not told: the link does not move"),
        }
    }

    async fn call(&self, procedure: &'static str, args: Vec<Value>) -> Result<Vec<Value>, BackendError> {
        let session = self.session.borrow().clone().ok_or(BackendError::NotConnected)?;
        self.call_on(&session, procedure, args).await
    }

    async fn call_on(
        &self,
        session: &Session,
        procedure: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<Value>, BackendError> {
        let payload = Payload::from_parts(args.into_iter().map(wamp::Value::from).collect(), Dict::new());
        let result = session
            .call(procedure, payload, CallOptions::timeout(self.deadline))
            .await
            .map_err(|source| BackendError::Call { procedure, source })?;
        let args = result.payload.args().map_err(|error| BackendError::Reply {
            procedure,
            reason: error.to_string(),
        })?;
        Ok(args.iter().map(wamp::Value::to_json).collect())
    }
}

fn encode<T: Serialize>(procedure: &'static str, value: &T) -> Result<Value, BackendError> {
    serde_json::to_value(value).map_err(|source| BackendError::Encode { procedure, source })
}

fn metadata(reply: Option<&Value>) -> Result<DeviceMetadata, String> {
    let Some(Value::Object(members)) = reply else {
        return Err("not a dictionary".to_owned());
    };
    let text = |key: &str| {
        members
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let swarm_key = members
        .get("swarm_key")
        .and_then(number::positive)
        .ok_or("swarm_key is unusable")?;
    Ok(DeviceMetadata {
        device_name: text("device_name"),
        swarm_name: text("swarm_name"),
        owner_name: text("ownername"),
        swarm_key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_without_texts_changes_nothing() {
        let reply = json!({ "swarm_key": "42", "device_name": "", "swarm_name": null, "ownername": 5 });
        let expected = DeviceMetadata {
            device_name: None,
            swarm_name: None,
            owner_name: None,
            swarm_key: 42,
        };
        assert_eq!(metadata(Some(&reply)), Ok(expected));
    }

    #[test]
    fn metadata_with_an_unusable_project_is_an_error() {
        for reply in [
            json!({}),
            json!({ "swarm_key": "x" }),
            json!({ "swarm_key": 0 }),
            json!([]),
            json!(null),
        ] {
            assert!(metadata(Some(&reply)).is_err(), "{reply}");
        }
        assert!(metadata(None).is_err());
    }
}
