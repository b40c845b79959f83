//! Tells the backend on which host ports the apps can be reached (`app-lifecycle.md` 7.5, 13.4), so that they survive:
//! the rules of the next request carry them.
//!
//! Best effort and beside the actors: nobody waits for it. Only what changed is sent, and everything once per connect
//! (W53). Must not know how a port was found.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::AppId;
use protocol::report::PortReport;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::worker::Shared;
use crate::journal::Chain;

/// Bound of one report (`app-lifecycle.md` 11).
const ANSWER: Duration = Duration::from_secs(5);

/// The newest rules of every app that has any; one entry per app.
#[derive(Debug, Default)]
pub(crate) struct PortReports {
    entries: Mutex<BTreeMap<AppId, Entry>>,
    wake: Notify,
}

#[derive(Debug)]
struct Entry {
    rules: Vec<Value>,
    /// The backend has them, or was asked to take them and did not.
    told: bool,
}

impl PortReports {
    /// These are the app's rules now.
    pub(crate) fn tell(&self, app: AppId, rules: Vec<Value>) {
        let known = self.lock().get(&app).is_some_and(|entry| entry.rules == rules);
        if !known {
            self.lock().insert(app, Entry { rules, told: false });
            self.wake.notify_one();
        }
    }

    /// Somebody new listens.
    pub(crate) fn repeat(&self, app: AppId) {
        if let Some(entry) = self.lock().get_mut(&app) {
            entry.told = false;
            self.wake.notify_one();
        }
    }

    pub(crate) fn forget(&self, app: AppId) {
        self.lock().remove(&app);
    }

    fn next(&self) -> Option<(AppId, Vec<Value>)> {
        let mut entries = self.lock();
        let (app, entry) = entries.iter_mut().find(|(_, entry)| !entry.told)?;
        entry.told = true;
        Some((*app, entry.rules.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what is new until `stop`, one report at a time.
pub(crate) async fn run(shared: std::sync::Arc<Shared>, stop: CancellationToken) {
    let send = async {
        loop {
            while let Some((app, ports)) = shared.port_reports.next() {
                send(&shared, app, ports).await;
            }
            shared.port_reports.wake.notified().await;
        }
    };
    // `None`: stopped.
    let _: Option<()> = stop.run_until_cancelled(send).await;
}

async fn send(shared: &Shared, app: AppId, ports: Vec<Value>) {
    let flock = shared.context.device.current();
    let report = PortReport {
        app_key: app.key,
        device_key: flock.device_key,
        swarm_key: flock.swarm_key,
        stage: app.stage,
        ports,
    };
    let call = shared.context.backend.report_ports(&report);
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(())) => {}
        // The next connect asks for it again.
        Ok(Err(error)) => tracing::debug!(%app, error = %Chain(&error), "host ports not reported"),
        Err(_) => tracing::debug!(%app, "host ports not reported: no answer within 5s"),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Stage;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changed_is_told_and_everything_after_a_connect() {
        let app = AppId {
            key: 6,
            stage: Stage::Prod,
        };
        let reports = PortReports::default();
        let rules = vec![json!({"port": 80, "host_port": 40_000})];
        reports.tell(app, rules.clone());
        assert_eq!(reports.next(), Some((app, rules.clone())));
        assert_eq!(reports.next(), None);
        reports.tell(app, rules.clone());
        assert_eq!(reports.next(), None);
        reports.repeat(app);
        assert_eq!(reports.next(), Some((app, rules)));
        reports.tell(app, vec![json!({"port": 81})]);
        assert_eq!(reports.next(), Some((app, vec![json!({"port": 81})])));
        reports.repeat(app);
        reports.forget(app);
        assert_eq!(reports.next(), None);
    }
}
