//! The installed binary, which launches the others, is gone.

use super::builds::{Build, NEW, OLD};
use super::gateway::Gateway;

#[tokio::test]
async fn an_update_goes_on_when_the_installed_binary_was_removed_meanwhile() {
    let mut gateway = Gateway::new().await;
    gateway.release(NEW, Build::Good);
    gateway.power();
    gateway.runs(OLD).await;
    std::fs::remove_file(gateway.path("bin/reagent")).unwrap();
    assert_eq!(gateway.update().await["DidUpdate"], true);
    gateway.runs(NEW).await;
    assert_eq!(gateway.outcome().await["result"], "updated");
}
