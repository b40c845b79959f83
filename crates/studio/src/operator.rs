//! The operator's credentials file: how command lines on the studio's machine get in without any flag.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::secret;

/// Name of the file in the data directory.
pub const FILE: &str = "operator.json";

/// Where the studio is and who we are there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// `ws://host:port`
    pub url: String,
    /// Decimal account key.
    pub authid: String,
    pub secret: String,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Operator")
            .field("url", &self.url)
            .field("authid", &self.authid)
            .finish_non_exhaustive()
    }
}

impl Operator {
    /// Reads the file.
    pub fn load(path: &Path) -> io::Result<Operator> {
        let text = std::fs::read_to_string(path)?;
        serde_json::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes the file, readable by its owner only; one that says the same already stays untouched.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if Operator::load(path).is_ok_and(|found| found == *self) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        secret::replace_private(path, format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_and_its_debug_form_keeps_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let operator = Operator {
            url: "ws://127.0.0.1:8080".to_owned(),
            authid: "1".to_owned(),
            secret: "hidden".to_owned(),
        };
        operator.save(&path).unwrap();
        operator.save(&path).unwrap();
        assert_eq!(Operator::load(&path).unwrap(), operator);
        assert!(!format!("{operator:?}").contains("hidden"));
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(
            Operator::load(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
