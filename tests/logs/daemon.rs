//! A Docker daemon that is killed and started again, with the container that it ran.

use reagent::engine::Engine;
use rustix::process::{Pid, Signal, kill_process};
use testkit::docker::daemon::Daemon;

use super::plane::Plane;
use super::rig::{Run, Viewer, Writer, app};

/// Numbers its lines on across starts.
const SCRIPT: &str = "
    i=$(cat /n 2>/dev/null || echo 0)
    while :; do i=$((i+1)); echo $i > /n; echo $i; sleep 0.01; done";

/// The container's first process and what runs it: neither ends with the daemon.
fn processes(daemon: &Daemon, container: &str) -> [i32; 2] {
    let pid = daemon.docker(&["inspect", "--format", "{{.State.Pid}}", container]);
    let pid: i32 = pid.unwrap().parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap();
    [pid, parent.trim().parse().unwrap()]
}

async fn read(viewer: &mut Viewer, seen: &mut Vec<String>, until: usize) {
    while seen.len() < until {
        seen.extend(viewer.next().await.expect("an open subscription"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_a_daemon_wrote_that_was_killed_no_line_is_lost_or_repeated() {
    let mut daemon = match Daemon::start(100) {
        Ok(daemon) => daemon,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::own().await;
    let writer = Writer::new(116, SCRIPT);
    let engine = Engine::at(&daemon.host()).unwrap();
    let run = Run::start(home.path(), engine).await;
    let mut viewer = Viewer::of(&plane, &writer).await;
    run.logs.clear_history(app(writer.key), &writer.app_name);
    run.logs.attach(plane.join("system").await).await;
    writer.run_at(&daemon);
    run.follow(&writer);
    let mut seen = Vec::new();
    read(&mut viewer, &mut seen, 50).await;
    for _ in 0..2 {
        let left = processes(&daemon, &writer.container);
        daemon.kill();
        for pid in left {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        daemon.up();
        daemon.docker(&["start", &writer.container]).unwrap();
        run.follow(&writer);
        let goal = seen.len() + 100;
        read(&mut viewer, &mut seen, goal).await;
    }
    daemon
        .docker(&["stop", "--time", "0", &writer.container])
        .unwrap();
    let written = daemon.docker(&["logs", &writer.container]).unwrap();
    let written: Vec<&str> = written.lines().collect();
    read(&mut viewer, &mut seen, written.len()).await;
    assert_eq!(seen, written);
    run.close().await;
}
