//! A copy of what people work on when they release, with a build that is quickly made.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::fleet::CommandOutput;

/// From the repository.
const COPIED: [&str; 5] = [
    "Makefile",
    ".gitignore",
    "scripts/publish",
    "scripts/rollout",
    "scripts/bump",
];

pub(crate) struct Workshop {
    home: tempfile::TempDir,
    /// Of every command.
    environment: Vec<(String, String)>,
}

impl Workshop {
    /// At version 0.1.0, with a key; nothing is built.
    pub(crate) fn new() -> Workshop {
        let workshop = Workshop {
            home: tempfile::Builder::new()
                .prefix("reagent-faces-")
                .tempdir()
                .unwrap(),
            environment: Vec::new(),
        };
        for directory in ["scripts", "release", "build"] {
            std::fs::create_dir(workshop.path(directory)).unwrap();
        }
        workshop.bring(&COPIED);
        workshop.write("targets", b"linux/armv7\n");
        workshop.write("release/version.txt", b"0.1.0\n");
        let list = r#"{"production": "0.1.0", "test": "0.1.0", "local": "0.1.0", "all": "0.1.0"}"#;
        workshop.write("release/availableVersions.json", list.as_bytes());
        let secret = format!("SECRET={}", workshop.secret().display());
        workshop.make(&["keys", &secret]).ok();
        workshop
    }

    /// The same with these words in every environment.
    pub(crate) fn with(self, environment: Vec<(String, String)>) -> Workshop {
        Workshop { environment, ..self }
    }

    /// The same with the programs of this directory before all others.
    pub(crate) fn with_tools(mut self, directory: &str) -> Workshop {
        let known = self.environment.iter().find(|(name, _)| name == "PATH");
        let path = known.map_or_else(|| std::env::var("PATH").unwrap(), |(_, path)| path.clone());
        let path = format!("{directory}:{path}");
        // The last one counts.
        self.environment.push(("PATH".to_owned(), path));
        self
    }

    /// Copies these of the repository.
    pub(crate) fn bring(&self, names: &[&str]) {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for name in names {
            let path = self.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::copy(repository.join(name), path).unwrap();
        }
    }

    /// A bucket in a directory, beside the tree.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.home.path().join("bucket")
    }

    fn secret(&self) -> PathBuf {
        self.home.path().join("release.key")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let tree = self.home.path().join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        tree.join(name)
    }

    /// A file of the tree, or of the bucket beside it.
    pub(crate) fn read(&self, name: &str) -> String {
        let path = match name.starts_with("bucket/") {
            true => self.home.path().join(name),
            false => self.path(name),
        };
        let content = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        String::from_utf8_lossy(&content).into_owned()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// A link in the tree.
    pub(crate) fn link(&self, name: &str, target: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Makes what looks like an agent of this version from the outside, for a machine that this one is not.
    pub(crate) fn build(&self, version: &str) {
        let mut binary = vec![0; 64];
        binary[..6].copy_from_slice(b"\x7fELF\x01\x01");
        // Arm.
        binary[18] = 40;
        binary.extend_from_slice(version.as_bytes());
        binary.extend_from_slice(self.read("release/current.pub").as_bytes());
        self.write("build/reagent-linux-armv7", &binary);
    }

    pub(crate) fn make(&self, words: &[&str]) -> CommandOutput {
        self.make_with(words, &[])
    }

    pub(crate) fn make_with(&self, words: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
        let mut command = self.command("make");
        command.args(words).envs(environment.iter().copied());
        command.output().unwrap().into()
    }

    /// A program beside the tree. The directory in which it is.
    pub(crate) fn program(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = self.home.path().join("tools");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        directory.to_str().unwrap().to_owned()
    }

    /// `scripts/publish …`
    pub(crate) fn publish(&self, words: &[&str]) -> Command {
        let mut command = self.script("scripts/publish");
        command.args(words);
        command
    }

    pub(crate) fn script(&self, name: &str) -> Command {
        self.command(self.path(name).to_str().unwrap())
    }

    pub(crate) fn git(&self, words: &[&str]) {
        let mut command = self.command("git");
        // Whatever whoever runs this has configured.
        command
            .args(words)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "releases");
            command.env(format!("GIT_{role}_EMAIL"), "releases@example.com");
        }
        CommandOutput::from(command.output().unwrap()).ok();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path(""))
            .stdin(std::process::Stdio::null())
            .env("RELEASE_TOOL", env!("CARGO_BIN_EXE_release"))
            .env("RELEASE_KEY_FILE", self.secret())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("YES");
        // `make test` is a make, too, and git may run this from a hook.
        for name in [
            "MAKEFLAGS",
            "MFLAGS",
            "MAKELEVEL",
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
        ] {
            command.env_remove(name);
        }
        command
    }
}
