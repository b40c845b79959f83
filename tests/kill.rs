//! The power is cut at many moments of an app's life: whatever was acknowledged comes true afterwards, there is never a
//! second container, and nothing that is not ours is touched (`DESIGN.md` rules 1 and 2).

// A test may panic, and so may what it calls.
#![allow(clippy::unwrap_used)]

#[path = "kill/gateway.rs"]
mod gateway;
#[path = "kill/points.rs"]
mod points;

use std::time::Duration;

use gateway::Gateway;
use protocol::AppState::{self, Present, Removed, Running, Uninstalled};
use testkit::{docker, wait};

/// When the power goes.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// So many milliseconds after it came, or after the request was acknowledged.
    After(u64),
    /// With the n-th state that is reported.
    Report(u32),
}

/// For each wish: the moments at which the power goes before it may be fulfilled.
const STORY: &[(AppState, &[Cut])] = &[
    (
        Running,
        &[Cut::After(0), Cut::Report(1), Cut::After(60), Cut::Report(2)],
    ),
    (Present, &[Cut::Report(1), Cut::After(0), Cut::After(30)]),
    (Running, &[Cut::After(5), Cut::After(120), Cut::After(250)]),
    (
        Removed,
        &[Cut::After(0), Cut::Report(1), Cut::After(20), Cut::After(80)],
    ),
    (Running, &[Cut::Report(3), Cut::After(150), Cut::Report(1)]),
    (Uninstalled, &[Cut::After(10), Cut::Report(1), Cut::After(40)]),
];

const SCRIPT: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done";

#[tokio::test]
async fn whenever_the_power_goes_what_was_acknowledged_comes_true() {
    let mut gateway = Gateway::new(SCRIPT).await;
    let foreign = Foreign::start(&gateway);
    gateway.power();
    for (wish, cuts) in STORY {
        gateway.request(*wish).await;
        for cut in *cuts {
            let seen = until(&mut gateway, *cut).await;
            gateway.cut();
            eprintln!("{wish}: cut {cut:?}, reported before {seen:?}");
            assert!(docker::count(&gateway.container()) <= 1);
            gateway.power();
        }
        gateway.settles(*wish).await;
        converged(&gateway, *wish).await;
    }
    gateway.cut();
    foreign.are_untouched();
}

/// When the power goes during one update: while it is fetched, while the container is replaced, while the new version
/// proves itself, with each of its reports.
const UPDATE: &[Cut] = &[
    Cut::After(0),
    Cut::Report(1),
    Cut::After(300),
    Cut::After(600),
    Cut::After(1200),
    Cut::After(1800),
    Cut::After(2500),
    Cut::After(3500),
    Cut::Report(2),
];

#[tokio::test]
async fn whenever_the_power_goes_during_an_update_the_new_version_runs_in_the_end() {
    let mut gateway = Gateway::new(SCRIPT).await;
    gateway.publish("2.0", &format!("echo two; {SCRIPT}"));
    gateway.power();
    gateway.request(Running).await;
    gateway.settles(Running).await;
    gateway.request_update(Running, "2.0").await;
    for cut in UPDATE {
        let seen = until(&mut gateway, *cut).await;
        gateway.cut();
        let running = docker::inspect(&gateway.container(), "{{.State.Running}} {{.Config.Image}}");
        eprintln!("update: cut {cut:?}, reported before {seen:?}, found {running:?}");
        assert!(docker::count(&gateway.container()) <= 1);
        gateway.power();
    }
    // Not the blocking one: the router runs on this thread.
    wait::until_async("the new version is the installed one", gateway::SOON, || async {
        (gateway.installed() == Some(("2.0".to_owned(), 101))).then_some(())
    })
    .await;
    let image = docker::inspect(&gateway.container(), "{{.State.Running}} {{.Config.Image}}");
    assert!(
        image
            .as_ref()
            .is_some_and(|image| image.starts_with("true ") && image.ends_with(":2.0")),
        "{image:?}"
    );
    assert_eq!(docker::count(&gateway.container()), 1);
    gateway.request_update(Uninstalled, "2.0").await;
    gateway.settles(Uninstalled).await;
    assert_eq!(gateway.images(), Vec::<String>::new(), "both versions are gone");
    gateway.cut();
}

/// Lets time pass or reports come; returns the reports.
async fn until(gateway: &mut Gateway, cut: Cut) -> Vec<AppState> {
    let mut seen = Vec::new();
    match cut {
        Cut::After(milliseconds) => {
            let end = tokio::time::Instant::now() + Duration::from_millis(milliseconds);
            while let Some(state) = gateway
                .reported(end.saturating_duration_since(tokio::time::Instant::now()))
                .await
            {
                seen.push(state);
            }
        }
        Cut::Report(number) => {
            for _ in 0..number {
                seen.extend(gateway.reported(gateway::SOON).await);
            }
        }
    }
    seen
}

async fn converged(gateway: &Gateway, wish: AppState) {
    let container = gateway.container();
    let running = docker::inspect(&container, "{{.State.Running}} {{.Config.Image}}");
    if wish == Running {
        let expected = format!("true {}", gateway.images()[0]);
        assert_eq!(running, Some(expected));
        assert_eq!(docker::count(&container), 1);
        // Kept over every stop, start and removal of the app, and over every cut.
        std::fs::write(gateway.data().join("precious"), "data").unwrap();
        return;
    }
    assert_eq!(running, None, "{wish}");
    let precious = gateway.data().join("precious").exists();
    assert_eq!(precious, wish != Uninstalled, "{wish}");
    if wish == Present {
        assert_eq!(gateway.images().len(), 1);
        return;
    }
    assert_eq!(gateway.images(), Vec::<String>::new(), "{wish}");
    assert!(!gateway.data().exists() || wish == Removed);
    wait::until("the request's row is gone", gateway::SOON, || {
        (gateway.rows("RequestedAppStates") == 0).then_some(())
    });
    let expected = i64::from(wish == Uninstalled);
    assert_eq!(gateway.rows("AppStates"), expected, "{wish}");
}

/// Containers that look a little like ours: by name only, by label only, another device's.
struct Foreign(Vec<(String, String)>);

impl Foreign {
    fn start(gateway: &Gateway) -> Foreign {
        let image = gateway.scope.image("foreign", SCRIPT);
        let key = gateway.app.key;
        let other = "reagent.serial_number=another".to_owned();
        let none = "x=y".to_owned();
        let real = "real=True".to_owned();
        let containers = [
            (
                format!("prod_{key}_{}x", gateway.app_name.to_lowercase()),
                [none.clone(), none.clone()],
            ),
            (format!("db_{key}_main"), [real.clone(), none]),
            (format!("prod_{key}_other"), [real, other]),
        ];
        let started = containers.map(|(name, [first, second])| {
            let labels = ["--label", &first, "--label", &second];
            let id =
                docker::docker(&[&["run", "--detach", "--name", &name], &labels[..], &[&image]].concat());
            (name, id.unwrap())
        });
        Foreign(started.into())
    }

    fn are_untouched(&self) {
        for (name, id) in &self.0 {
            let found = docker::inspect(name, "{{.Id}} {{.State.Running}} {{.RestartCount}}");
            assert_eq!(found, Some(format!("{id} true 0")), "{name}");
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for (name, _) in &self.0 {
            docker::remove(name);
        }
    }
}
