//! The power goes at every step of an update (`update-and-system.md` 9.10): afterwards exactly one healthy version runs,
//! nothing incomplete has a name that anybody would start, and nobody is needed.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use testkit::process::Process;
use testkit::static_server::Fault;
use testkit::wait;

use super::SOON;
use super::aftermath::{Story, after_each, restore, runtime};
use super::builds::{self, Build, NEW, OLD};
use super::gateway::{Gateway, state};
use super::manager::Manager;
use super::recording::{Cut, File, Recording};

impl Gateway {
    /// After the power came back: one version answers, nobody runs beside it, and whatever could be started is whole.
    async fn is_healthy(&self, new: &[u8]) -> String {
        let version = wait::until_async("some version answers", SOON, || self.running()).await;
        assert!(version == OLD || version == NEW, "{version}");
        for name in self.visible() {
            let path = self.path("agent").join(name);
            assert!(std::fs::read(&path).unwrap() == new, "{path:?} is not whole");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{path:?}");
        }
        self.exactly_one_runs(&version, false);
        version
    }
}

#[tokio::test]
async fn at_any_point_of_a_download_it_goes_on_from_there() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    let new = builds::built(NEW, Build::Good).await;
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
    gateway.release(NEW, Build::Good).await;
    let new = builds::built(NEW, Build::Good).await;
    let mut seen = HashSet::new();
    // A second is more than all of it takes.
    for step in 0..11 {
        let moment = Duration::from_millis(step * 100);
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

/// What an agent (and the script) did to the disk during one update, and where.
struct Recorded {
    recording: Recording,
    home: PathBuf,
}

impl Recorded {
    /// The states of the disk in which the power may have gone, all of them or those that `chosen` keeps.
    fn cuts(&self, chosen: impl FnOnce(Vec<Cut>) -> Vec<Cut>) -> Vec<Cut> {
        let cuts = self.recording.cuts();
        let (steps, states) = (self.recording.steps(), cuts.len());
        let chosen = chosen(cuts);
        eprintln!(
            "{steps} steps, {states} different states of the disk, {} tried",
            chosen.len()
        );
        chosen
    }
}

/// Records everything that is done to the agent directory from the first start of the old version until `ended`, and
/// until the studio knows.
fn record(story: Story, ended: fn(&Value) -> bool) -> Recorded {
    runtime().block_on(async {
        let mut gateway = story.gateway().await;
        let trace = gateway.path("trace");
        std::fs::create_dir(&trace).unwrap();
        let mut before = Vec::new();
        let mut besides = Vec::new();
        if story.managed {
            before.push(binary(OLD, builds::agent(), 200));
            restore(&gateway, &before);
            let mut manager = Manager::boot_recorded(trace.clone());
            manager.cycle(&gateway);
            assert_eq!(gateway.update().await["DidUpdate"], true);
            wait::until("the story ends under the script", 2 * SOON, || {
                manager.cycle(&gateway);
                let state = gateway.state();
                (ended(&state) && state["reported"] == true).then_some(())
            });
            besides = manager.cut();
        } else {
            let agent = gateway.command(&gateway.path("bin/reagent"), &["-update=false"]);
            let mut command = Recording::command(&trace, &agent);
            gateway.agent = Some(Process::start("agent, recorded", &mut command));
            assert_eq!(gateway.update().await["DidUpdate"], true);
            gateway.remembers("the end of the story", ended).await;
            gateway
                .remembers("that the studio knows", |state| state["reported"] == true)
                .await;
            gateway.cut();
        }
        let new = builds::built(NEW, story.build).await;
        let patch = testkit::release::patch(&builds::agent(), &new);
        let agent_dir = gateway.path("agent");
        Recorded {
            recording: Recording::read(&trace, &agent_dir, before, &[&new, &patch], besides),
            home: gateway.home.path().to_owned(),
        }
    })
}

/// The new version is proven, with or without the script.
fn updated(state: &Value) -> bool {
    state["outcome"]["result"] == "updated"
}

fn rolled_back(state: &Value) -> bool {
    state["phase"] == "rolledback"
}

fn last(count: usize) -> impl FnOnce(Vec<Cut>) -> Vec<Cut> {
    move |mut cuts| cuts.split_off(cuts.len().saturating_sub(count))
}

fn both(ran: &BTreeMap<String, usize>) -> bool {
    ran.contains_key(OLD) && ran.contains_key(NEW)
}

#[test]
fn whatever_of_a_good_update_reached_the_disk_one_healthy_version_runs() {
    let story = Story::of(Build::Good);
    let recorded = record(story, updated);
    let cuts = recorded.cuts(|cuts| cuts);
    assert!(cuts.len() >= 20, "{}", cuts.len());
    assert!(both(&after_each(&cuts, &recorded.home, story)));
}

#[test]
fn whatever_of_a_patch_and_its_result_reached_the_disk_the_update_goes_on_from_there() {
    let story = Story {
        patched: true,
        ..Story::of(Build::Good)
    };
    let recorded = record(story, updated);
    // Once it is staged, nobody knows where it came from.
    let staged = recorded.recording.first_write("update-state.json", "\"staged\"");
    let cuts = recorded.cuts(|cuts| cuts.into_iter().filter(|cut| cut.step < staged).collect());
    let parts = |cut: &Cut| {
        cut.files
            .iter()
            .filter(|file| file.name.ends_with(".part"))
            .count()
    };
    assert!(
        cuts.iter().any(|cut| parts(cut) == 2),
        "the patch and what it makes"
    );
    let ran = after_each(&cuts, &recorded.home, story);
    assert_eq!(ran.keys().collect::<Vec<_>>(), [OLD]);
}

/// States of a return, as many as `chosen` keeps.
fn whatever_of_a_return_reached_the_disk(story: Story, chosen: impl FnOnce(Vec<Cut>) -> Vec<Cut>) {
    let recorded = record(story, rolled_back);
    let cuts = recorded.cuts(chosen);
    assert!(cuts.len() >= 8, "{}", cuts.len());
    let ran = after_each(&cuts, &recorded.home, story);
    assert_eq!(ran.keys().collect::<Vec<_>>(), [OLD]);
}

#[test]
fn whatever_of_the_return_from_a_build_that_ends_reached_the_disk_the_old_version_runs() {
    whatever_of_a_return_reached_the_disk(Story::of(Build::Crashes), last(12));
}

#[test]
fn whatever_of_the_return_from_a_build_whose_time_is_up_reached_the_disk_the_old_version_runs() {
    whatever_of_a_return_reached_the_disk(Story::of(Build::CannotConnect), last(10));
}

#[test]
fn whatever_of_a_good_update_under_the_manager_script_reached_the_disk_one_healthy_version_runs() {
    let story = Story::managed(Build::Good);
    let recorded = record(story, updated);
    // The download is the same with the script and without.
    let staged = recorded.recording.first_write("update-state.json", "\"staged\"");
    let cuts = recorded.cuts(|cuts| cuts.into_iter().filter(|cut| cut.step + 1 >= staged).collect());
    assert!(cuts.len() >= 15, "{}", cuts.len());
    assert!(both(&after_each(&cuts, &recorded.home, story)));
}

#[test]
fn whatever_of_a_demotion_by_the_old_version_reached_the_disk_it_settles_on_the_old_version() {
    // Where a build that dies before its first action is the active one when the script itself starts, the script has no
    // way back (1.13), and no agent runs that could have one.
    let starts_the_old_one = |cut: &Cut| {
        let active = cut.files.iter().find(|file| file.name == "Reagent-active");
        let target = active.and_then(|file| file.link.as_deref());
        target.is_some_and(|target| target.ends_with(OLD))
    };
    let chosen = |cuts: Vec<Cut>| last(12)(cuts.into_iter().filter(starts_the_old_one).collect());
    whatever_of_a_return_reached_the_disk(Story::managed(Build::Crashes), chosen);
}

#[test]
fn whatever_of_a_version_taking_itself_out_in_time_reached_the_disk_it_settles_on_the_old_version() {
    whatever_of_a_return_reached_the_disk(Story::managed(Build::CannotConnect), last(12));
}

/// A binary that was installed so many seconds ago.
fn binary(version: &str, content: Vec<u8>, age: u64) -> File {
    File {
        name: format!("reagent-v{version}"),
        content: Arc::new(content),
        executable: true,
        time: Some(SystemTime::now() - Duration::from_secs(age)),
        link: None,
    }
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
    let link = |name: &str, target: &str| File {
        name: name.to_owned(),
        content: Arc::default(),
        executable: false,
        time: None,
        link: Some(directory.join(target).to_string_lossy().into_owned()),
    };
    vec![
        binary(OLD, builds::agent(), 200),
        binary(NEW, bad, 100),
        File {
            name: "update-state.json".to_owned(),
            content: Arc::new(state.to_string().into_bytes()),
            executable: false,
            time: None,
            link: None,
        },
        link("Reagent-latest", &new),
        link("Reagent-active", &new),
        link("Reagent-previous", &old),
    ]
}

#[test]
fn whatever_of_a_demotion_under_the_manager_script_reached_the_disk_it_settles_on_the_old_version() {
    let story = Story::managed(Build::EndsEarly);
    let recorded = runtime().block_on(async {
        let gateway = story.gateway().await;
        let bad = builds::built(NEW, Build::EndsEarly).await;
        let before = before_a_demotion(&gateway, bad.clone());
        restore(&gateway, &before);
        let trace = gateway.path("trace");
        std::fs::create_dir(&trace).unwrap();
        let agent = gateway.command(&gateway.path("agent/Reagent-active"), &["-update=false"]);
        let mut command = Recording::command(&trace, &agent);
        let mut fourth = Process::start("the fourth start, recorded", &mut command);
        assert_eq!(fourth.wait(SOON).code(), Some(1));
        let agent_dir = gateway.path("agent");
        Recorded {
            recording: Recording::read(&trace, &agent_dir, before, &[&bad], Vec::new()),
            home: gateway.home.path().to_owned(),
        }
    });
    let cuts = recorded.cuts(|cuts| cuts);
    assert!(cuts.len() >= 8, "{}", cuts.len());
    let ran = after_each(&cuts, &recorded.home, story);
    assert_eq!(ran.keys().collect::<Vec<_>>(), [OLD]);
}
