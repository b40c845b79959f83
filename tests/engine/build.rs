//! Building and pushing: archives, Dockerfiles, base images, cancel.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::path::{Path, PathBuf};

use protocol::request::RegistryLogin;
use reagent::engine::BuildSpec;
use testkit::archive::tgz;
use testkit::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;

fn archive(directory: &Path, files: &[(&str, &str)]) -> PathBuf {
    let path = directory.join("app.tgz");
    std::fs::write(&path, tgz(files)).unwrap();
    path
}

async fn build(archive: &Path, tag: &str, cancel: &CancellationToken) -> (Result<(), EngineError>, String) {
    let (progress, mut received) = mpsc::channel(1000);
    let spec = BuildSpec {
        archive,
        dockerfile: "Dockerfile",
        tag,
        id: "build_1_x",
        logins: &BTreeMap::new(),
    };
    let result = engine().build(spec, progress, cancel).await;
    let mut text = String::new();
    while let Some(line) = received.recv().await {
        text.push_str(&line);
    }
    (result, text)
}

#[tokio::test]
async fn an_archive_becomes_an_image_that_can_be_pushed_under_another_name() {
    let scope = Scope::new();
    let home = tempfile::tempdir().unwrap();
    let base = scope.image("base", FOREVER);
    let dockerfile = format!("FROM {base}\nCOPY hello /hello\nRUN echo built\n");
    let archive = archive(
        home.path(),
        &[("Dockerfile", &dockerfile), ("hello", "greetings\n")],
    );
    let built = format!("{}:latest", scope.name("built"));
    let (result, progress) = build(&archive, &built, &CancellationToken::new()).await;
    assert_eq!(result, Ok(()), "{progress}");
    assert!(
        progress.contains("\"stream\":\"Step 1/3"),
        "the daemon's own records: {progress}"
    );
    let said = docker::docker(&["run", "--rm", &built, "cat", "/hello"]).unwrap();
    assert_eq!(said.trim(), "greetings");

    let registry = Registry::start();
    registry.add_user("token", "secret");
    let published = format!("{}/apps/{}:2.0", registry.address(), scope.name("published"));
    let engine = engine();
    assert_eq!(engine.tag(&built, &published).await, Ok(()));
    let login = |password: &str| RegistryLogin {
        username: "token".to_owned(),
        password: password.to_owned(),
    };
    let push = async |login: &RegistryLogin| {
        let (progress, mut received) = mpsc::channel(1000);
        let result = engine
            .push(&published, login, progress, &CancellationToken::new())
            .await;
        let mut text = String::new();
        while let Some(line) = received.recv().await {
            text.push_str(&line);
        }
        (result, text)
    };
    let (refused, _) = push(&login("wrong")).await;
    assert!(matches!(refused, Err(EngineError::Denied(_))), "{refused:?}");
    let (result, progress) = push(&login("secret")).await;
    assert_eq!(result, Ok(()), "{progress}");
    assert!(progress.contains("2.0: digest: sha256:"), "{progress}");
    assert!(matches!(
        engine.tag(&scope.name("none"), &published).await,
        Err(EngineError::NoSuchImage(_))
    ));
    docker::remove_image(&published);
    docker::remove_image(&built);
}

#[tokio::test]
async fn what_cannot_be_built_says_why_and_leaves_no_container() {
    let scope = Scope::new();
    let home = tempfile::tempdir().unwrap();
    let base = scope.image("base", FOREVER);
    let tag = scope.name("never");
    let forever = CancellationToken::new();
    let failing = format!("FROM {base}\nLABEL scope={tag}\nRUN exit 7\n");
    let file = archive(home.path(), &[("Dockerfile", &failing)]);
    let (result, _) = build(&file, &tag, &forever).await;
    let Err(EngineError::Other(text)) = result else {
        panic!("{result:?}")
    };
    assert!(text.contains("returned a non-zero code: 7"), "{text}");
    assert_eq!(steps(&tag), 0);
    remove_layers(&tag);

    let file = archive(home.path(), &[("Dockerfile", "")]);
    assert_eq!(
        build(&file, &tag, &forever).await.0,
        Err(EngineError::EmptyDockerfile)
    );
    let file = archive(home.path(), &[("hello", "x")]);
    assert_eq!(
        build(&file, &tag, &forever).await.0,
        Err(EngineError::NoDockerfile)
    );
    let gone = home.path().join("gone.tgz");
    assert!(matches!(
        build(&gone, &tag, &forever).await.0,
        Err(EngineError::NoArchive(_))
    ));
    std::fs::write(&file, b"not an archive").unwrap();
    assert!(matches!(
        build(&file, &tag, &forever).await.0,
        Err(EngineError::Other(_))
    ));
}

