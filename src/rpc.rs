//! The procedures exposed to the studio: one table (name, gate, deadline, handler), one file per group.
//!
//! Every invocation takes the same way: arguments decoded, caller checked ([`crate::access`]), handler run under a
//! deadline and the caller's cancellation, panic caught, error turned into `wamp.error.canceled` with one dictionary
//! (`session-and-api.md` 6.1; `code` is the addition of R59). Must not know SQL or bollard.

mod apps;
mod containers;
mod device;
mod logs;
mod transfer;
mod update;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use protocol::privilege::Privilege;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wamp::client::{HandlerResult, Invocation, WampError};
use wamp::uri::error;
use wamp::{Dict, Payload};

use crate::access::{Access, Disclosed, Gate, Refusal};
use crate::app::Apps;
use crate::backend::BackendError;
use crate::engine::Engine;
use crate::flock::DeviceFile;
use crate::journal::{Chain, Limiter, LogPlace, Verdict};
use crate::logs::Logs;
use crate::system::HostSampler;
use crate::transfer::Transfers;
use crate::update::Updater;

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Context {
    pub device: DeviceFile,
    pub access: Arc<Access>,
    pub apps: Apps,
    pub engine: Engine,
    pub logs: Logs,
    pub host: HostSampler,
    pub transfers: Transfers,
    /// The agent's own log.
    pub log: LogPlace,
    pub updates: Updater,
    /// Ends the process in good order (restart by the supervisor).
    pub stop: CancellationToken,
}

/// The decoded arguments of one call.
#[derive(Clone, Debug, Default)]
pub struct Call {
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
}

impl Call {
    /// args\[0\] as a dictionary, with the reference's texts when it is missing or something else.
    pub fn first_dict(&self) -> Result<&Map<String, Value>, Failure> {
        match self.args.first() {
            None => Err(Failure::invalid("arguments are missing")),
            Some(Value::Object(members)) => Ok(members),
            Some(_) => Err(Failure::invalid("first param should be a dict")),
        }
    }
}

/// The stable `code` beside an error's text (R59).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Denied,
    InvalidArgument,
    NotFound,
    Unavailable,
    Internal,
}

impl Code {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Denied => "denied",
            Code::InvalidArgument => "invalid_argument",
            Code::NotFound => "not_found",
            Code::Unavailable => "unavailable",
            Code::Internal => "internal",
        }
    }
}

/// Why a call failed: what the caller reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub text: String,
}

impl Failure {
    /// The caller's input is at fault.
    pub fn invalid(text: impl Into<String>) -> Failure {
        Failure {
            code: Code::InvalidArgument,
            text: text.into(),
        }
    }

    /// Something the handler needs does not answer.
    pub fn unavailable(text: impl Into<String>) -> Failure {
        Failure {
            code: Code::Unavailable,
            text: text.into(),
        }
    }

