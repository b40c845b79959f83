//! The registry beside the studio: Debian's docker-registry and the docker command line.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::harness::{Done, Studio, eventually, finish, within};

const WITH_REGISTRY: &[&str] = &["--with-registry", "0"];

async fn start() -> Studio {
    Studio::start_with(tempfile::tempdir().unwrap(), WITH_REGISTRY).await
}

/// The status code of `GET /v2/` with these credentials.
async fn login(studio: &Studio, user: &str, password: &str) -> Option<u16> {
    use base64::Engine as _;
    let host = studio.registry.as_ref().unwrap().trim_end_matches('/');
    let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let mut stream = tokio::net::TcpStream::connect(host).await.ok()?;
    let request = format!(
        "GET /v2/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn registry_pid(studio: &Studio) -> Option<i32> {
    std::fs::read_to_string(studio.path("studio-data/registry/registry.pid"))
        .ok()?
        .parse()
        .ok()
}

/// Whether the process exists and is not just waiting to be collected.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| !rest.starts_with('Z'))
    })
}

async fn docker(words: &[&str], config: &std::path::Path) -> Done {
    let mut command = Command::new("docker");
    command.arg("--config").arg(config).args(words).kill_on_drop(true);
    finish(command).await
}

#[tokio::test]
async fn devices_get_in_with_their_own_secret_as_long_as_they_exist() {
    let studio = start().await;
    let flock = studio.add_device("press").await;
    assert_eq!(flock.docker_registry_url, *studio.registry.as_ref().unwrap());
    let user = format!("device-{}", flock.device_key);
    assert_eq!(login(&studio, &user, &flock.secret).await, Some(200));
    assert_eq!(login(&studio, &user, "wrong").await, Some(401));
    assert_eq!(login(&studio, "device-99", &flock.secret).await, Some(401));
    let second = studio.add_device("second").await;
    assert_eq!(login(&studio, &user, &second.secret).await, Some(401));
    assert_eq!(login(&studio, "device-2", &second.secret).await, Some(200));
    studio.ok(&["device", "rm", "press"]).await;
    assert_eq!(login(&studio, &user, &flock.secret).await, Some(401));
    let users = std::fs::read_to_string(studio.path("studio-data/registry/htpasswd")).unwrap();
    assert!(
        !users.contains(&second.secret) && users.contains("device-2:$2y$"),
        "{users}"
    );
}

#[tokio::test]
async fn the_registry_ends_with_the_studio_and_a_left_one_is_ended_by_the_next() {
    let studio = start().await;
    let pid = registry_pid(&studio).unwrap();
    assert!(lives(pid));
    let (code, folder) = studio.stop().await;
    assert_eq!(code, 0);
    assert!(!lives(pid));

    let studio = Studio::start_with(folder, WITH_REGISTRY).await;
    let left = registry_pid(&studio).unwrap();
    let folder = studio.kill().await;
    assert!(lives(left));
    let studio = Studio::start_with(folder, WITH_REGISTRY).await;
    assert!(!lives(left));
    assert!(lives(registry_pid(&studio).unwrap()));
    studio.stop().await;
}

#[tokio::test]
async fn a_registry_that_ends_is_started_again() {
    let studio = start().await;
    let flock = studio.add_device("press").await;
    let pid = registry_pid(&studio).unwrap();
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    eventually("the registry answers again", || async {
        let back = registry_pid(&studio).is_some_and(|now| now != pid);
        let answer = login(&studio, "device-1", &flock.secret).await;
        (back && answer == Some(200)).then_some(())
    })
    .await;
    studio.stop().await;
}

#[tokio::test]
async fn without_the_programs_the_studio_says_which_packages_bring_them_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::harness::studio_program();
    let log = std::fs::File::create(folder.path().join("serve.log")).unwrap();
    command
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .args([
            "--json",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--with-registry",
            "0",
        ])
        .stderr(log);
    let mut running = crate::harness::Running::start(command);
    let ready: Value = serde_json::from_str(&running.line().await).unwrap();
    assert_eq!(ready["registry"], json!(null));
    let log = std::fs::read_to_string(folder.path().join("serve.log")).unwrap();
    assert!(
        log.contains("apt-get install docker-registry apache2-utils"),
        "{log}"
    );
    running.child.kill().await.unwrap();
}

#[tokio::test]
async fn a_pushed_image_becomes_a_version_that_the_device_can_pull() {
    let studio = start().await;
    let flock = studio.add_device("press").await;
    studio.ok(&["app", "add", "dash"]).await;
    let config = studio.path("docker");
    std::fs::create_dir(&config).unwrap();
    let local = format!("studio-test-{}", flock.serial_number);
    std::fs::create_dir(studio.path("root")).unwrap();
    std::fs::write(studio.path("root/marker"), &local).unwrap();
    let tar = studio.path("root.tar");
    let mut pack = Command::new("tar");
    pack.arg("-C")
        .arg(studio.path("root"))
        .arg("-cf")
        .arg(&tar)
        .arg(".");
    assert_eq!(finish(pack).await.code, 0);
    let imported = docker(&["import", tar.to_str().unwrap(), &local], &config).await;
    assert_eq!(imported.code, 0, "{imported:?}");

    let pushed = studio
        .run(&["app", "push", "dash", &local, "--version", "1.0.0"])
        .await;
    assert_eq!(docker(&["rmi", &local], &config).await.code, 0);
    assert_eq!(pushed.code, 0, "{pushed:?}");
    assert_eq!(
        studio.ok(&["app", "list"]).await[0]["releases"][0]["version"],
        "1.0.0"
    );

    let architecture = docker(&["version", "--format", "{{.Server.Arch}}"], &config)
        .await
        .stdout;
    let image = format!(
        "{}apps/prod_{}_1_dash:1.0.0",
        flock.docker_registry_url,
        architecture.trim()
    );
    assert_ne!(
        docker(&["pull", &image], &config).await.code,
        0,
        "a registry without login would be open"
    );
    let mut enter = Command::new("docker");
    enter
        .arg("--config")
        .arg(&config)
        .args(["login", "--username", "device-1", "--password-stdin"]);
    enter
        .arg(flock.docker_registry_url.trim_end_matches('/'))
        .stdin(std::process::Stdio::piped());
    let mut enter = enter.spawn().unwrap();
    enter
        .stdin
        .take()
        .unwrap()
        .write_all(flock.secret.as_bytes())
        .await
        .unwrap();
    assert!(within("login", enter.wait()).await.unwrap().success());
    let pulled = docker(&["pull", &image], &config).await;
    let removed = docker(&["rmi", &image], &config).await;
    assert_eq!(pulled.code, 0, "{pulled:?}");
    assert_eq!(removed.code, 0, "{removed:?}");

    let missing = studio
        .run(&["app", "push", "dash", "studio-test-no-such-image"])
        .await;
    assert_eq!(missing.code, 1, "{missing:?}");
    studio.stop().await;
}
