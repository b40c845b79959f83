//! A router that hangs: connections stay, nothing is read, nothing is answered.

use std::time::{Duration, Instant};

use reagent::engine::Engine;
use testkit::{docker, wait};
use wamp::Payload;
use wamp::client::{CallOptions, RegisterOptions, Session, handler};

use super::SOON;
use super::plane::Plane;
use super::rig::{Run, Tally, Viewer, Writer, app, wait_until_confirmed};

const ECHO: &str = "re.mgmt.S-1.echo";

/// A session that does not give a router up that hangs.
async fn join(plane: &Plane, authid: &str) -> Session {
    let mut config = plane.config(authid);
    config.ping_interval = Duration::ZERO;
    Session::connect(&config).await.unwrap()
}

async fn crossbar() -> Plane {
    tokio::task::spawn_blocking(Plane::crossbar).await.unwrap()
}

/// Resident set of this process, MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes / 1024.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_hangs_for_longer_than_a_reply_may_take_costs_no_line() {
    let home = tempfile::tempdir().unwrap();
    let plane = crossbar().await;
    let writer = Writer::numbering(108);
    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    let mut viewer = Viewer::over(join(&plane, "4711").await, &writer).await;
    let session = join(&plane, "system").await;
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    let options = RegisterOptions::default();
    session.register(ECHO, options, echo).await.unwrap();
    run.begin(&writer, &session).await;
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 50).await;

    plane.node().freeze();
    let began = Instant::now();
    let bound = plane.config("system").reply_timeout + Duration::from_secs(2);
    wait::until("no reply can come in time any more", SOON, || {
        (began.elapsed() > bound).then_some(())
    });
    let asked = Instant::now();
    assert!(!run.logs.history(app(108), &writer.app_name).await.is_empty());
    assert!(asked.elapsed() < Duration::from_secs(2), "others are answered");
    plane.node().thaw();

    let goal = tally.last + 500;
    tally.watch(&mut viewer, goal).await;
    assert_eq!(tally.dropped, 0, "it was only slow");
    let caller = join(&plane, "4711").await;
    let call = caller.call(ECHO, Payload::from_args(vec!["x".into()]), CallOptions::default());
    call.await.unwrap();
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_towards_a_router_that_hangs_is_dropped_in_part_and_counted() {
    /// 8 MB.
    const LINES: u64 = 200_000;
    let home = tempfile::tempdir().unwrap();
    let plane = crossbar().await;
    let script = format!(
        "echo 1; while ! [ -e /tmp/go ]; do sleep 0.1; done
         awk 'BEGIN {{ for (i = 2; i <= {LINES}; i++) printf \"%040d\\n\", i }}'"
    );
    let writer = Writer::new(109, &script);
    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    let mut viewer = Viewer::over(join(&plane, "4711").await, &writer).await;
    let session = plane.join("system").await;
    run.begin(&writer, &session).await;
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 1).await;
    wait_until_confirmed(&home.path().join("downloads"), &writer.container);

    plane.node().freeze();
    let before = resident();
    docker::docker(&["exec", &writer.container, "/bin/sh", "-c", ": > /tmp/go"]).unwrap();
    let mut most: f64 = 0.0;
    wait::until_async("all of it was read", SOON * 4, || {
        most = most.max(resident());
        async {
            let history = run.logs.history(app(109), &writer.app_name).await;
            let last: Option<u64> = history.last().and_then(|line| line.parse().ok());
            (last == Some(LINES)).then_some(())
        }
    })
    .await;
    println!("{before:.1} MB before, {most:.1} MB at most");
    assert!(
        most - before < 6.0,
        "memory is bounded: {before} MB, then {most} MB"
    );
    // Its pings unanswered, the connection is given up; what the router has of it, viewers may get.
    let _ = session.closed().await;
    tally.cut(LINES);
    plane.node().thaw();
    run.logs.attach(join(&plane, "system").await).await;
    tally.watch(&mut viewer, LINES).await;
    println!("{tally:?}");
    assert!(tally.dropped > 0);
    run.close().await;
}