    fn into_error(self) -> WampError {
        let dict = Dict::from([
            ("error".to_owned(), wamp::Value::from(self.text)),
            ("code".to_owned(), wamp::Value::from(self.code.as_str())),
        ]);
        WampError {
            uri: error::CANCELED.to_owned(),
            payload: Payload::from_args(vec![dict.into()]),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match &refusal {
            Refusal::Denied(text) => Failure {
                code: Code::Denied,
                text: (*text).to_owned(),
            },
            Refusal::Unchecked(cause) => Failure::unavailable(match cause {
                // The words that clients of the reference read.
                BackendError::Reply { reason, .. } => reason.clone(),
                BackendError::Call { source, .. } => source.to_string(),
                BackendError::NotConnected | BackendError::Encode { .. } => Chain(cause).to_string(),
            }),
        }
    }
}

/// What a handler returns: positional and keyword results.
pub type Reply = Result<Payload, Failure>;
type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// One exposed procedure.
pub struct Procedure {
    /// Last component of `re.mgmt.<serial>.<name>`.
    pub name: &'static str,
    pub gate: Gate,
    /// The handler is dropped after this long.
    pub deadline: Duration,
    run: fn(Context, Call) -> ReplyFuture,
}

impl std::fmt::Debug for Procedure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Procedure")
            .field("name", &self.name)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

/// Reads from the host or Docker (R62).
const READ: Duration = Duration::from_secs(10);
/// Prunes walk every layer on slow flash.
const PRUNE: Duration = Duration::from_secs(300);
/// An update bounds itself at half an hour of download.
const UPDATE: Duration = Duration::from_secs(45 * 60);

macro_rules! table {
    ($($name:literal, $gate:expr, $deadline:expr, $handler:path;)*) => {
        /// Every procedure of this version, in the order of `session-and-api.md` 6.3. What is not built is not here.
        pub const PROCEDURES: &[Procedure] = &[$(Procedure {
            name: $name,
            gate: $gate,
            deadline: $deadline,
            run: |context, call| Box::pin($handler(context, call)),
        },)*];
    };
}

table! {
    "request_app_state", Gate::BackendOnly, READ, apps::request_app_state;
    "write_data", Gate::Needs(Privilege::Develop, "insufficient privileges write data to device"), READ, transfer::write_data;
    "device_handshake", Gate::BackendOnly, READ, device::device_handshake;
    "get_images", Gate::Needs(Privilege::Read, "insufficient privileges to read docker images"), READ, containers::get_images;
    "prune_images", Gate::Needs(Privilege::Maintain, "insufficient privileges to prune images"), PRUNE, containers::prune_images;
    "list_containers", Gate::Needs(Privilege::Read, "insufficient privileges to list containers"), READ, containers::list_containers;
    "get_app_log_history", Gate::Needs(Privilege::Read, "insufficient privileges to get app log history"), READ, logs::get_app_log_history;
    "query_app_logs", Gate::Needs(Privilege::Read, "insufficient privileges to query app logs"), READ, logs::query_app_logs;
    "query_device_logs", Gate::Needs(Privilege::Read, "insufficient privileges to query device logs"), READ, logs::query_device_logs;
    "get_storage_data", Gate::Needs(Privilege::Read, "insufficient privileges to get storage data"), READ, device::get_storage_data;
    "get_agent_metadata", Gate::Needs(Privilege::Read, "insufficient privileges to get agent metadata"), READ, device::get_agent_metadata;
    "update_agent", Gate::Needs(Privilege::Maintain, "insufficient privileges to update reagent"), UPDATE, update::update_agent;
    "system_restart_agent", Gate::Needs(Privilege::Maintain, "insufficient privileges to restart agent"), READ, device::system_restart_agent;
}

/// Calls of one procedure that run at once; others wait their turn, within their deadline (R43).
const RUNNING: usize = 16;
/// Calls of one procedure that run or wait; further ones are refused. Below what a session takes in all, so that a
/// flood of one procedure leaves places for the others.
const ADMITTED: usize = 224;
const _: () = assert!(ADMITTED < wamp::client::MAX_INVOCATIONS);

/// Failures of one procedure that are logged per minute; the rest is counted (R68).
const COMPLAINTS: u32 = 5;

/// A handler for [`wamp::client::Session::register`].
pub fn handler(context: &Context, procedure: &'static Procedure) -> wamp::client::Handler {
    let context = context.clone();
    let places = Arc::new(Places {
        admitted: Semaphore::new(ADMITTED),
        running: Semaphore::new(RUNNING),
    });
    let complaints = Arc::new(Mutex::new(Limiter::new(COMPLAINTS, Duration::from_secs(60))));
    wamp::client::handler(move |invocation| {
        serve(
            context.clone(),
            procedure,
            Arc::clone(&places),
            Arc::clone(&complaints),
            invocation,
        )
    })
}

/// How many calls of one procedure are worked on. Waiting is in the order of arrival.
struct Places {
    admitted: Semaphore,
    running: Semaphore,
}

async fn serve(
    context: Context,
    procedure: &'static Procedure,
    places: Arc<Places>,
    complaints: Arc<Mutex<Limiter>>,
    invocation: Invocation,
) -> HandlerResult {
    let Ok(_admitted) = places.admitted.try_acquire() else {
        return Err(Failure::unavailable("too many calls of this procedure at once").into_error());
    };
    let cancelled = invocation.cancelled.clone();
    let work = async {
        // Never closed, so an error cannot come; without a place the call would only run unbounded.
        let _running = places.running.acquire().await;
        AssertUnwindSafe(answer(context, procedure, &invocation))
            .catch_unwind()
            .await
    };
    let reply = tokio::select! {
        () = cancelled.cancelled() => Err(Failure::unavailable("canceled")),
        finished = tokio::time::timeout(procedure.deadline, work) => match finished {
            Ok(Ok(reply)) => reply,
            // The panic itself was logged by the panic hook.
            Ok(Err(_)) => Err(Failure {
                code: Code::Internal,
                text: "the device failed to handle the call".to_owned(),
            }),
            Err(_) => Err(Failure::unavailable(format!("not finished within {} s", procedure.deadline.as_secs()))),
        },
    };
    reply.map_err(|failure| {
        let verdict = complaints.lock().unwrap_or_else(PoisonError::into_inner).ask();
        if let Verdict::Say { held_back } = verdict {
            tracing::warn!(procedure = procedure.name, code = failure.code.as_str(), error = %failure.text, held_back, "call failed");
        }
        failure.into_error()
    })
}

async fn answer(context: Context, procedure: &'static Procedure, invocation: &Invocation) -> Reply {
    let unreadable =
        |error: wamp::codec::CodecError| Failure::invalid(format!("unreadable arguments: {error}"));
    let args = invocation.payload.args().map_err(unreadable)?;
    let kwargs = invocation.payload.kwargs().map_err(unreadable)?;
    let call = Call {
        args: args.iter().map(wamp::Value::to_json).collect(),
        kwargs: kwargs
            .iter()
            .map(|(key, value)| (key.clone(), value.to_json()))
            .collect(),
    };
    // Over a link between routers neither is the caller's own (`wamp-interop.md` rule 16).
    let forwarded = invocation.details.contains_key("forward_for");
    let disclosed = Disclosed {
        authid: invocation.caller_authid(),
        authrole: invocation
            .details
            .get("caller_authrole")
            .filter(|_| !forwarded)
            .and_then(wamp::Value::as_str)
            .map(str::to_owned),
    };
    context
        .access
        .check(procedure.gate, &disclosed, &call.args, &call.kwargs)
        .await
        .map_err(|refusal| refused(procedure.name, refusal))?;
    (procedure.run)(context, call).await
}

/// A check that failed reads like no denial where callers fall back on denial (`logs-terminal-tunnel.md` 1.4).
fn refused(procedure: &str, refusal: Refusal) -> Failure {
    let unchecked = matches!(refusal, Refusal::Unchecked(_));
    let mut failure = Failure::from(refusal);
    if unchecked && procedure.starts_with("query_") {
        failure.text = format!("could not verify privileges: {}", failure.text);
    }
    failure
}

/// One positional result.
fn one<T: serde::Serialize>(value: &T) -> Reply {
    Payload::one(value).map_err(|error| Failure {
        code: Code::Internal,
        text: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_shape_of_the_contract() {
        let error = Failure::invalid("first param should be a dict").into_error();
        assert_eq!(error.uri, "wamp.error.canceled");
        let args = error.payload.args().unwrap();
        assert_eq!(args.len(), 1);
        assert_eq!(
            args[0].get("error"),
            Some(&wamp::Value::from("first param should be a dict"))
        );
        assert_eq!(args[0].get("code"), Some(&wamp::Value::from("invalid_argument")));
    }

    #[test]
    fn a_query_whose_caller_could_not_be_checked_is_not_denied() {
        let unchecked = || Refusal::Unchecked(BackendError::NotConnected);
        let plain = refused("get_app_log_history", unchecked()).text;
        let query = refused("query_app_logs", unchecked());
        assert_eq!(query.text, format!("could not verify privileges: {plain}"));
        assert_eq!(query.code, Code::Unavailable);
        let denied = refused("query_app_logs", Refusal::Denied("no"));
        assert_eq!(denied.text, "no");
    }

    #[test]
    fn procedure_names_are_unique_and_none_is_open() {
        let mut names: Vec<_> = PROCEDURES.iter().map(|procedure| procedure.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PROCEDURES.len());
        for procedure in PROCEDURES {
            assert_ne!(procedure.gate, Gate::Open, "{}", procedure.name);
        }
    }

    #[test]
    fn a_first_argument_that_is_no_dict_is_answered_in_the_words_of_the_contract() {
        let missing = Call::default().first_dict().unwrap_err();
        assert_eq!(missing.text, "arguments are missing");
        let wrong = Call {
            args: vec![Value::Null],
            ..Call::default()
        };
        assert_eq!(
            wrong.first_dict().unwrap_err().text,
            "first param should be a dict"
        );
    }
}
