//! The studio's own session at the router: registers every procedure, listens for testaments, comes back when lost.
//!
//! An ordinary client in role `system`; which router it joins makes no difference to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wamp::Dict;
use wamp::client::{Handler, RegisterOptions, RequestError, Session, Subscription, handler};

use crate::admission;
use crate::backend;
use crate::fleet;
use crate::plane::{Door, DoorError};
use crate::rollout;
use crate::studio::{Caller, Request, Studio};

/// Pause between attempts to join; the router is a neighbour, so it is short and constant.
const RETRY: Duration = Duration::from_secs(1);

/// Where the component belongs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) door: Door,
    /// The router asks us for the secrets of its clients (`wamp-interop.md` 3.1, dynamic authenticator).
    pub(crate) answers_authentication: bool,
}

/// Why the component has no working session.
#[derive(Debug, thiserror::Error)]
enum ComponentError {
    #[error("cannot join the router")]
    Join(#[from] DoorError),
    #[error("the router refused {uri}")]
    Refused {
        uri: &'static str,
        #[source]
        source: RequestError,
    },
}

/// Serves until `stop`. `ready` becomes true while all procedures are registered.
pub(crate) async fn run(
    studio: Arc<Studio>,
    place: Place,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        let attempt = tokio::select! {
            attempt = attach(&studio, &place) => attempt,
            () = stop.cancelled() => return,
        };
        match attempt {
            Ok((session, mut heard)) => {
                ready.send_replace(true);
                let ended = tokio::select! {
                    ended = listen(&studio, &session, &mut heard) => ended,
                    () = rollout::drive(&studio, &session) => "rollouts are driven no more".to_owned(),
                    () = stop.cancelled() => {
                        session.leave().await;
                        return;
                    }
                };
                ready.send_replace(false);
                tracing::warn!(reason = ended, "lost the router");
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, source, "no session at the router, trying again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What devices say without being asked.
struct Heard {
    testaments: Subscription,
    /// How updates of agents ended.
    outcomes: Subscription,
}

/// Joins, subscribes to what devices say, finds out who is still connected, registers everything. A device is told that
/// it is connected by one of the procedures, so nothing that it says afterwards is missed.
async fn attach(studio: &Arc<Studio>, place: &Place) -> Result<(Session, Heard), ComponentError> {
    let session = place.door.join().await?;
    let refused = |uri| move |source| ComponentError::Refused { uri, source };
    let topic = protocol::uri::TESTAMENT_TOPIC;
    let heard = Heard {
        testaments: session
            .subscribe(topic, Dict::new())
            .await
            .map_err(refused(topic))?,
        outcomes: rollout::listen(&session)
            .await
            .map_err(refused(rollout::RESULTS))?,
    };
    if let Err(error) = backend::roll_call(studio, &session).await {
        // Those that are there say so within half a minute.
        tracing::warn!(%error, "nobody counts as connected before the next report");
        if let Err(error) = studio.store.disconnect_all().await {
            tracing::error!(%error, "some devices may wrongly show as connected");
        }
    }
    let options = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    let authentication = place.answers_authentication.then_some(&admission::PROCEDURE);
    let procedures = backend::PROCEDURES
        .iter()
        .chain(fleet::PROCEDURES)
        .chain(authentication);
    for procedure in procedures {
        session
            .register(procedure.0, options.clone(), wrap(procedure, studio, &session))
            .await
            .map_err(refused(procedure.0))?;
    }
    Ok((session, heard))
}

/// A procedure of the tables as a handler of the client.
fn wrap(procedure: &backend::Procedure, studio: &Arc<Studio>, session: &Session) -> Handler {
    let (uri, run) = *procedure;
    let (studio, session) = (studio.clone(), session.clone());
    handler(move |invocation| {
        let request = Request {
            caller: Caller::of(&invocation),
            payload: invocation.payload.clone(),
            session: session.clone(),
        };
        let answer = run(studio.clone(), request);
        async move { answer.await.map_err(|fault| fault.into_wamp(uri)) }
    })
}

/// Works off what devices say until the session ends; answers why it did.
async fn listen(studio: &Studio, session: &Session, heard: &mut Heard) -> String {
    loop {
        tokio::select! {
            event = heard.outcomes.events.recv() => match event {
                Some(event) => {
                    if event.missed > 0 {
                        tracing::warn!(event.missed, "outcomes of updates were lost: rollouts wait for them in vain");
                    }
                    if !event.is_notice() {
                        rollout::ended(studio, &event).await;
                    }
                }
                None => return format!("{:?}", session.closed().await),
            },
            event = heard.testaments.events.recv() => match event {
                Some(event) => {
                    if event.missed > 0 {
                        tracing::warn!(event.missed, "testaments were lost: the router is asked who is connected");
                        if let Err(error) = backend::roll_call(studio, session).await {
                            tracing::warn!(%error, "some devices may wrongly show as connected");
                        }
                    }
                    if !event.is_notice() {
                        backend::disconnected(studio, session, &event).await;
                    }
                }
                None => return format!("{:?}", session.closed().await),
            },
            reason = session.closed() => return format!("{reason:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wamp::Payload;
    use wamp::client::CallOptions;

    use super::*;
    use crate::plane::Plane;
    use crate::store::Store;
    use crate::studio::Settings;

    #[tokio::test]
    async fn secrets_are_not_offered_to_a_router_of_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("studio.db")).await.unwrap();
        let plane = Plane::embedded("127.0.0.1:0".parse().unwrap(), None, &store)
            .await
            .unwrap();
        assert!(!plane.answers_authentication);
        let studio = Arc::new(Studio {
            store,
            settings: Settings {
                public_url: String::new(),
                registry: String::new(),
                repository: String::new(),
                base_url: None,
                update_url: String::new(),
                bucket: None,
            },
            registry: None,
            router: plane.router(),
            alarm: rollout::Alarm::default(),
            development: crate::development::Reports::default(),
        });
        let place = Place {
            door: plane.door.clone(),
            answers_authentication: plane.answers_authentication,
        };
        let (_session, _heard) = attach(&studio, &place).await.unwrap();
        let system = plane.door.join().await.unwrap();
        for (uri, offered) in [
            ("reswarm.devices.check_privilege", true),
            (admission::PROCEDURE.0, false),
        ] {
            let found = system
                .call(
                    "wamp.registration.lookup",
                    Payload::from_args(vec![uri.into()]),
                    CallOptions::default(),
                )
                .await
                .unwrap();
            let found: serde_json::Value = found.payload.first().unwrap().unwrap();
            assert_eq!(found != json!(null), offered, "{uri}");
        }
    }
}
