//! The main story, told once per router: a device is created, an app installed, followed, survives a power cut of the
//! agent, is stopped and removed, and nothing is left.

// A test may panic, and so may what it calls.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::docker::Scope;
use testkit::fleet::{Fleet, Plane};
use testkit::process::Process;
use testkit::{docker, wait};

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_app_lives_its_life_with_the_studio_as_router() {
    an_app_lives_its_life(Plane::Studio, "hello");
}

#[test]
fn an_app_lives_its_life_with_crossbar_as_router() {
    an_app_lives_its_life(Plane::Crossbar, "salute");
}

#[test]
fn an_app_is_developed_on_a_device_and_published_from_it() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("bench-01");
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.wait_for_device(&device, "CONNECTED");
    let scope = Scope::new();
    let base = scope.image("base", "true");
    let source = tempfile::tempdir().unwrap();
    let write = |word: &str| {
        let dockerfile =
            format!("FROM {base}\nRUN echo {word} > /word\nCMD while :; do cat /word; sleep 0.2; done\n");
        std::fs::write(source.path().join("Dockerfile"), dockerfile).unwrap();
    };
    let directory = source.path().to_str().unwrap();
    fleet.studio(&["app", "add", "gadget"]).ok();

    write("first");
    let built = fleet
        .studio(&["dev", "build", "bench-01", "gadget", directory, "--run"])
        .ok();
    for said in ["uploaded 100 %", "Step 2/3 : RUN echo first", "BUILT", "RUNNING"] {
        assert!(
            built.stdout.contains(said),
            "{said} is missing in: {}",
            built.stdout
        );
    }
    let name = container_of(&fleet, "gadget").replace("prod_", "dev_");
    wait::until("it says its word", MINUTE, || {
        docker::logs(&name).contains("first").then_some(())
    });

    let log = fleet.studio(&["logs", "bench-01", "gadget", "--dev"]).ok();
    assert!(log.stdout.contains("first"), "{}", log.stdout);
    assert_eq!(fleet.studio(&["logs", "bench-01", "gadget"]).code, 3, "installed");
    let nowhere = fleet.studio(&["logs", "bench-01", "--dev"]);
    assert_eq!(nowhere.code, 2, "{}", nowhere.stderr);
    let mut follow = fleet.command(&["logs", "bench-01", "gadget", "--dev", "-f"]);
    let mut viewer = Process::start("viewer", &mut follow);
    viewer.wait_for_line("first", MINUTE);
    drop(viewer);

    // A mistake is said, and the app is FAILED.
    std::fs::write(
        source.path().join("Dockerfile"),
        format!("FROM {base}\nRUN exit 9\n"),
    )
    .unwrap();
    let failed = fleet.studio(&["dev", "build", "bench-01", "gadget", directory]);
    assert_ne!(failed.code, 0);
    assert!(failed.stdout.contains("non-zero code: 9"), "{}", failed.stdout);

    write("second");
    let version = ["--version", "1.0.0"];
    let publish = ["dev", "publish", "bench-01", "gadget", directory];
    fleet.studio(&[&publish[..], &version].concat()).ok();
    fleet.studio(&["install", "bench-01", "gadget", "--wait"]).ok();
    let released = container_of(&fleet, "gadget");
    wait::until("the release says its word", MINUTE, || {
        docker::logs(&released).contains("second").then_some(())
    });

    fleet.studio(&["remove", "bench-01", "gadget", "--wait"]).ok();
    fleet.studio(&["dev", "remove", "bench-01", "gadget"]).ok();
    assert_eq!((docker::count(&name), docker::count(&released)), (0, 0));
    assert_eq!(docker::images_of(&fleet.registry()), Vec::<String>::new());
    assert!(agent.terminate(MINUTE).success());
}

