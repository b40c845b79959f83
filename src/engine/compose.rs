//! Compose through its command line (`app-lifecycle.md` 5.1, 5.5): which one there is, and one call of it.
//!
//! Owns how the program is found, started, heard and ended. What is in a project is asked of the daemon, never of the
//! program (weakness W36). Must not know: apps, documents, states.

mod child;
mod login;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use protocol::request::RegistryLogin;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) use login::key as login_key;
pub(crate) use login::{registry_host, registry_of};

use super::daemon::{CHANGE, READ, Raw, escaped, of_text};
use super::image::Reference;
use super::{ContainerFacts, Engine, EngineError};
use child::{Ended, Outcome};

/// Longest wait for the program to say its version; the stand-alone one is slow to start on small devices.
const VERSION: Duration = Duration::from_secs(30);
/// Tells our own calls from everything else on the machine, after a power cut of the agent.
const MARKER: &str = "REAGENT_COMPOSE_OF";
/// What the program is found by when the agent itself was started without it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the program understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 1.x: no `name` in a document, ports with an address only as text.
    First,
    /// 2 and later.
    Second,
}

/// The compose command line of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cli {
    program: &'static str,
    /// What comes before everything else: `compose` for the plugin.
    first: &'static [&'static str],
    pub dialect: Dialect,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The document.
    pub file: &'a Path,
    pub project: &'a str,
    /// Subcommand and its arguments.
    pub arguments: &'a [&'a str],
    /// Registry, as in a reference, to login.
    pub logins: &'a BTreeMap<String, RegistryLogin>,
    /// Where a private configuration may be written for the time of the call; made and removed here.
    pub private_dir: &'a Path,
    /// Whose call it is: an agent that was killed finds it again by this ([`Engine::end_compose_calls`]).
    pub owner: &'a str,
    /// Without any output for so long the call has failed.
    pub stall: Duration,
}

impl Engine {
    /// The compose command line. Looked for until it is found: it may be installed while we run.
    pub async fn compose(&self) -> Option<Cli> {
        let known = self
            .compose
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if known.is_some() {
            return known;
        }
        let candidates: [(&str, &[&str]); 2] = [("docker", &["compose"]), ("docker-compose", &[])];
        for (program, first) in candidates {
            if let Some(dialect) = self.dialect(program, first).await {
                let found = Cli {
                    program,
                    first,
                    dialect,
                };
                tracing::info!(program, ?dialect, "compose command line found");
                *self.compose.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
                return Some(found);
            }
        }
        None
    }

    async fn dialect(&self, program: &str, first: &[&str]) -> Option<Dialect> {
        let mut command = self.command(program, "");
        command.args(first).args(["version", "--short"]);
        command
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let output = tokio::time::timeout(VERSION, command.kill_on_drop(true).output())
            .await
            .ok()?
            .ok()?;
        let version = String::from_utf8_lossy(&output.stdout);
        output.status.success().then(|| dialect_of(version.trim()))
    }

