//! Applying the backend's list of requested states (`app-lifecycle.md` 7.8, 7.9): PROD rows are stored, apps and
//! containers that are proven to be gone are taken down.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::{AppId, AppRequest, AppState, Stage, naming};
use tokio::time::Instant;

use super::Supervisor;
use super::intent::same_intent;
use crate::app::compose::{directory, project};
use crate::app::container::{self, bare_request};
use crate::app::listing::Verdict;
use crate::app::mailbox::{Desired, Nudge};
use crate::app::worker::Shared;
use crate::app::{RequestError, Sync, unsupported};
use crate::engine::{Engine, EngineError};
use crate::journal::Chain;
use crate::store::StoreError;

/// Compose projects that were here when the database was made from nothing, one per line.
const FACT_QUARANTINE: &str = "quarantined_projects";
/// An app asked for this recently is never taken for unlisted: the list may be older than the request.
const RECENT: Duration = Duration::from_secs(60);
/// A list may be this old when it is applied: the deadline of the call, and some. What was asked for since is newer.
const LIST_AGE: Duration = Duration::from_secs(12);

impl Supervisor {
    pub(super) async fn sync(&mut self, answer: Sync) -> Result<(), RequestError> {
        self.shared.online.store(true, Ordering::Relaxed);
        let listed: BTreeSet<AppId> = answer.rows.iter().map(|row| row.app).collect();
        // Containers and compose projects: no name of one can be one of the other.
        let names: BTreeSet<String> = answer
            .rows
            .iter()
            .flat_map(|row| names_of(row.app, &row.app_name))
            .collect();
        let mut result = Ok(());
        for row in answer.rows.into_iter().filter(|row| row.app.stage == Stage::Prod) {
            let app = row.app;
            // Every row on its own: one bad one does not keep the others from being applied (W46).
            if let Err(error) = self.apply(row).await {
                tracing::warn!(%app, error = %Chain(&error), "a requested app state could not be stored");
                result = Err(error.into());
            }
        }
        if answer.unreadable == 0 && !self.adopt {
            // An answer that has to be confirmed proves nothing, about containers of unknown apps either.
            if self.drop_unlisted(&listed).await? {
                self.sweep(names);
            }
        }
        result
    }

    async fn apply(&mut self, row: AppRequest) -> Result<(), StoreError> {
        if let Some(reason) = unsupported(&row) {
            tracing::warn!(app = %row.app, reason, "a requested app state is left alone");
            return Ok(());
        }
        let online = Nudge {
            online: true,
            ..Nudge::default()
        };
        if let Some(entry) = self.apps.get(&row.app) {
            let status = entry.mailbox.status();
            let settled = matches!(status.state, AppState::Removed | AppState::Uninstalled);
            let unchanged = entry.mailbox.desired().is_some_and(|desired| {
                !desired.adopted && !desired.unlisted && same_intent(&row, &desired.request, &status.version)
            });
            let overtaken = entry
                .mailbox
                .requested_at()
                .is_some_and(|at| at.elapsed() < LIST_AGE);
            if (unchanged && !settled) || overtaken {
                entry.mailbox.nudge(online);
                return Ok(());
            }
        }
        self.accept(row, online).await
    }

    /// Apps that a complete answer does not list are uninstalled like on request, by their own actors (W4). `false`: the
    /// answer takes so much away that it has to be confirmed first, and nothing was touched.
    async fn drop_unlisted(&mut self, listed: &BTreeSet<AppId>) -> Result<bool, StoreError> {
        let now = Instant::now();
        let store = self.shared.context.store.clone();
        let mut missing = BTreeSet::new();
        let mut empty = Vec::new();
        let mut installed = 0;
        for (app, entry) in &self.apps {
            let status = entry.mailbox.status();
            let nothing = !status.busy && matches!(status.state, AppState::Removed | AppState::Uninstalled);
            installed += usize::from(!nothing);
            if listed.contains(app) {
                continue;
            }
            let recent = entry
                .mailbox
                .requested_at()
                .is_some_and(|at| now.duration_since(at) < RECENT);
            // Adopted apps are in quarantine: the list is no proof against a database that was lost.
            let kept = entry.mailbox.desired().is_some_and(|desired| desired.adopted);
            if recent || kept {
                continue;
            }
            if nothing {
                empty.push(*app);
            } else {
                missing.insert(*app);
            }
        }
        match self
            .confirmation
            .judge(installed, missing, listed.is_empty(), now)
        {
            Verdict::Remove(apps) => {
                self.confirm.send_replace(None);
                for app in empty {
                    store.forget_app(app).await?;
                    self.drop_app(app);
                }
                for app in apps {
                    self.uninstall_unlisted(app).await?;
                }
                Ok(true)
            }
            Verdict::Confirm(due) => {
                if installed > 0 {
                    tracing::warn!(
                        "the backend lists hardly any app; nothing is removed before it says so again"
                    );
                }
                self.confirm.send_replace(Some(due));
                Ok(false)
            }
        }
    }

