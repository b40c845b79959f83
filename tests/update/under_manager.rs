//! Devices on which the vendor's manager script starts the agent.

use serde_json::{Value, json};
use testkit::disk::SmallDisk;
use testkit::wait;

use super::SOON;
use super::builds::{self, Build, NEW, NEWER, OLD};
use super::gateway::{Gateway, install};
use super::manager::Manager;

async fn device() -> (Gateway, Manager) {
    let gateway = Gateway::new().await;
    let manager = Manager::install(&gateway, OLD, &builds::agent());
    (gateway, manager)
}

/// Lets the script work until `fits`.
async fn until(
    what: &str,
    gateway: &Gateway,
    manager: &mut Manager,
    fits: impl Fn(&Manager, &Value) -> bool,
) {
    // The router and the backend run on the other threads.
    tokio::task::block_in_place(|| {
        wait::until(what, 2 * SOON, || {
            manager.cycle(gateway);
            fits(manager, &gateway.state()).then_some(())
        });
    });
}

/// Lets the script work until the version under test is proven.
async fn proves_itself(gateway: &Gateway, manager: &mut Manager, version: &str) {
    until(
        &format!("version {version} is proven"),
        gateway,
        manager,
        |_, state| state["phase"] == "",
    )
    .await;
    gateway.runs(version).await;
}

/// Lets the script work until the bad build is out of use, and that was reported.
async fn goes_out_of_use(gateway: &Gateway, manager: &mut Manager) {
    until("the bad build is out of use", gateway, manager, |_, state| {
        state["phase"] == "rolledback" && state["reported"] == true
    })
    .await;
}

/// The old version runs, is connected and was asked to update.
async fn update(gateway: &Gateway, manager: &mut Manager) {
    until("the old version runs", gateway, manager, |manager, _| {
        !manager.history.is_empty()
    })
    .await;
    assert_eq!(gateway.update().await["DidUpdate"], true);
}