    /// Runs one call to its end; every line that it prints goes to `out`, which is read while this goes on, or
    /// dropped. When `cancel` fires the program and its
    /// children are ended, which has happened when this returns [`EngineError::Canceled`].
    pub async fn run_compose(
        &self,
        cli: &Cli,
        call: Call<'_>,
        cancel: &CancellationToken,
        out: mpsc::Sender<String>,
    ) -> Result<(), EngineError> {
        let subcommand = call.arguments.first().copied().unwrap_or_default();
        let failed = |error: std::io::Error| {
            EngineError::Other(format!("docker compose {subcommand} failed: {error}"))
        };
        let mut command = self.command(cli.program, call.owner);
        command.args(cli.first).arg("-f").arg(call.file);
        command.args(["-p", call.project]).args(call.arguments);
        // Removed when this function is left, however it is left.
        let _configuration = if call.logins.is_empty() {
            None
        } else {
            let configuration = login::Configuration::write(call.private_dir, call.logins).map_err(failed)?;
            command.env("DOCKER_CONFIG", call.private_dir);
            Some(configuration)
        };
        let _work = self.works.begin();
        crate::crash::before(subcommand);
        let outcome = child::run(command, call.stall, cancel, out).await;
        crate::crash::after(subcommand);
        if !matches!(&outcome, Ok(outcome) if outcome.is_success()) {
            // Perhaps it is not there any more, or another one is: the next call looks again.
            *self.compose.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let Outcome { ended, tail } = outcome.map_err(failed)?;
        let how = match ended {
            Ended::Exited(status) if status.success() => return Ok(()),
            Ended::Exited(status) => match status.code() {
                Some(code) => format!("exit status {code}"),
                None => status.to_string(),
            },
            Ended::Canceled => return Err(EngineError::Canceled),
            Ended::Stalled => format!("no output within {:?}", call.stall),
        };
        let text = match tail.is_empty() {
            true => format!("docker compose {subcommand} failed: {how}"),
            false => format!("docker compose {subcommand} failed: {how}: {tail}"),
        };
        // The program has no code for "the daemon is away", and many words.
        if !self.is_up(READ).await {
            return Err(EngineError::Unreachable(text));
        }
        Err(of_text(text))
    }

    /// The program with nothing of the agent's environment but what it needs: a document could ask for the rest.
    fn command(&self, program: &str, owner: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH));
        command
            .env_clear()
            .env("PATH", path)
            .env("DOCKER_HOST", &*self.host)
            .env(MARKER, owner);
        for name in ["HOME", "DOCKER_CONFIG", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Kills the calls that an agent of this `owner` left behind when it was killed itself. Blocks shortly.
    pub fn end_compose_calls(owner: &str) {
        if !owner.is_empty() {
            child::kill_marked(&format!("{MARKER}={owner}"));
        }
    }

    /// Every container of any compose project.
    pub async fn list_projects(&self) -> Result<Vec<ContainerFacts>, EngineError> {
        let mut found = Vec::new();
        for listed in self.list_raw().await? {
            let id = listed.get("Id").and_then(serde_json::Value::as_str);
            let labels = listed.get("Labels").and_then(serde_json::Value::as_object);
            if let (Some(id), Some(labels)) = (id, labels)
                && labels.contains_key("com.docker.compose.project")
            {
                // Gone between list and inspect: not there.
                found.extend(self.inspect(id).await?);
            }
        }
        Ok(found)
    }

    /// Removes the networks of a project without containers, and its named volumes if `volumes` says so. Gone is success.
    pub async fn remove_project_rest(&self, project: &str, volumes: bool) -> Result<(), EngineError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Named {
            name: String,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Volumes {
            #[serde(default)]
            volumes: Option<Vec<Named>>,
        }
        // Characters of a project's name need no escape.
        let filters = format!("filters={{%22label%22:[%22com.docker.compose.project={project}%22]}}");
        let networks: Vec<Named> = self
            .get("list networks", project, &format!("/networks?{filters}"))
            .await?;
        for Named { name } in networks {
            let path = format!("/networks/{}", escaped(&name));
            let gone = self.send("remove network", CHANGE, &name, Raw::delete(path));
            gone.await.map(drop).or_else(unless_missing)?;
        }
        if !volumes {
            return Ok(());
        }
        let listed: Volumes = self
            .get("list volumes", project, &format!("/volumes?{filters}"))
            .await?;
        for Named { name } in listed.volumes.unwrap_or_default() {
            let path = format!("/volumes/{}", escaped(&name));
            let gone = self.send("remove volume", CHANGE, &name, Raw::delete(path));
            gone.await.map(drop).or_else(unless_missing)?;
        }
        Ok(())
    }

    /// Removes one reference of an image. Missing or used by a container is success (weakness W21).
    pub async fn remove_reference(&self, reference: &str) -> Result<(), EngineError> {
        if Reference::parse(reference).is_none() {
            return Ok(());
        }
        self.remove_image(reference).await.map(drop)
    }
}

/// What is not there any more needs no removal.
fn unless_missing(error: EngineError) -> Result<(), EngineError> {
    match &error {
        EngineError::Other(text) if text.to_lowercase().contains("no such") || text.contains("not found") => {
            Ok(())
        }
        _ => Err(error),
    }
}

/// Whether two references name the same image.
pub(crate) fn same_image(one: &str, other: &str) -> bool {
    match (Reference::parse(one), Reference::parse(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// `1.29.2` or `2.26.1`; some builds print a `v` first.
fn dialect_of(version: &str) -> Dialect {
    match version.trim_start_matches('v').split('.').next() {
        Some("1") => Dialect::First,
        _ => Dialect::Second,
    }
}

/// Where the private configuration links the user's own plugins from.
fn user_configuration() -> Option<PathBuf> {
    match std::env::var_os("DOCKER_CONFIG") {
        Some(path) => Some(path.into()),
        None => Some(Path::new(&std::env::var_os("HOME")?).join(".docker")),
    }
}

#[cfg(test)]
mod tests;
