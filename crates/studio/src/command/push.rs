//! `studio app push`: a local Docker image becomes a version of an app in the registry, through the docker program.

use std::ffi::OsStr;
use std::process::Stdio;

use protocol::{AppId, Stage};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::client::{Client, nothing};
use super::{Out, with_client};
use crate::api::{AddRelease, AppView, RegistryLogin, uri};
use crate::cli::Place;
use crate::exit::{Exit, Failure};
use crate::secret;

pub(super) async fn run(
    place: &Place,
    out: Out,
    app: String,
    image: &str,
    version: Option<String>,
) -> Result<(), Failure> {
    with_client(place, async |client: &Client| {
        push(client, out, app, image, version).await
    })
    .await
}

async fn push(
    client: &Client,
    out: Out,
    name: String,
    image: &str,
    version: Option<String>,
) -> Result<(), Failure> {
    let apps: Vec<AppView> = client.ask(uri::APP_LIST, &nothing()).await?;
    let app = apps
        .into_iter()
        .find(|app| app.name.eq_ignore_ascii_case(&name) || app.app_key.to_string() == name)
        .ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("no app {name:?}")).hint("add it with 'studio app add'")
        })?;
    let version = version
        .or_else(|| app.releases.last().map(|release| release.version.clone()))
        .ok_or_else(|| Failure::new(Exit::Usage, "the app has no version yet: name one with --version"))?;
    let login: RegistryLogin = client.ask(uri::REGISTRY_LOGIN, &nothing()).await?;
    if login.registry.is_empty() {
        return Err(Failure::new(Exit::Failed, "the studio has no registry")
            .hint("start it with --with-registry, or with --registry HOST:PORT/"));
    }
    let architecture = architecture(image).await?;
    let app_id = AppId {
        key: app.app_key.0,
        stage: Stage::Prod,
    };
    let repository = protocol::naming::registry_image(
        &login.registry,
        &login.repository,
        app_id,
        &architecture,
        &app.name,
    );
    let reference = format!("{repository}:{version}");

    docker(&["tag", image, &reference], None, false).await?;
    let pushed = upload(&login, &reference, out).await;
    // The tag served the push; the image itself stays.
    let untagged = docker(&["rmi", "--no-prune", &reference], None, false).await;
    pushed?;
    untagged?;

    let request = AddRelease {
        app: app.app_key.to_string(),
        version,
        docker_compose: None,
        exists_ok: true,
    };
    let app: AppView = client.ask(uri::RELEASE_ADD, &request).await?;
    out.result(
        &json!({"app": app, "image": reference, "architecture": architecture}),
        || {
            format!(
                "{} {} pushed for {architecture}: {reference}\n",
                app.name, request.version
            )
        },
    );
    Ok(())
}

/// Logs in and pushes under a configuration of our own, so that the login never reaches the user's.
async fn upload(login: &RegistryLogin, reference: &str, out: Out) -> Result<(), Failure> {
    if login.username.is_empty() {
        docker(&["push", reference], None, !out.json).await?;
        return Ok(());
    }
    let folder = PrivateFolder::new()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot create a temporary folder: {error}")))?;
    let config = ["--config".as_ref(), folder.path.as_os_str()];
    let host = login.registry.trim_end_matches('/');
    let arguments = |rest: &[&'static str]| -> Vec<std::ffi::OsString> {
        config
            .iter()
            .map(|word| (*word).to_owned())
            .chain(rest.iter().map(Into::into))
            .collect()
    };
    let mut words = arguments(&["login", "--password-stdin", "--username"]);
    words.extend([login.username.clone().into(), host.into()]);
    docker(&words, Some(&login.password), false).await?;
    let mut words = arguments(&["push"]);
    words.push(reference.into());
    docker(&words, None, !out.json).await?;
    Ok(())
}

/// The device architecture that an image runs on, as devices name it: `amd64`, `arm64`, `armv7`.
async fn architecture(image: &str) -> Result<String, Failure> {
    let format = "{{.Architecture}}{{if eq .Architecture \"arm\"}}{{.Variant}}{{end}}";
    let text = docker(&["image", "inspect", "--format", format, image], None, false).await?;
    let architecture = text.trim().to_owned();
    if architecture.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!("image {image} names no architecture"),
        ));
    }
    Ok(architecture)
}

/// Runs docker; its output is answered, or shown as it comes with `visible`.
async fn docker<W: AsRef<OsStr>>(words: &[W], input: Option<&str>, visible: bool) -> Result<String, Failure> {
    let failed = |text: String| Failure::new(Exit::Failed, text);
    let mut child = Command::new("docker")
        .args(words)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(if visible { Stdio::inherit() } else { Stdio::piped() })
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot run docker: {error}")))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin
            .write_all(input.as_bytes())
            .await
            .map_err(|error| failed(format!("docker took no input: {error}")))?;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| failed(format!("docker was lost: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    let verb = words
        .iter()
        .map(|word| word.as_ref().to_string_lossy())
        .find(|word| !word.starts_with('-') && !word.starts_with('/'));
    Err(failed(format!(
        "docker {} failed: {}",
        verb.unwrap_or_default(),
        reason.trim()
    )))
}

/// A folder that only its owner can read and that goes away with this value.
struct PrivateFolder {
    path: std::path::PathBuf,
}

impl PrivateFolder {
    fn new() -> std::io::Result<PrivateFolder> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("studio-push-{}", secret::uuid()?));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(PrivateFolder { path })
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Left behind at worst: an unreadable folder in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