fn link(gateway: &Gateway, name: &str) -> String {
    let target = std::fs::canonicalize(gateway.path("agent").join(name)).unwrap();
    target.file_name().unwrap().to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_starts_the_new_version_and_it_proves_itself() {
    let (mut gateway, mut manager) = device().await;
    gateway.release(NEW, Build::Good).await;
    update(&gateway, &mut manager).await;
    assert_eq!(gateway.state()["phase"], "staged");
    until(
        "the new version is proven",
        &gateway,
        &mut manager,
        |manager, state| state["phase"] == "" && manager.history.len() == 2,
    )
    .await;
    gateway.runs(NEW).await;
    assert_eq!(gateway.outcome().await["result"], "updated");
    assert_eq!(
        gateway.visible(),
        [format!("reagent-v{OLD}"), format!("reagent-v{NEW}")]
    );
    assert_eq!(gateway.state()["active"], Value::Null, "the links decide");
}

/// A bad build: the script goes to and fro a few times, then the agent stops that for good.
async fn settles_on_the_old_version(build: Build, reason: &str) {
    let (mut gateway, mut manager) = device().await;
    gateway.release(NEW, build).await;
    update(&gateway, &mut manager).await;
    until(
        "the bad version is taken out of use",
        &gateway,
        &mut manager,
        |_, state| state["phase"] == "rolledback",
    )
    .await;
    let old = format!("reagent-v{OLD}");
    // The script has to start the old one again when the bad one has ended.
    until("the studio knows", &gateway, &mut manager, |_, state| {
        state["reported"] == true
    })
    .await;
    gateway.told("rolledback", reason).await;
    gateway.runs(OLD).await;
    assert_eq!(link(&gateway, "Reagent-active"), old);
    assert_eq!(
        link(&gateway, "Reagent-previous"),
        link(&gateway, "Reagent-latest")
    );
    eprintln!("{build:?}: {:?}", manager.history);
    assert!(manager.history.len() <= 10, "{:?}", manager.history);

    // No flapping: ten more checks change nothing.
    let starts = manager.history.len();
    let checks = manager.checks;
    until("ten more checks", &gateway, &mut manager, |manager, _| {
        manager.checks >= checks + 10
    })
    .await;
    assert_eq!(manager.history.len(), starts);

    // And the next release is taken as ever.
    gateway.release(NEWER, Build::Good).await;
    gateway.call("update_agent", json!([])).await.unwrap();
    proves_itself(&gateway, &mut manager, NEWER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_build_of_a_blocked_number_and_a_signed_way_back_are_started_in_the_place_of_the_previous() {
    let (gateway, mut manager) = device().await;
    gateway.release(NEW, Build::CannotConnect).await;
    update(&gateway, &mut manager).await;
    goes_out_of_use(&gateway, &mut manager).await;
    assert_eq!(link(&gateway, "Reagent-previous"), format!("reagent-v{NEW}"));
    gateway.release(NEW, Build::Good).await;
    gateway.takes_one().await;
    proves_itself(&gateway, &mut manager, NEW).await;

    assert_eq!(link(&gateway, "Reagent-previous"), format!("reagent-v{OLD}"));
    let old = builds::agent();
    let mut manifest = gateway.bucket.manifest(OLD, &old);
    manifest["allow_downgrade"] = json!(true);
    gateway.bucket.publish_with(OLD, &old, &manifest, &gateway.signer);
    let answer = gateway
        .call("update_agent", json!([{"version": OLD}]))
        .await
        .unwrap();
    assert_eq!(answer["DidUpdate"], true, "{answer}");
    proves_itself(&gateway, &mut manager, OLD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_version_that_nobody_starts_does_not_keep_others_out() {
    let (mut gateway, mut manager) = device().await;
    gateway.set_up(json!({"ignored": 3000}));
    gateway.release(NEWER, Build::Good).await;
    gateway.release(NEW, Build::Good).await;
    update(&gateway, &mut manager).await;
    // The script does not look; nobody starts anything.
    gateway.bucket.offer(NEWER);
    let answer = gateway.call("update_agent", json!([])).await.unwrap();
    let waits = format!("version {NEW} waits to prove itself");
    assert_eq!(answer["Message"], json!(waits), "{answer}");
    wait::until_async("the newer version is staged", SOON, || async {
        let answer = gateway.call("update_agent", json!([])).await?;
        (answer["DidUpdate"] == true).then_some(())
    })
    .await;
    assert_eq!(gateway.state()["new_version"], NEWER);
    proves_itself(&gateway, &mut manager, NEWER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_dies_before_its_first_action() {
    settles_on_the_old_version(Build::Crashes, "never executed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_ends_with_an_error() {
    settles_on_the_old_version(Build::EndsEarly, "in 3 starts").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_lives_and_cannot_connect() {
    settles_on_the_old_version(Build::CannotConnect, "within 3 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_hangs_before_it_looks_after_updates() {
    settles_on_the_old_version(Build::HangsOnItsWay, "within 3 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_hangs_on_its_way_although_nothing_can_be_said_about_its_connection() {
    let (mut gateway, mut manager) = device().await;
    // As while the router is away: the first span never passes.
    gateway.set_up(json!({"proof": 600_000, "isolation": 1500}));
    gateway.release(NEW, Build::HangsOnItsWay).await;
    update(&gateway, &mut manager).await;
    goes_out_of_use(&gateway, &mut manager).await;
    gateway.told("rolledback", "in 3 starts").await;
    gateway.runs(OLD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_power_goes_at_any_check_of_a_bad_build_the_device_settles_all_the_same() {
    let (gateway, mut manager) = device().await;
    gateway.release(NEW, Build::EndsEarly).await;
    update(&gateway, &mut manager).await;
    for _ in 0..8 {
        let checks = manager.checks;
        until("a check", &gateway, &mut manager, |manager, _| {
            manager.checks > checks
        })
        .await;
        manager.cut();
        manager = Manager::boot();
    }
    until(
        "the bad version is out of use",
        &gateway,
        &mut manager,
        |manager, state| state["phase"] == "rolledback" && manager.checks > 3,
    )
    .await;
    until("the old version is linked", &gateway, &mut manager, |_, _| {
        link(&gateway, "Reagent-active") == format!("reagent-v{OLD}")
            && link(&gateway, "Reagent-previous") == format!("reagent-v{NEW}")
    })
    .await;
    // The one that took itself out has ended; the next check starts the good one.
    let checks = manager.checks;
    until("more checks", &gateway, &mut manager, |manager, _| {
        manager.checks >= checks + 2
    })
    .await;
    gateway.runs(OLD).await;
    assert!(manager.is_alive());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_version_under_test_stages_the_next_one_the_way_back_leads_to_the_last_good_one() {
    let (mut gateway, mut manager) = device().await;
    gateway.set_up(json!({"isolation": 500, "proof": 600_000, "period": 300}));
    manager.automatic = true;
    gateway.release(NEW, Build::CannotConnect).await;
    until("a version is tried", &gateway, &mut manager, |_, state| {
        state["phase"] == "probation" && state["new_version"] == NEW
    })
    .await;
    // Nobody can ask the version under test for it.
    gateway.release(NEWER, Build::EndsEarly).await;
    until("the next one is tried", &gateway, &mut manager, |_, state| {
        state["phase"] == "probation" && state["new_version"] == NEWER
    })
    .await;
    let state = gateway.state();
    assert_eq!(
        (&state["staged_by"], &state["old_version"]),
        (&json!(NEW), &json!(OLD))
    );
    goes_out_of_use(&gateway, &mut manager).await;
    gateway.runs(OLD).await;
    let told = gateway.outcome().await;
    assert_eq!(
        (&told["from"], &told["to"], &told["result"]),
        (&json!(OLD), &json!(NEWER), &json!("rolledback")),
        "{told}"
    );
    assert_eq!(link(&gateway, "Reagent-active"), format!("reagent-v{OLD}"));
    // The script tried the one that staged it in between, and goes there no more.
    assert!(manager.history.contains(&format!("reagent-v{NEW}")));
    let (starts, checks) = (manager.history.len(), manager.checks);
    until("ten more checks", &gateway, &mut manager, |manager, _| {
        manager.checks >= checks + 10
    })
    .await;
    assert_eq!(manager.history.len(), starts, "{:?}", manager.history);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_removes_what_nobody_needs_and_leaves_what_somebody_has_just_put_there_to_the_script() {
    let (gateway, mut manager) = device().await;
    gateway.release(NEW, Build::OtherVersion).await;
    until("the old version runs", &gateway, &mut manager, |manager, _| {
        !manager.history.is_empty()
    })
    .await;
    gateway.backend.status("CONNECTED").await;
    // What its start removes is gone when it answers.
    gateway.call("get_agent_metadata", json!([])).await.unwrap();
    let leftover = gateway.path("agent/reagent-v0.0.3");
    install(&leftover, b"an old version");
    let file = std::fs::File::options().write(true).open(&leftover).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    // The script has not seen it yet.
    drop_in(&gateway, NEWER, Build::Good).await;
    gateway.takes_none("in place of its version").await;
    assert_eq!(
        gateway.visible(),
        [format!("reagent-v{OLD}"), format!("reagent-v{NEWER}")]
    );
    until("it is proven", &gateway, &mut manager, |_, state| {
        state["phase"] == "" && state["new_version"] == NEWER
    })
    .await;
    gateway.runs(NEWER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_and_what_runs_settle_under_another_name_too() {
    let (gateway, mut manager) = device().await;
    gateway.release(NEW, Build::EndsEarly).await;
    update(&gateway, &mut manager).await;
    goes_out_of_use(&gateway, &mut manager).await;
    gateway.runs(OLD).await;
    // A converter puts its version there, which the links do not name: the script takes it up once.
    let old = format!("reagent-v{OLD}");
    for (name, content, active) in [
        ("reagent-bad", builds::built(NEW, Build::EndsEarly).await, &*old),
        ("reagent-good", builds::agent(), "reagent-good"),
    ] {
        let checks = manager.checks;
        until("the script looks", &gateway, &mut manager, |manager, _| {
            manager.checks > checks
        })
        .await;
        let starts = manager.history.len();
        install(&gateway.path(&format!("agent/{name}")), &content);
        until("it takes that up", &gateway, &mut manager, |manager, _| {
            manager.history[starts..].iter().any(|started| started == name)
        })
        .await;
        let checks = manager.checks;
        until("ten more checks", &gateway, &mut manager, |manager, _| {
            manager.checks >= checks + 10
        })
        .await;
        gateway.runs(OLD).await;
        assert_eq!(link(&gateway, "Reagent-active"), active);
        let times = manager.history[starts..].iter();
        let times = times.filter(|started| *started == name).count();
        assert_eq!(times, 1, "{:?}", manager.history);
    }
}

/// The version of the reference that brings the first release of this make. It knows no block list and counts nothing.
const GO: &str = "0.0.7";

/// What the reference does with an update: the new file, and no word about it.
async fn drop_in(gateway: &Gateway, version: &str, build: Build) {
    let name = format!("agent/reagent-v{version}");
    install(&gateway.path(&name), &builds::built(version, build).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_release_reached_from_the_reference_takes_itself_out_when_it_is_bad() {
    for (build, reason) in [
        (Build::CannotConnect, "within 3 s"),
        (Build::EndsEarly, "in 3 starts"),
    ] {
        let gateway = Gateway::new().await;
        let mut manager = Manager::install(&gateway, GO, &builds::built(GO, Build::Hangs).await);
        until("the reference runs", &gateway, &mut manager, |manager, _| {
            manager.checks > 0
        })
        .await;
        drop_in(&gateway, NEW, build).await;
        until(
            "the bad release is out of use",
            &gateway,
            &mut manager,
            |_, state| state["phase"] == "rolledback",
        )
        .await;
        let outcome = &gateway.state()["outcome"];
        assert_eq!(
            (&outcome["from"], &outcome["to"]),
            (&json!(GO), &json!(NEW)),
            "{outcome}"
        );
        assert!(outcome["reason"].as_str().unwrap().contains(reason), "{outcome}");
        let (starts, checks) = (manager.history.len(), manager.checks);
        until("ten more checks", &gateway, &mut manager, |manager, _| {
            manager.checks >= checks + 10
        })
        .await;
        // At most the reference is started once more in the place of the one that ended.
        assert!(manager.history.len() <= starts + 1, "{:?}", manager.history);
        assert_eq!(link(&gateway, "Reagent-active"), format!("reagent-v{GO}"));
        assert!(manager.is_alive());

        // The next one is on trial too, and a good one stays.
        drop_in(&gateway, NEWER, Build::Good).await;
        until(
            "the good release is proven",
            &gateway,
            &mut manager,
            |_, state| state["phase"] == "" && state["new_version"] == NEWER,
        )
        .await;
        gateway.runs(NEWER).await;
        assert_eq!(gateway.state()["outcome"]["result"], "updated");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_damaged_or_lost_is_complained_about_and_the_version_proves_itself_once_more() {
    let (mut gateway, mut manager) = device().await;
    gateway.release(NEW, Build::Good).await;
    update(&gateway, &mut manager).await;
    until("the new version is proven", &gateway, &mut manager, |_, state| {
        state["active"] == Value::Null && state["outcome"]["result"] == "updated" && state["reported"] == true
    })
    .await;
    gateway.outcome().await;
    let file = gateway.path("agent/update-state.json");
    for damaged in [true, false] {
        manager.cut();
        let before = log(&gateway).len();
        match damaged {
            true => std::fs::write(&file, "{\"phase\": \"\", \"new_ver").unwrap(),
            false => std::fs::remove_file(&file).unwrap(),
        }
        manager = Manager::boot();
        proves_itself(&gateway, &mut manager, NEW).await;
        let said = log(&gateway).split_off(before);
        assert_eq!(said.contains("is damaged and counts as empty"), damaged, "{said}");
        let trial = format!("nothing that is remembered accounts for version {NEW}: it is on trial");
        assert!(said.contains(&trial), "{said}");
        assert_eq!(gateway.outcome().await["result"], "updated");
    }
}

fn log(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.path("reagent.log")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_build_on_a_full_disk_goes_out_of_use_all_the_same() {
    let disk = match SmallDisk::mount(300) {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut gateway = Gateway::new().await;
    std::fs::remove_dir(gateway.path("agent")).unwrap();
    std::os::unix::fs::symlink(disk.path(), gateway.path("agent")).unwrap();
    let mut manager = Manager::install(&gateway, OLD, &builds::agent());
    gateway.release(NEW, Build::EndsEarly).await;
    update(&gateway, &mut manager).await;
    disk.fill();
    goes_out_of_use(&gateway, &mut manager).await;
    gateway.told("rolledback", "in 3 starts").await;
    gateway.runs(OLD).await;
    let (starts, checks) = (manager.history.len(), manager.checks);
    until("ten more checks", &gateway, &mut manager, |manager, _| {
        manager.checks >= checks + 10
    })
    .await;
    assert_eq!(manager.history.len(), starts, "{:?}", manager.history);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_restarted_again_and_again_is_not_blamed_for_it() {
    let (mut gateway, mut manager) = device().await;
    gateway.set_up(json!({"proof": 60_000}));
    gateway.release(NEW, Build::CannotConnect).await;
    update(&gateway, &mut manager).await;
    let starts = || {
        let log = log(&gateway);
        let begun = |line: &&str| line.contains("reagent starts") && line.contains(NEW);
        log.lines().filter(begun).count()
    };
    until("the new version runs", &gateway, &mut manager, |_, _| {
        starts() == 1
    })
    .await;
    for start in 2..=6 {
        tokio::task::block_in_place(|| {
            manager.restart(&gateway);
            wait::until("it runs again", SOON, || (starts() == start).then_some(()));
        });
    }
    let state = gateway.state();
    assert_eq!(
        (&state["phase"], &state["attempts"]),
        (&json!("probation"), &json!(1)),
        "{state}"
    );
}
