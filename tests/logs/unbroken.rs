//! Every line once and in order, or a gap that adds up: whatever is restarted in between.

use reagent::engine::Engine;
use testkit::docker::proxy::Proxy;
use testkit::{docker, wait};

use super::SOON;
use super::plane::Plane;
use super::rig::{Run, Tally, Viewer, Writer, app, go_on, printed, wait_until_confirmed};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_the_router_restarts() {
    let home = tempfile::tempdir().unwrap();
    let mut plane = Plane::own().await;
    let address = plane.address();
    let writer = Writer::numbering(101);
    let (run, mut viewer, _) = Run::of(home.path(), Engine::new().unwrap(), &plane, &writer).await;
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 50).await;
    for agent_first in [true, false, true, false] {
        plane.stop();
        tally.drain(&mut viewer).await;
        plane = Plane::own_at(&address).await;
        if agent_first {
            run.logs.attach(plane.join("system").await).await;
        }
        viewer = Viewer::of(&plane, &writer).await;
        if !agent_first {
            run.logs.attach(plane.join("system").await).await;
        }
        let goal = tally.last + 100;
        tally.watch(&mut viewer, goal).await;
        assert_eq!(tally.dropped, 0);
    }
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_goes_on_with_the_next_line() {
    /// How a run of the agent ends.
    enum End {
        /// Asked to.
        Orderly,
        /// Killed while lines are on their way.
        Killed,
        /// Killed when every line was confirmed.
        KilledAtRest,
    }
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let writer = Writer::numbering(102);
    let mut tally = Tally::default();
    let (run, mut viewer, _) = Run::of(home.path(), Engine::new().unwrap(), &plane, &writer).await;
    tally.watch(&mut viewer, 50).await;
    run.kill().await;
    tally.cut(printed(&writer.container));
    for end in [
        End::KilledAtRest,
        End::Orderly,
        End::KilledAtRest,
        End::Killed,
        End::Orderly,
    ] {
        // Printed while nobody is there.
        let before = printed(&writer.container);
        wait::until("the app goes on", SOON, || {
            (printed(&writer.container) > before + 20).then_some(())
        });
        let run = Run::start(home.path(), Engine::new().unwrap()).await;
        // The log is read before the link is there.
        run.follow(&writer);
        run.logs.attach(plane.join("system").await).await;
        let goal = tally.last + 100;
        tally.watch(&mut viewer, goal).await;
        match end {
            End::Orderly => run.close().await,
            End::Killed => {
                run.kill().await;
                tally.cut(printed(&writer.container));
            }
            End::KilledAtRest => {
                run.settle(&writer, &mut tally, &mut viewer).await;
                run.kill().await;
                go_on(&writer.container);
            }
        }
    }
    assert_eq!(tally.dropped, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_daemon_that_goes_and_comes_back_costs_no_line() {
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let daemon = Proxy::absent();
    daemon.appear();
    let writer = Writer::numbering(103);
    let engine = Engine::at(&daemon.host()).unwrap();
    let (run, mut viewer, _) = Run::of(home.path(), engine, &plane, &writer).await;
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 50).await;
    for _ in 0..3 {
        daemon.vanish();
        daemon.appear();
        let goal = tally.last + 100;
        tally.watch(&mut viewer, goal).await;
    }
    assert_eq!(tally.dropped, 0);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crossbar_carries_them_as_well_across_a_lost_session_and_when_it_is_killed() {
    let mut plane = tokio::task::spawn_blocking(Plane::crossbar).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let writer = Writer::numbering(104);
    let (run, mut viewer, mut session) = Run::of(home.path(), Engine::new().unwrap(), &plane, &writer).await;
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 50).await;
    for at_rest in [false, true, false] {
        if at_rest {
            run.settle(&writer, &mut tally, &mut viewer).await;
        }
        session.abort();
        let _ = session.closed().await;
        match at_rest {
            true => go_on(&writer.container),
            false => tally.cut(printed(&writer.container)),
        }
        session = plane.join("system").await;
        run.logs.attach(session.clone()).await;
        let goal = tally.last + 100;
        tally.watch(&mut viewer, goal).await;
    }
    // While the node starts, the app goes on.
    plane = tokio::task::spawn_blocking(move || {
        plane.restart_node();
        plane
    })
    .await
    .unwrap();
    tally.drain(&mut viewer).await;
    tally.cut(tally.last);
    let missed = printed(&writer.container) - tally.last;
    assert!(missed > 50, "{missed}");
    let mut viewer = Viewer::of(&plane, &writer).await;
    run.logs.attach(plane.join("system").await).await;
    let goal = tally.last + missed + 100;
    tally.watch(&mut viewer, goal).await;
    assert_eq!(tally.dropped, 0);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_outage_has_no_room_for_is_a_gap_that_adds_up() {
    /// More than memory and spool hold.
    const LINES: u64 = 400_000;
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let script = format!(
        "echo 1; while ! [ -e /tmp/go ]; do sleep 0.1; done
         awk 'BEGIN {{ for (i = 2; i <= {LINES}; i++) printf \"%040d\\n\", i; print \"end\" }}'"
    );
    let writer = Writer::new(105, &script);
    let (run, mut viewer, session) = Run::of(home.path(), Engine::new().unwrap(), &plane, &writer).await;
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 1).await;
    wait_until_confirmed(&home.path().join("downloads"), &writer.container);
    session.abort();
    let _ = session.closed().await;
    docker::docker(&["exec", &writer.container, "/bin/sh", "-c", ": > /tmp/go"]).unwrap();
    wait::until_async("all of it was read", SOON * 4, || async {
        let history = run.logs.history(app(105), &writer.app_name).await;
        (history.last().map(String::as_str) == Some("end")).then_some(())
    })
    .await;
    run.logs.attach(plane.join("system").await).await;
    // "end" is one of those without room.
    tally.watch(&mut viewer, LINES + 1).await;
    println!("{tally:?}");
    assert!(tally.delivered > 100_000, "memory and spool were used");
    assert!(tally.dropped > 0);
    assert_eq!(tally.last, LINES + 1);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_lives_for_a_moment_is_heard() {
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let writer = Writer::new(106, "seq 1 20");
    let run = Run::start(home.path(), Engine::new().unwrap()).await;
    let mut viewer = Viewer::of(&plane, &writer).await;
    run.logs.attach(plane.join("system").await).await;
    for _ in 0..3 {
        run.logs.clear_history(app(106), &writer.app_name);
        writer.run();
        wait::until("the container has ended", SOON, || {
            let state = docker::inspect(&writer.container, "{{.State.Status}}");
            (state.as_deref() == Some("exited")).then_some(())
        });
        run.follow(&writer);
        let mut tally = Tally::default();
        tally.watch(&mut viewer, 20).await;
        docker::remove(&writer.container);
    }
    run.close().await;
}