/// The developer's terminal stands still (Ctrl-S) while the build says more than a router keeps for anybody.
#[test]
fn a_build_that_floods_a_terminal_is_known_to_be_done() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("bench-02");
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.wait_for_device(&device, "CONNECTED");
    let scope = Scope::new();
    let base = scope.image("flood", "true");
    let source = tempfile::tempdir().unwrap();
    let dockerfile = format!("FROM {base}\nRUN yes a line of a build that talks a lot | head -n 2000000\n");
    std::fs::write(source.path().join("Dockerfile"), dockerfile).unwrap();
    let directory = source.path().to_str().unwrap();
    fleet.studio(&["app", "add", "torrent"]).ok();

    let mut command = fleet.command(&["dev", "build", "bench-02", "torrent", directory]);
    let mut build = Process::start("build", &mut command);
    build.wait_for_line("Step 2/2", MINUTE);
    build.signal(Signal::STOP);
    agent.wait_for_line("state=BUILT", 3 * MINUTE);
    fleet.studio(&["call", "bench-02", "device_handshake"]).ok();
    build.signal(Signal::CONT);
    assert!(build.wait(MINUTE).success(), "{:?}", build.output().last());
    let output = build.output();
    assert!(output.iter().any(|line| line.contains("BUILT")));
    assert!(
        output.iter().any(|line| line.contains("were lost on the way")),
        "no flood"
    );
    let pieces = |line: &&String| line.starts_with("a line") && !line.ends_with("talks a lot");
    let pieces = output.iter().filter(pieces).count();
    assert!(pieces <= 10, "{pieces} broken lines, beside what was lost");

    fleet.studio(&["dev", "remove", "bench-02", "torrent"]).ok();
    assert!(agent.terminate(MINUTE).success());
}

/// Two apps of one name would share a container name on the one Docker daemon of this machine.
fn an_app_lives_its_life(plane: Plane, app: &str) {
    let fleet = Fleet::start(plane);
    let device = fleet.add_device("press-07");
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.wait_for_device(&device, "CONNECTED");

    fleet.publish_app(app, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done");
    let installed = fleet.studio(&["install", "press-07", app, "--wait"]).ok();
    for state in ["DOWNLOADING", "STARTING", "RUNNING"] {
        assert!(
            installed.stdout.contains(state),
            "{state} is missing in: {}",
            installed.stdout
        );
    }
    assert_eq!(fleet.app_state(&device, app).as_deref(), Some("RUNNING"));

    let mut viewer = Process::start("viewer", &mut fleet.command(&["logs", "press-07", app, "-f"]));
    viewer.wait_for_line("line ", MINUTE);
    drop(viewer);

    let name = container_of(&fleet, app);
    let before = docker::inspect(&name, "{{.Id}} {{.State.Running}}").unwrap();
    assert!(before.ends_with("true"), "{before}");

    agent.kill();
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.wait_for_device(&device, "CONNECTED");
    fleet.wait_for_app(&device, app, "RUNNING");
    let after = docker::inspect(&name, "{{.Id}} {{.State.Running}}").unwrap();
    assert_eq!(after, before, "the container went on running, untouched");
    assert_eq!(docker::count(&name), 1);

    fleet.studio(&["stop", "press-07", app, "--wait"]).ok();
    assert_eq!(docker::count(&name), 0, "a stopped app has no container");

    fleet.studio(&["start", "press-07", app, "--wait"]).ok();
    fleet.studio(&["remove", "press-07", app, "--wait"]).ok();
    assert_eq!(docker::count(&name), 0);
    assert_eq!(
        docker::images_of(&fleet.registry()),
        Vec::<String>::new(),
        "no image of the registry is left"
    );

    assert!(
        agent.terminate(MINUTE).success(),
        "SIGTERM ends the agent in good order"
    );
    fleet.wait_for_device(&device, "DISCONNECTED");
}

#[test]
fn an_app_that_was_requested_while_the_device_was_offline_starts_when_it_comes_back() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("buoy-1");
    fleet.publish_app("late", "while :; do echo tick; sleep 1; done");
    fleet.studio(&["install", "buoy-1", "late"]).ok();
    let _agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.wait_for_app(&device, "late", "RUNNING");
    fleet.studio(&["remove", "buoy-1", "late", "--wait"]).ok();
}

