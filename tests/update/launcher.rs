//! The installed binary, which launches the others, is gone.

use testkit::process::Process;

use super::SOON;
use super::builds::{Build, NEW, OLD};
use super::gateway::Gateway;

#[tokio::test]
async fn an_update_goes_on_when_the_installed_binary_was_removed_meanwhile() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good).await;
    gateway.power();
    gateway.runs(OLD).await;
    std::fs::remove_file(gateway.path("bin/reagent")).unwrap();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    gateway.runs(NEW).await;
    assert_eq!(gateway.outcome().await["result"], "updated");
}

#[tokio::test]
async fn a_version_under_test_whose_launcher_has_ended_before_it_began_ends_too() {
    let gateway = Gateway::new().await;
    let program = gateway.path("bin/reagent");
    let begun = |watcher: u32| {
        let mut command = gateway.command(&program, &["-offline"]);
        command
            .env("REAGENT_LAUNCHER", &program)
            .env("REAGENT_LAUNCHER_VERSION", OLD)
            .env("REAGENT_WATCHED", watcher.to_string());
        command
    };
    // A process that is not its parent, and will not end meanwhile.
    let stranger = std::os::unix::process::parent_id();
    let mut orphan = Process::start("orphan", &mut begun(stranger));
    assert_eq!(orphan.wait(SOON).code(), Some(1));
    orphan.wait_for_line("whoever watches this version under test has ended", SOON);

    let mut agent = Process::start("agent", &mut begun(std::process::id()));
    agent.wait_for_line("reagent starts", SOON);
}
