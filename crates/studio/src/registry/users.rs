//! The registry's user list: one bcrypt line per device and one for the publisher.
//!
//! The registry reads the file again when it changes. Hashing is left to `htpasswd`, which reads the password from
//! its standard input, so that no secret appears in a process list.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::PUBLISHER;
use crate::backend::registry_user;
use crate::secret;
use crate::store::Store;

/// Writes the user list. Secrets of users never change, so each is hashed once per run.
pub(super) struct Users {
    file: PathBuf,
    store: Store,
    publisher_password: String,
    lines: BTreeMap<String, String>,
}

impl Users {
    pub(super) fn new(file: PathBuf, store: Store, publisher_password: String) -> Users {
        Users {
            file,
            store,
            publisher_password,
            lines: BTreeMap::new(),
        }
    }

    /// Makes the file say exactly what the store says.
    pub(super) async fn refresh(&mut self) -> io::Result<()> {
        let devices = self.store.device_secrets().await.map_err(io::Error::other)?;
        let mut lines = BTreeMap::new();
        let wanted = devices
            .into_iter()
            .map(|(device, secret)| (registry_user(device), secret));
        for (user, password) in wanted.chain([(PUBLISHER.to_owned(), self.publisher_password.clone())]) {
            let line = match self.lines.remove(&user) {
                Some(line) => line,
                None => hashed(&user, &password).await?,
            };
            lines.insert(user, line);
        }
        let mut content = String::new();
        for line in lines.values() {
            content.push_str(line);
            content.push('\n');
        }
        self.lines = lines;
        secret::replace_private(&self.file, content.as_bytes())
    }
}

/// `user:hash`
async fn hashed(user: &str, password: &str) -> io::Result<String> {
    let mut child = Command::new("htpasswd")
        .args(["-n", "-i", "-B", user])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(password.as_bytes()).await?;
        input.write_all(b"\n").await?;
    }
    let output = child.wait_with_output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find(|line| {
        line.strip_prefix(user)
            .is_some_and(|rest| rest.starts_with(":$2"))
    }) {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => Err(io::Error::other(format!(
            "htpasswd made no line for {user}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_user_list_follows_the_devices() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("studio.db")).await.unwrap();
        let owner = store.ensure_first_account("operator").await.unwrap().key;
        let swarm = store.first_swarm().await.unwrap();
        let file = folder.path().join("htpasswd");
        let mut users = Users::new(file.clone(), store.clone(), "publisher password".to_owned());
        let names = |text: String| -> Vec<String> {
            text.lines()
                .filter_map(|line| line.split_once(':').map(|(user, _)| user.to_owned()))
                .collect()
        };

        users.refresh().await.unwrap();
        assert_eq!(names(std::fs::read_to_string(&file).unwrap()), ["studio"]);

        let device = store
            .add_device("press".to_owned(), swarm, owner)
            .await
            .unwrap()
            .device
            .key;
        users.refresh().await.unwrap();
        let both = std::fs::read_to_string(&file).unwrap();
        assert_eq!(names(both.clone()), [registry_user(device), "studio".to_owned()]);
        assert!(!both.contains("publisher password"));

        store.remove_device(device).await.unwrap();
        users.refresh().await.unwrap();
        assert_eq!(names(std::fs::read_to_string(&file).unwrap()), ["studio"]);
    }
}
