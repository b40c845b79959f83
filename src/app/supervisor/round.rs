//! A look at all apps from time to time, in case an event was lost (weakness W17): one list of the daemon for all of
//! them. An app that is not what the list says is nudged and looks for itself; nothing is decided or written here.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{AppId, AppState, naming};
use serde_json::Value;
use tokio::time::Instant;

use super::Supervisor;
use crate::app::container::{COMPOSE_PROJECT, REAL};
use crate::app::mailbox::{Mailbox, Nudge};
use crate::app::observe::Look;
use crate::journal::Chain;

/// Between two looks, before jitter.
const ROUND: Duration = Duration::from_secs(300);

/// When to look again: the agents of a site need not do it all at once.
pub(super) fn next() -> Instant {
    Instant::now() + ROUND.mul_f64(0.8 + 0.4 * fastrand::f64())
}

impl Supervisor {
    /// In the background: Docker may be slow.
    pub(super) fn look_round(&mut self) {
        if !self.shared.is_engine_up() {
            return;
        }
        let apps: Vec<_> = self
            .apps
            .iter()
            .map(|(app, entry)| (*app, std::sync::Arc::clone(&entry.mailbox)))
            .collect();
        let engine = self.shared.context.engine.clone();
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            match stop.run_until_cancelled(engine.list_raw()).await {
                Some(Ok(list)) => {
                    let alive = Alive::read(&list);
                    for (app, mailbox) in apps
                        .iter()
                        .filter(|(app, mailbox)| alive.contradicts(*app, mailbox))
                    {
                        tracing::info!(%app, "an app is not what it was; an event must have been lost");
                        mailbox.nudge(Nudge {
                            look: Look::Change,
                            ..Nudge::default()
                        });
                    }
                }
                Some(Err(error)) => tracing::debug!(error = %Chain(&error), "looking at all containers"),
                None => {}
            }
        });
    }
}

/// Containers and projects of which something lives; `true`: something of it is paused.
#[derive(Debug, Default)]
struct Alive {
    containers: BTreeMap<String, bool>,
    projects: BTreeMap<String, bool>,
}

impl Alive {
    fn read(list: &[Value]) -> Alive {
        let mut alive = Alive::default();
        for container in list {
            let paused = match container.get("State").and_then(Value::as_str) {
                Some("running") => false,
                Some("paused") => true,
                _ => continue,
            };
            let label = |name: &str| container.get("Labels")?.get(name)?.as_str();
            if let Some(project) = label(COMPOSE_PROJECT) {
                *alive.projects.entry(project.to_owned()).or_default() |= paused;
            } else if label(REAL.0) == Some(REAL.1) {
                let names = container.get("Names").and_then(Value::as_array);
                for name in names.into_iter().flatten().filter_map(Value::as_str) {
                    alive
                        .containers
                        .insert(name.trim_start_matches('/').to_owned(), paused);
                }
            }
        }
        alive
    }

    /// An app that is about to become something else is left alone: its action ends with a look of its own.
    fn contradicts(&self, app: AppId, mailbox: &Mailbox) -> bool {
        let (status, Some(desired)) = (mailbox.status(), mailbox.desired()) else {
            return false;
        };
        let found = match desired.request.docker_compose {
            Some(_) => self.projects.get(&naming::compose_project(app, &status.app_name)),
            None => self.containers.get(&naming::container(app, &status.app_name)),
        };
        let paused = found == Some(&true) && desired.request.target == AppState::Running;
        !status.busy && !status.gone && (paused || found.is_some() != (status.state == AppState::Running))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::Stage;
    use serde_json::{Map, json};

    use super::*;
    use crate::app::container::bare_request;
    use crate::app::mailbox::{Desired, Status};

    const APP: AppId = AppId {
        key: 6,
        stage: Stage::Prod,
    };

    fn app(state: AppState, compose: bool, busy: bool) -> Mailbox {
        let mut request = bare_request(APP, "MyApp".to_owned(), AppState::Running);
        request.docker_compose = compose.then(Map::new);
        let desired = Desired {
            request: Arc::new(request),
            adopted: false,
            unlisted: false,
            number: 0,
            finished: false,
        };
        let status = Status {
            app_name: "MyApp".to_owned(),
            version: String::new(),
            state,
            busy,
            gone: false,
        };
        Mailbox::new(Some(desired), status)
    }

    #[test]
    fn only_an_app_that_is_not_what_the_list_says_is_looked_at() {
        let single =
            |state: &str| json!([{"Names": ["/prod_6_myapp"], "State": state, "Labels": {"real": "True"}}]);
        let project = |state: &str| {
            json!([
                {"Names": ["/a"], "State": "exited", "Labels": {"com.docker.compose.project": "prod_6_myapp_compose"}},
                {"Names": ["/b"], "State": state, "Labels": {"com.docker.compose.project": "prod_6_myapp_compose"}},
            ])
        };
        let foreign = json!([{"Names": ["/prod_6_myapp"], "State": "running", "Labels": null}]);
        use AppState::{Failed, Present, Running};
        for (list, state, compose, expected) in [
            (single("running"), Running, false, false),
            (single("running"), Failed, false, true),
            (single("exited"), Running, false, true),
            (single("exited"), Failed, false, false),
            (single("paused"), Running, false, true),
            (json!([]), Running, false, true),
            (json!([]), Present, false, false),
            (foreign, Running, false, true),
            (project("running"), Running, true, false),
            (project("exited"), Running, true, true),
            (project("paused"), Running, true, true),
            (project("running"), Present, true, true),
            // Of the other kind: not what the app is.
            (single("running"), Running, true, true),
        ] {
            let alive = Alive::read(list.as_array().unwrap());
            assert_eq!(
                alive.contradicts(APP, &app(state, compose, false)),
                expected,
                "{list} {state}"
            );
            assert!(
                !alive.contradicts(APP, &app(state, compose, true)),
                "a running action is left alone"
            );
        }
    }
}
