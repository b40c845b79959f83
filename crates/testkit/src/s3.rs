//! A server that speaks the S3 protocol (moto) and Amazon's `aws` command, from the virtual environment that
//! `scripts/setup test` makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::wait;

/// Python starts slowly, above all on a busy machine.
const START: Duration = Duration::from_secs(90);

/// A running server without buckets. Ends with this value.
#[derive(Debug)]
pub struct S3Server {
    _process: Process,
    port: u16,
}

impl S3Server {
    /// Starts a server. Panics where it is not installed.
    pub fn start() -> S3Server {
        let program = tools().join("moto_server");
        assert!(
            program.exists(),
            "there is no {}: 'make test' installs it (scripts/setup test)",
            program.display()
        );
        let port = wait::free_port();
        let mut process = Process::start(
            "moto",
            Command::new(program).args(["-H", "127.0.0.1", "-p", &port.to_string()]),
        );
        process.wait_for_port(port, START);
        S3Server {
            _process: process,
            port,
        }
    }

    /// Makes an empty bucket. Panics when that fails.
    pub fn create(&self, bucket: &str) {
        let mut command = Command::new(tools().join("aws"));
        let output = command
            .args(["s3api", "create-bucket", "--bucket", bucket])
            .envs(self.environment())
            .output()
            .expect("aws starts");
        assert!(output.status.success(), "{output:?}");
    }

    /// What leads `aws` here and to nowhere else.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        [
            ("PATH", format!("{}:{path}", tools().display())),
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/s3-venv/bin")
}
