//! The engine against a real Docker daemon and a real registry, witnessed by the docker command line.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::port::WireProtocol;
use protocol::request::RegistryLogin;
use reagent::engine::{
    ContainerSpec, ContainerStatus, Engine, EngineError, EngineEvent, LogLine, LogRange, PortBinding,
};
use testkit::docker::{self, Scope};
use testkit::registry::Registry;
use testkit::wait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);
const FOREVER: &str = "echo up; while :; do sleep 1; done";

fn engine() -> Engine {
    Engine::new().unwrap()
}

fn spec(name: &str, image: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        image: image.to_owned(),
        env: vec!["A=1".to_owned(), "B=x y".to_owned(), "A=2".to_owned()],
        labels: BTreeMap::from([("real".to_owned(), "True".to_owned())]),
        interactive: false,
        bindings: Vec::new(),
        mounts: Vec::new(),
        runtime: None,
    }
}

fn tcp(container_port: u16, host_port: u16) -> PortBinding {
    PortBinding {
        container_port,
        protocol: WireProtocol::Tcp,
        host_port,
    }
}

async fn all_lines(engine: &Engine, name: &str, range: LogRange) -> Result<Vec<LogLine>, EngineError> {
    let mut receiver = engine.logs(name, range);
    let mut lines = Vec::new();
    let read = async {
        while let Some(line) = receiver.recv().await {
            lines.push(line?);
        }
        Ok(())
    };
    tokio::time::timeout(SOON, read).await.expect("the log ends")?;
    Ok(lines)
}

async fn wait_for_status(engine: &Engine, name: &str, status: ContainerStatus) {
    wait::until_async(&format!("{name} is {status:?}"), SOON, || async {
        let facts = engine.inspect(name).await.unwrap();
        facts.filter(|facts| facts.status == status)
    })
    .await;
}

#[tokio::test]
async fn a_container_is_created_as_the_contract_says() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("prod");
    let data = tempfile::tempdir().unwrap();
    let port = wait::free_port();
    let udp = PortBinding {
        protocol: WireProtocol::Udp,
        ..tcp(53, port)
    };
    let spec = ContainerSpec {
        bindings: vec![udp, tcp(80, port)],
        mounts: vec![(data.path().to_string_lossy().into_owned(), "/data".to_owned())],
        ..spec(&name, &image)
    };
    let engine = engine();
    engine.create(&spec).await.unwrap();

    let seen = |format: &str| docker::inspect(&name, format).unwrap();
    assert_eq!(
        seen("{{.State.Status}} {{.Config.Tty}} {{.Config.OpenStdin}}"),
        "created true false"
    );
    assert_eq!(
        seen("{{.Config.AttachStdin}} {{.Config.AttachStdout}} {{.Config.AttachStderr}}"),
        "false false false"
    );
    assert_eq!(seen("{{json .Config.Labels}}"), r#"{"real":"True"}"#);
    assert_eq!(seen("{{.Config.Image}}"), image);
    let env: Vec<String> = serde_json::from_str(&seen("{{json .Config.Env}}")).unwrap();
    assert_eq!(env, spec.env, "in order, nothing added");
    assert_eq!(
        seen("{{json .Config.ExposedPorts}}"),
        r#"{"53/udp":{},"80/tcp":{}}"#
    );
    assert_eq!(
        seen("{{.HostConfig.Privileged}} {{.HostConfig.NetworkMode}} {{json .HostConfig.RestartPolicy}}"),
        r#"true bridge {"Name":"no","MaximumRetryCount":0}"#
    );
    assert_eq!(
        seen("{{json .HostConfig.CapAdd}} {{json .HostConfig.ExtraHosts}}"),
        r#"["ALL"] ["host.docker.internal:host-gateway"]"#
    );
    assert_eq!(
        seen("{{json .HostConfig.Devices}}"),
        r#"[{"PathOnHost":"/dev","PathInContainer":"/dev","CgroupPermissions":""}]"#
    );
    let binding = format!(r#"[{{"HostIp":"0.0.0.0","HostPort":"{port}"}}]"#);
    assert_eq!(
        seen("{{json .HostConfig.PortBindings}}"),
        format!(r#"{{"53/udp":{binding},"80/tcp":{binding}}}"#)
    );
    assert_eq!(
        seen("{{json .HostConfig.Mounts}}"),
        format!(
            r#"[{{"Type":"bind","Source":"{}","Target":"/data"}}]"#,
            data.path().display()
        )
    );
    assert_eq!(seen("{{.HostConfig.Runtime}}"), "runc");

    let facts = engine.inspect(&name).await.unwrap().unwrap();
    assert_eq!(facts.name, name);
    assert_eq!(facts.status, ContainerStatus::Created);
    assert_eq!(facts.bindings, spec.bindings);
    assert_eq!((facts.image, facts.network_mode), (image, "bridge".to_owned()));
    assert_eq!(facts.labels, spec.labels);

    engine.start(&name).await.unwrap();
    wait_for_status(&engine, &name, ContainerStatus::Running).await;
}

#[tokio::test]
async fn an_interactive_container_has_its_streams_attached() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("dev");
    let spec = ContainerSpec {
        interactive: true,
        ..spec(&name, &image)
    };
    engine().create(&spec).await.unwrap();
    let seen = docker::inspect(
        &name,
        "{{.Config.AttachStdin}} {{.Config.AttachStdout}} {{.Config.AttachStderr}} {{.Config.OpenStdin}}",
    );
    assert_eq!(seen.as_deref(), Some("true true true true"));
}

#[tokio::test]
async fn a_gpu_runtime_that_the_daemon_does_not_have_is_left_out() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("gpu");
    let spec = ContainerSpec {
        runtime: Some("nvidia".to_owned()),
        ..spec(&name, &image)
    };
    engine().create(&spec).await.unwrap();
    engine().start(&name).await.unwrap();
    let seen = docker::inspect(&name, "{{.HostConfig.Runtime}} {{.State.Running}}");
    assert_eq!(seen.as_deref(), Some("runc true"));
}

