//! What a wish of a person means for one app on one device. Pure: reads the install as it is, says what to store.
//!
//! States, versions and the update flag follow `app-lifecycle.md` 1.4 and 3.3: an agent pulls `newest_version`, runs
//! `present_version`, and updates when `request_update` is set and the two differ.

use protocol::AppState;
use serde_json::{Map, Value};

use crate::keys::ReleaseKey;
use crate::store::{App, Install};

/// What a person wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// The app on the device in this release. `environment`: `None` keeps what is stored.
    Install {
        release: ReleaseKey,
        start: bool,
        environment: Option<Map<String, Value>>,
    },
    Start,
    Stop,
    /// Off the device; `keep_data` keeps the app's data directory there.
    Remove {
        keep_data: bool,
    },
}

/// What to store.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub target: AppState,
    /// Used for a new install only: an existing one keeps what the device reported.
    pub current: AppState,
    pub release: ReleaseKey,
    pub new_release: ReleaseKey,
    pub request_update: bool,
    pub environment: Map<String, Value>,
    pub ports: Vec<Value>,
}

/// The app is not installed, so it cannot be started, stopped or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotInstalled;

/// Decides.
pub(crate) fn plan(app: &App, before: Option<&Install>, wish: Wish) -> Result<Plan, NotInstalled> {
    if let Wish::Install {
        release,
        start,
        environment,
    } = wish
    {
        let target = if start {
            AppState::Running
        } else {
            AppState::Present
        };
        return Ok(match before {
            None => Plan {
                target,
                current: AppState::Removed,
                release,
                new_release: release,
                request_update: false,
                environment: environment.unwrap_or_default(),
                ports: app.ports.clone(),
            },
            Some(before) => {
                // With nothing on the device there is nothing to update: the release is simply installed.
                let absent = matches!(before.current, AppState::Removed | AppState::Uninstalled);
                Plan {
                    target,
                    current: before.current,
                    release: if absent { release } else { before.release },
                    new_release: release,
                    request_update: !absent && release != before.release,
                    environment: environment.unwrap_or_else(|| before.environment.clone()),
                    ports: before.ports.clone(),
                }
            }
        });
    }
    let before = before.ok_or(NotInstalled)?;
    let keep = |target| Plan {
        target,
        current: before.current,
        release: before.release,
        new_release: before.new_release,
        request_update: before.request_update,
        environment: before.environment.clone(),
        ports: before.ports.clone(),
    };
    Ok(match wish {
        Wish::Install { .. } | Wish::Start => keep(AppState::Running),
        Wish::Stop => keep(AppState::Present),
        Wish::Remove { keep_data } => Plan {
            // A pending update would come before the removal on the device (weakness W56).
            request_update: false,
            ..keep(if keep_data {
                AppState::Removed
            } else {
                AppState::Uninstalled
            })
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{AccountKey, AppKey, DeviceKey};
    use protocol::Stage;
    use serde_json::json;

    fn app() -> App {
        App {
            key: AppKey(6),
            owner: AccountKey(1),
            name: "MyApp".to_owned(),
            ports: vec![json!({"port": 8080})],
            environment_template: Map::new(),
            releases: Vec::new(),
            created: String::new(),
        }
    }

    fn installed(current: AppState) -> Install {
        Install {
            device: DeviceKey(3),
            device_name: "press".to_owned(),
            serial: "abc".to_owned(),
            online: true,
            device_owner: AccountKey(1),
            app: AppKey(6),
            app_name: "MyApp".to_owned(),
            stage: Stage::Prod,
            target: AppState::Running,
            current,
            release: ReleaseKey(100),
            new_release: ReleaseKey(100),
            present_version: "1.4.0".to_owned(),
            newest_version: "1.4.0".to_owned(),
            docker_compose: None,
            new_docker_compose: None,
            request_update: false,
            update_status: String::new(),
            requestor: AccountKey(1),
            environment: Map::from_iter([("A".to_owned(), json!({"value": "1"}))]),
            environment_template: Map::new(),
            ports: vec![json!({"port": 8080, "host_port": 40000})],
            app_cred_epoch: 1,
            revision: 1,
            reports: 1,
            updated: String::new(),
        }
    }

    fn install(release: u64) -> Wish {
        Wish::Install {
            release: ReleaseKey(release),
            start: true,
            environment: None,
        }
    }

    #[test]
    fn a_first_install_starts_from_the_app_and_needs_no_update() {
        let plan = plan(&app(), None, install(100)).unwrap();
        assert_eq!(
            (plan.target, plan.current),
            (AppState::Running, AppState::Removed)
        );
        assert_eq!(
            (plan.release, plan.new_release, plan.request_update),
            (ReleaseKey(100), ReleaseKey(100), false)
        );
        assert_eq!(plan.ports, app().ports);
    }

    #[test]
    fn another_release_over_a_running_one_is_an_update() {
        let plan = plan(&app(), Some(&installed(AppState::Running)), install(101)).unwrap();
        assert_eq!(
            (plan.release, plan.new_release, plan.request_update),
            (ReleaseKey(100), ReleaseKey(101), true)
        );
        assert_eq!(plan.ports[0]["host_port"], 40000);
        assert_eq!(plan.environment["A"]["value"], "1");
    }

    #[test]
    fn the_same_release_again_is_no_update() {
        assert!(
            !plan(&app(), Some(&installed(AppState::Failed)), install(100))
                .unwrap()
                .request_update
        );
    }

    #[test]
    fn another_release_where_nothing_is_left_is_a_plain_install() {
        let plan = plan(&app(), Some(&installed(AppState::Removed)), install(101)).unwrap();
        assert_eq!(
            (plan.release, plan.new_release, plan.request_update),
            (ReleaseKey(101), ReleaseKey(101), false)
        );
    }

    #[test]
    fn removing_drops_a_pending_update() {
        let mut before = installed(AppState::Running);
        before.request_update = true;
        for (keep_data, target) in [(true, AppState::Removed), (false, AppState::Uninstalled)] {
            let plan = plan(&app(), Some(&before), Wish::Remove { keep_data }).unwrap();
            assert_eq!((plan.target, plan.request_update), (target, false));
        }
    }

    #[test]
    fn start_and_stop_change_the_goal_only() {
        let before = installed(AppState::Present);
        assert_eq!(
            plan(&app(), Some(&before), Wish::Start).unwrap().target,
            AppState::Running
        );
        assert_eq!(
            plan(&app(), Some(&before), Wish::Stop).unwrap().target,
            AppState::Present
        );
        for wish in [Wish::Start, Wish::Stop, Wish::Remove { keep_data: false }] {
            assert_eq!(plan(&app(), None, wish), Err(NotInstalled));
        }
    }
}
