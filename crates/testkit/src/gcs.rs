//! A server that speaks the JSON protocol of Google Cloud Storage and Google's `gsutil` command, from the virtual
//! environment that `scripts/setup test` makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::wait;

/// Python starts slowly, above all on a busy machine.
const START: Duration = Duration::from_secs(90);

/// A running server with an empty bucket. Ends with this value.
#[derive(Debug)]
pub struct GcsServer {
    _process: Process,
    /// Certificate, key, configuration of `gsutil` and what that remembers.
    home: tempfile::TempDir,
}

impl GcsServer {
    /// Starts a server. Panics where it is not installed.
    pub fn start(bucket: &str) -> GcsServer {
        let python = tools().join("python");
        assert!(
            python.exists(),
            "there is no {}: 'make test' installs it (scripts/setup test)",
            python.display()
        );
        let home = tempfile::tempdir().expect("there is room for a directory");
        let port = wait::free_port();
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a plain name");
        let write = |name: &str, text: &str| -> PathBuf {
            let path = home.path().join(name);
            std::fs::write(&path, text).expect("the directory is writable");
            path
        };
        let certificate = write("cert.pem", &identity.cert.pem());
        let key = write("key.pem", &identity.signing_key.serialize_pem());
        // Whoever has no login speaks TLS all the same.
        write(
            "boto.cfg",
            &format!(
                "[Credentials]\ngs_json_host = localhost\ngs_json_port = {port}\n\
                 [Boto]\nca_certificates_file = {}\n\
                 [GSUtil]\nprefer_api = json\nsoftware_update_check_period = 0\nstate_dir = {}\n",
                certificate.display(),
                home.path().join("state").display()
            ),
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gcs_server.py");
        let mut process = Process::start(
            "gcp-storage-emulator",
            Command::new(python)
                .arg(script)
                .arg(port.to_string())
                .args([&certificate, &key])
                .arg(bucket),
        );
        process.wait_for_port(port, START);
        GcsServer {
            _process: process,
            home,
        }
    }

    /// What leads `gsutil` here and to nowhere else.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let config = self.home.path().join("boto.cfg");
        [
            ("PATH", format!("{}:{path}", tools().display())),
            ("BOTO_CONFIG", config.display().to_string()),
            ("NO_PROXY", "localhost".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/gcs-venv/bin")
}
