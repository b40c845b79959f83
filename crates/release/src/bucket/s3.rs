//! A bucket behind the S3 protocol, through Amazon's `aws` command: it knows every way to log in, and `AWS_ENDPOINT_URL`
//! leads it to other makes.

use std::process::Command;

use serde::Deserialize;

use super::{BucketError, Existing, Found, disk, headers, refused, require, run, said, scratch};

/// `s3://bucket/prefix/`
#[derive(Clone, Debug)]
pub struct S3 {
    bucket: String,
    prefix: String,
}

/// What `get-object` prints.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "ETag")]
    tag: String,
}

impl S3 {
    pub(super) fn new(bucket: String, prefix: String) -> Result<S3, BucketError> {
        require(
            "aws",
            "install the AWS command line: https://aws.amazon.com/cli or pip install awscli",
        )?;
        Ok(S3 { bucket, prefix })
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new("aws");
        command.args(["s3api", action, "--output", "json", "--bucket", &self.bucket]);
        command
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BucketError> {
        Ok(self.look(name)?.0.map(|(content, _)| content))
    }

    pub(super) fn look(&self, name: &str) -> Result<Found, BucketError> {
        let doing = "cannot read";
        let file = scratch(b"", name)?;
        let mut command = self.command("get-object");
        command
            .arg("--key")
            .arg(format!("{}{name}", self.prefix))
            .arg(file.path());
        let output = run(&mut command, doing, name)?;
        if output.status.success() {
            let answer: Answer =
                serde_json::from_slice(&output.stdout).map_err(|source| disk(doing, name, source.into()))?;
            let content = std::fs::read(file.path()).map_err(|source| disk(doing, name, source))?;
            return Ok(Found(Some((content, answer.tag))));
        }
        match said(&output, &["NoSuchKey", "(404)"]) {
            true => Ok(Found(None)),
            false => Err(refused(doing, name, &output)),
        }
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let doing = "cannot list";
        let mut command = self.command("list-objects-v2");
        command
            .arg("--prefix")
            .arg(format!("{}{prefix}", self.prefix))
            .args(["--query", "Contents[].Key"]);
        let output = run(&mut command, doing, prefix)?;
        if !output.status.success() {
            return Err(refused(doing, prefix, &output));
        }
        // An empty answer or `null`: there is nothing.
        let keys: Option<Vec<String>> = match output.stdout.trim_ascii() {
            b"" => None,
            text => serde_json::from_slice(text).map_err(|source| disk(doing, prefix, source.into()))?,
        };
        Ok(keys
            .unwrap_or_default()
            .into_iter()
            .filter_map(|key| key.strip_prefix(&self.prefix).map(str::to_owned))
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
        let mut command = self.command("put-object");
        command
            .arg("--key")
            .arg(format!("{}{name}", self.prefix))
            .arg("--body")
            .arg(file.path())
            .args(["--cache-control", cache, "--content-type", kind]);
        match existing {
            Existing::Keep => command.args(["--if-none-match", "*"]),
            Existing::ReplaceOnly(tag) => command.args(["--if-match", tag]),
            Existing::Replace => &mut command,
        };
        let output = run(&mut command, doing, name)?;
        if output.status.success() {
            return Ok(true);
        }
        // The second: somebody else writes it at this moment.
        match said(
            &output,
            &[
                "PreconditionFailed",
                "(412)",
                "ConditionalRequestConflict",
                "(409)",
            ],
        ) {
            true => Ok(false),
            // Somebody has taken it away.
            false if matches!(existing, Existing::ReplaceOnly(_)) && said(&output, &["NoSuchKey"]) => {
                Ok(false)
            }
            false => Err(refused(doing, name, &output)),
        }
    }
}
