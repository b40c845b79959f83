//! The engine against a real Docker daemon and a real registry, witnessed by the docker command line.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::port::WireProtocol;
use reagent::engine::{
    ContainerSpec, ContainerStatus, Engine, EngineError, EngineEvent, LogLine, LogRange, PortBinding,
};
use testkit::docker::{self, Scope};
use testkit::wait;

#[path = "engine/build.rs"]
mod build;
#[path = "engine/images.rs"]
mod images;
#[path = "engine/streams.rs"]
mod streams;

const SOON: Duration = Duration::from_secs(20);
const FOREVER: &str = "echo up; while :; do sleep 1; done";

fn engine() -> Engine {
    Engine::new().expect("DOCKER_HOST is usable")
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
        let facts = engine.inspect(name).await.expect("the daemon answers");
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