#[tokio::test]
async fn starting_stopping_and_removing_twice_is_like_once() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("app");
    let engine = engine();
    engine.stop(&name, Duration::from_secs(1)).await.unwrap();
    engine.remove(&name).await.unwrap();

    engine.create(&spec(&name, &image)).await.unwrap();
    engine.stop(&name, Duration::from_secs(1)).await.unwrap();
    engine.start(&name).await.unwrap();
    engine.start(&name).await.unwrap();
    wait_for_status(&engine, &name, ContainerStatus::Running).await;
    engine.unpause(&name).await.unwrap();
    docker::docker(&["pause", &name]).unwrap();
    wait_for_status(&engine, &name, ContainerStatus::Paused).await;
    engine.unpause(&name).await.unwrap();
    wait_for_status(&engine, &name, ContainerStatus::Running).await;

    engine.stop(&name, Duration::from_secs(1)).await.unwrap();
    let facts = engine.inspect(&name).await.unwrap().unwrap();
    assert_eq!((facts.status, facts.exit_code), (ContainerStatus::Exited, 137));
    engine.stop(&name, Duration::from_secs(1)).await.unwrap();

    engine.start(&name).await.unwrap();
    engine.remove(&name).await.unwrap();
    assert_eq!(docker::count(&name), 0);
    assert_eq!(engine.inspect(&name).await, Ok(None));
    engine.remove(&name).await.unwrap();
    assert_eq!(
        engine.start(&name).await,
        Err(EngineError::NoSuchContainer(name.clone()))
    );
}

#[tokio::test]
async fn a_paused_container_can_be_stopped() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("app");
    let engine = engine();
    engine.create(&spec(&name, &image)).await.unwrap();
    engine.start(&name).await.unwrap();
    docker::docker(&["pause", &name]).unwrap();
    engine.stop(&name, Duration::from_secs(1)).await.unwrap();
    let facts = engine.inspect(&name).await.unwrap().unwrap();
    assert_eq!(facts.status, ContainerStatus::Exited);
}

#[tokio::test]
async fn a_container_that_several_remove_at_once_is_gone_for_all() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("app");
    let engine = engine();
    engine.create(&spec(&name, &image)).await.unwrap();
    engine.start(&name).await.unwrap();
    let removed = tokio::join!(engine.remove(&name), engine.remove(&name), engine.remove(&name));
    assert_eq!(removed, (Ok(()), Ok(()), Ok(())));
    assert_eq!(docker::count(&name), 0);
}

