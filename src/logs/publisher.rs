//! Sends one message to the router and says what became of it.

use std::time::Duration;

use protocol::uri;
use wamp::Value;
use wamp::client::{RequestError, Session};
use wamp::payload::Payload;
use wamp::value::Dict;

use super::batch::Message;

/// A router that takes longer for its word is told of in the agent's log. Nobody knows whether viewers have got the message,
/// so it is neither said to be lost nor sent again: it has as long as the link lasts.
const SLOW: Duration = Duration::from_secs(60);

/// One message and where it goes.
pub(super) struct Outgoing {
    pub(super) session: Session,
    pub(super) serial: std::sync::Arc<str>,
    /// Last component of the topic.
    pub(super) topic: String,
    pub(super) message: Message,
}

/// What became of it.
pub(super) struct Sent {
    pub(super) topic: String,
    pub(super) message: Message,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The router has it.
    Published,
    /// The link is down: it can be sent again.
    Unsent,
    /// It is too large.
    Lost,
    /// The router does not want it.
    Refused,
}

/// Publishes with acknowledgement: what is not confirmed when the link breaks is sent again over the next one.
pub(super) async fn publish(outgoing: Outgoing) -> Sent {
    let Outgoing {
        session,
        serial,
        topic,
        message,
    } = outgoing;
    let payload = match &message {
        Message::Output(items) => Value::Str(Message::text(items)),
        Message::Agent(chunk) => agent_line(chunk),
    };
    let uri = uri::logs(&serial, &topic);
    let payload = Payload::from_args(vec![payload]);
    let published = session.publish_acknowledged_within(Duration::MAX, &uri, Dict::new(), payload);
    tokio::pin!(published);
    let word = match tokio::time::timeout(SLOW, &mut published).await {
        Ok(word) => word,
        Err(_) => {
            tracing::warn!(topic = %uri, "the router has not confirmed log lines for a minute");
            published.await
        }
    };
    let fate = match word {
        Ok(_) => Fate::Published,
        Err(error) => {
            tracing::debug!(topic = %uri, %error, "log lines not published");
            match error {
                RequestError::ConnectionLost => Fate::Unsent,
                _ if !session.is_open() => Fate::Unsent,
                RequestError::Peer(_) | RequestError::InvalidUri(_) => Fate::Refused,
                _ => Fate::Lost,
            }
        }
    };
    Sent { topic, message, fate }
}

/// The shape of everything that the agent itself says on a log topic (`logs-terminal-tunnel.md` 2.2).
fn agent_line(chunk: &str) -> Value {
    Value::Dict(Dict::from([
        ("type".to_owned(), Value::from("build")),
        ("chunk".to_owned(), Value::from(chunk)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_line_has_the_type_of_all_agent_lines() {
        assert_eq!(
            agent_line("hello").to_json(),
            serde_json::json!({"type": "build", "chunk": "hello"})
        );
    }
}
