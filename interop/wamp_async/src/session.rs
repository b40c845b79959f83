//! One joined wamp_async session with the two tasks that it wants somebody to run.

use std::fmt;

use tokio::task::JoinHandle;
use wamp_async::{AuthenticationMethod, Client, ClientConfig, SerializerType, WampError};

use crate::{Outcome, REALM, proof};

/// Where and in what to join.
pub(crate) struct End {
    pub(crate) url: String,
    pub(crate) serializer: SerializerType,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.url.split(':').next().unwrap_or_default();
        write!(formatter, "{scheme}/{:?}", self.serializer)
    }
}

/// How to join: nothing is asked of whoever names nobody.
#[derive(Clone, Copy)]
pub(crate) enum Identity<'a> {
    Nobody,
    Named {
        authid: &'a str,
        method: fn() -> AuthenticationMethod,
        secret: &'a str,
    },
}

pub(crate) struct Session {
    pub(crate) client: Client<'static>,
    reading: JoinHandle<Result<(), WampError>>,
    answering: Option<JoinHandle<()>>,
}

impl Session {
    pub(crate) async fn join(end: &End, identity: Identity<'_>) -> Outcome<Session> {
        let config = ClientConfig::default().set_serializers(vec![end.serializer]);
        let (mut client, (events, calls)) = Client::connect(&end.url, Some(config)).await?;
        let reading = tokio::spawn(events);
        let answering = calls.map(|mut calls| {
            tokio::spawn(async move {
                // One after the other: no procedure of the stories takes any time.
                while let Some(call) = calls.recv().await {
                    if call.await.is_err() {
                        break;
                    }
                }
            })
        });
        match identity {
            Identity::Nobody => client.join_realm(REALM).await?,
            Identity::Named {
                authid,
                method,
                secret,
            } => {
                let secret = secret.to_owned();
                client
                    .join_realm_with_authentication(REALM, vec![method()], authid, move |method, extra| {
                        let answer = proof::answer(&method, &extra, &secret)
                            .map_err(|error| WampError::UnknownError(error.to_string()));
                        async move { answer.map_err(|error| WampError::UnknownError(error.to_string())) }
                    })
                    .await?;
            }
        }
        Ok(Session {
            client,
            reading,
            answering,
        })
    }

    /// Says GOODBYE and returns when the router has closed the connection: nothing else ends the reading. Not
    /// `Client::disconnect`, which panics when that has happened already.
    pub(crate) async fn leave(mut self) -> Outcome {
        self.client.leave_realm().await?;
        self.reading.await??;
        if let Some(answering) = self.answering {
            answering.await?;
        }
        Ok(())
    }
}