#[tokio::test]
async fn containers_are_found_by_exact_name_and_by_label_only() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let engine = engine();
    let (name, longer) = (scope.name("app"), scope.name("app_compose-web-1"));
    let labelled = ContainerSpec {
        labels: BTreeMap::from([(scope.name("label"), "yes".to_owned())]),
        ..spec(&longer, &image)
    };
    engine.create(&labelled).await.unwrap();
    assert_eq!(engine.inspect(&name).await, Ok(None));
    let facts = engine.inspect(&longer).await.unwrap().unwrap();
    let short_id: String = facts.id.chars().take(12).collect();
    assert_eq!(
        engine.inspect(&short_id).await,
        Ok(None),
        "the beginning of an id is not a name"
    );
    let label = scope.name("label");
    assert_eq!(engine.list_labelled(&label, "yes").await, Ok(vec![facts]));
    assert_eq!(engine.list_labelled(&label, "no").await, Ok(Vec::new()));

    let listed = engine.list_raw().await.unwrap();
    let listed = listed
        .iter()
        .find(|one| one["Names"][0] == format!("/{longer}"))
        .unwrap();
    assert_eq!(listed["Image"], *image);
    for member in ["Id", "ImageID", "Command", "Created", "Ports", "Labels"] {
        assert!(listed.get(member).is_some(), "{member} is missing");
    }
    for member in ["State", "Status", "HostConfig", "NetworkSettings", "Mounts"] {
        assert!(listed.get(member).is_some(), "{member} is missing");
    }
}

#[tokio::test]
async fn what_keeps_a_container_from_being_made_or_started_is_classified() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let engine = engine();
    let port = wait::free_port();
    let (first, second) = (scope.name("first"), scope.name("second"));
    let bound = |name: &str| ContainerSpec {
        bindings: vec![tcp(80, port)],
        ..spec(name, &image)
    };
    engine.create(&bound(&first)).await.unwrap();
    let taken = engine.create(&bound(&first)).await;
    assert!(matches!(taken, Err(EngineError::NameInUse(_))), "{taken:?}");

    engine.start(&first).await.unwrap();
    engine.create(&bound(&second)).await.unwrap();
    let conflict = engine.start(&second).await;
    let Err(EngineError::PortConflict(text)) = &conflict else {
        panic!("{conflict:?}");
    };
    assert!(
        text.contains(&format!(":{port}")),
        "the text names the port: {text}"
    );

    // A port that a process of the host holds, not a container.
    let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let third = ContainerSpec {
        bindings: vec![tcp(80, listener.local_addr().unwrap().port())],
        ..spec(&scope.name("third"), &image)
    };
    engine.create(&third).await.unwrap();
    let conflict = engine.start(&third.name).await;
    assert!(
        matches!(conflict, Err(EngineError::PortConflict(_))),
        "{conflict:?}"
    );

    let missing = engine
        .create(&spec(&scope.name("fourth"), &scope.name("no-such-image")))
        .await;
    assert!(matches!(missing, Err(EngineError::NoSuchImage(_))), "{missing:?}");

    let unusable = engine.create(&spec("a/b", &image)).await;
    let Err(EngineError::Other(text)) = &unusable else {
        panic!("{unusable:?}");
    };
    assert!(text.contains("Invalid container name"), "{text}");

    let broken = scope.name("broken");
    docker::import(&format!("{broken}:latest"), &[r#"CMD ["/no/such/program"]"#]);
    engine.create(&spec(&broken, &broken)).await.unwrap();
    let failed = engine.start(&broken).await;
    assert!(
        matches!(&failed, Err(EngineError::Other(text)) if text.contains("/no/such/program")),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let missing = format!("unix://{}/missing.sock", directory.path().display());
    let dead = directory.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let dead = format!("unix://{}", dead.display());
    for host in [&missing, &dead, "tcp://127.0.0.1:1"] {
        let engine = Engine::at(host).unwrap();
        assert!(!engine.is_up(SOON).await);
        let error = engine.list_raw().await.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable(_)), "{host}: {error:?}");
        assert!(matches!(
            engine.inspect("x").await,
            Err(EngineError::Unreachable(_))
        ));
        assert!(matches!(
            engine.remove("x").await,
            Err(EngineError::Unreachable(_))
        ));
        let lines = all_lines(&engine, "x", LogRange::default()).await;
        assert!(matches!(lines, Err(EngineError::Unreachable(_))), "{lines:?}");
        assert_eq!(engine.events().recv().await, Some(EngineEvent::Down));
    }
    assert!(engine().is_up(SOON).await);
}

