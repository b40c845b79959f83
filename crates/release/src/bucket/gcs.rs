//! A bucket of Google Cloud Storage, through Google's `gsutil` command: part of the Google Cloud command line, with whose
//! login it works then, and to be had alone.

use std::process::Command;

use super::{BucketError, Existing, Found, disk, headers, refused, require, run, said, scratch};

/// What `gsutil` says of an object that does not exist.
const NOTHING: [&str; 2] = ["No URLs matched", "matched no objects"];
/// What it says of an object that was to be of another generation; the second of one that is uploaded in parts.
const ANOTHER: [&str; 2] = ["PreconditionException", "AbortException: 412"];

/// How often it tries again: half a minute in all when nothing can be reached. Its own 23 times take many, and whoever
/// waits sees nothing of them.
const RETRIES: &str = "Boto:num_retries=5";

/// `gs://bucket/prefix/`
#[derive(Clone, Debug)]
pub struct Gcs {
    url: String,
}

impl Gcs {
    pub(super) fn new(bucket: String, prefix: String) -> Result<Gcs, BucketError> {
        require(
            "gsutil",
            "install the Google Cloud command line: https://cloud.google.com/sdk or pip install gsutil",
        )?;
        Ok(Gcs {
            url: format!("gs://{bucket}/{prefix}"),
        })
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BucketError> {
        let doing = "cannot read";
        let file = scratch(b"", name)?;
        let mut command = gsutil();
        command
            .args(["-q", "cp"])
            .arg(format!("{}{name}", self.url))
            .arg(file.path());
        let output = run(&mut command, doing, name)?;
        if output.status.success() {
            return std::fs::read(file.path())
                .map(Some)
                .map_err(|source| disk(doing, name, source));
        }
        match said(&output, &NOTHING) {
            true => Ok(None),
            false => Err(refused(doing, name, &output)),
        }
    }

    /// The generation is read first: content that came later fails when it is replaced.
    pub(super) fn look(&self, name: &str) -> Result<Found, BucketError> {
        let doing = "cannot read";
        let mut command = gsutil();
        command.arg("stat").arg(format!("{}{name}", self.url));
        let output = run(&mut command, doing, name)?;
        if !output.status.success() {
            return match said(&output, &NOTHING) {
                true => Ok(Found(None)),
                false => Err(refused(doing, name, &output)),
            };
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines().map(str::trim);
        let Some(generation) = lines.find_map(|line| line.strip_prefix("Generation:")) else {
            return Err(BucketError::Vendor {
                doing,
                name: name.to_owned(),
                said: "gsutil stat names no generation".to_owned(),
            });
        };
        let content = self.read(name)?;
        Ok(Found(
            content.map(|content| (content, generation.trim().to_owned())),
        ))
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let doing = "cannot list";
        let mut command = gsutil();
        command.arg("ls").arg(format!("{}{prefix}**", self.url));
        let output = run(&mut command, doing, prefix)?;
        if !output.status.success() {
            return match said(&output, &NOTHING) {
                true => Ok(Vec::new()),
                false => Err(refused(doing, prefix, &output)),
            };
        }
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().strip_prefix(&self.url))
            .filter(|name| !name.is_empty() && !name.ends_with('/'))
            .map(str::to_owned)
            .collect())
    }

    pub(super) fn write(
        &self,
        name: &str,
        content: &[u8],
        existing: Existing<'_>,
    ) -> Result<bool, BucketError> {
        let doing = "cannot write";
        let file = scratch(content, name)?;
        let (cache, kind) = headers(name);
        let mut headers = vec![format!("Cache-Control:{cache}"), format!("Content-Type:{kind}")];
        match existing {
            // No generation: it must not exist.
            Existing::Keep => headers.push("x-goog-if-generation-match:0".to_owned()),
            Existing::ReplaceOnly(generation) => {
                headers.push(format!("x-goog-if-generation-match:{generation}"));
            }
            Existing::Replace => {}
        }
        let mut command = gsutil();
        command.arg("-q");
        for header in &headers {
            command.args(["-h", header]);
        }
        command
            .arg("cp")
            .arg(file.path())
            .arg(format!("{}{name}", self.url));
        let output = run(&mut command, doing, name)?;
        if output.status.success() {
            return Ok(true);
        }
        match existing != Existing::Replace && said(&output, &ANOTHER) {
            true => Ok(false),
            false => Err(refused(doing, name, &output)),
        }
    }
}

/// The command, whatever it is to do. What is said here counts more than what its files say.
fn gsutil() -> Command {
    let mut command = Command::new("gsutil");
    command.args(["-o", RETRIES]);
    command
}
