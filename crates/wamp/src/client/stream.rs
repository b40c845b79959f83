//! A call whose results come in parts, as a [`Stream`].

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};

use super::state::{PARTIAL_QUEUE, Pending};
use super::{CallOptions, CallResult, RequestError, Session};
use crate::payload::Payload;

/// One part of what a call gives.
#[derive(Clone, Debug)]
pub enum CallPart {
    /// More will come.
    Partial(CallResult),
    /// The last one.
    Final(CallResult),
}

impl CallPart {
    /// The result, whichever it is.
    pub fn into_result(self) -> CallResult {
        match self {
            CallPart::Partial(result) | CallPart::Final(result) => result,
        }
    }
}

pub(super) type Ending = Pin<Box<dyn Future<Output = Result<CallResult, RequestError>> + Send>>;

/// Partial results in order, then exactly one final result or error; see [`Session::call_stream`]. The call begins with
/// the first poll; dropping the stream cancels it.
pub struct CallStream {
    parts: mpsc::Receiver<CallResult>,
    ending: Option<Ending>,
    ended: Option<Result<CallResult, RequestError>>,
}

impl std::fmt::Debug for CallStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CallStream")
    }
}

impl Session {
    /// Calls with `receive_progress`. The call ends with [`RequestError::Cancelled`] when 1024 partial results wait to be
    /// taken; how fast they are taken is up to whoever polls.
    pub fn call_stream(&self, uri: &str, payload: Payload, options: CallOptions) -> CallStream {
        let (answer, answered) = oneshot::channel();
        let (queue, parts) = mpsc::channel(PARTIAL_QUEUE);
        let call = Pending::Call {
            partial: Some(queue),
            cancel: options.cancel,
            answer,
        };
        let (session, uri) = (self.clone(), uri.to_owned());
        let ending = async move {
            let answer = async { answered.await.unwrap_or(Err(RequestError::ConnectionLost)) };
            session.run_call(&uri, payload, options, call, answer).await
        };
        CallStream::new(parts, Box::pin(ending))
    }
}

impl CallStream {
    /// Partial results from the queue, then what the future says.
    pub(super) fn new(parts: mpsc::Receiver<CallResult>, ending: Ending) -> CallStream {
        CallStream {
            parts,
            ending: Some(ending),
            ended: None,
        }
    }
}

impl Stream for CallStream {
    type Item = Result<CallPart, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(ending) = &mut self.ending
            && let Poll::Ready(ended) = ending.as_mut().poll(context)
        {
            self.ending = None;
            self.ended = Some(ended);
        }
        if self.ending.is_some() {
            return match self.parts.poll_recv(context) {
                Poll::Ready(Some(part)) => Poll::Ready(Some(Ok(CallPart::Partial(part)))),
                // The end is near: whoever drops the queue tells the outcome.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            };
        }
        // What came before the end is handed over before it. Not by polling, which may be pending to give others a turn.
        if let Ok(part) = self.parts.try_recv() {
            return Poll::Ready(Some(Ok(CallPart::Partial(part))));
        }
        Poll::Ready(self.ended.take().map(|ended| ended.map(CallPart::Final)))
    }
}