#[tokio::test]
async fn a_daemon_that_never_answers_runs_into_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("silent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let engine = Engine::at(&format!("unix://{}", socket.display())).unwrap();
    assert!(!engine.is_up(Duration::from_millis(50)).await);
}

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

    engine.remove_repository(&mine).await.unwrap();
    engine.remove_repository(&mine).await.unwrap();
    assert_eq!(docker::images_of(&mine), [format!("{mine}2:1")]);
    assert_eq!(
        engine.has_image(&image).await,
        Ok(true),
        "the image lives on under its other name"
    );

    // The last tag of an image that a container uses.
    let used = scope.image("used", FOREVER);
    engine.create(&spec(&scope.name("app"), &used)).await.unwrap();
    engine.remove_repository(&scope.name("used")).await.unwrap();
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

#[tokio::test]
async fn everything_that_happens_to_a_container_is_an_event() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("app");
    let engine = engine();
    let mut events = engine.events();
    assert_eq!(events.recv().await, Some(EngineEvent::Resync));

    let mine = EngineEvent::Container { name: name.clone() };
    engine.create(&spec(&name, &image)).await.unwrap();
    assert_eq!(next_of_ours(&mut events, &scope).await, mine, "create");
    engine.start(&name).await.unwrap();
    assert_eq!(next_of_ours(&mut events, &scope).await, mine, "start");
    docker::docker(&["pause", &name]).unwrap();
    assert_eq!(next_of_ours(&mut events, &scope).await, mine, "pause");
    engine.unpause(&name).await.unwrap();
    assert_eq!(next_of_ours(&mut events, &scope).await, mine, "unpause");
    docker::kill(&name);
    assert_eq!(next_of_ours(&mut events, &scope).await, mine, "die");
    engine.remove(&name).await.unwrap();
    assert_eq!(next_of_ours(&mut events, &scope).await, mine, "destroy");
}

/// Skips the containers of other tests, which share the daemon.
async fn next_of_ours(events: &mut mpsc::Receiver<EngineEvent>, scope: &Scope) -> EngineEvent {
    loop {
        let event = tokio::time::timeout(SOON, events.recv()).await;
        match event.expect("an event arrives").expect("the watch never ends") {
            EngineEvent::Container { name } if !name.starts_with(&scope.name("")) => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn a_lost_event_stream_is_resumed_without_a_gap_and_a_lost_daemon_is_told_once() {
    // The daemon behind a socket of ours, which can be cut.
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("proxy.sock");
    let serve = |socket: &std::path::Path| {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut daemon = tokio::net::UnixStream::connect("/var/run/docker.sock").await?;
                    tokio::io::copy_bidirectional(&mut client, &mut daemon).await
                });
            }
        })
    };
    let proxy = serve(&socket);
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let mut events = Engine::at(&format!("unix://{}", socket.display()))
        .unwrap()
        .events();
    assert_eq!(events.recv().await, Some(EngineEvent::Resync));

    proxy.abort();
    let _ = proxy.await;
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(next_of_ours(&mut events, &scope).await, EngineEvent::Down);
    // Nobody watches while this happens.
    let name = scope.name("app");
    engine().create(&spec(&name, &image)).await.unwrap();
    let proxy = serve(&socket);
    assert_eq!(next_of_ours(&mut events, &scope).await, EngineEvent::Resync);
    assert_eq!(
        next_of_ours(&mut events, &scope).await,
        EngineEvent::Container { name }
    );
    proxy.abort();
}

const TEN_THOUSAND: &str = "seq 1 10000";

fn assert_ten_thousand(lines: &[LogLine]) {
    assert_eq!(lines.len(), 10_000);
    for (number, line) in (1..).zip(lines) {
        assert_eq!(line.text, number.to_string());
    }
}

