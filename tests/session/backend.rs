//! A backend that answers what the test tells it to, and remembers every call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use protocol::uri::backend;
use serde_json::{Value, json};
use testkit::wait;
use tokio_util::sync::CancellationToken;
use wamp::Payload;
use wamp::client::{HandlerResult, RegisterOptions, Session, WampError, handler};

use super::SOON;
use super::plane::Plane;

/// What a procedure of the backend answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// One positional value.
    One(Value),
    /// A result without arguments.
    Empty,
    /// An error with this URI.
    Error(&'static str),
    /// No answer at all.
    Silence,
    /// This value, once the token is cancelled.
    After(CancellationToken, Value),
}

const PROCEDURES: [&str; 7] = [
    backend::READ_DEVICE_METADATA,
    backend::GET_APP_CRED_KEY,
    backend::UPDATE_DEVICE_STATUS,
    backend::UPDATE_DEVICE_ARCHITECTURE,
    backend::CHECK_PRIVILEGE,
    backend::GET_REQUESTED_APP_STATES,
    backend::UPDATE_APP_ON_DEVICE,
];

type Decide = Box<dyn Fn(&Value) -> Answer + Send>;

#[derive(Default)]
struct Script {
    answers: HashMap<String, Decide>,
    calls: Vec<(String, Value)>,
}

/// Joined as `system`. Leaves with the last clone.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) session: Session,
    script: Arc<Mutex<Script>>,
}

impl Backend {
    /// A backend that is content with everything and wants no apps.
    pub(crate) async fn join(plane: &Plane) -> Backend {
        let backend = Backend::silent(plane).await;
        backend.offer(&PROCEDURES).await;
        backend
    }

    /// Joined, but offering nothing yet.
    pub(crate) async fn silent(plane: &Plane) -> Backend {
        let backend = Backend {
            session: plane.join("system").await,
            script: Arc::default(),
        };
        backend.answers(backend::READ_DEVICE_METADATA, json!({ "swarm_key": 42 }));
        backend.answers(backend::GET_APP_CRED_KEY, json!("credential-key"));
        backend.answers(backend::CHECK_PRIVILEGE, json!(true));
        backend.answers(backend::GET_REQUESTED_APP_STATES, json!([]));
        backend
    }

    /// Registers what [`Backend::silent`] left out.
    pub(crate) async fn offer_all(&self) {
        self.offer(&PROCEDURES).await;
    }

    async fn offer(&self, procedures: &[&'static str]) {
        for procedure in procedures.iter().copied() {
            let script = Arc::clone(&self.script);
            let function = handler(move |invocation| {
                let args = invocation.payload.args().unwrap_or_default();
                let first = args.first().map(wamp::Value::to_json).unwrap_or_default();
                let answer = {
                    let mut script = script.lock().unwrap();
                    script.calls.push((procedure.to_owned(), first.clone()));
                    script
                        .answers
                        .get(procedure)
                        .map_or(Answer::Empty, |decide| decide(&first))
                };
                async move { give(answer).await }
            });
            self.session
                .register(procedure, RegisterOptions::default(), function)
                .await
                .unwrap();
        }
    }

    /// From now on `procedure` answers this value.
    pub(crate) fn answers(&self, procedure: &str, value: Value) {
        self.decides(procedure, move |_| Answer::One(value.clone()));
    }

    /// From now on `procedure` answers this.
    pub(crate) fn does(&self, procedure: &str, answer: Answer) {
        self.decides(procedure, move |_| answer.clone());
    }

    /// From now on `procedure` answers according to its first argument.
    pub(crate) fn decides(&self, procedure: &str, decide: impl Fn(&Value) -> Answer + Send + 'static) {
        let mut script = self.script.lock().unwrap();
        script.answers.insert(procedure.to_owned(), Box::new(decide));
    }

    /// First arguments of all calls of `procedure` so far, in order.
    pub(crate) fn calls(&self, procedure: &str) -> Vec<Value> {
        let script = self.script.lock().unwrap();
        let of_procedure = script.calls.iter().filter(|(called, _)| called == procedure);
        of_procedure.map(|(_, args)| args.clone()).collect()
    }

    /// Forgets the calls so far.
    pub(crate) fn forget(&self) {
        self.script.lock().unwrap().calls.clear();
    }

    /// Waits until `procedure` was called `count` times, and returns these calls.
    pub(crate) async fn called(&self, procedure: &str, count: usize) -> Vec<Value> {
        wait::until_async(&format!("{count} calls of {procedure}"), SOON, || async {
            let calls = self.calls(procedure);
            (calls.len() >= count).then_some(calls)
        })
        .await
    }

    /// Waits for a status update with this status, and returns the newest.
    pub(crate) async fn status(&self, status: &str) -> Value {
        wait::until_async(&format!("the device is {status}"), SOON, || async {
            let calls = self.calls(backend::UPDATE_DEVICE_STATUS);
            calls.into_iter().rfind(|update| update["status"] == status)
        })
        .await
    }

    /// The states reported for an app so far, in order.
    pub(crate) fn reported(&self, app_key: u64) -> Vec<String> {
        let reports = self.calls(backend::UPDATE_APP_ON_DEVICE);
        let of_app = reports.iter().filter(|report| report["app_key"] == app_key);
        of_app
            .map(|report| report["state"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

async fn give(answer: Answer) -> HandlerResult {
    match answer {
        Answer::One(value) => Ok(Payload::from_args(vec![value.into()])),
        Answer::Empty => Ok(Payload::Empty),
        Answer::Error(uri) => Err(WampError::new(uri, "as scripted")),
        Answer::Silence => std::future::pending().await,
        Answer::After(released, value) => {
            released.cancelled().await;
            Ok(Payload::from_args(vec![value.into()]))
        }
    }
}