#[tokio::test]
async fn a_canceled_build_ends_inside_the_daemon_too() {
    let scope = Scope::new();
    let home = tempfile::tempdir().unwrap();
    let base = scope.image("base", FOREVER);
    let tag = scope.name("never");
    let dockerfile = format!("FROM {base}\nLABEL scope={tag}\nRUN echo begun; while :; do sleep 1; done\n");
    let file = archive(home.path(), &[("Dockerfile", &dockerfile)]);
    let cancel = CancellationToken::new();
    let building = tokio::spawn({
        let (file, tag, cancel) = (file.clone(), tag.clone(), cancel.clone());
        async move { build(&file, &tag, &cancel).await.0 }
    });
    wait::until_async("the step runs", SOON, || async {
        (steps(&tag) == 1).then_some(())
    })
    .await;
    cancel.cancel();
    assert_eq!(building.await.unwrap(), Err(EngineError::Canceled));
    end_of_steps(&tag).await;
    remove_layers(&tag);
}

#[tokio::test]
async fn a_build_whose_output_nobody_reads_waits_and_can_be_canceled() {
    let scope = Scope::new();
    let home = tempfile::tempdir().unwrap();
    let base = scope.image("base", FOREVER);
    let tag = scope.name("never");
    let dockerfile = format!("FROM {base}\nLABEL scope={tag}\nRUN while :; do echo line; done\n");
    let file = archive(home.path(), &[("Dockerfile", &dockerfile)]);
    let (progress, mut received) = mpsc::channel(1);
    let room = progress.clone();
    let cancel = CancellationToken::new();
    let building = tokio::spawn({
        let (tag, cancel) = (tag.clone(), cancel.clone());
        async move {
            let spec = BuildSpec {
                archive: &file,
                dockerfile: "Dockerfile",
                tag: &tag,
                id: "build_1_x",
                logins: &BTreeMap::new(),
            };
            engine().build(spec, progress, &cancel).await
        }
    });
    // Nothing of it is left out, however slowly it is read.
    let mut said = Vec::new();
    while !said.iter().any(|text: &String| text.starts_with("line")) {
        wait::until_async("it waits", SOON, || async {
            (room.capacity() == 0).then_some(())
        })
        .await;
        let line: serde_json::Value = serde_json::from_str(&received.recv().await.unwrap()).unwrap();
        said.extend(line["stream"].as_str().map(str::to_owned));
    }
    let steps: Vec<&String> = said.iter().filter(|text| text.starts_with("Step ")).collect();
    assert_eq!(steps.len(), 3, "{said:?}");
    wait::until_async("it waits", SOON, || async {
        (room.capacity() == 0).then_some(())
    })
    .await;
    assert!(!building.is_finished());
    cancel.cancel();
    let ended = tokio::time::timeout(SOON, building).await.expect("it ends");
    assert_eq!(ended.unwrap(), Err(EngineError::Canceled));
    end_of_steps(&tag).await;
    remove_layers(&tag);
}

/// Containers in which steps of a build run.
fn steps(scope: &str) -> usize {
    let found = docker::docker(&["ps", "-aq", "--filter", &format!("label=scope={scope}")]).unwrap();
    found.lines().count()
}

/// Until then the daemon keeps the layer that a step is made from.
async fn end_of_steps(scope: &str) {
    wait::until_async("nothing of it is left", SOON, || async {
        (steps(scope) == 0).then_some(())
    })
    .await;
}

/// What an unfinished build leaves for the next try.
fn remove_layers(scope: &str) {
    docker::docker(&[
        "image",
        "prune",
        "-f",
        "--filter",
        &format!("label=scope={scope}"),
    ])
    .unwrap();
}
