//! What the daemon tells while it happens: events and logs.

use tokio::sync::mpsc;

use super::*;

#[tokio::test]
async fn everything_that_happens_to_a_container_is_an_event() {
    let scope = Scope::new();
    let image = scope.image("app", FOREVER);
    let name = scope.name("app");
    let engine = engine();
    let mut events = engine.events();
    assert_eq!(events.recv().await, Some(EngineEvent::Resync));

    let mine = EngineEvent::Container {
        name: name.clone(),
        project: None,
    };
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
            EngineEvent::Container { name, .. } if !name.starts_with(&scope.name("")) => {}
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
        EngineEvent::Container { name, project: None }
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