#[tokio::test]
async fn ten_thousand_lines_of_a_container_with_a_tty_arrive_exactly() {
    let scope = Scope::new();
    let name = scope.name("app");
    let engine = engine();
    let image = scope.image("app", &format!("{TEN_THOUSAND}; {FOREVER}"));
    engine.create(&spec(&name, &image)).await.unwrap();
    engine.start(&name).await.unwrap();
    let follow = LogRange {
        follow: true,
        ..LogRange::default()
    };
    let mut follower = engine.logs(&name, follow);
    let mut live = Vec::new();
    while live.len() < 10_000 {
        let line = tokio::time::timeout(SOON, follower.recv()).await;
        live.push(line.expect("lines go on").expect("the log goes on").unwrap());
    }
    assert_ten_thousand(&live);
    assert!(live.iter().all(|line| line.timestamp.is_none()));
    let up = tokio::time::timeout(SOON, follower.recv()).await.unwrap();
    assert_eq!(up.unwrap().unwrap().text, "up");
    engine.stop(&name, Duration::ZERO).await.unwrap();

    let stamped = LogRange {
        timestamps: true,
        ..LogRange::default()
    };
    let stamped = all_lines(&engine, &name, stamped).await.unwrap();
    assert_ten_thousand(&stamped[..10_000]);
    let tail = LogRange {
        tail: Some(3),
        ..LogRange::default()
    };
    let tail = all_lines(&engine, &name, tail).await.unwrap();
    let tail: Vec<&str> = tail.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(tail, ["9999", "10000", "up"]);

    // One nanosecond after the 9000th line.
    let moment: jiff::Timestamp = stamped[8999].timestamp.as_ref().unwrap().parse().unwrap();
    let moment = moment + jiff::SignedDuration::from_nanos(1);
    let since = LogRange {
        since: Some(format!(
            "{}.{:09}",
            moment.as_second(),
            moment.subsec_nanosecond()
        )),
        ..LogRange::default()
    };
    let since = all_lines(&engine, &name, since).await.unwrap();
    assert_eq!((since.len(), since[0].text.as_str()), (1001, "9001"));
}

#[tokio::test]
async fn ten_thousand_lines_of_a_container_without_a_tty_arrive_exactly() {
    let scope = Scope::new();
    let name = scope.name("app");
    let image = scope.image("app", &format!("{TEN_THOUSAND}; printf 'no line end' >&2"));
    docker::docker(&["run", "--detach", "--name", &name, &image]).unwrap();
    // A daemon may end a followed log before it has written the last words of a container that just ended.
    wait_for_status(&engine(), &name, ContainerStatus::Exited).await;
    for timestamps in [false, true] {
        let range = LogRange {
            follow: true,
            timestamps,
            ..LogRange::default()
        };
        let mut lines = all_lines(&engine(), &name, range).await.unwrap();
        let position = lines.iter().position(|line| line.text == "no line end");
        lines.remove(position.expect("the line on the other stream arrives"));
        assert_ten_thousand(&lines);
        assert!(lines.iter().all(|line| line.timestamp.is_some() == timestamps));
    }
}

#[tokio::test]
async fn strange_lines_arrive_whole() {
    let scope = Scope::new();
    let name = scope.name("app");
    // A control character first, invalid text, an empty line, a line of 100,000 characters, and one without end.
    let script = r"printf '\001\000\000\000start\n\377end\n\n'; head -c 100000 /dev/zero | tr '\000' x; printf '\nlast'";
    let image = scope.image("app", script);
    let engine = engine();
    engine.create(&spec(&name, &image)).await.unwrap();
    engine.start(&name).await.unwrap();
    wait_for_status(&engine, &name, ContainerStatus::Exited).await;
    for timestamps in [false, true] {
        let range = LogRange {
            follow: true,
            timestamps,
            ..LogRange::default()
        };
        let lines = all_lines(&engine, &name, range).await.unwrap();
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        let long = "x".repeat(100_000);
        let expected = ["\u{1}\0\0\0start", "\u{fffd}end", "", &long, "last"];
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        assert!(texts == expected, "timestamps {timestamps}: {lengths:?}");
    }
}

#[tokio::test]
async fn the_log_of_a_missing_container_is_one_error() {
    let name = Scope::new().name("missing");
    let lines = all_lines(&engine(), &name, LogRange::default()).await;
    assert_eq!(lines, Err(EngineError::NoSuchContainer(name)));
}
