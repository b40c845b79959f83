//! From a URL to WELCOME: dialling, HELLO, authentication. Every step has its bound.

use std::time::Duration;

use bytes::Bytes;

use super::config::{ClientConfig, Credentials};
use super::error::{ConnectError, chain};
use super::outbox::CLOSE_TIMEOUT;
use crate::message::{DROPPED_EVENTS, Message};
use crate::payload::Payload;
use crate::transport::{self, Connection, Incoming};
use crate::value::{Dict, Value};
use crate::{Id, auth, uri};

/// A connection on which the router has said WELCOME.
pub(super) struct Joined {
    pub(super) connection: Connection,
    pub(super) session: Id,
    pub(super) welcome: Dict,
}

pub(super) async fn join(config: &ClientConfig) -> Result<Joined, ConnectError> {
    let dial = transport::dial(
        &config.url,
        &config.codecs,
        &config.tls,
        &config.proxies,
        config.max_message_size,
    );
    let mut connection = match config.connect_timeout {
        Duration::ZERO => dial.await?,
        bound => tokio::time::timeout(bound, dial)
            .await
            .map_err(|_| ConnectError::Timeout("connecting"))??,
    };
    match shake_hands(config, &mut connection).await {
        Ok((session, welcome)) => Ok(Joined {
            connection,
            session,
            welcome,
        }),
        Err(error) => {
            // Routers leave the transport open after an ABORT.
            hang_up(connection, &error).await;
            Err(error)
        }
    }
}

async fn hang_up(mut connection: Connection, error: &ConnectError) {
    let violation = matches!(error, ConnectError::Protocol(_));
    let farewell = async {
        if violation {
            let abort = connection.codec.encode(&violation_abort(&error.to_string()));
            if let Ok(abort) = abort {
                connection.sink.feed(abort).await?;
            }
        }
        Ok::<(), transport::TransportError>(())
    };
    if !matches!(tokio::time::timeout(CLOSE_TIMEOUT, farewell).await, Ok(Ok(()))) {
        return;
    }
    let code = if violation { 1002 } else { 1000 };
    transport::close(
        &mut connection.sink,
        &mut connection.stream,
        code,
        "",
        CLOSE_TIMEOUT,
    )
    .await;
}

/// What we answer when the router breaks the protocol.
pub(super) fn violation_abort(what: &str) -> Message {
    Message::Abort {
        details: Dict::from([("message".to_owned(), Value::from(what))]),
        reason: uri::error::PROTOCOL_VIOLATION.to_owned(),
        payload: Payload::Empty,
    }
}

async fn shake_hands(config: &ClientConfig, connection: &mut Connection) -> Result<(Id, Dict), ConnectError> {
    let hello = Message::Hello {
        realm: Some(config.realm.clone()),
        details: hello_details(&config.credentials)?,
    };
    match exchange(connection, &hello, config.reply_timeout, "HELLO").await? {
        Message::Challenge { method, extra } => {
            let authenticate = Message::Authenticate {
                signature: signature(&config.credentials, &method, extra).await?,
                extra: Dict::new(),
            };
            let answer = exchange(connection, &authenticate, config.reply_timeout, "AUTHENTICATE").await?;
            welcomed(answer)
        }
        answer => welcomed(answer),
    }
}

fn welcomed(message: Message) -> Result<(Id, Dict), ConnectError> {
    match message {
        Message::Welcome { session, details } => {
            let roles = details.get("roles").and_then(Value::as_dict);
            if !roles.is_some_and(|roles| roles.contains_key("broker") || roles.contains_key("dealer")) {
                return Err(ConnectError::Protocol(
                    "router did not announce any supported roles".to_owned(),
                ));
            }
            Ok((session, details))
        }
        Message::Abort {
            details,
            reason,
            payload,
        } => {
            let said = details.get("message").and_then(Value::as_str);
            let args = payload.args().unwrap_or_default();
            let said = said.or_else(|| args.first().and_then(Value::as_str));
            Err(ConnectError::Aborted {
                reason,
                message: said.unwrap_or("no message").to_owned(),
            })
        }
        Message::Goodbye { reason, .. } => Err(ConnectError::Aborted {
            reason,
            message: "the router said goodbye".to_owned(),
        }),
        other => Err(ConnectError::Protocol(format!(
            "message type {} in place of WELCOME",
            other.code()
        ))),
    }
}

