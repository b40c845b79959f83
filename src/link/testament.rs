//! What the router publishes when the session ends (`session-and-api.md` 4.11).

use protocol::report::Testament;
use tokio_util::sync::DropGuard;
use wamp::client::Session;

use super::{LinkContext, Verdict};
use crate::journal::Chain;

/// Leaves the testament, retrying while connected; never fatal (R23). `witnessed` is let go after the first attempt,
/// whatever came of it: what is said to the backend comes after the testament (`wamp-interop.md` rule 25).
pub(super) async fn keep(context: LinkContext, session: Session, witnessed: DropGuard) -> Verdict {
    let mut witnessed = Some(witnessed);
    let mut pauses = context.timing.reconnect.start();
    loop {
        let device = context.device.current();
        let testament = Testament {
            swarm_key: device.swarm_key,
            device_key: device.device_key,
            serial_number: device.serial_number.clone(),
            wamp_session_id: session.id(),
        };
        let answer = context.backend.add_testament(&session, &testament).await;
        witnessed.take();
        match answer {
            Ok(()) => return Verdict::Done,
            // A router without testaments: the heartbeat alone tells the backend that we live.
            Err(failure) if failure.is_no_such_procedure() => {
                tracing::warn!("the router offers no testaments");
                return Verdict::Done;
            }
            Err(failure) => tracing::warn!(error = %Chain(&failure), "could not leave a testament"),
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}
