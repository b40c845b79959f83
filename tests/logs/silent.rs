//! What an app that says nothing costs the disk.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::fleet::{Fleet, Plane};
use testkit::process::Process;
use testkit::wait;

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");
/// Longer than a history may wait to be saved and than a heartbeat is away, 30 s each.
const QUIET: Duration = Duration::from_secs(35);

/// Bytes that a process has caused to be written to disks.
fn written(process: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn nothing_is_written_when_no_app_says_anything_though_somebody_listens() {
    let fleet = Fleet::start(Plane::Studio);
    let device = fleet.add_device("meter-1");
    let agent = device.start_agent(Path::new(AGENT), &[]);
    fleet.publish_app("silent", "seq 1 50; while :; do sleep 3600; done");
    fleet.studio(&["install", "meter-1", "silent", "--wait"]).ok();
    let mut follow = fleet.command(&["logs", "meter-1", "silent", "-f"]);
    let viewer = Process::start("viewer", &mut follow);
    wait::until("all is seen", QUIET, || {
        viewer.output().contains(&"50".to_owned()).then_some(())
    });

    let (mut bytes, mut since) = (written(&agent), Instant::now());
    assert!(bytes > 0, "the directory is on a disk");
    wait::until("nothing is written", 3 * QUIET, || {
        let now = written(&agent);
        if now != bytes {
            println!("{} bytes after {:?}", now - bytes, since.elapsed());
            (bytes, since) = (now, Instant::now());
        }
        (since.elapsed() > QUIET).then_some(())
    });
    let database = rusqlite::Connection::open(device.home.join("agent/reagent.db")).unwrap();
    let history: String = database
        .query_row("SELECT log FROM LogHistory", [], |row| row.get(0))
        .unwrap();
    let history: Vec<String> = serde_json::from_str(&history).unwrap();
    assert_eq!(history.last().map(String::as_str), Some("50"), "{history:?}");
    drop(viewer);
    fleet.studio(&["remove", "meter-1", "silent", "--wait"]).ok();
}
