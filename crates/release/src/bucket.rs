//! A bucket: objects with names, in a directory or behind a vendor's command line. Every write is read back and compared
//! before it counts. Must not know what objects mean.

mod directory;
mod gcs;
mod s3;

use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub use directory::Directory;
pub use gcs::Gcs;
pub use s3::S3;

use crate::layout::{Lifetime, content_type};

/// Why a bucket did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("{0:?} is no bucket: give a directory, s3://BUCKET[/PREFIX] or gs://BUCKET[/PREFIX]")]
    Name(String),
    #[error("{tool} is missing: {hint}")]
    Tool { tool: &'static str, hint: &'static str },
    #[error("{doing} {name}")]
    Disk {
        doing: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{doing} {name}: {said}")]
    Vendor {
        doing: &'static str,
        name: String,
        said: String,
    },
    #[error("{name} is published with other bytes: a version never changes, raise the number")]
    Published { name: String },
    #[error("{name} does not read back as it was written")]
    ReadBack { name: String },
}

/// What came of creating an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    /// There was one of the same bytes.
    Same,
}

/// What happens when an object exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing<'a> {
    Keep,
    Replace,
    /// Replaced if the vendor still calls its content so (an ETag, a generation), else kept.
    ReplaceOnly(&'a str),
}

/// Where releases are published to. Names of objects are relative to the place that holds `availableVersions.json`.
#[derive(Clone, Debug)]
pub enum Bucket {
    Directory(Directory),
    S3(S3),
    Gcs(Gcs),
}

impl Bucket {
    /// From what a person wrote. Looks for the vendor's tool, not for the bucket.
    pub fn open(text: &str) -> Result<Bucket, BucketError> {
        let place = |rest: &str| -> Result<(String, String), BucketError> {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let prefix = if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            };
            match bucket.is_empty() {
                true => Err(BucketError::Name(text.to_owned())),
                false => Ok((bucket.to_owned(), prefix)),
            }
        };
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = place(rest)?;
            return Ok(Bucket::S3(S3::new(bucket, prefix)?));
        }
        if let Some(rest) = text.strip_prefix("gs://") {
            let (bucket, prefix) = place(rest)?;
            return Ok(Bucket::Gcs(Gcs::new(bucket, prefix)?));
        }
        if text.is_empty() || text.contains("://") {
            return Err(BucketError::Name(text.to_owned()));
        }
        Ok(Bucket::Directory(Directory::new(PathBuf::from(text))))
    }

    /// The content of an object, if there is one.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BucketError> {
        match self {
            Bucket::Directory(directory) => directory.read(name),
            Bucket::S3(s3) => s3.read(name),
            Bucket::Gcs(gcs) => gcs.read(name),
        }
    }

    /// Names of all objects that begin with `prefix`, which ends in a slash.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let mut names = match self {
            Bucket::Directory(directory) => directory.list(prefix),
            Bucket::S3(s3) => s3.list(prefix),
            Bucket::Gcs(gcs) => gcs.list(prefix),
        }?;
        names.sort();
        Ok(names)
    }

    /// Makes an object that must not exist with other bytes.
    pub fn create(&self, name: &str, content: &[u8]) -> Result<Created, BucketError> {
        if self.write(name, content, Existing::Keep)? {
            return self.compare(name, content).map(|()| Created::New);
        }
        match self.read(name)? {
            Some(found) if found == content => Ok(Created::Same),
            _ => Err(BucketError::Published {
                name: name.to_owned(),
            }),
        }
    }

    /// Makes an object or replaces it.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), BucketError> {
        self.write(name, content, Existing::Replace)?;
        self.compare(name, content)
    }

    /// Makes or replaces an object that still is as somebody has read it; `before`: what that was, `None`: nothing.
    /// `false`: it is not, and stays as it is.
    pub fn replace_unchanged(
        &self,
        name: &str,
        before: Option<&[u8]>,
        content: &[u8],
    ) -> Result<bool, BucketError> {
        // The vendor's tool asks once more when an answer gets lost, and is refused for what it wrote itself.
        let is_there = || Ok::<_, BucketError>(self.read(name)?.as_deref() == Some(content));
        let done = match self {
            Bucket::Directory(directory) => directory.replace_unchanged(name, before, content)?,
            Bucket::S3(s3) => {
                let found = s3.look(name)?;
                found.is(before) && (s3.write(name, content, found.existing())? || is_there()?)
            }
            Bucket::Gcs(gcs) => {
                let found = gcs.look(name)?;
                found.is(before) && (gcs.write(name, content, found.existing())? || is_there()?)
            }
        };
        if done {
            self.compare(name, content)?;
        }
        Ok(done)
    }

    fn compare(&self, name: &str, content: &[u8]) -> Result<(), BucketError> {
        match self.read(name)? {
            Some(found) if found == content => Ok(()),
            _ => Err(BucketError::ReadBack {
                name: name.to_owned(),
            }),
        }
    }

    /// `false`: there was one, and it was to be kept.
    fn write(&self, name: &str, content: &[u8], existing: Existing<'_>) -> Result<bool, BucketError> {
        match self {
            Bucket::Directory(directory) => directory.write(name, content, existing),
            Bucket::S3(s3) => s3.write(name, content, existing),
            Bucket::Gcs(gcs) => gcs.write(name, content, existing),
        }
    }
}

/// An object, and what the vendor calls this content of it.
struct Found(Option<(Vec<u8>, String)>);

impl Found {
    fn is(&self, before: Option<&[u8]>) -> bool {
        self.0.as_ref().map(|(content, _)| content.as_slice()) == before
    }

    fn existing(&self) -> Existing<'_> {
        match &self.0 {
            Some((_, tag)) => Existing::ReplaceOnly(tag),
            None => Existing::Keep,
        }
    }
}

/// What an object is served with.
fn headers(name: &str) -> (&'static str, &'static str) {
    (Lifetime::of(name).cache_control(), content_type(name))
}

/// Whether there is a vendor's tool at all. It is not started for that: these tools take a second to begin.
fn require(tool: &'static str, hint: &'static str) -> Result<(), BucketError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    match is_there {
        true => Ok(()),
        false => Err(BucketError::Tool { tool, hint }),
    }
}

/// Runs a vendor's tool to its end. `Err` only when it did not start.
fn run(command: &mut Command, doing: &'static str, name: &str) -> Result<Output, BucketError> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| disk(doing, name, source))
}

/// The tool's last words as the reason.
fn refused(doing: &'static str, name: &str, output: &Output) -> BucketError {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or_default().trim().to_owned();
    BucketError::Vendor {
        doing,
        name: name.to_owned(),
        said: if said.is_empty() {
            output.status.to_string()
        } else {
            said
        },
    }
}

/// Whether the tool said one of these.
fn said(output: &Output, words: &[&str]) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    words.iter().any(|word| text.contains(word))
}

fn disk(doing: &'static str, name: &str, source: io::Error) -> BucketError {
    BucketError::Disk {
        doing,
        name: name.to_owned(),
        source,
    }
}

/// A file with `content` that a tool may read; gone with the value.
fn scratch(content: &[u8], name: &str) -> Result<tempfile::NamedTempFile, BucketError> {
    use std::io::Write as _;
    let failed = |source| disk("cannot write a temporary file for", name, source);
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    Ok(file)
}
