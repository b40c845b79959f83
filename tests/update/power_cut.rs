//! The power goes at every step of an update (`update-and-system.md` 9.10): afterwards exactly one healthy version runs,
//! nothing incomplete has a name that anybody would start, and nobody is needed.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::process::Process;
use testkit::static_server::Fault;
use testkit::wait;

use super::SOON;
use super::builds::{self, Build, NEW, OLD};
use super::gateway::{Gateway, state};
use super::recording::{Cut, Recording};

impl Gateway {
    /// After the power came back: one version answers, and whatever could be started is whole.
    async fn is_healthy(&self, new: &[u8]) -> String {
        let version = wait::until_async("some version answers", SOON, || self.running()).await;
        assert!(version == OLD || version == NEW, "{version}");
        for name in self.visible() {
            let path = self.path("agent").join(name);
            assert!(std::fs::read(&path).unwrap() == new, "{path:?} is not whole");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{path:?}");
        }
        version
    }
}

#[tokio::test]
async fn at_any_point_of_a_download_it_goes_on_from_there() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good);
    let new = builds::build(NEW, Build::Good);
    for place in [1, 1_000_000, new.len() / 2, new.len() - 1] {
        gateway.server.fault("/reagent", Fault::Stall(place));
        gateway.power();
        gateway.runs(OLD).await;
        let part = gateway.path(&format!(
            "agent/downloads/{}.part",
            testkit::release::digest(&new)
        ));
        let (_, ()) = tokio::join!(
            async {
                tokio::select! {
                    _ = gateway.call("update_agent", json!([])) => panic!("the download stalls"),
                    () = wait::until_async("as much is there", SOON, || async {
                        std::fs::metadata(&part).is_ok_and(|part| part.len() >= place as u64).then_some(())
                    }) => {}
                }
            },
            async {}
        );
        gateway.cut();
        gateway.server.heal();
        gateway.power();
        assert_eq!(gateway.is_healthy(&new).await, OLD);
        gateway.cut();
    }
    let before = gateway.server.sent("/reagent");
    gateway.power();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    assert!(
        gateway.server.sent("/reagent") - before <= 1,
        "all but the last byte was there"
    );
    gateway.runs(NEW).await;
}

#[tokio::test]
async fn at_any_moment_after_the_request_one_healthy_version_runs() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good);
    let new = builds::build(NEW, Build::Good);
    let mut seen = HashSet::new();
    for step in 0..14 {
        let moment = Duration::from_millis(step * 150);
        let _ = std::fs::remove_dir_all(gateway.path("agent"));
        gateway.power();
        gateway.runs(OLD).await;
        let began = Instant::now();
        let passed = wait::until_async("the moment comes", SOON, || async {
            (began.elapsed() >= moment).then_some(())
        });
        tokio::select! {
            () = async { gateway.call("update_agent", json!([])).await; std::future::pending().await } => {}
            () = passed => {}
        }
        gateway.cut();
        let phase = state(&gateway.path("agent"))["phase"].clone();
        gateway.power();
        let version = gateway.is_healthy(&new).await;
        eprintln!("cut after {moment:?} in phase {phase}: {version}");
        seen.insert(phase.to_string());
        gateway.cut();
    }
    assert!(seen.len() >= 2, "the cuts fell into {seen:?}");
}

/// Records everything that the agent does to its directory during one update, and lets it start from what would be on
/// disk after every single step.
async fn whatever_reached_the_disk(build: Build, end: fn(&serde_json::Value) -> bool, from_the_end: usize) {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, build);
    let new = builds::build(NEW, build);
    let trace = gateway.path("trace");
    std::fs::create_dir(&trace).unwrap();
    let mut command = Recording::command(&trace, &gateway.path("bin/reagent"));
    // The same arguments and environment, one program further.
    let agent = gateway.command(&gateway.path("bin/reagent"), &["-update=false"]);
    command.args(agent.get_args());
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    gateway.agent = Some(Process::start("agent, recorded", &mut command));
    assert_eq!(gateway.update().await["DidUpdate"], true);
    gateway.remembers("the end of the story", end).await;
    gateway
        .remembers("that the studio knows", |state| state["reported"] == true)
        .await;
    gateway.cut();

    let recording = Recording::read(&trace, &gateway.path("agent"), &new);
    let cuts = recording.cuts();
    eprintln!(
        "{build:?}: {} steps, {} different states of the disk",
        recording.steps(),
        cuts.len()
    );
    assert!(cuts.len() >= 20, "{}", cuts.len());
    let skipped = cuts.len().saturating_sub(from_the_end);
    let mut ran = [0, 0];
    for cut in &cuts[skipped..] {
        restore(&gateway, cut);
        gateway.power();
        let version = gateway.is_healthy_after(cut, &new, build).await;
        ran[usize::from(version == NEW)] += 1;
        gateway.cut();
    }
    eprintln!(
        "{build:?}: the old version ran {} times, the new one {} times",
        ran[0], ran[1]
    );
    assert!(ran[0] > 0 && (ran[1] > 0) == (build == Build::Good), "{ran:?}");
}

impl Gateway {
    async fn is_healthy_after(&self, cut: &Cut, new: &[u8], build: Build) -> String {
        eprintln!("{}", cut.after);
        let version = self.is_healthy(new).await;
        assert!(build == Build::Good || version == OLD, "{version}");
        version
    }
}

fn restore(gateway: &Gateway, cut: &Cut) {
    let directory = gateway.path("agent");
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::create_dir_all(directory.join("downloads")).unwrap();
    for file in &cut.files {
        let path = directory.join(&file.name);
        std::fs::write(&path, &*file.content).unwrap();
        let mode = if file.executable { 0o755 } else { 0o600 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[tokio::test]
async fn whatever_of_a_good_update_reached_the_disk_one_healthy_version_runs() {
    whatever_reached_the_disk(Build::Good, |state| state["active"]["version"] == NEW, usize::MAX).await;
}

#[tokio::test]
async fn whatever_of_the_return_from_a_bad_update_reached_the_disk_the_old_version_runs() {
    whatever_reached_the_disk(Build::Crashes, |state| state["phase"] == "rolledback", 12).await;
}
