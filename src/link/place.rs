//! The device's place at the router: `wamp_connection_established`, the one registration without force
//! (`session-and-api.md` 4.9). Who holds it is the device with this serial.

use protocol::uri;
use wamp::client::{RegisterOptions, Registration, RequestError, Session};
use wamp::uri::error;

use super::{LinkContext, Verdict};

/// Claims the place. A refusal with `procedure_already_exists` means that another session holds it.
pub(super) async fn take(session: &Session, serial: &str) -> Result<Registration, RequestError> {
    let hello = wamp::client::handler(|_| async { Ok(wamp::Payload::from_args(vec!["Hello :-)".into()])) });
    let procedure = uri::device(serial, "wamp_connection_established");
    session
        .register(&procedure, RegisterOptions::default(), hello)
        .await
}

/// Claims the place again, patiently and never by force, when it was refused or taken away (`wamp-interop.md`
/// rule 11). While somebody else sits there, the session is given up: the next one finds out whether for good.
pub(super) async fn keep(
    context: LinkContext,
    session: Session,
    serial: String,
    mut held: Option<Registration>,
) -> Verdict {
    let mut pauses = context.timing.reclaim.start();
    loop {
        if let Some(place) = held.take() {
            place.revoked.cancelled().await;
            // Registrations end with their session, too.
            if !session.is_open() {
                return Verdict::Done;
            }
            tracing::warn!("the place of this device was taken away");
        }
        tokio::time::sleep(pauses.pause()).await;
        match take(&session, &serial).await {
            Ok(place) => held = Some(place),
            Err(RequestError::Peer(refused)) if refused.uri == error::PROCEDURE_ALREADY_EXISTS => {
                return Verdict::Dead("another session holds this serial number");
            }
            Err(failure) => tracing::warn!(error = %failure, "the place of this device is not ours yet"),
        }
    }
}
