//! The real Docker daemon for tests: images made on the spot, looking at containers from outside, cleaning up.
//!
//! Goes through the docker command line on purpose: a witness that shares no code with what is tested. Blocking.

pub mod daemon;
pub mod proxy;

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names under which the one static program of a test image answers.
const APPLETS: [&str; 18] = [
    "sh", "awk", "cat", "date", "dd", "echo", "env", "false", "head", "kill", "ls", "nc", "printf", "seq",
    "sleep", "tr", "true", "yes",
];

/// Says why there is no usable daemon, if there is none.
pub fn docker_available() -> Result<(), String> {
    let output = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .output()
        .map_err(|error| format!("the docker command line cannot be started: {error}; run scripts/setup"))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "no Docker daemon answers: {}; run scripts/setup",
        error.trim()
    ))
}

/// Makes a local image that runs `script` with a static busybox shell. Panics when it cannot be made.
pub fn import_busybox(image: &str, script: &str) {
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    import(image, &[&format!("CMD {command}")]);
}

/// Makes a local image with a static busybox, with Dockerfile instructions (`CMD […]`, `ENTRYPOINT […]`, `ENV …`)
/// applied.
pub fn import(image: &str, changes: &[&str]) {
    if let Err(error) = docker_available() {
        panic!("{error}");
    }
    let root = tempfile::tempdir().expect("a directory for the image's files");
    let bin = root.path().join("bin");
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir(root.path().join(directory)).expect("an empty directory");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let busybox = busybox.expect("package busybox-static is installed (scripts/setup)");
    std::fs::copy(busybox, bin.join("busybox")).expect("busybox can be copied");
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).expect("a link in a directory of ours");
    }

    // Layers are told apart by content: without this, an image that a test pulls could be there already, layer by layer,
    // because another test has one just like it.
    let unique = root.path().file_name().unwrap_or_default().as_encoded_bytes();
    std::fs::write(root.path().join("etc/unique"), unique).expect("a file in a directory of ours");

    let mut tar = Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--directory"])
        .arg(root.path())
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar starts");
    let mut import = Command::new("docker");
    import.arg("import");
    for change in changes {
        import.args(["--change", change]);
    }
    let archive = tar.stdout.take().expect("its output is a pipe");
    let output = import
        .args(["-", image])
        .stdin(archive)
        .output()
        .expect("docker import starts");
    let packed = tar.wait().expect("tar is our child").success();
    assert!(
        packed && output.status.success(),
        "docker import of {image}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `docker` with `args`; its output without the last line end, or what it complained about.
pub fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
        .args(args)
        .output()
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// A container seen through a `docker inspect` format; `None` when it does not exist.
pub fn inspect(container: &str, format: &str) -> Option<String> {
    docker(&["container", "inspect", "--format", format, container]).ok()
}

/// How many containers, running or not, have exactly this name.
pub fn count(container: &str) -> usize {
    let filter = format!("name=^/{container}$");
    lines(docker(&["ps", "--all", "--quiet", "--filter", &filter])).len()
}

/// Everything a container has printed.
pub fn logs(container: &str) -> String {
    docker(&["logs", container]).unwrap_or_default()
}

/// Stops a container at once.
pub fn stop(container: &str) {
    docker(&["stop", "--time", "0", container]).unwrap_or_else(|error| panic!("{error}"));
}

/// Kills a container's first process.
pub fn kill(container: &str) {
    docker(&["kill", container]).unwrap_or_else(|error| panic!("{error}"));
}

/// Removes a container, running or not. A missing one is fine.
pub fn remove(container: &str) {
    let _ = docker(&["rm", "--force", "--volumes", container]);
}

/// Gives an image another name.
pub fn tag(image: &str, name: &str) {
    docker(&["tag", image, name]).unwrap_or_else(|error| panic!("{error}"));
}

/// Removes one name of an image. A missing one is fine.
pub fn remove_image(image: &str) {
    let _ = docker(&["rmi", image]);
}

/// The references of all local images whose name starts with `prefix`, a registry's address for example.
pub fn images_of(prefix: &str) -> Vec<String> {
    lines(docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]))
        .into_iter()
        .filter(|reference| reference.starts_with(prefix))
        .collect()
}

/// Removes the containers that were made from images whose name starts with `prefix`.
pub fn remove_containers_of(prefix: &str) {
    for line in lines(docker(&["ps", "-a", "--format", "{{.Names}} {{.Image}}"])) {
        if let Some((name, image)) = line.split_once(' ')
            && image.starts_with(prefix)
        {
            remove(name);
        }
    }
}

/// Removes all local images whose name starts with `prefix`.
pub fn remove_images_of(prefix: &str) {
    assert!(
        !prefix.is_empty(),
        "an empty prefix would remove every image of the machine"
    );
    for image in images_of(prefix) {
        remove_image(&image);
    }
}

/// A prefix of its own for everything that a test makes; whatever still has it at the end is removed.
#[derive(Debug)]
pub struct Scope {
    prefix: String,
}

impl Scope {
    /// `reagent-test-<process>-<number>-`: unique on this machine.
    pub fn new() -> Scope {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Scope {
            prefix: format!("reagent-test-{}-{number}-", std::process::id()),
        }
    }

    /// A name for a container, image or volume.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// An image that runs `script`.
    pub fn image(&self, name: &str, script: &str) -> String {
        let image = format!("{}:latest", self.name(name));
        import_busybox(&image, script);
        image
    }
}

impl Default for Scope {
    fn default() -> Scope {
        Scope::new()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        for container in lines(docker(&["ps", "--all", "--format", "{{.Names}}"])) {
            if container.starts_with(&self.prefix) {
                remove(&container);
            }
        }
        // Whatever their names: an image that is in use stays.
        remove_containers_of(&self.prefix);
        remove_images_of(&self.prefix);
        for volume in lines(docker(&["volume", "ls", "--format", "{{.Name}}"])) {
            if volume.starts_with(&self.prefix) {
                let _ = docker(&["volume", "rm", &volume]);
            }
        }
    }
}

/// Runs `docker` with `args` and `input` as its standard input: secrets never show in a list of processes.
pub(crate) fn docker_with_input(args: &[&str], config: &Path, input: &str) -> Result<String, String> {
    let mut child = Command::new("docker")
        .args(args)
        .env("DOCKER_CONFIG", config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    // A child that ends without reading says why on its error output.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn lines(output: Result<String, String>) -> Vec<String> {
    output.unwrap_or_default().lines().map(str::to_owned).collect()
}
