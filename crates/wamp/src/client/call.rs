//! Calling: one answer as a future, or a stream of partial results that ends with the final one.
//!
//! However a call is given up (dropped, timed out, overrun by partial results), CANCEL goes out once and the call ends at
//! once: no router is trusted to answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::error::RequestError;
use super::options::CallOptions;
use super::state::{PARTIAL_QUEUE, Pending};
use super::{Outstanding, Session, check_uri};
use crate::Id;
use crate::message::Message;
use crate::payload::Payload;
use crate::value::{Dict, Value};

/// A partial or final result.
#[derive(Clone, Debug)]
pub struct CallResult {
    /// RESULT details.
    pub details: Dict,
    pub payload: Payload,
}

impl CallResult {
    /// Whether more results of the same call follow.
    pub fn is_partial(&self) -> bool {
        self.details.get("progress").and_then(Value::as_bool) == Some(true)
    }
}

/// The results of one call in the order in which they come: partial ones, then the final one or an error, then the end.
///
/// Bounded: when the reader is 1024 partial results behind, the call is cancelled, and the stream ends with
/// [`RequestError::Cancelled`] behind those that have come. Dropping the stream cancels the call. It keeps its session
/// open.
#[must_use = "dropping the stream cancels the call"]
pub struct CallStream {
    /// Closed when the answer has been given.
    partial: mpsc::Receiver<CallResult>,
    /// `None` when the last result has been handed out.
    answer: Option<oneshot::Receiver<Result<CallResult, RequestError>>>,
    deadline: Option<(Duration, Pin<Box<Sleep>>)>,
    /// The deadline, once it has passed.
    expired: Option<Duration>,
    outstanding: Outstanding,
    _session: Session,
}

impl std::fmt::Debug for CallStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CallStream({})", self.outstanding.request)
    }
}

impl CallStream {
    pub(super) fn request(&self) -> Id {
        self.outstanding.request
    }
}

impl Stream for CallStream {
    type Item = Result<CallResult, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = &mut *self;
        let Some(answer) = &mut stream.answer else {
            return Poll::Ready(None);
        };
        if let Some((bound, deadline)) = &mut stream.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            // What has come before the deadline is still handed out.
            stream.expired = Some(*bound);
            stream.deadline = None;
            stream.outstanding.give_up();
        }
        // The sender goes with the answer: an empty queue that is closed stands for "now the answer".
        if let Some(result) = ready!(stream.partial.poll_recv(context)) {
            return Poll::Ready(Some(Ok(result)));
        }
        let result = ready!(Pin::new(answer).poll(context));
        stream.answer = None;
        let result = result.unwrap_or(Err(RequestError::ConnectionLost));
        Poll::Ready(Some(match (result, stream.expired) {
            (Err(RequestError::Cancelled), Some(bound)) => Err(RequestError::Timeout(bound)),
            (result, _) => result,
        }))
    }
}

impl Session {
    /// Calls a procedure and waits for the final result. Dropping the future cancels the call.
    pub async fn call(
        &self,
        uri: &str,
        payload: Payload,
        options: CallOptions,
    ) -> Result<CallResult, RequestError> {
        let (answer, answered) = oneshot::channel();
        let timeout = options.timeout;
        let exchange = async {
            let _outstanding = self
                .submit_call(uri, payload, options, None, false, answer)
                .await?;
            answered.await.unwrap_or(Err(RequestError::ConnectionLost))
        };
        match timeout {
            None => exchange.await,
            Some(bound) => tokio::time::timeout(bound, exchange)
                .await
                .unwrap_or(Err(RequestError::Timeout(bound))),
        }
    }

    /// Calls a procedure that may answer in parts. Waits only for a place in the send queue; `options.timeout` bounds
    /// the whole stream.
    ///
    /// ```no_run
    /// # async fn example(session: wamp::client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use futures_util::StreamExt as _;
    /// use wamp::Payload;
    /// use wamp::client::CallOptions;
    ///
    /// let mut results = session
    ///     .call_stream("com.example.download", Payload::Empty, CallOptions::default())
    ///     .await?;
    /// while let Some(result) = results.next().await {
    ///     let result = result?;
    ///     println!("{} {:?}", result.is_partial(), result.payload.args()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call_stream(
        &self,
        uri: &str,
        payload: Payload,
        options: CallOptions,
    ) -> Result<CallStream, RequestError> {
        self.start_stream(uri, payload, options, false).await
    }

    /// `more`: whether the arguments are the first part of several.
    pub(super) async fn start_stream(
        &self,
        uri: &str,
        payload: Payload,
        options: CallOptions,
        more: bool,
    ) -> Result<CallStream, RequestError> {
        let (answer, answered) = oneshot::channel();
        let (partial, queued) = mpsc::channel(PARTIAL_QUEUE);
        let deadline = options
            .timeout
            .map(|bound| (bound, Box::pin(tokio::time::sleep(bound))));
        let submit = self.submit_call(uri, payload, options, Some(partial), more, answer);
        let outstanding = match &deadline {
            None => submit.await?,
            Some((bound, _)) => tokio::time::timeout(*bound, submit)
                .await
                .unwrap_or(Err(RequestError::Timeout(*bound)))?,
        };
        Ok(CallStream {
            partial: queued,
            answer: Some(answered),
            deadline,
            expired: None,
            outstanding,
            _session: self.clone(),
        })
    }

    async fn submit_call(
        &self,
        procedure: &str,
        payload: Payload,
        options: CallOptions,
        partial: Option<mpsc::Sender<CallResult>>,
        more: bool,
        answer: super::Answer<CallResult>,
    ) -> Result<Outstanding, RequestError> {
        check_uri(procedure)?;
        let shared = self.shared();
        let payload = shared.encode_payload(&payload)?;
        let cancel = options.cancel;
        let mut options = options.into_details();
        if partial.is_some() {
            options.insert("receive_progress".to_owned(), Value::Bool(true));
        }
        if more {
            options.insert("progress".to_owned(), Value::Bool(true));
        }
        let procedure = procedure.to_owned();
        let build = |request: Id| Message::Call {
            request,
            options,
            procedure,
            payload,
        };
        let call = Pending::Call {
            partial,
            cancel,
            answer,
        };
        let place = self.place().await?;
        let request = shared.submit(place, build, Some(call))?;
        Ok(Outstanding {
            shared: Arc::clone(shared),
            request,
        })
    }
}
