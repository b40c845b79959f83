//! A daemon that forgets to end the log of a container that has ended, or was started anew.

use reagent::engine::Engine;
use testkit::docker::proxy::Proxy;
use testkit::{docker, wait};

use super::SOON;
use super::plane::Plane;
use super::rig::{Run, Tally, Writer, app};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_the_daemon_never_ends_is_read_to_its_end() {
    /// Fifty lines each run, and fifty more before it ends.
    const SCRIPT: &str = "n=$(cat /tmp/n 2>/dev/null || echo 0)
        say() { seq $((n + 1)) $((n + 50)); n=$((n + 50)); echo $n > /tmp/n; }
        say; while ! [ -e /tmp/end ]; do sleep 0.05; done; say";
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let daemon = Proxy::absent();
    daemon.appear();
    let writer = Writer::new(107, SCRIPT);
    let engine = Engine::at(&daemon.host()).unwrap();
    let (run, mut viewer, _) = Run::of(home.path(), engine, &plane, &writer).await;
    let mut tally = Tally::default();
    tally.watch(&mut viewer, 50).await;

    // The same container, but another run of it: what it prints never comes over the stream of the run before.
    daemon.forget_followed_logs();
    docker::docker(&["restart", "--time", "0", &writer.container]).unwrap();
    tally.watch(&mut viewer, 100).await;

    // For good.
    daemon.forget_followed_logs();
    docker::docker(&["exec", &writer.container, "/bin/sh", "-c", ": > /tmp/end"]).unwrap();
    tally.watch(&mut viewer, 150).await;
    assert_eq!((tally.delivered, tally.dropped), (150, 0));

    // Nothing is followed any more: what is asked for now is followed at once, in another container of the name.
    docker::remove(&writer.container);
    run.logs.clear_history(app(107), &writer.app_name);
    writer.run();
    wait::until_async("the new container is heard", SOON, || {
        run.follow(&writer);
        async {
            let history = run.logs.history(app(107), &writer.app_name).await;
            (history.last().map(String::as_str) == Some("50")).then_some(())
        }
    })
    .await;
    run.close().await;
}
