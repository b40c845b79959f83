//! The power goes at every step of an update (`update-and-system.md` 9.10): afterwards exactly one healthy version runs,
//! nothing incomplete has a name that anybody would start, and nobody is needed.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use testkit::process::Process;
use testkit::static_server::Fault;
use testkit::wait;

use super::SOON;
use super::builds::{self, Build, NEW, OLD};
use super::gateway::{Gateway, state};
use super::manager::Manager;
use super::recording::{Cut, File, Recording};

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
        restore(&gateway, &cut.files);
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

fn restore(gateway: &Gateway, files: &[File]) {
    let directory = gateway.path("agent");
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::create_dir_all(directory.join("downloads")).unwrap();
    for file in files {
        let path = directory.join(&file.name);
        if let Some(target) = &file.link {
            std::os::unix::fs::symlink(target, &path).unwrap();
            continue;
        }
        std::fs::write(&path, &*file.content).unwrap();
        if let Some(time) = file.time {
            let opened = std::fs::File::options().write(true).open(&path).unwrap();
            opened.set_modified(time).unwrap();
        }
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

/// A device of the manager script on which a bad version has used up its starts.
fn before_a_demotion(gateway: &Gateway, bad: Vec<u8>) -> Vec<File> {
    let directory = gateway.path("agent");
    let (old, new) = (format!("reagent-v{OLD}"), format!("reagent-v{NEW}"));
    let state = json!({
        "phase": "probation", "new_version": NEW, "old_version": OLD, "attempts": 3,
        "new_sha256": testkit::release::digest(&bad), "new_size": bad.len(),
        "new_file": directory.join(&new), "old_file": directory.join(&old), "was_connected": true,
    });
    let file = |name: &str, content: Vec<u8>, age: u64| File {
        name: name.to_owned(),
        content: Rc::new(content),
        executable: name.starts_with("reagent-v"),
        time: Some(SystemTime::now() - Duration::from_secs(age)),
        link: None,
    };
    let link = |name: &str, target: &str| File {
        name: name.to_owned(),
        content: Rc::default(),
        executable: false,
        time: None,
        link: Some(directory.join(target).to_string_lossy().into_owned()),
    };
    vec![
        file(&old, builds::agent(), 200),
        file(&new, bad, 100),
        file("update-state.json", state.to_string().into_bytes(), 50),
        link("Reagent-latest", &new),
        link("Reagent-active", &new),
        link("Reagent-previous", &old),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_of_a_demotion_under_the_manager_script_reached_the_disk_it_settles_on_the_old_version() {
    let gateway = Gateway::new().await;
    let bad = builds::build(NEW, Build::EndsEarly);
    let before = before_a_demotion(&gateway, bad.clone());
    restore(&gateway, &before);
    let trace = gateway.path("trace");
    std::fs::create_dir(&trace).unwrap();
    let active = gateway.path("agent/Reagent-active");
    let mut command = Recording::command(&trace, &active);
    let agent = gateway.command(&active, &["-update=false"]);
    command.args(agent.get_args());
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut fourth = Process::start("the fourth start, recorded", &mut command);
    let status = tokio::task::block_in_place(|| fourth.wait(SOON));
    assert_eq!(status.code(), Some(1));

    let recording = Recording::read(&trace, &gateway.path("agent"), &bad).after(before);
    let cuts = recording.cuts();
    eprintln!(
        "{} steps, {} different states of the disk",
        recording.steps(),
        cuts.len()
    );
    assert!(cuts.len() >= 8, "{}", cuts.len());
    for cut in &cuts {
        eprintln!("{}", cut.after);
        restore(&gateway, &cut.files);
        let mut manager = Manager::boot();
        let settled = || {
            manager.cycle(&gateway);
            let leads_to = |name: &str, version: &str| {
                let target = std::fs::read_link(gateway.path("agent").join(name)).unwrap();
                target == gateway.path(&format!("agent/reagent-v{version}"))
            };
            let rolled_back = gateway.state()["phase"] == "rolledback";
            (rolled_back && leads_to("Reagent-active", OLD) && leads_to("Reagent-previous", NEW))
                .then_some(())
        };
        tokio::task::block_in_place(|| wait::until("the old version is linked for good", SOON, settled));
        // The one that took itself out has ended; the next check starts the good one, and later ones leave it.
        let checks = manager.checks;
        tokio::task::block_in_place(|| {
            wait::until("more checks", SOON, || {
                manager.cycle(&gateway);
                (manager.checks >= checks + 3).then_some(())
            });
        });
        gateway.runs(OLD).await;
        assert_eq!(manager.history.last().unwrap(), &format!("reagent-v{OLD}"));
    }
}