#[test]
fn apps_start_from_the_local_store_when_there_is_no_router() {
    let mut fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("ship-3");
    fleet.publish_app("engine", "while :; do echo turning; sleep 1; done");
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.studio(&["install", "ship-3", "engine", "--wait"]).ok();
    let name = container_of(&fleet, "engine");

    agent.kill();
    fleet.server().terminate(MINUTE);
    docker::stop(&name);
    let _agent = device.start_agent(Path::new(AGENT), &[]);
    wait::until("the app runs again without a router", MINUTE, || {
        (docker::inspect(&name, "{{.State.Running}}").as_deref() == Some("true")).then_some(())
    });
    docker::remove(&name);
    docker::remove_images_of(&fleet.registry());
}

#[test]
fn a_container_that_ends_is_reported_and_started_again() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("pump-2");
    let _agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.publish_app("crash", "echo up; while :; do sleep 1; done");
    fleet.studio(&["install", "pump-2", "crash", "--wait"]).ok();
    let name = container_of(&fleet, "crash");
    let first = docker::inspect(&name, "{{.State.StartedAt}}").unwrap();
    docker::kill(&name);
    fleet.wait_for_app(&device, "crash", "FAILED");
    fleet.wait_for_app(&device, "crash", "RUNNING");
    let second = docker::inspect(&name, "{{.State.StartedAt}}").unwrap();
    assert_ne!(first, second);
    let history = fleet.studio(&["logs", "pump-2", "crash"]).ok().stdout;
    assert!(history.contains("Now running app crash (1.0.0)"), "{history}");
    fleet.studio(&["remove", "pump-2", "crash", "--wait"]).ok();
}

#[test]
fn a_wrong_secret_is_said_clearly_and_ends_a_device_that_never_joined() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("imposter");
    let text = std::fs::read_to_string(&device.flock).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["secret"] = "wrong".into();
    std::fs::write(&device.flock, document.to_string()).unwrap();
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    let status = agent.wait(MINUTE);
    assert_eq!(status.code(), Some(1));
    let output = agent.output().join("\n");
    assert!(
        output.contains("The IronFlock device connect authentication failed"),
        "{output}"
    );
}

#[test]
fn a_second_device_with_the_same_serial_gives_up_after_eight_attempts() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("twin");
    let _first = device.start_agent(Path::new(AGENT), &[]);
    fleet.wait_for_device(&device, "CONNECTED");
    let twin_home = tempfile::tempdir().unwrap();
    let mut command = Command::new(AGENT);
    command
        .arg("-config")
        .arg(&device.flock)
        .args(["-nmw=false", "-update=false"]);
    for (flag, name) in [
        ("-agentDir", "a"),
        ("-appsDir", "a/apps"),
        ("-dbFileName", "a.db"),
        ("-logFile", "a.log"),
    ] {
        command.arg(flag).arg(twin_home.path().join(name));
    }
    command.env("REAGENT_LOCK_FILE", twin_home.path().join("lock"));
    let mut second = Process::start("second twin", &mut command);
    assert_eq!(second.wait(MINUTE).code(), Some(1));
    let expected = format!("a WAMP connection for {} already exists", device.serial);
    assert!(
        second.output().iter().any(|line| line.contains(&expected)),
        "{:?}",
        second.output()
    );
    fleet.wait_for_device(&device, "CONNECTED");
}

/// The container name of an app that this fleet knows under one stage only.
fn container_of(fleet: &Fleet, app: &str) -> String {
    let apps = fleet.studio(&["app", "list", "--json"]).ok().json();
    let key = apps
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == app)
        .unwrap()["app_key"]
        .as_u64()
        .unwrap();
    format!("prod_{key}_{app}")
}
