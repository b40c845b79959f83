//! Sends queued state reports while a session is up. A report leaves the database only when the backend answered.

use std::collections::HashMap;

use protocol::AppId;
use tokio::time::Instant;

use super::{Backoff, LinkContext, Verdict};
use crate::backend::BackendError;
use crate::journal::Chain;
use crate::store::PendingReport;

/// Answers with an error after which a report is given up: the backend understood and does not want it.
const REFUSAL_LIMIT: u32 = 5;

/// Drains the outbox until the session ends (the task is dropped).
pub(super) async fn run(context: LinkContext) -> Verdict {
    let mut changed = context.store.outbox_changed();
    let mut outbox = Outbox {
        late: HashMap::new(),
        stalled: context.timing.report.start(),
        context,
    };
    loop {
        changed.borrow_and_update();
        let again = outbox.drain().await;
        let retry = async {
            match again {
                Some(moment) => tokio::time::sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = retry => {}
            // A new report does not wait for those of other apps.
            changed = changed.changed() => {
                if changed.is_err() {
                    return Verdict::Done;
                }
            }
        }
    }
}

/// An app whose oldest report the backend did not accept. Its later reports wait behind it.
struct Late {
    number: i64,
    refusals: u32,
    pauses: Backoff,
    until: Instant,
}

struct Outbox {
    context: LinkContext,
    late: HashMap<AppId, Late>,
    /// Pauses while nothing at all gets through.
    stalled: Backoff,
}

impl Outbox {
    /// One pass, oldest first. Returns when to try again; `None`: all was delivered.
    async fn drain(&mut self) -> Option<Instant> {
        let pending = match self.context.store.pending_reports().await {
            Ok(pending) => pending,
            Err(failure) => {
                tracing::error!(error = %Chain(&failure), "could not read the report outbox");
                return Some(self.stall());
            }
        };
        self.late
            .retain(|_, late| pending.iter().any(|report| report.number == late.number));
        let started = Instant::now();
        for pending in pending {
            let app = AppId {
                key: pending.report.app_key,
                stage: pending.report.stage,
            };
            if self.late.get(&app).is_some_and(|late| late.until > started) {
                continue;
            }
            if let Err(failure) = self.send(&pending).await {
                if failure.is_disconnected() {
                    return Some(self.stall());
                }
                tracing::debug!(%app, error = %Chain(&failure), "state report not accepted");
                if !self.is_refused_for_good(app, pending.number, &failure) {
                    continue;
                }
                tracing::warn!(%app, state = %pending.report.state, error = %Chain(&failure), "the backend refuses a state report; dropped");
            }
            self.late.remove(&app);
            if let Err(failure) = self.context.store.confirm_report(pending.number).await {
                tracing::error!(error = %Chain(&failure), "could not confirm a report");
                return Some(self.stall());
            }
        }
        self.stalled = self.context.timing.report.start();
        self.late.values().map(|late| late.until).min()
    }

    fn stall(&mut self) -> Instant {
        Instant::now() + self.stalled.pause()
    }

    /// Sends a report under the identity of this session: it may have been queued before the device was moved to
    /// another project, and the backend refuses keys that do not match the session's.
    async fn send(&self, pending: &PendingReport) -> Result<(), BackendError> {
        let device = self.context.device.current();
        let mut report = pending.report.clone();
        report.swarm_key = device.swarm_key;
        report.device_key = device.device_key;
        self.context.backend.report_state(&report).await
    }

    /// Notes that a report was not accepted. A backend that is not there or says nothing refuses nothing.
    fn is_refused_for_good(&mut self, app: AppId, number: i64, failure: &BackendError) -> bool {
        let pauses = self.context.timing.report;
        let late = self.late.entry(app).or_insert_with(|| Late {
            number,
            refusals: 0,
            pauses: pauses.start(),
            until: Instant::now(),
        });
        if late.number != number {
            late.number = number;
            late.refusals = 0;
        }
        if failure.is_answer() && !failure.is_no_such_procedure() {
            late.refusals += 1;
        }
        late.until = Instant::now() + late.pauses.pause();
        late.refusals >= REFUSAL_LIMIT
    }
}
