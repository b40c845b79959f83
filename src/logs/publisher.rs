//! Sends messages to the router, one after the other, so that a slow link holds up nobody else.

use std::time::Duration;

use protocol::uri;
use tokio::sync::mpsc;
use wamp::Value;
use wamp::client::Session;
use wamp::payload::Payload;
use wamp::value::Dict;

use super::batch::Message;
use super::lost::Lost;

/// A message that found no place in the session's send queue for so long is given up and counted.
const PLACE: Duration = Duration::from_secs(5);
/// Messages on their way. Full: lines wait in their app's batch, which drops the oldest and says so.
pub(super) const QUEUE: usize = 4;

/// One message and where it goes.
pub(super) struct Outgoing {
    pub(super) session: Session,
    pub(super) serial: std::sync::Arc<str>,
    pub(super) container: String,
    pub(super) message: Message,
}

/// Runs until the pipeline is gone.
pub(super) async fn run(mut queue: mpsc::Receiver<Outgoing>, lost: Lost) {
    while let Some(outgoing) = queue.recv().await {
        let topic = uri::logs(&outgoing.serial, &outgoing.container);
        let (payload, lines) = match outgoing.message {
            Message::Output { text, lines } => (Value::Str(text), lines),
            Message::Agent(chunk) => (agent_line(chunk), 1),
        };
        let payload = Payload::from_args(vec![payload]);
        let published = outgoing.session.publish(&topic, Dict::new(), payload);
        match tokio::time::timeout(PLACE, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%topic, %error, "log lines not published");
                lost.add(&outgoing.container, lines);
            }
            Err(_) => {
                tracing::debug!(%topic, "log lines not published: the link does not move");
                lost.add(&outgoing.container, lines);
            }
        }
    }
}

/// The shape of everything that the agent itself says on a log topic (`logs-terminal-tunnel.md` 2.2).
fn agent_line(chunk: String) -> Value {
    Value::Dict(Dict::from([
        ("type".to_owned(), Value::from("build")),
        ("chunk".to_owned(), Value::Str(chunk)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_line_has_the_type_of_all_agent_lines() {
        assert_eq!(
            agent_line("hello".to_owned()).to_json(),
            serde_json::json!({"type": "build", "chunk": "hello"})
        );
    }
}
