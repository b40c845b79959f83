//! What was built: the agents in the build directory, one for each platform of the file `targets` that could be built
//! here. Anything else in the directory is an accident that must not reach a bucket (`update-and-system.md` 9.5 P1).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::keys::PublicKeys;
use crate::layout::Platform;

/// Why what was built cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum BuiltError {
    #[error("cannot read {path}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0:?} in the file of targets is no platform")]
    Target(String),
    #[error("{0} is no build for a platform of the targets: remove it, or build again")]
    Unexpected(PathBuf),
    #[error("there is no agent in {0}: 'make build-all' makes them")]
    Nothing(PathBuf),
    #[error("{name} is no executable for {platform}")]
    Format { name: String, platform: Platform },
    #[error("{name} is not version {version}: build it again")]
    Version { name: String, version: String },
    #[error(
        "{name} cannot be started in {directory} to look at its version: build it again; or name another directory in TMPDIR, \
         if nothing can be started in that one (noexec)"
    )]
    Start {
        name: String,
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{name} carries none of the public keys: a device that runs it could never be updated again; build it \
         again"
    )]
    Keyless { name: String },
}

/// One agent.
#[derive(Clone, Debug)]
pub struct Built {
    pub platform: Platform,
    pub content: Vec<u8>,
}

/// What the build directory holds.
#[derive(Clone, Debug)]
pub struct Builds {
    pub agents: Vec<Built>,
    /// Platforms of the targets that were not built.
    pub missing: Vec<Platform>,
}

/// Reads the agents in `directory`; every other file there has to be a studio of one of the targets.
pub fn collect(directory: &Path, targets: &Path) -> Result<Builds, BuiltError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BuiltError::Unreadable { path, source }
    };
    let lines = fs::read_to_string(targets).map_err(failed(targets))?;
    let platforms = lines
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| Platform::of_target(line).ok_or_else(|| BuiltError::Target(line.to_owned())))
        .collect::<Result<Vec<_>, _>>()?;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BuiltError::Nothing(directory.to_owned()));
        }
        entries => entries.map_err(failed(directory))?,
    };
    for entry in entries {
        let path = entry.map_err(failed(directory))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let known = |platform: &Platform| {
            ["reagent", "studio"]
                .iter()
                .any(|program| platform.build_name(program) == name)
        };
        if !path.is_file() || !platforms.iter().any(known) {
            return Err(BuiltError::Unexpected(path));
        }
    }
    let mut builds = Builds {
        agents: Vec::new(),
        missing: Vec::new(),
    };
    for platform in platforms {
        let path = directory.join(platform.build_name("reagent"));
        match fs::read(&path) {
            Ok(content) => builds.agents.push(Built { platform, content }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => builds.missing.push(platform),
            Err(source) => return Err(BuiltError::Unreadable { path, source }),
        }
    }
    if builds.agents.is_empty() {
        return Err(BuiltError::Nothing(directory.to_owned()));
    }
    for built in &builds.agents {
        built.check_format()?;
    }
    Ok(builds)
}

impl Built {
    fn name(&self) -> String {
        self.platform.build_name("reagent")
    }

    /// Whether it begins like an executable of its platform.
    fn check_format(&self) -> Result<(), BuiltError> {
        let fits = match (self.platform.os.as_str(), machine(&self.platform.arch)) {
            ("linux", Some((class, number))) => {
                self.content.len() > 20
                    && self.content.starts_with(b"\x7fELF")
                    && self.content[4] == class
                    && self.content[18..20] == u16::to_le_bytes(number)
            }
            ("windows", _) => self.content.starts_with(b"MZ"),
            // Little-endian Mach-O of 64 bits.
            ("darwin", _) => self.content.starts_with(&[0xcf, 0xfa, 0xed, 0xfe]),
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(BuiltError::Format {
                name: self.name(),
                platform: self.platform.clone(),
            }),
        }
    }

    /// Whether it is this version and can be updated from: by its bytes, and by running it where that is possible.
    pub fn check(&self, version: &str, keys: &PublicKeys) -> Result<(), BuiltError> {
        let other = || BuiltError::Version {
            name: self.name(),
            version: version.to_owned(),
        };
        if !self
            .content
            .windows(version.len())
            .any(|window| window == version.as_bytes())
        {
            return Err(other());
        }
        if !keys.are_in(&self.content) {
            return Err(BuiltError::Keyless { name: self.name() });
        }
        if !self.is_for_this_machine() {
            return Ok(());
        }
        let printed = self.printed().map_err(|source| BuiltError::Start {
            name: self.name(),
            directory: std::env::temp_dir(),
            source,
        })?;
        match printed.is_some_and(|printed| printed.trim() == version) {
            true => Ok(()),
            false => Err(other()),
        }
    }

    fn is_for_this_machine(&self) -> bool {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        self.platform.os == std::env::consts::OS && self.platform.arch == arch
    }

    /// What it prints when asked for its version; `None`: it fails. `Err` only when it did not start.
    fn printed(&self) -> io::Result<Option<String>> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("reagent");
        fs::write(&path, &self.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let output = Command::new(&path).arg("-version").output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then_some(printed))
    }
}

