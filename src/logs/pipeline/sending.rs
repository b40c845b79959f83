//! Messages on their way to the router, and what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;

use super::Pipeline;
use crate::logs::batch::Cause;
use crate::logs::publisher::{self, Fate, Outgoing, Sent};

/// Bound of waiting, at the end, for the router's word on messages that are on their way.
const FINISHING: Duration = Duration::from_secs(1);

/// Messages on their way, of as many topics. Further ones wait in their topic, which drops the oldest and says so.
const SENDING: usize = 8;

impl Pipeline {
    /// Sends what is due. A message that the router has not confirmed for long keeps only its own topic waiting.
    pub(super) fn send(&mut self, now: Instant) {
        let count = |pipeline: &Pipeline| {
            let entries = pipeline.entries.values();
            entries.filter(|entry| entry.sends_since_shortly(now)).count()
        };
        while count(self) < SENDING && self.send_next(now) {}
    }

    /// Sends one message of the topic that has waited longest. `false` when nothing is due.
    fn send_next(&mut self, now: Instant) -> bool {
        let Some(attached) = self.attached.as_ref().filter(|_| self.is_live()) else {
            return false;
        };
        let ready = self
            .entries
            .iter_mut()
            .filter_map(|(name, entry)| Some((entry.ready(now)?, name, entry)));
        let Some((_, name, entry)) = ready.min_by_key(|(due, ..)| *due) else {
            return false;
        };
        let Some(message) = entry.take() else {
            return true;
        };
        self.sending.spawn(publisher::publish(Outgoing {
            session: attached.session.clone(),
            serial: Arc::clone(&self.serial),
            topic: name.clone(),
            message,
        }));
        true
    }

    pub(super) fn on_sent(&mut self, sent: Result<Sent, JoinError>) {
        // Aborted only when we end.
        let Ok(Sent { topic, message, fate }) = sent else {
            return;
        };
        let marks = message.marks();
        let back = match fate {
            Fate::Published => None,
            // Said with the next lines, or later: at once it would be refused again.
            Fate::Refused => {
                self.lost.add(&topic, message.lines(), Cause::Refused);
                None
            }
            Fate::Unsent => Some(message),
            Fate::Lost => Some(message.into_gap()),
        };
        // Before the next one is sent: a kill in between repeats at most this message.
        if fate == Fate::Published && !marks.is_empty() {
            self.ledger.advance(&topic, marks);
            self.ledger.save();
        }
        if let Some(entry) = self.entries.get_mut(&topic) {
            entry.sent(back);
            match fate {
                Fate::Published => entry.is_wanted(),
                Fate::Refused => entry.is_refused(),
                Fate::Unsent | Fate::Lost => {}
            }
        }
    }

    /// What the router confirms now, the next run does not send again.
    pub(super) async fn finish_sending(&mut self) {
        let confirmed = async {
            while let Some(sent) = self.sending.join_next().await {
                self.on_sent(sent);
            }
        };
        // Without its word they are sent again.
        let _ = tokio::time::timeout(FINISHING, confirmed).await;
        self.sending.shutdown().await;
    }
}
