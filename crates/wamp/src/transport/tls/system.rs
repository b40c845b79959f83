//! The certificates that the system trusts, one after the other. All of them at once, as `rustls-native-certs` returns
//! them, leave half a megabyte of holes in the memory of a small process.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Those of `SSL_CERT_FILE` and `SSL_CERT_DIR`; without either, of wherever distributions have them. What cannot be read
/// is left out.
pub(super) fn each(take: impl FnMut(CertificateDer<'static>)) {
    let named = named(
        std::env::var_os("SSL_CERT_FILE"),
        std::env::var_os("SSL_CERT_DIR"),
    );
    let (file, directories) = named.unwrap_or_else(|| {
        let found = openssl_probe::probe();
        (found.cert_file, found.cert_dir)
    });
    each_of(file, &directories, take);
}

/// A file and directories.
type Places = (Option<PathBuf>, Vec<PathBuf>);

/// Where the variables point, if they do. An empty name of a file is one that cannot be read, so whoever sets it trusts
/// what is built in and nothing else; empty names of directories are none.
fn named(file: Option<OsString>, directories: Option<OsString>) -> Option<Places> {
    let file = file.map(PathBuf::from);
    let directories: Vec<PathBuf> = std::env::split_paths(&directories.unwrap_or_default())
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    (file.is_some() || !directories.is_empty()).then_some((file, directories))
}

fn each_of(file: Option<PathBuf>, directories: &[PathBuf], mut take: impl FnMut(CertificateDer<'static>)) {
    // Directories hold links to one certificate under several names, and often the file as well.
    let mut seen = HashSet::new();
    let mut is_new = |found: &Metadata| seen.insert((found.dev(), found.ino()));
    if let Some(path) = file {
        let _ = std::fs::metadata(&path).map(|found| is_new(&found));
        each_in(&path, &mut take);
    }
    for directory in directories {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                left_out(directory, &error);
                continue;
            }
        };
        for entry in entries {
            let found = entry.map(|entry| entry.path()).and_then(|path| {
                let found = std::fs::metadata(&path)?;
                Ok((path, found))
            });
            match found {
                Ok((path, found)) if found.is_file() && is_new(&found) => each_in(&path, &mut take),
                Ok(_) => {}
                Err(error) => left_out(directory, &error),
            }
        }
    }
}

fn each_in(path: &Path, take: &mut impl FnMut(CertificateDer<'static>)) {
    match CertificateDer::pem_file_iter(path) {
        Ok(certificates) => certificates
            .filter_map(|found| found.inspect_err(|error| left_out(path, error)).ok())
            .for_each(take),
        Err(error) => left_out(path, &error),
    }
}

fn left_out(path: &Path, error: &dyn std::fmt::Display) {
    tracing::debug!(path = %path.display(), %error, "a system certificate could not be loaded");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn certificate(name: &str) -> (String, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.cert.der().to_vec())
    }

    /// In some order.
    fn read(file: Option<PathBuf>, directories: &[PathBuf]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        each_of(file, directories, |certificate| all.push(certificate.to_vec()));
        all.sort();
        all
    }

    #[test]
    fn file_and_directories_are_read_once_each_and_what_is_damaged_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [one, two, three] = ["one.example", "two.example", "three.example"].map(certificate);
        fs::create_dir(path("certs")).unwrap();
        fs::write(path("certs/all.crt"), format!("{}\n# two\n{}", one.0, two.0)).unwrap();
        let damaged = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        fs::write(path("certs/three.pem"), format!("{damaged}{}", three.0)).unwrap();
        symlink(path("certs/three.pem"), path("certs/0a1b2c3d.0")).unwrap();
        symlink(path("gone"), path("certs/4e5f6071.0")).unwrap();
        fs::create_dir(path("certs/java")).unwrap();
        let mut expected = vec![one.1, two.1];
        expected.sort();
        assert_eq!(read(Some(path("certs/all.crt")), &[]), expected);
        expected.push(three.1);
        expected.sort();
        let directories = [path("gone"), path("certs")];
        assert_eq!(read(Some(path("certs/all.crt")), &directories), expected);
        assert_eq!(read(None, &directories), expected);
        assert!(read(Some(path("gone")), &[]).is_empty());
    }

    #[test]
    fn variables_that_name_something_replace_the_places_of_the_system() {
        let named = |file: Option<&str>, directories: Option<&str>| {
            super::named(file.map(OsString::from), directories.map(OsString::from))
        };
        let both = || ["/a", "/b"].map(PathBuf::from).to_vec();
        assert_eq!(named(None, None), None);
        assert_eq!(named(None, Some(":")), None);
        assert_eq!(named(None, Some("/a::/b")), Some((None, both())));
        assert_eq!(named(Some("/c"), None), Some((Some("/c".into()), vec![])));
        assert_eq!(
            named(Some("/c"), Some("/a:/b")),
            Some((Some("/c".into()), both()))
        );
        assert_eq!(named(Some(""), None), Some((Some("".into()), vec![])));
    }
}
