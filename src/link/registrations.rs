//! Registers the procedures of [`crate::rpc`] on a session and keeps them registered (R29, R39).

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use protocol::uri;
use wamp::client::{RegisterOptions, Registration, RequestError, Session};

use super::{LinkContext, Timing};
use crate::rpc::{self, PROCEDURES, Procedure};

/// The registrations of one session.
pub(super) struct Keeper {
    context: rpc::Context,
    timing: Timing,
    serial: String,
    /// `None`: not registered yet.
    held: Vec<(&'static Procedure, Option<Registration>)>,
}

/// Sends every REGISTER at once and waits for all answers; failures are left to [`Keeper::keep`].
pub(super) async fn establish(context: &LinkContext, session: &Session) -> Keeper {
    let serial = context.device.current().serial_number.clone();
    let keeper = Keeper {
        context: context.procedures.clone(),
        timing: context.timing.clone(),
        serial,
        held: Vec::new(),
    };
    let answers = join_all(
        PROCEDURES
            .iter()
            .map(|procedure| keeper.register(session, procedure)),
    )
    .await;
    let held: Vec<_> = PROCEDURES
        .iter()
        .zip(answers)
        .map(|(procedure, answer)| (procedure, answer.ok()))
        .collect();
    let missing: Vec<_> = held
        .iter()
        .filter(|(_, held)| held.is_none())
        .map(|(procedure, _)| procedure.name)
        .collect();
    if missing.is_empty() {
        tracing::info!(count = held.len(), "procedures registered");
    } else {
        tracing::warn!(?missing, "some procedures could not be registered; retrying");
    }
    Keeper { held, ..keeper }
}

impl Keeper {
    async fn register(
        &self,
        session: &Session,
        procedure: &'static Procedure,
    ) -> Result<Registration, RequestError> {
        let options = RegisterOptions {
            force_reregister: true,
            ..RegisterOptions::default()
        };
        let handler = rpc::handler(&self.context, procedure);
        let answer = session
            .register(&uri::device(&self.serial, procedure.name), options, handler)
            .await;
        if let Err(failure) = &answer {
            tracing::warn!(procedure = procedure.name, error = %failure, "registration failed");
        }
        answer
    }

    /// Retries what failed and takes back, patiently, what was taken over. Ends with the session.
    pub(super) async fn keep(self, session: &Session) {
        let mut watches: FuturesUnordered<_> = self
            .held
            .iter()
            .map(|(procedure, held)| self.hold(session, procedure, held.as_ref()))
            .collect();
        while watches.next().await.is_some() {}
    }

    async fn hold(&self, session: &Session, procedure: &'static Procedure, held: Option<&Registration>) {
        let mut revoked = held.map(|registration| registration.revoked.clone());
        let mut retry = self.timing.reconnect.start();
        let mut reclaim = self.timing.reclaim.start();
        loop {
            if let Some(token) = revoked.take() {
                token.cancelled().await;
                // Registrations end with their session, too.
                if !session.is_open() {
                    return;
                }
                let pause = reclaim.pause();
                tracing::warn!(
                    procedure = procedure.name,
                    ?pause,
                    "somebody else took the procedure over"
                );
                tokio::time::sleep(pause).await;
            } else {
                tokio::time::sleep(retry.pause()).await;
            }
            if let Ok(registration) = self.register(session, procedure).await {
                retry = self.timing.reconnect.start();
                revoked = Some(registration.revoked);
            }
        }
    }
}
