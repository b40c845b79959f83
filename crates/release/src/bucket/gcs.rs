//! A bucket of Google Cloud Storage, through Google's `gcloud` command.

use std::process::Command;

use super::{BucketError, Existing, Found, disk, headers, refused, require, run, said, scratch};

/// `gs://bucket/prefix/`
#[derive(Clone, Debug)]
pub struct Gcs {
    url: String,
}

impl Gcs {
    pub(super) fn new(bucket: String, prefix: String) -> Result<Gcs, BucketError> {
        require(
            "gcloud",
            "install the Google Cloud command line: https://cloud.google.com/sdk",
        )?;
        Ok(Gcs {
            url: format!("gs://{bucket}/{prefix}"),
        })
    }

    fn command(action: &str) -> Command {
        let mut command = Command::new("gcloud");
        command.args(["storage", action, "--quiet"]);
        command
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BucketError> {
        let doing = "cannot read";
        let file = scratch(b"", name)?;
        let mut command = Gcs::command("cp");
        command.arg(format!("{}{name}", self.url)).arg(file.path());
        let output = run(&mut command, doing, name)?;
        if output.status.success() {
            return std::fs::read(file.path())
                .map(Some)
                .map_err(|source| disk(doing, name, source));
        }
        match said(&output, &["matched no objects", "not found: 404"]) {
            true => Ok(None),
            false => Err(refused(doing, name, &output)),
        }
    }

    /// The generation is read first: content that came later fails when it is replaced.
    pub(super) fn look(&self, name: &str) -> Result<Found, BucketError> {
        let doing = "cannot read";
        let mut command = Command::new("gcloud");
        command
            .args([
                "storage",
                "objects",
                "describe",
                "--quiet",
                "--format=value(generation)",
            ])
            .arg(format!("{}{name}", self.url));
        let output = run(&mut command, doing, name)?;
        if !output.status.success() {
            return match said(&output, &["matched no objects", "not found: 404"]) {
                true => Ok(Found(None)),
                false => Err(refused(doing, name, &output)),
            };
        }
        let generation = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let content = self.read(name)?;
        Ok(Found(content.map(|content| (content, generation))))
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let doing = "cannot list";
        let mut command = Gcs::command("ls");
        command.arg(format!("{}{prefix}**", self.url));
        let output = run(&mut command, doing, prefix)?;
        if !output.status.success() {
            return match said(&output, &["matched no objects"]) {
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
        let mut command = Gcs::command("cp");
        command
            .arg(format!("--cache-control={cache}"))
            .arg(format!("--content-type={kind}"));
        match existing {
            Existing::Keep => command.arg("--if-generation-match=0"),
            Existing::ReplaceOnly(generation) => command.arg(format!("--if-generation-match={generation}")),
            Existing::Replace => &mut command,
        };
        command.arg(file.path()).arg(format!("{}{name}", self.url));
        let output = run(&mut command, doing, name)?;
        if output.status.success() {
            return Ok(true);
        }
        match existing != Existing::Replace && said(&output, &["412", "PreconditionFailed", "pre-conditions"])
        {
            true => Ok(false),
            false => Err(refused(doing, name, &output)),
        }
    }
}
