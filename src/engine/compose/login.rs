//! Registry logins for one call (`app-lifecycle.md` 4.9, weakness W39): a private configuration directory that lives
//! as long as the call. No password is ever on a command line or in the user's own configuration.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::request::RegistryLogin;
use serde_json::{Map, Value, json};

use crate::os::{self, DirBuilderExt as _};

/// What the tools call the registry that a reference without one means.
const HUB: &str = "https://index.docker.io/v1/";

/// The directory; removed on drop.
#[derive(Debug)]
pub(super) struct Configuration {
    directory: PathBuf,
}

impl Configuration {
    /// Makes `directory` (0700, whatever was there goes) with the logins and a link to the user's plugins.
    pub(super) fn write(
        directory: &Path,
        logins: &BTreeMap<String, RegistryLogin>,
    ) -> io::Result<Configuration> {
        // Left by a power cut.
        remove(directory)?;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let configuration = Configuration {
            directory: directory.to_owned(),
        };
        crate::durable::replace(&directory.join("config.json"), content(logins).as_bytes(), 0o600)?;
        if let Some(plugins) = super::user_configuration().map(|user| user.join("cli-plugins"))
            && plugins.is_dir()
        {
            os::link_directory(&plugins, &directory.join("cli-plugins"))?;
        }
        Ok(configuration)
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            tracing::warn!(%error, "removing a private registry configuration");
        }
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn content(logins: &BTreeMap<String, RegistryLogin>) -> String {
    let mut auths = Map::new();
    for (registry, login) in logins {
        let auth = STANDARD.encode(format!("{}:{}", login.username, login.password));
        auths.insert(key(registry), json!({ "auth": auth }));
    }
    Value::from(Map::from_iter([("auths".to_owned(), Value::Object(auths))])).to_string()
}

/// Host and port, as the tools look for them: `registry.example/` and `https://registry.example/v2/` are the same.
pub(in crate::engine) fn key(registry: &str) -> String {
    match registry_host(registry) {
        "docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// The host of a registry's address in any of its forms.
pub(crate) fn registry_host(registry: &str) -> &str {
    let bare = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    match bare.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The registry of an image reference or of a registry's address: `docker.io` when there is none in it.
pub(crate) fn registry_of(reference: &str) -> &str {
    let bare = reference.split_once("://").map_or(reference, |(_, rest)| rest);
    match bare.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => registry_host(bare),
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn logins(registries: &[&str]) -> BTreeMap<String, RegistryLogin> {
        let login = |registry: &&str| {
            let login = RegistryLogin {
                username: "user".to_owned(),
                password: "pass".to_owned(),
            };
            ((*registry).to_owned(), login)
        };
        registries.iter().map(login).collect()
    }

    #[test]
    fn the_configuration_is_private_and_gone_after_the_call() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("logins/one");
        let configuration = Configuration::write(&directory, &logins(&["r.example:5000/"])).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("config.json")), 0o600);
        let written = fs::read_to_string(directory.join("config.json")).unwrap();
        assert_eq!(written, r#"{"auths":{"r.example:5000":{"auth":"dXNlcjpwYXNz"}}}"#);
        drop(configuration);
        assert!(!directory.exists());
    }

    #[test]
    fn what_a_power_cut_left_behind_is_taken_over() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("stale"), "x").unwrap();
        let _configuration = Configuration::write(home.path(), &logins(&["docker.io"])).unwrap();
        assert!(!home.path().join("stale").exists());
        let written = fs::read_to_string(home.path().join("config.json")).unwrap();
        assert!(written.contains(HUB), "{written}");
    }

    #[test]
    fn registries_are_recognised_in_every_form() {
        for (text, registry) in [
            ("nginx:1", "docker.io"),
            ("library/nginx", "docker.io"),
            ("index.docker.io/library/nginx", "docker.io"),
            ("localhost/x", "localhost"),
            ("127.0.0.1:5000/apps/x:1", "127.0.0.1:5000"),
            ("registry.example/", "registry.example"),
            ("https://registry.example/v2/", "registry.example"),
        ] {
            assert_eq!(registry_of(text), registry, "{text}");
        }
    }
}
