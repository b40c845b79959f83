//! Apps of several containers: what the device is told.

use serde_json::json;

use super::devices::fleet;

#[tokio::test]
async fn a_compose_app_comes_with_the_documents_of_both_versions() {
    let (studio, mut device) = fleet().await;
    let file = |version: &str| {
        let file = studio.path(&format!("{version}.yml"));
        let text =
            format!("services:\n  web:\n    image: r.example/web:{version}\n    ports: [\"8080:80\"]\n");
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let one = file("1");
    studio
        .ok(&["app", "add", "stack", "--version", "1.0", "--compose", &one])
        .await;
    studio.ok(&["install", "press", "stack"]).await;
    let request = device.request().await;
    let web = |image: &str| json!({"services": {"web": {"image": image, "ports": ["8080:80"]}}});
    assert_eq!(request["docker_compose"], web("r.example/web:1"));
    assert_eq!(request["new_docker_compose"], request["docker_compose"]);

    let app_key = request["app_key"].as_u64().unwrap();
    device
        .report_state(app_key, "RUNNING", request["release_key"].as_u64().unwrap())
        .await;
    let app = studio
        .ok(&["app", "release", "stack", "2.0", "--compose", &file("2")])
        .await;
    assert_eq!(app["releases"][1]["compose"], true);
    studio.ok(&["install", "press", "stack"]).await;
    let request = device.request().await;
    assert_eq!(request["request_update"], true);
    assert_eq!(request["docker_compose"], web("r.example/web:1"));
    assert_eq!(request["new_docker_compose"], web("r.example/web:2"));

    // An app is of one kind.
    let refused = studio.run(&["app", "release", "stack", "3.0"]).await;
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let refused = studio
        .run(&["app", "release", "dash", "9.0", "--compose", &one])
        .await;
    assert!(refused.stderr.contains("single container"), "{}", refused.stderr);
}
