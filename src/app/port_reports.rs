//! Tells the backend on which host ports the apps can be reached (`app-lifecycle.md` 7.5, 13.4), so that they survive:
//! the rules of the next request carry them.
//!
//! Best effort and beside the actors: nobody waits for it. Only what changed is sent, and everything once per connect
//! (W53); what the backend refuses comes again with growing pauses. Must not know how a port was found.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::AppId;
use protocol::report::PortReport;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actor::sleep_until;
use super::retry::{Gate, Retry};
use super::worker::Shared;
use crate::backend::BackendError;
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
    /// The backend has them, or is being asked to take them.
    told: bool,
    /// After reports that it did not take.
    retry: Retry,
}

impl Entry {
    fn due(&self) -> Option<Instant> {
        match self.retry.gate() {
            Gate::Until(moment) => Some(moment),
            Gate::Open | Gate::Shut => None,
        }
    }
}

impl PortReports {
    /// These are the app's rules now.
    pub(crate) fn tell(&self, app: AppId, rules: Vec<Value>) {
        let known = self.lock().get(&app).is_some_and(|entry| entry.rules == rules);
        if !known {
            let entry = Entry {
                rules,
                told: false,
                retry: Retry::new(),
            };
            self.lock().insert(app, entry);
            self.wake.notify_one();
        }
    }

    /// Somebody new listens.
    pub(crate) fn repeat(&self, app: AppId) {
        if let Some(entry) = self.lock().get_mut(&app) {
            entry.told = false;
            entry.retry.forget();
            self.wake.notify_one();
        }
    }

    pub(crate) fn forget(&self, app: AppId) {
        self.lock().remove(&app);
    }

    fn next(&self, now: Instant) -> Option<(AppId, Vec<Value>)> {
        let mut entries = self.lock();
        let due = |entry: &Entry| !entry.told && entry.due().is_none_or(|moment| now >= moment);
        let (app, entry) = entries.iter_mut().find(|(_, entry)| due(entry))?;
        entry.told = true;
        Some((*app, entry.rules.clone()))
    }

    /// The backend did not take these rules: they come again later, unless there are others meanwhile.
    fn refused(&self, app: AppId, rules: &[Value], now: Instant) {
        if let Some(entry) = self.lock().get_mut(&app)
            && entry.rules == rules
        {
            entry.told = false;
            entry.retry.failed(now);
        }
    }

    /// When something that was refused is to come again.
    fn due(&self) -> Option<Instant> {
        self.lock()
            .values()
            .filter(|entry| !entry.told)
            .filter_map(Entry::due)
            .min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what is new until `stop`, one report at a time.
pub(crate) async fn run(shared: std::sync::Arc<Shared>, stop: CancellationToken) {
    let send = async {
        loop {
            let reports = &shared.port_reports;
            while let Some((app, ports)) = reports.next(Instant::now()) {
                if !send(&shared, app, ports.clone()).await {
                    reports.refused(app, &ports, Instant::now());
                }
            }
            let due = reports.due();
            tokio::select! {
                () = reports.wake.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    };
    // `None`: stopped.
    let _: Option<()> = stop.run_until_cancelled(send).await;
}

/// `false`: the backend did not take it. Without a session nothing is refused: the next connect asks for it again.
async fn send(shared: &Shared, app: AppId, ports: Vec<Value>) -> bool {
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
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%app, error = %Chain(&error), "host ports not reported");
            matches!(error, BackendError::NotConnected)
        }
        Err(_) => {
            tracing::debug!(%app, "host ports not reported: no answer within 5s");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::Stage;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_changed_is_told_and_everything_after_a_connect() {
        let app = AppId {
            key: 6,
            stage: Stage::Prod,
        };
        let (now, reports) = (Instant::now(), PortReports::default());
        let rules = vec![json!({"port": 80, "host_port": 40_000})];
        reports.tell(app, rules.clone());
        assert_eq!(reports.next(now), Some((app, rules.clone())));
        assert_eq!(reports.next(now), None);
        reports.tell(app, rules.clone());
        assert_eq!(reports.next(now), None);
        reports.repeat(app);
        assert_eq!(reports.next(now), Some((app, rules)));
        reports.tell(app, vec![json!({"port": 81})]);
        assert_eq!(reports.next(now), Some((app, vec![json!({"port": 81})])));
        reports.repeat(app);
        reports.forget(app);
        assert_eq!(reports.next(now), None);
    }
    #[tokio::test(start_paused = true)]
    async fn what_is_refused_comes_again_later_unless_there_is_something_newer() {
        let app = AppId {
            key: 6,
            stage: Stage::Prod,
        };
        let (now, reports) = (Instant::now(), PortReports::default());
        let rules = vec![json!({"port": 80})];
        reports.tell(app, rules.clone());
        assert_eq!(reports.next(now), Some((app, rules.clone())));
        assert_eq!(reports.due(), None);
        reports.refused(app, &rules, now);
        assert_eq!(reports.next(now), None);
        let first = reports.due().unwrap();
        assert_eq!(reports.next(first), Some((app, rules.clone())));
        reports.refused(app, &rules, first);
        assert!(reports.due().unwrap() - first > first - now, "the pauses grow");
        // Neither another wish nor another listener waits for that.
        let newer = vec![json!({"port": 81})];
        reports.tell(app, newer.clone());
        reports.refused(app, &rules, first);
        assert_eq!(reports.next(first), Some((app, newer.clone())));
        reports.refused(app, &newer, first);
        reports.repeat(app);
        assert_eq!(reports.next(first), Some((app, newer)));
    }
}