/// ELF class and machine of an architecture.
fn machine(arch: &str) -> Option<(u8, u16)> {
    match arch {
        "amd64" => Some((2, 62)),
        "arm64" => Some((2, 183)),
        "armv7" | "armv6" | "armv5" => Some((1, 40)),
        _ => None,
    }
}

/// A file that looks like an agent for `arch` from the outside, for tests.
#[cfg(test)]
pub(crate) fn sham(arch: &str, text: &[u8]) -> Vec<u8> {
    let (class, number) = machine(arch).unwrap();
    let mut content = vec![0; 64];
    content[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
    content[18..20].copy_from_slice(&number.to_le_bytes());
    content.extend_from_slice(text);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree {
        folder: tempfile::TempDir,
    }

    impl Tree {
        fn new() -> Tree {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("build")).unwrap();
            fs::write(
                folder.path().join("targets"),
                "linux/amd64\nlinux/arm/7\nlinux/arm/6",
            )
            .unwrap();
            Tree { folder }
        }

        fn put(&self, name: &str, content: &[u8]) {
            fs::write(self.folder.path().join("build").join(name), content).unwrap();
        }

        fn collect(&self) -> Result<Builds, BuiltError> {
            collect(
                &self.folder.path().join("build"),
                &self.folder.path().join("targets"),
            )
        }
    }

    #[test]
    fn agents_of_the_targets_are_found_and_what_is_missing_is_named() {
        let tree = Tree::new();
        assert!(matches!(tree.collect(), Err(BuiltError::Nothing(_))));
        fs::remove_dir(tree.folder.path().join("build")).unwrap();
        assert!(matches!(tree.collect(), Err(BuiltError::Nothing(_))));
        fs::create_dir(tree.folder.path().join("build")).unwrap();
        tree.put("reagent-linux-armv7", &sham("armv7", b"1.0.0"));
        tree.put("studio-linux-amd64", b"not looked at");
        let builds = tree.collect().unwrap();
        assert_eq!(builds.agents[0].platform.to_string(), "linux/armv7");
        let missing: Vec<_> = builds.missing.iter().map(ToString::to_string).collect();
        assert_eq!(missing, ["linux/amd64", "linux/armv6"]);
    }

    #[test]
    fn whatever_else_lies_in_the_build_directory_stops_everything() {
        for name in [
            "frpc-windows-amd64",
            "reagent-linux-arm64",
            "reagent-linux-armv7.sbom.json",
            "reagent",
        ] {
            let tree = Tree::new();
            tree.put("reagent-linux-armv7", &sham("armv7", b"1.0.0"));
            tree.put(name, b"");
            assert!(matches!(tree.collect(), Err(BuiltError::Unexpected(_))), "{name}");
        }
    }

    #[test]
    fn a_build_for_another_machine_or_of_another_version_is_refused() {
        let tree = Tree::new();
        tree.put("reagent-linux-armv7", &sham("arm64", b"1.0.0"));
        assert!(matches!(tree.collect(), Err(BuiltError::Format { .. })));
        tree.put("reagent-linux-armv7", b"<html>not found</html>");
        assert!(matches!(tree.collect(), Err(BuiltError::Format { .. })));

        let (secret, public) = (tree.folder.path().join("s.key"), tree.folder.path().join("s.pub"));
        crate::keys::generate(&secret, &public).unwrap();
        let keys = PublicKeys::in_directory(tree.folder.path()).unwrap();
        let check = |text: &[u8]| {
            let built = Built {
                platform: Platform::of_target("linux/arm/7").unwrap(),
                content: sham("armv7", text),
            };
            built.check("1.0.0", &keys)
        };
        let key = fs::read(&public).unwrap();
        check(&[b"1.0.0 ".as_slice(), &key].concat()).unwrap();
        assert!(matches!(
            check(&[b"1.0.1 ".as_slice(), &key].concat()),
            Err(BuiltError::Version { .. })
        ));
        assert!(matches!(check(b"1.0.0"), Err(BuiltError::Keyless { .. })));
    }

    #[test]
    fn what_cannot_be_started_is_told_from_what_is_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, public) = (folder.path().join("s.key"), folder.path().join("s.pub"));
        crate::keys::generate(&secret, &public).unwrap();
        let keys = PublicKeys::in_directory(folder.path()).unwrap();
        let key = fs::read_to_string(&public).unwrap();
        let check = |text: &str| {
            let platforms = ["linux/amd64", "linux/arm64"].map(|target| Platform::of_target(target).unwrap());
            let builds = platforms.map(|platform| Built {
                platform,
                content: format!("{text}\n# 1.0.0\n# {key}").into_bytes(),
            });
            let here = builds.iter().find(|built| built.is_for_this_machine());
            here.unwrap().check("1.0.0", &keys)
        };
        let refused = check("#!/there/is/no/such/program").unwrap_err();
        assert!(matches!(refused, BuiltError::Start { .. }), "{refused}");
        assert!(refused.to_string().contains("TMPDIR"), "{refused}");
        for script in ["echo 1.0.1", "exit 1"] {
            let refused = check(&format!("#!/bin/sh\n{script}\nexit")).unwrap_err();
            assert!(matches!(refused, BuiltError::Version { .. }), "{refused}");
        }
        check("#!/bin/sh\necho 1.0.0\nexit").unwrap();
    }
}
