//! Images: pulling from a real registry, presence, removal.

use protocol::request::RegistryLogin;
use testkit::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;

fn login(username: &str, password: &str) -> RegistryLogin {
    RegistryLogin {
        username: username.to_owned(),
        password: password.to_owned(),
    }
}

async fn pull(reference: &str, login: Option<&RegistryLogin>) -> (Result<(), EngineError>, Vec<String>) {
    let (progress, mut received) = mpsc::channel(1000);
    let result = engine()
        .pull(reference, login, progress, &CancellationToken::new())
        .await;
    let mut lines = Vec::new();
    while let Some(line) = received.recv().await {
        lines.push(line);
    }
    (result, lines)
}

#[tokio::test]
async fn an_image_is_pulled_with_the_login_and_its_progress_is_the_daemons_own_json() {
    let registry = Registry::start();
    let scope = Scope::new();
    registry.add_user("token-text", "device secret");
    let repository = format!("apps/{}", scope.name("x"));
    let local = scope.image("x", FOREVER);
    let reference = registry.push(
        &local,
        &format!("{repository}:1.4.0"),
        "token-text",
        "device secret",
    );
    docker::remove_image(&local);
    let engine = engine();
    assert_eq!(engine.has_image(&reference).await, Ok(false));

    let login = login("token-text", "device secret");
    let (result, lines) = pull(&reference, Some(&login)).await;
    assert_eq!(result, Ok(()));
    assert_eq!(engine.has_image(&reference).await, Ok(true));
    let records: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records[0]["status"], format!("Pulling from {repository}"));
    assert!(records.iter().any(|record| record["status"] == "Pull complete"));
    assert!(
        records.iter().any(|record| record["progress"].is_string()),
        "members that the library does not know are passed on"
    );
    assert_eq!(
        records.last().unwrap()["status"],
        format!("Status: Downloaded newer image for {reference}")
    );

    // Again, now that everything is here.
    let (result, _) = pull(&reference, Some(&login)).await;
    assert_eq!(result, Ok(()));
}

#[tokio::test]
async fn pulls_that_the_registry_refuses_say_why() {
    let registry = Registry::start();
    let scope = Scope::new();
    registry.add_user("token", "secret");
    let name = scope.name("x");
    let reference = registry.push(
        &scope.image("x", FOREVER),
        &format!("{name}:1"),
        "token",
        "secret",
    );
    let good = login("token", "secret");

    for bad in [
        None,
        Some(&login("token", "wrong")),
        Some(&login("nobody", "secret")),
    ] {
        let (result, _) = pull(&reference, bad).await;
        let Err(EngineError::Denied(text)) = &result else {
            panic!("{bad:?}: {result:?}");
        };
        assert!(!text.contains("secret") && !text.contains("wrong"), "{text}");
    }
    for missing in [format!("{name}:2"), format!("{name}-other:1")] {
        let (result, _) = pull(&format!("{}/{missing}", registry.address()), Some(&good)).await;
        assert!(
            matches!(result, Err(EngineError::NoSuchImage(_))),
            "{missing}: {result:?}"
        );
    }
    let (result, _) = pull("not a reference", Some(&good)).await;
    assert!(matches!(result, Err(EngineError::NoSuchImage(_))), "{result:?}");
    let (result, _) = pull("127.0.0.1:1/x:1", Some(&good)).await;
    assert!(
        matches!(&result, Err(EngineError::Other(text)) if text.contains("refused")),
        "{result:?}"
    );

    // A user that the registry learns of while it runs.
    registry.add_user("nobody", "secret");
    let (result, _) = pull(&reference, Some(&login("nobody", "secret"))).await;
    assert_eq!(result, Ok(()));
}

#[tokio::test]
async fn a_cancelled_pull_ends_at_once() {
    // A registry that takes the connection and never answers.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let reference = format!("{}/x:1", silent.local_addr().unwrap());
    let cancel = CancellationToken::new();
    let pull = tokio::spawn({
        let cancel = cancel.clone();
        let (progress, _) = mpsc::channel(1);
        async move { engine().pull(&reference, None, progress, &cancel).await }
    });
    let _connection = tokio::time::timeout(SOON, silent.accept())
        .await
        .unwrap()
        .unwrap();
    assert!(!pull.is_finished());
    cancel.cancel();
    let result = tokio::time::timeout(SOON, pull).await.unwrap().unwrap();
    assert_eq!(result, Err(EngineError::Canceled));
}

#[tokio::test]
async fn removing_a_repository_takes_its_tags_and_no_others() {
    let scope = Scope::new();
    let image = scope.image("base", FOREVER);
    let engine = engine();
    // The dot makes the first part a registry.
    let mine = scope.name("r.example/apps/prod_amd64_1_app");
    let names = [format!("{mine}:1"), format!("{mine}:2"), format!("{mine}2:1")];
    for name in &names {
        docker::tag(&image, name);
        assert_eq!(engine.has_image(name).await, Ok(true), "{name}");
    }
    assert_eq!(engine.has_image(&mine).await, Ok(false), "there is no tag latest");

    let other = scope.image("other", FOREVER);
    let newer = format!("{mine}:3");
    docker::tag(&other, &newer);
    engine.remove_repository(&mine, Some(&newer)).await.unwrap();
    let mut left = docker::images_of(&mine);
    left.sort_unstable();
    assert_eq!(left, [format!("{mine}2:1"), newer.clone()]);
    engine.remove_repository(&mine, None).await.unwrap();
    engine.remove_repository(&mine, None).await.unwrap();
    assert_eq!(docker::images_of(&mine), [format!("{mine}2:1")]);
    assert_eq!(
        engine.has_image(&image).await,
        Ok(true),
        "the image lives on under its other name"
    );

    // The last tag of an image that a container uses.
    let used = scope.image("used", FOREVER);
    engine.create(&spec(&scope.name("app"), &used)).await.unwrap();
    engine.remove_repository(&scope.name("used"), None).await.unwrap();
    assert_eq!(engine.has_image(&used).await, Ok(true));

    let raw = engine.images_raw().await.unwrap();
    let raw = raw
        .iter()
        .find(|one| one["repoTags"].to_string().contains(&used))
        .unwrap();
    assert!(raw["id"].as_str().unwrap().starts_with("sha256:"));
    assert!(raw["created"].is_u64() && raw["size"].is_u64(), "{raw}");
    assert_eq!(raw["containers"], -1);
    let facts = engine.images().await.unwrap();
    let facts = facts
        .iter()
        .find(|facts| facts.repo_tags == [used.as_str()])
        .unwrap();
    assert_eq!(raw["id"], *facts.id);
}