    async fn uninstall_unlisted(&mut self, app: AppId) -> Result<(), StoreError> {
        let Some(entry) = self.apps.get(&app) else {
            return Ok(());
        };
        tracing::warn!(%app, "the backend does not list this app any more; it is uninstalled");
        self.shared
            .context
            .store
            .set_target(app, AppState::Uninstalled)
            .await?;
        let request = match entry.mailbox.desired() {
            Some(desired) => AppRequest {
                target: AppState::Uninstalled,
                ..(*desired.request).clone()
            },
            None => bare_request(app, entry.mailbox.status().app_name, AppState::Uninstalled),
        };
        let desired = Desired {
            request: Arc::new(request),
            adopted: false,
            unlisted: true,
            number: 0,
            finished: false,
        };
        let nudge = Nudge {
            online: true,
            ..Nudge::default()
        };
        entry.mailbox.desire(desired, nudge, Instant::now());
        Ok(())
    }

    /// The database was made from nothing: what compose runs here for apps of which nobody may ever tell stays.
    pub(super) async fn quarantine_projects(&self) -> Result<(), EngineError> {
        let context = &self.shared.context;
        let roots = directory::roots(&context.settings.apps_dir);
        let found = context.engine.list_projects().await?;
        let projects: BTreeSet<&str> = found
            .iter()
            .filter_map(|facts| project::made_beneath(facts, &roots))
            .collect();
        let projects = projects.into_iter().collect::<Vec<_>>().join("\n");
        let fact = context.store.set_fact(FACT_QUARANTINE, &projects);
        fact.await.map_err(|error| EngineError::Other(error.to_string()))
    }

    /// Removes containers that one of the agents made for apps that neither we nor the backend know (W3). In the
    /// background: Docker may be slow.
    fn sweep(&mut self, listed: BTreeSet<String>) {
        if !self.shared.is_engine_up() {
            return;
        }
        let mut known = listed;
        known.extend(
            self.apps
                .iter()
                .flat_map(|(app, entry)| names_of(*app, &entry.mailbox.status().app_name)),
        );
        let engine = self.shared.context.engine.clone();
        let store = self.shared.context.store.clone();
        let device = self.shared.context.device.current();
        let roots = directory::roots(&self.shared.context.settings.apps_dir);
        let stop = self.stop.clone();
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let sweep = async {
                remove_orphans(&engine, &device.serial_number, &known, &shared).await?;
                match store.fact(FACT_QUARANTINE).await {
                    Ok(kept) => known.extend(kept.iter().flat_map(|kept| kept.lines().map(str::to_owned))),
                    // Without it nothing is proven.
                    Err(error) => {
                        tracing::warn!(error = %Chain(&error), "reading which projects are in quarantine");
                        return Ok(());
                    }
                }
                remove_orphan_projects(&engine, &roots, &known, &shared).await
            };
            if let Some(Err(error)) = stop.run_until_cancelled(sweep).await {
                tracing::warn!(error = %Chain(&error), "looking for containers of unknown apps");
            }
        });
    }
}

/// What an app's container and its compose project are called.
pub(super) fn names_of(app: AppId, app_name: &str) -> [String; 2] {
    [
        naming::container(app, app_name),
        naming::compose_project(app, app_name),
    ]
}

/// Removes the containers of projects that were made here for apps that nobody knows (W4, W32). Their volumes stay:
/// nothing tells that they are not missed.
async fn remove_orphan_projects(
    engine: &Engine,
    roots: &[PathBuf],
    known: &BTreeSet<String>,
    shared: &Shared,
) -> Result<(), EngineError> {
    for facts in engine.list_projects().await? {
        let Some(project) = project::made_beneath(&facts, roots) else {
            continue;
        };
        // Asked last: the app may have come while we looked.
        if known.contains(project) || shared.knows(project) {
            continue;
        }
        tracing::warn!(
            project,
            container = facts.name,
            "removing a container of an app that nobody knows"
        );
        if let Err(error) = engine.remove(&facts.id).await {
            tracing::warn!(container = facts.name, error = %Chain(&error), "removing it");
        }
    }
    Ok(())
}

async fn remove_orphans(
    engine: &Engine,
    serial_number: &str,
    known: &BTreeSet<String>,
    shared: &Shared,
) -> Result<(), EngineError> {
    let (key, value) = container::REAL;
    for facts in engine.list_labelled(key, value).await? {
        let foreign = container::owner(&facts, serial_number).is_none();
        if foreign || known.contains(&facts.name) || shared.knows(&facts.name) {
            continue;
        }
        tracing::warn!(
            container = facts.name,
            "removing a container of an app that nobody knows"
        );
        // By id: a new container may have taken the name meanwhile.
        if let Err(error) = engine.remove(&facts.id).await {
            tracing::warn!(container = facts.name, error = %Chain(&error), "removing it");
        }
    }
    Ok(())
}
