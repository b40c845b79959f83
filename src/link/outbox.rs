//! Sends queued state reports while a session is up. A report leaves the database only when the backend answered.

use std::collections::HashMap;
use std::time::Duration;

use protocol::AppId;

use super::{Backoff, Verdict};
use crate::backend::Backend;
use crate::journal::Chain;
use crate::store::Store;

/// Answers with an error after which a report is given up: the backend understood and does not want it.
const REFUSAL_LIMIT: u32 = 5;

/// Drains the outbox until the session ends (the task is dropped) .
pub(super) async fn run(store: Store, backend: Backend) -> Verdict {
    let mut changed = store.outbox_changed();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let mut refusals: HashMap<i64, u32> = HashMap::new();
    loop {
        changed.borrow_and_update();
        match drain(&store, &backend, &mut refusals).await {
            Drained::All => {
                backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
                if changed.changed().await.is_err() {
                    return Verdict::Done;
                }
            }
            Drained::SomeFailed => tokio::time::sleep(backoff.pause()).await,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Drained {
    All,
    SomeFailed,
}

/// One pass, oldest first. After a failure the later reports of the same app wait, other apps go on.
async fn drain(store: &Store, backend: &Backend, refusals: &mut HashMap<i64, u32>) -> Drained {
    let pending = match store.pending_reports().await {
        Ok(pending) => pending,
        Err(failure) => {
            tracing::error!(error = %Chain(&failure), "could not read the report outbox");
            return Drained::SomeFailed;
        }
    };
    refusals.retain(|number, _| pending.iter().any(|report| report.number == *number));
    let mut blocked: Vec<AppId> = Vec::new();
    for pending in pending {
        let app = AppId {
            key: pending.report.app_key,
            stage: pending.report.stage,
        };
        if blocked.contains(&app) {
            continue;
        }
        if let Err(failure) = backend.report_state(&pending.report).await {
            if !failure.is_answer() {
                tracing::debug!(%app, error = %Chain(&failure), "state report not delivered yet");
                return Drained::SomeFailed;
            }
            let refused = refusals.entry(pending.number).or_default();
            if !failure.is_backend_absent() {
                *refused += 1;
            }
            if *refused < REFUSAL_LIMIT {
                blocked.push(app);
                continue;
            }
            tracing::warn!(%app, state = %pending.report.state, error = %Chain(&failure), "the backend refuses a state report; dropped");
        }
        if let Err(failure) = store.confirm_report(pending.number).await {
            tracing::error!(error = %Chain(&failure), "could not confirm a report");
            return Drained::SomeFailed;
        }
    }
    if blocked.is_empty() {
        Drained::All
    } else {
        Drained::SomeFailed
    }
}
