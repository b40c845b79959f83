//! The certificates that the system trusts, one after the other. All of them at once, as `rustls-native-certs` returns
//! them, leave half a megabyte of holes in the memory of a small process.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error, PemObject as _};

/// Those of `SSL_CERT_FILE` and `SSL_CERT_DIR`; without either, of wherever distributions have them. What cannot be read
/// is left out.
pub(super) fn each(take: impl FnMut(CertificateDer<'static>)) {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let file: Option<PathBuf> = variable("SSL_CERT_FILE").map(PathBuf::from);
    let directories: Vec<PathBuf> = variable("SSL_CERT_DIR")
        .map(|text| std::env::split_paths(&text).collect())
        .unwrap_or_default();
    if file.is_none() && directories.is_empty() {
        let found = openssl_probe::probe();
        return each_of(found.cert_file, &found.cert_dir, take);
    }
    each_of(file, &directories, take);
}

fn each_of(file: Option<PathBuf>, directories: &[PathBuf], mut take: impl FnMut(CertificateDer<'static>)) {
    // Directories hold links to one certificate under several names, and often the file as well.
    let mut seen = HashSet::new();
    let entries = directories.iter().flat_map(|directory| {
        let entries = std::fs::read_dir(directory);
        let entries = entries.inspect_err(|error| left_out(directory, error));
        entries.into_iter().flatten().flatten().map(|entry| entry.path())
    });
    for path in file.into_iter().chain(entries) {
        let certificates = match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() || !seen.insert((found.dev(), found.ino())) => continue,
            Ok(_) => CertificateDer::pem_file_iter(&path),
            Err(error) => Err(Error::Io(error)),
        };
        match certificates {
            Ok(certificates) => certificates
                .filter_map(|found| found.inspect_err(|error| left_out(&path, error)).ok())
                .for_each(&mut take),
            Err(error) => left_out(&path, &error),
        }
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
}
