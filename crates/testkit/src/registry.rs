//! A real image registry on loopback with password authentication, in the way of the platform: the user name is the
//! text of a registry token, the password the device's secret.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::docker;
use crate::process::Process;
use crate::wait;

/// A running `docker-registry` with its own storage; killed and deleted on drop.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    // Before the directory: the server ends before its storage goes.
    _process: Process,
    directory: tempfile::TempDir,
}

impl Registry {
    /// Starts on a free port without any user. Panics with the reason when it cannot.
    pub fn start() -> Registry {
        let directory = tempfile::Builder::new()
            .prefix("reagent-registry-")
            .tempdir()
            .expect("a directory for the registry");
        let port = wait::free_port();
        let users = directory.path().join("htpasswd");
        std::fs::write(&users, "").expect("a file in a directory of ours");
        let config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": directory.path().join("storage")}, "delete": {"enabled": true}},
            "http": {"addr": format!("127.0.0.1:{port}")},
            "auth": {"htpasswd": {"realm": "test registry", "path": users}},
        });
        let file = directory.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).expect("a file in a directory of ours");
        let mut process = Process::start(
            "docker-registry",
            Command::new("docker-registry").arg("serve").arg(&file),
        );
        process.wait_for_port(port, Duration::from_secs(20));
        Registry {
            port,
            _process: process,
            directory,
        }
    }

    /// `127.0.0.1:<port>`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Lets a user in, from now on. The registry reads its file again when it has changed.
    pub fn add_user(&self, username: &str, password: &str) {
        use std::io::Write as _;
        let mut child = Command::new("htpasswd")
            .args(["-i", "-B", "-C", "4"])
            .arg(self.users())
            .arg(username)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("package apache2-utils is installed (scripts/setup)");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        stdin
            .write_all(password.as_bytes())
            .expect("htpasswd reads the password");
        drop(stdin);
        assert!(
            child.wait().expect("it is our child").success(),
            "htpasswd failed"
        );
    }

    /// Publishes a local image under `name` (`apps/x:1.0.0`) and returns its full reference. The local tag that this
    /// needs is removed again.
    pub fn push(&self, image: &str, name: &str, username: &str, password: &str) -> String {
        let config = self.directory.path().join("client");
        let reference = format!("{}/{name}", self.address());
        let login = [
            "login",
            "--username",
            username,
            "--password-stdin",
            &self.address(),
        ];
        docker::docker_with_input(&login, &config, password)
            .unwrap_or_else(|error| panic!("docker login: {error}"));
        docker::tag(image, &reference);
        let pushed = docker::docker_with_input(&["push", "--quiet", &reference], &config, "");
        docker::remove_image(&reference);
        pushed.unwrap_or_else(|error| panic!("docker push: {error}"));
        reference
    }

    /// Whether this tag has been pushed: `127.0.0.1:<port>/apps/x:1.0.0`.
    pub fn has(&self, reference: &str) -> bool {
        let name = reference
            .strip_prefix(&format!("{}/", self.address()))
            .expect("it is a reference of this registry");
        let (repository, tag) = name.rsplit_once(':').expect("it has a tag");
        let tags = format!("storage/docker/registry/v2/repositories/{repository}/_manifests/tags");
        self.directory.path().join(tags).join(tag).exists()
    }

    /// Damages the largest blob that was pushed; returns it and what it was, to mend it.
    pub fn damage_a_layer(&self) -> (PathBuf, Vec<u8>) {
        let blobs = self
            .directory
            .path()
            .join("storage/docker/registry/v2/blobs/sha256");
        let list = |directory: &std::path::Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let largest = list(&blobs)
            .iter()
            .flat_map(|prefix| list(prefix))
            .map(|digest| digest.join("data"))
            .max_by_key(|data| data.metadata().map_or(0, |metadata| metadata.len()))
            .expect("something was pushed");
        let before = std::fs::read(&largest).expect("a blob is a file");
        let mut damaged = before.clone();
        let middle = damaged.len() / 2;
        for byte in &mut damaged[middle..middle + 16] {
            *byte ^= 0xff;
        }
        std::fs::write(&largest, damaged).expect("the storage is ours");
        (largest, before)
    }

    fn users(&self) -> PathBuf {
        self.directory.path().join("htpasswd")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // What was pulled from here can never be pulled again: it would only fill the disk.
        docker::remove_images_of(&format!("{}/", self.address()));
    }
}
