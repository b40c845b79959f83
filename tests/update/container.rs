//! Containers that have the programs of this machine, and an agent that is the first process of one.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use testkit::docker;

use super::builds::{Build, NEW, NEWER};
use super::gateway::Gateway;

/// Runs until it is dropped. What is in the gateway's home is there, too.
pub(crate) struct Container {
    name: String,
    image: String,
    home: String,
}

impl Container {
    /// With these options of `docker run`; `command` is its first process.
    pub(crate) fn start(kind: &str, gateway: &Gateway, options: &[&str], command: &[&str]) -> Container {
        let name = format!("reagent-{kind}-{}", std::process::id());
        let image = format!("{name}:latest");
        docker::import(&image, &[]);
        let home = gateway.home.path().display().to_string();
        let container = Container { name, image, home };
        let shared = ["/usr", "/bin", "/sbin", "/lib", "/lib64"]
            .into_iter()
            .filter(|directory| Path::new(directory).exists())
            .map(|directory| format!("--volume={directory}:{directory}:ro"));
        let home = format!("--volume={0}:{0}", container.home);
        let shared: Vec<String> = shared.chain([home]).collect();
        let mut run = vec!["run", "--detach", "--network=host", "--name", &container.name];
        run.extend(shared.iter().map(String::as_str));
        run.extend(options);
        run.push(&container.image);
        run.extend(command);
        docker::docker(&run).unwrap_or_else(|error| panic!("{error}"));
        container
    }

    /// Standard output of a program there, or all that one said which failed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("docker");
        let output = command.args(["exec", &self.name]).args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stdout) + &text(&output.stderr)),
        }
    }

    /// Its first process is told to end, and is started again.
    pub(crate) fn restart(&self) {
        docker::docker(&["restart", "--time=20", &self.name]).unwrap();
    }

    fn shows(&self, format: &str) -> String {
        docker::inspect(&self.name, format).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", docker::logs(&self.name));
        }
        // What it wrote belongs to its root, who may not be us.
        docker::remove(&self.name);
        let home = format!("--volume={0}:{0}", self.home);
        let mut clear = vec!["run", "--rm", &home, &self.image, "/bin/busybox", "rm", "-rf"];
        let written =
            ["agent", "apps", "reagent.db", "reagent.log"].map(|name| format!("{}/{name}", self.home));
        clear.extend(written.iter().map(String::as_str));
        let _ = docker::docker(&clear);
        docker::remove_image(&self.image);
    }
}

/// To a good version, then to a bad one and back from it.
pub(crate) async fn succeeds_and_fails_to_update(gateway: &mut Gateway) {
    gateway.release(NEW, Build::Good).await;
    assert_eq!(gateway.update().await["DidUpdate"], true);
    gateway.runs(NEW).await;
    gateway.told("updated", "").await;
    gateway.release(NEWER, Build::EndsEarly).await;
    gateway.takes_one().await;
    let outcome = gateway.outcome().await;
    assert_eq!(
        json!([outcome["from"], outcome["to"], outcome["result"]]),
        json!([NEW, NEWER, "rolledback"])
    );
    gateway.runs(NEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_process_of_a_container_updates_itself_returns_from_a_bad_version_and_is_stopped() {
    let mut gateway = Gateway::new().await;
    let command = gateway.command(&gateway.path("bin/reagent"), &["-update=false"]);
    let mut options = vec!["--restart=always".to_owned()];
    for (name, value) in command.get_envs() {
        let value = value.unwrap_or_default();
        options.push(format!(
            "--env={}={}",
            name.to_str().unwrap(),
            value.to_str().unwrap()
        ));
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let container = Container::start("container", &gateway, &options, &words);
    succeeds_and_fails_to_update(&mut gateway).await;
    assert_eq!(
        container.shows("{{.RestartCount}}"),
        "0",
        "Docker has seen nothing of it"
    );

    container.restart();
    gateway.runs(NEW).await;
    docker::docker(&["stop", "--time=20", &container.name]).unwrap();
    assert_eq!(container.shows("{{.State.ExitCode}}"), "0", "it was not killed");
}
