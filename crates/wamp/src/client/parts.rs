//! Arguments in parts (progressive call invocations): the caller goes on sending while the callee works, under one
//! request id, and gets one final result.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::RequestError;
use super::options::CallOptions;
use super::state::{PARTIAL_QUEUE, Pending, Shared};
use super::stream::CallStream;
use super::{Outstanding, Session, check_uri};
use crate::Id;
use crate::message::Message;
use crate::payload::Payload;
use crate::value::{Dict, Value};

const FEATURE: &str = "progressive_call_invocations";

/// Parts of one invocation that wait for its handler. When one more comes, the invocation is cancelled.
pub(super) const PART_QUEUE: usize = 1024;

/// The sending half of a call in parts. Dropping it before [`CallParts::finish`] cancels the call, because the callee
/// would wait for ever.
#[derive(Debug)]
#[must_use = "dropping it cancels the call"]
pub struct CallParts {
    shared: Arc<Shared>,
    request: Id,
    procedure: String,
    finished: bool,
}

impl Drop for CallParts {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.abandon(self.request);
        }
    }
}

impl CallParts {
    /// Sends a further part, waiting for a place in the send queue. `false` when the call has ended and nobody wants it:
    /// the stream of results says how.
    pub async fn send(&mut self, payload: Payload) -> Result<bool, RequestError> {
        let options = Dict::from([("progress".to_owned(), Value::Bool(true))]);
        self.part(payload, options).await
    }

    /// Sends the last part.
    pub async fn finish(mut self, payload: Payload) -> Result<bool, RequestError> {
        let sent = self.part(payload, Dict::new()).await?;
        self.finished = true;
        Ok(sent)
    }

    async fn part(&mut self, payload: Payload, options: Dict) -> Result<bool, RequestError> {
        let payload = self.shared.encode_payload(&payload)?;
        let place = self.shared.outbox.place().await;
        let part = Message::Call {
            request: self.request,
            options,
            procedure: self.procedure.clone(),
            payload,
        };
        self.shared
            .submit_part(place.ok_or(RequestError::ConnectionLost)?, self.request, &part)
    }
}

impl Session {
    /// Begins a call whose arguments come in parts, of which this is the first. Refused locally unless the router
    /// announces the feature: others take each part for a call of its own.
    ///
    /// ```no_run
    /// # async fn example(session: wamp::client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use futures_util::StreamExt as _;
    /// use wamp::client::CallOptions;
    /// use wamp::payload::{IntoPayload as _, One};
    ///
    /// let (mut parts, mut results) = session
    ///     .call_in_parts("com.example.upload", One("first").into_payload()?, CallOptions::default())
    ///     .await?;
    /// parts.send(One("second").into_payload()?).await?;
    /// parts.finish(One("last").into_payload()?).await?;
    /// while let Some(result) = results.next().await {
    ///     println!("{:?}", result?.into_result().payload.args()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_in_parts(
        &self,
        uri: &str,
        first: Payload,
        options: CallOptions,
    ) -> Result<(CallParts, CallStream), RequestError> {
        check_uri(uri)?;
        if !self.dealer_can(FEATURE) {
            return Err(RequestError::NotSupported(FEATURE));
        }
        let shared = self.shared();
        let payload = shared.encode_payload(&first)?;
        let deadline = options.timeout.map(|bound| (bound, Instant::now() + bound));
        let (answer, answered) = oneshot::channel();
        let (queue, results) = mpsc::channel(PARTIAL_QUEUE);
        let call = Pending::Call {
            partial: Some(queue),
            cancel: options.cancel,
            answer,
        };
        let mut options = options.into_wire();
        for more in ["progress", "receive_progress"] {
            options.insert(more.to_owned(), Value::Bool(true));
        }
        let begin = async {
            let build = |request| Message::Call {
                request,
                options,
                procedure: uri.to_owned(),
                payload,
            };
            shared.submit(self.place().await?, build, Some(call))
        };
        let request = by(deadline, begin).await?;
        let outstanding = Outstanding {
            shared: Arc::clone(shared),
            request,
        };
        let session = self.clone();
        let ending = async move {
            // Dropped with the stream, even if it was never polled.
            let _held = (outstanding, session);
            by(deadline, async {
                answered.await.unwrap_or(Err(RequestError::ConnectionLost))
            })
            .await
        };
        let parts = CallParts {
            shared: Arc::clone(shared),
            request,
            procedure: uri.to_owned(),
            finished: false,
        };
        Ok((parts, CallStream::new(results, Box::pin(ending))))
    }

    fn dealer_can(&self, feature: &str) -> bool {
        let dealer = self.welcome().get("roles").and_then(|roles| roles.get("dealer"));
        let features = dealer.and_then(|dealer| dealer.get("features"));
        features
            .and_then(|features| features.get(feature))
            .and_then(Value::as_bool)
            == Some(true)
    }
}

async fn by<T>(
    deadline: Option<(Duration, Instant)>,
    work: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, RequestError> {
    match deadline {
        None => work.await,
        Some((bound, at)) => tokio::time::timeout_at(at, work)
            .await
            .unwrap_or(Err(RequestError::Timeout(bound))),
    }
}

/// The receiving half, which the handler of an invocation takes once.
#[derive(Clone, Debug, Default)]
pub(super) struct Incoming(Arc<Mutex<Option<mpsc::Receiver<Payload>>>>);

impl Incoming {
    pub(super) fn new(parts: Option<mpsc::Receiver<Payload>>) -> Incoming {
        Incoming(Arc::new(Mutex::new(parts)))
    }

    pub(super) fn take(&self) -> Option<mpsc::Receiver<Payload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether more parts follow the one with these details.
pub(super) fn more_follow(details: &Dict) -> bool {
    details.get("progress").and_then(Value::as_bool) == Some(true)
}
