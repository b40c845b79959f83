//! The same for compose apps: the agent is killed at every step that leaves something behind, and with it the calls of
//! the command line that it had under way.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use protocol::AppState::{self, Present, Running, Uninstalled};
use testkit::docker;

use crate::SCRIPT;
use crate::gateway::Gateway;

async fn gateway() -> Gateway {
    let mut gateway = Gateway::new(SCRIPT).await;
    gateway.compose = true;
    gateway
}

fn containers(gateway: &Gateway) -> Vec<String> {
    gateway.of_project(&["ps", "-a"])
}

/// `true` and the image, if the project's only container runs.
fn running(gateway: &Gateway) -> Option<String> {
    match &containers(gateway)[..] {
        [id] => docker::inspect(id, "{{.State.Running}} {{.Config.Image}}"),
        _ => None,
    }
}

/// Kills the agent at every step of a wish that begins where `first` has ended; returns how often.
async fn killed_at_every_step(gateway: &mut Gateway, first: AppState, wish: AppState) -> u32 {
    let mut kills = 0;
    for step in 1.. {
        gateway.power();
        gateway.request(first).await;
        gateway.settles(first).await;
        gateway.request(wish).await;
        gateway.cut();
        gateway.power_until(step);
        let settled = gateway.settles_or_dies(wish).await;
        assert!(containers(gateway).len() <= 1);
        if !settled {
            kills += 1;
            gateway.cut();
            gateway.power();
            gateway.settles(wish).await;
        }
        gateway.cut();
        let runs = running(gateway).is_some_and(|found| found.starts_with("true "));
        assert_eq!(runs, wish == Running, "{wish} after a kill at step {step}");
        if settled {
            eprintln!("{first} to {wish}: {kills} kills");
            return kills;
        }
    }
    unreachable!("some step is the last")
}

#[tokio::test]
async fn a_project_that_is_installed_and_started_survives_a_kill_at_every_step() {
    let mut gateway = gateway().await;
    let kills = killed_at_every_step(&mut gateway, Uninstalled, Running).await;
    assert!(kills >= 5, "{kills}");
}

#[tokio::test]
async fn a_project_that_leaves_survives_a_kill_at_every_step() {
    let mut gateway = gateway().await;
    let kills = killed_at_every_step(&mut gateway, Present, Uninstalled).await;
    assert!(kills >= 5, "{kills}");
    for list in [&["ps", "-a"][..], &["volume", "ls"], &["network", "ls"]] {
        assert_eq!(gateway.of_project(list), Vec::<String>::new());
    }
    assert_eq!(gateway.images(), Vec::<String>::new());
}

/// Kills the agent at these steps of an update; returns how often before the update was through.
async fn killed_during_an_update(steps: impl Iterator<Item = u32>) -> u32 {
    let mut gateway = gateway().await;
    gateway.publish("2.0", &format!("echo two; {SCRIPT}"));
    let mut kills = 0;
    for step in steps {
        gateway.power();
        gateway.request(Uninstalled).await;
        gateway.settles(Uninstalled).await;
        gateway.request(Running).await;
        gateway.settles(Running).await;
        gateway.request_update(Running, "2.0").await;
        gateway.cut();
        gateway.power_until(step);
        let updated = gateway.installs_or_dies("2.0").await;
        assert!(containers(&gateway).len() <= 1);
        if !updated {
            kills += 1;
            gateway.cut();
            gateway.power();
            assert!(gateway.installs_or_dies("2.0").await);
        }
        gateway.settles(Running).await;
        gateway.cut();
        let image = running(&gateway).unwrap_or_default();
        assert!(
            image.starts_with("true ") && image.ends_with(":2.0"),
            "{image} after a kill at step {step}"
        );
        assert_eq!(gateway.of_project(&["volume", "ls"]).len(), 1);
        if updated {
            eprintln!("{kills} kills, up to step {step}");
            break;
        }
    }
    kills
}

// Every step, in three tests that run beside each other: one alone would take minutes.

#[tokio::test]
async fn an_update_of_a_project_survives_a_kill_at_every_third_step() {
    let kills = killed_during_an_update((1..).step_by(3)).await;
    assert!(kills >= 3, "{kills}");
}

#[tokio::test]
async fn an_update_of_a_project_survives_a_kill_at_the_steps_after_those() {
    let kills = killed_during_an_update((2..).step_by(3)).await;
    assert!(kills >= 3, "{kills}");
}

#[tokio::test]
async fn an_update_of_a_project_survives_a_kill_at_the_steps_before_those() {
    let kills = killed_during_an_update((3..).step_by(3)).await;
    assert!(kills >= 3, "{kills}");
}
