use super::*;

#[test]
fn the_first_number_of_a_version_tells_the_dialect() {
    for (version, dialect) in [
        ("1.29.2", Dialect::First),
        ("v2.17.0", Dialect::Second),
        ("2.26.1-4", Dialect::Second),
        ("5.0.0", Dialect::Second),
        ("", Dialect::Second),
    ] {
        assert_eq!(dialect_of(version), dialect, "{version}");
    }
}

#[test]
fn images_are_the_same_in_normal_form_only() {
    assert!(same_image("nginx", "docker.io/library/nginx:latest"));
    assert!(!same_image("nginx", "my/nginx-x:1"));
    assert!(!same_image("r/x_1_app:1", "r/x_1_app2:1"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_call_is_work_until_it_ends() {
    let engine = Engine::at("unix:///nowhere").unwrap();
    let cli = Cli {
        program: "/bin/sh",
        first: &["-c", "echo it runs; exec sleep 600"],
        dialect: Dialect::Second,
    };
    let call = Call {
        file: Path::new("compose.yml"),
        project: "x",
        arguments: &["build"],
        logins: &BTreeMap::new(),
        private_dir: Path::new("/nowhere"),
        owner: "somebody",
        stall: Duration::from_secs(60),
    };
    let cancel = CancellationToken::new();
    let (out, mut lines) = mpsc::channel(1);
    let heard = async {
        assert_eq!(lines.recv().await.as_deref(), Some("it runs"));
        assert!(engine.works().are_under_way());
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(engine.run_compose(&cli, call, &cancel, out), heard);
    assert_eq!(ended, Err(EngineError::Canceled));
    assert!(!engine.works().are_under_way());
}
