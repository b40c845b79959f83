//! What the studio hears of updates: progress while one is asked for, and how each one ended, in order and once, after
//! the next connect (`update-and-system.md` 1.10, 9.4 F3).

use protocol::uri;
use tokio::sync::mpsc;
use wamp::Payload;
use wamp::client::PublishOptions;

use super::UpdateContext;
use super::health::Health;
use super::memory::Memory;
use super::progress::{self, Progress};
use crate::journal::Chain;

/// Topic of the outcome, beside `agent_update_progress`: `{from, to, result, reason}`, and the `id` that it was asked with.
const RESULT: &str = "agent_update_result";

/// Publishes what comes through the returned sender, while there is a session. The task ends with the sender.
pub(super) fn announce(context: UpdateContext) -> mpsc::Sender<Progress> {
    let (sender, mut listener) = mpsc::channel(progress::QUEUE);
    tokio::spawn(async move {
        let serial = context.device.current().serial_number.clone();
        let topic = uri::device(&serial, "agent_update_progress");
        while let Some(progress) = listener.recv().await {
            let session = context.session.borrow().clone();
            let (Some(session), Ok(payload)) = (session, Payload::one(&progress)) else {
                continue;
            };
            // Nobody waits for progress; what does not go out now is old.
            if let Err(error) = session.publish(&topic, PublishOptions::default(), payload).await {
                tracing::debug!(%error, "progress was not published");
            }
        }
    });
    sender
}

/// Tells how updates ended, the oldest one first, as soon as the device is connected, each until the router has taken
/// it.
pub(super) async fn tell(context: UpdateContext, memory: Memory, health: Health) {
    let mut pauses = context.footing.setup.patience.pauses.start();
    let mut news = memory.news();
    loop {
        health.connected().await;
        let Some(outcome) = memory.current().to_tell().cloned() else {
            pauses = context.footing.setup.patience.pauses.start();
            if news.changed().await.is_err() {
                return;
            }
            continue;
        };
        let topic = uri::device(&context.device.current().serial_number, RESULT);
        let session = context.session.borrow().clone();
        let payload = Payload::one(&outcome);
        if let (Some(session), Ok(payload)) = (session, payload) {
            let told = session.publish_acknowledged(&topic, PublishOptions::default(), payload);
            match told.await {
                Ok(_) => {
                    tracing::info!(
                        from = outcome.from,
                        to = outcome.to,
                        result = outcome.result,
                        reason = outcome.reason,
                        "told how the update ended"
                    );
                    let remembered = memory.change(move |state| state.told(&outcome));
                    match remembered.await {
                        Ok(_) => continue,
                        Err(error) => {
                            tracing::warn!(%error, "the outcome of the update is told again");
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the outcome of the update was not told");
                }
            }
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}
