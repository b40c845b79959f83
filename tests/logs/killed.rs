//! The agent as a process that is killed while lines are on their way, at Crossbar.io.

use std::path::Path;

use testkit::docker;
use testkit::fleet::{Fleet, Plane};
use testkit::wait;

use super::SOON;
use super::rig::{Tally, Viewer, container_of, hold, numbering, operator, printed};

const AGENT: &str = env!("CARGO_BIN_EXE_reagent");

#[tokio::test(flavor = "multi_thread")]
async fn of_a_killed_agent_only_the_message_that_was_not_confirmed_comes_again() {
    let fleet = Fleet::start(Plane::Crossbar);
    let device = fleet.add_device("meter-1");
    let mut agent = device.start_agent(Path::new(AGENT), &[]);
    let count = numbering("", "0.01");
    let script = format!("while ! [ -e /tmp/go ]; do sleep 0.1; done\n{count}");
    fleet.publish_app("count", &script);
    fleet.studio(&["install", "meter-1", "count", "--wait"]).ok();
    let container = container_of(&fleet, "count");
    let mut viewer = Viewer::at(operator(&fleet).await, &device.serial, &container).await;
    docker::docker(&["exec", &container, "/bin/sh", "-c", ": > /tmp/go"]).unwrap();

    let mut tally = Tally::default();
    for _ in 0..3 {
        // What was printed meanwhile, and lines as they come.
        let goal = printed(&container) + 60;
        tally.watch(&mut viewer, goal).await;
        agent.kill();
        tally.cut(printed(&container));
        let before = printed(&container);
        wait::until("the app goes on", SOON, || {
            (printed(&container) > before + 20).then_some(())
        });
        agent = device.start_agent(Path::new(AGENT), &[]);
    }
    let last = hold(&container);
    tally.watch(&mut viewer, last).await;
    println!("{tally:?}");
    assert_eq!((tally.last, tally.delivered, tally.dropped), (last, last, 0));
    fleet.studio(&["remove", "meter-1", "count", "--wait"]).ok();
}