/// Sends a message and waits for the next one.
async fn exchange(
    connection: &mut Connection,
    message: &Message,
    bound: Duration,
    step: &'static str,
) -> Result<Message, ConnectError> {
    let lost = |error: transport::TransportError| ConnectError::Transport(chain(&error));
    let frame = connection
        .codec
        .encode(message)
        .map_err(|error| ConnectError::Protocol(error.to_string()))?;
    let answer = async {
        connection.sink.feed(frame).await.map_err(lost)?;
        connection.sink.flush().await.map_err(lost)?;
        loop {
            match connection.stream.next().await {
                Some(Ok(Incoming::Data(frame))) => return decode(connection, &frame),
                Some(Ok(Incoming::Pong(_))) => {}
                Some(Ok(Incoming::Close { reason, .. })) => {
                    let what = format!("the router closed the connection {reason}");
                    return Err(ConnectError::Transport(what.trim_end().to_owned()));
                }
                Some(Err(error @ transport::TransportError::WrongFrame)) => {
                    return Err(ConnectError::Protocol(error.to_string()));
                }
                Some(Err(error)) => return Err(lost(error)),
                None => return Err(ConnectError::Transport("the router hung up".to_owned())),
            }
        }
    };
    tokio::time::timeout(bound, answer)
        .await
        .map_err(|_| ConnectError::Timeout(step))?
}

fn decode(connection: &Connection, frame: &Bytes) -> Result<Message, ConnectError> {
    connection
        .codec
        .decode(frame)
        .map_err(|error| ConnectError::Protocol(error.to_string()))
}

/// Exactly authid, authmethods and roles (`session-and-api.md` 4.4), with a key also the public part of it.
fn hello_details(credentials: &Credentials) -> Result<Dict, ConnectError> {
    let (authid, method) = match credentials {
        Credentials::Anonymous => (None, "anonymous"),
        Credentials::Ticket { authid, .. } => (Some(authid), "ticket"),
        Credentials::Cra { authid, .. } => (Some(authid), "wampcra"),
        Credentials::Cryptosign { authid, .. } => (authid.as_ref(), "cryptosign"),
    };
    let mut details = Dict::from([
        ("authmethods".to_owned(), Value::List(vec![Value::from(method)])),
        ("roles".to_owned(), Value::Dict(roles())),
    ]);
    if let Some(authid) = authid {
        details.insert("authid".to_owned(), Value::from(authid.as_str()));
    }
    if let Credentials::Cryptosign { private_key, .. } = credentials {
        let public = auth::cryptosign::public_key(private_key)
            .map_err(|error| ConnectError::Protocol(error.to_string()))?;
        let authextra = Dict::from([("pubkey".to_owned(), Value::from(public))]);
        details.insert("authextra".to_owned(), authextra.into());
    }
    Ok(details)
}

/// The four client roles with the features that are really there. Routers disclose callers only to callees that announce
/// `caller_identification`, and cancel only with peers that announce `call_canceling`.
fn roles() -> Dict {
    let role = |name: &str, features: &[&str]| {
        let features = features
            .iter()
            .map(|feature| ((*feature).to_owned(), Value::Bool(true)))
            .collect();
        let role = Dict::from([("features".to_owned(), Value::Dict(features))]);
        (name.to_owned(), Value::Dict(role))
    };
    Dict::from([
        role(
            "publisher",
            &[
                "publisher_identification",
                "publisher_exclusion",
                "subscriber_blackwhite_listing",
            ],
        ),
        role(
            "subscriber",
            &[
                "pattern_based_subscription",
                "publisher_identification",
                "subscription_revocation",
                DROPPED_EVENTS,
            ],
        ),
        role(
            "callee",
            &[
                "call_canceling",
                "call_timeout",
                "caller_identification",
                "pattern_based_registration",
                "progressive_call_invocations",
                "progressive_call_results",
                "registration_revocation",
                "shared_registration",
            ],
        ),
        role(
            "caller",
            &[
                "call_canceling",
                "caller_identification",
                "progressive_call_invocations",
                "progressive_call_results",
            ],
        ),
    ])
}

/// The answer to a CHALLENGE. A method that we did not offer gets an empty one: no secret leaves for a question that
/// was not agreed on.
async fn signature(credentials: &Credentials, method: &str, extra: Dict) -> Result<String, ConnectError> {
    match (credentials, method) {
        (Credentials::Ticket { ticket, .. }, "ticket") => Ok(ticket.clone()),
        (Credentials::Cra { secret, .. }, "wampcra") => {
            let secret = secret.clone();
            // A salted challenge is up to a second of hashing.
            let answer = tokio::task::spawn_blocking(move || auth::answer(&secret, &extra)).await;
            match answer {
                Ok(Ok(signature)) => Ok(signature),
                Ok(Err(error)) => Err(ConnectError::Protocol(error.to_string())),
                Err(_) => Err(ConnectError::Protocol(
                    "the challenge could not be answered".to_owned(),
                )),
            }
        }
        (Credentials::Cryptosign { private_key, .. }, "cryptosign") => {
            auth::cryptosign::answer(private_key, &extra)
                .map_err(|error| ConnectError::Protocol(error.to_string()))
        }
        _ => Ok(String::new()),
    }
}
