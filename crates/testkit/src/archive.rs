//! Archives as developers upload them.

use std::io::Write;
use std::process::{Command, Stdio};

/// A packed tar of these files.
pub fn tgz(files: &[(&str, &str)]) -> Vec<u8> {
    let root = tempfile::tempdir().expect("a directory for the files");
    for (name, content) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the directory")).expect("a directory");
        let mut file = std::fs::File::create(path).expect("a file in a directory of ours");
        file.write_all(content.as_bytes()).expect("it can be written");
    }
    let output = Command::new("tar")
        .args(["--create", "--gzip", "--owner=0", "--group=0", "--directory"])
        .arg(root.path())
        .args(files.iter().map(|(name, _)| name))
        .stderr(Stdio::inherit())
        .output()
        .expect("tar starts");
    assert!(output.status.success(), "tar packs {files:?}");
    output.stdout
}
