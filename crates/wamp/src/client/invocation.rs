//! One incoming call: what its handler sees, and the task that runs the handler and answers exactly once.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::{RequestError, WampError};
use super::parts::Incoming;
use super::state::Shared;
use crate::message::{Message, code};
use crate::payload::Payload;
use crate::value::{Dict, Value};
use crate::{Id, uri};

/// One incoming call, as a handler sees it.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub details: Dict,
    pub payload: Payload,
    /// Cancelled by INTERRUPT, by the call's `timeout`, or because the session ended.
    pub cancelled: CancellationToken,
    progress: ProgressSender,
    parts: Incoming,
}

#[derive(Clone, Debug)]
struct ProgressSender {
    shared: Arc<Shared>,
    request: Id,
}

impl Invocation {
    pub(super) fn new(
        shared: Arc<Shared>,
        request: Id,
        details: Dict,
        payload: Payload,
        cancelled: CancellationToken,
        parts: Incoming,
    ) -> Invocation {
        Invocation {
            details,
            payload,
            cancelled,
            progress: ProgressSender { shared, request },
            parts,
        }
    }

    /// The parts of the arguments that follow those in `payload`, to be taken once; `None` when the call came whole. The
    /// receiver ends after the last part, or with `cancelled`. When it is 1024 parts behind, the call is cancelled.
    pub fn parts(&self) -> Option<mpsc::Receiver<Payload>> {
        self.parts.take()
    }

    /// Whether the caller wants partial results.
    pub fn wants_progress(&self) -> bool {
        self.details
            .get("receive_progress")
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// Sends a partial result, waiting for a place in the send queue. Does nothing (and says so with `false`) when the
    /// caller did not ask for it, has gone away, or the result is too large to be sent.
    pub async fn progress(&self, payload: Payload) -> bool {
        if !self.wants_progress() || self.cancelled.is_cancelled() {
            return false;
        }
        let ProgressSender { shared, request } = &self.progress;
        let Ok(payload) = shared.encode_payload(&payload) else {
            return false;
        };
        let place = tokio::select! {
            () = self.cancelled.cancelled() => None,
            place = shared.outbox.place() => place,
        };
        let Some(place) = place else {
            return false;
        };
        let message = Message::Yield {
            request: *request,
            options: Dict::from([("progress".to_owned(), Value::Bool(true))]),
            payload,
        };
        shared.answer(place, *request, &message, false).unwrap_or(false)
    }

    /// The caller's identity as disclosed by the router: text, or an integer in decimal. `None` when not disclosed
    /// or not trustworthy (`forward_for` present, rule 16).
    pub fn caller_authid(&self) -> Option<String> {
        if self.details.contains_key("forward_for") {
            return None;
        }
        match self.details.get("caller_authid")? {
            Value::Str(authid) if !authid.is_empty() => Some(authid.clone()),
            Value::Uint(authid) => Some(authid.to_string()),
            _ => None,
        }
    }

    /// How long the caller is willing to wait, as far as it said so to the router.
    fn timeout(&self) -> Option<Duration> {
        match self.details.get("timeout") {
            Some(Value::Uint(millis)) if *millis > 0 => Some(Duration::from_millis(*millis)),
            _ => None,
        }
    }
}

/// What a handler returns.
pub type HandlerResult = Result<Payload, WampError>;
/// The future of a handler.
pub type HandlerFuture = Pin<Box<dyn Future<Output = HandlerResult> + Send>>;
/// A procedure: called concurrently, once per invocation. A panic becomes an ERROR. After a cancellation its result is
/// discarded, but it runs on to its end.
pub type Handler = Arc<dyn Fn(Invocation) -> HandlerFuture + Send + Sync>;

/// Wraps an async function as a [`Handler`].
pub fn handler<F, Fut>(function: F) -> Handler
where
    F: Fn(Invocation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    Arc::new(move |invocation| Box::pin(function(invocation)))
}

/// Runs the handler and sends the one final answer: its result, or ERROR as soon as the call is cancelled.
pub(super) async fn run(handler: Handler, invocation: Invocation) {
    let ProgressSender { shared, request } = invocation.progress.clone();
    let cancelled = invocation.cancelled.clone();
    let canceled = || {
        Err(WampError {
            uri: uri::error::CANCELED.to_owned(),
            payload: Payload::Empty,
        })
    };
    if cancelled.is_cancelled() {
        // The INTERRUPT came right behind the INVOCATION: nothing has to be begun.
        return answer(&shared, request, canceled()).await;
    }
    let timeout = invocation.timeout();
    let expired = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    // The handler itself may panic, not only its future.
    let work = AssertUnwindSafe(async move { handler(invocation).await }).catch_unwind();
    let mut work = std::pin::pin!(work);
    // A handler that ends because of the cancellation must not win against it.
    tokio::select! {
        biased;
        () = cancelled.cancelled() => {}
        () = expired => cancelled.cancel(),
        result = &mut work => {
            let result = result.unwrap_or_else(|_| {
                Err(WampError::new(uri::error::RUNTIME_ERROR, "the procedure failed unexpectedly"))
            });
            answer(&shared, request, result).await;
            return;
        }
    }
    // The answer must not wait for the handler, nor the handler for the answer.
    tokio::join!(answer(&shared, request, canceled()), async { drop(work.await) });
}

async fn answer(shared: &Shared, request: Id, result: HandlerResult) {
    let Err(error) = try_answer(shared, request, result).await else {
        return;
    };
    let uri = match error {
        RequestError::TooLarge(_) => uri::error::PAYLOAD_SIZE_EXCEEDED,
        _ => uri::error::RUNTIME_ERROR,
    };
    let failure = Err(WampError::new(uri, error.to_string()));
    if let Err(error) = try_answer(shared, request, failure).await {
        tracing::warn!(%error, request, "a call could not be answered");
    }
}

async fn try_answer(shared: &Shared, request: Id, result: HandlerResult) -> Result<(), RequestError> {
    let message = match result {
        Ok(payload) => Message::Yield {
            request,
            options: Dict::new(),
            payload: shared.encode_payload(&payload)?,
        },
        Err(error) => {
            // Routers drop the whole connection over an invalid error URI.
            let error_uri = match uri::is_loose(&error.uri) {
                true => error.uri,
                false => uri::error::RUNTIME_ERROR.to_owned(),
            };
            Message::Error {
                request_type: code::INVOCATION,
                request,
                details: Dict::new(),
                error: error_uri,
                payload: shared.encode_payload(&error.payload)?,
            }
        }
    };
    // Without a place the session has ended, and nobody waits for the answer.
    if let Some(place) = shared.outbox.place().await {
        shared.answer(place, request, &message, true)?;
    }
    Ok(())
}
