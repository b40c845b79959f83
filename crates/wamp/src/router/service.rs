//! Calls that the router itself makes: a session that nobody sees joins the realm, calls, gets its answer and is gone.
//!
//! It goes through the dealer like any other call, so a callee that leaves or does not answer is dealt with there.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use super::queue::{Next, Queue};
use crate::message::Message;
use crate::payload::Payload;
use crate::value::{Dict, Value};
use crate::{Id, uri};

/// Why a call has no result.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// The callee's or the dealer's ERROR.
    #[error("{uri}: {text}")]
    Error { uri: String, text: String },
    #[error("no answer in time")]
    Timeout,
}

/// The answer of a call is all that such a session is ever sent: CALL in, RESULT or ERROR out.
const QUEUE_MESSAGES: usize = 8;
/// More than any honest answer.
const QUEUE_BYTES: usize = 1 << 20;

/// Calls a procedure in the name of the router. Dropped, it takes the call back.
pub(super) async fn call(
    hub: &Arc<Hub>,
    procedure: &str,
    arguments: Payload,
    within: Duration,
) -> Result<Payload, Unanswered> {
    let queue = Arc::new(Queue::new(QUEUE_MESSAGES, QUEUE_BYTES));
    let session = Service {
        id: hub.join_service(&queue),
        hub,
    };
    let call = Message::Call {
        request: 1,
        options: Dict::new(),
        procedure: procedure.to_owned(),
        payload: arguments,
    };
    hub.receive(session.id, call);
    tokio::time::timeout(within, answer(&queue))
        .await
        .unwrap_or(Err(Unanswered::Timeout))
}

async fn answer(queue: &Queue) -> Result<Payload, Unanswered> {
    loop {
        let outgoing = match poll_fn(|context| queue.poll_pop(context)).await {
            Next::Message(outgoing) => outgoing,
            Next::Ping => continue,
            Next::End(..) | Next::Overflow => {
                return Err(Unanswered::Error {
                    uri: uri::error::RUNTIME_ERROR.to_owned(),
                    text: "the call was broken off".to_owned(),
                });
            }
        };
        match outgoing.message() {
            Message::Result { payload, .. } => return Ok(payload.clone()),
            Message::Error { error, payload, .. } => {
                let text = payload.args().unwrap_or_default();
                return Err(Unanswered::Error {
                    uri: error.clone(),
                    text: text
                        .first()
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned(),
                });
            }
            // It asked for nothing else.
            _ => {}
        }
    }
}

/// The session of one call. Dropping it frees it.
struct Service<'h> {
    id: Id,
    hub: &'h Hub,
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        self.hub.lose(self.id);
    }
}
