//! Signing keys in minisign's format: made here, read from where the environment says, never from the repository. Must
//! not know what is signed.

use std::fs;
use std::io::{self, Cursor, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};

/// Names a file with the secret key.
pub const KEY_FILE: &str = "RELEASE_KEY_FILE";
/// Names a command that prints the secret key: a password manager, `gpg --decrypt`.
pub const KEY_COMMAND: &str = "RELEASE_KEY_COMMAND";

/// Why there is no key. Never contains one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "no signing key: set {KEY_FILE} to a file or {KEY_COMMAND} to a command that prints it; 'make keys' makes a pair"
    )]
    Unset,
    #[error("the signing key cannot be read from {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} can be read by others: chmod 600")]
    Open { path: PathBuf },
    #[error("the command of {KEY_COMMAND} failed: {0}")]
    Command(String),
    #[error("what is there is no minisign secret key without a password")]
    Malformed,
    #[error("{path} is no minisign public key")]
    Public { path: PathBuf },
    #[error("{path} cannot be made")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} is in the git working tree {tree}, from where keys get into commits and images: name a file outside of it"
    )]
    InTree { path: PathBuf, tree: PathBuf },
    #[error("no key pair can be made: {0}")]
    Generate(String),
    #[error("the content cannot be signed: {0}")]
    Sign(String),
    #[error(
        "there is no public key in {0} yet, so devices would refuse whatever is signed: 'make keys' makes a pair; commit \
         the public half and build again"
    )]
    Vacant(String),
    #[error("the signing key is none of those in {0}: no device would accept what it signs")]
    Foreign(String),
}

/// Signs. Its `Debug` shows the public half.
pub struct Signer {
    secret: SecretKey,
    public: PublicKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Signer({})", self.public.to_base64())
    }
}

impl Signer {
    /// The key that the environment names.
    pub fn from_environment() -> Result<Signer, KeyError> {
        if let Some(path) = std::env::var_os(KEY_FILE).map(PathBuf::from) {
            return Signer::from_file(&path);
        }
        let Some(command) = std::env::var_os(KEY_COMMAND) else {
            return Err(KeyError::Unset);
        };
        let output = Command::new("sh")
            .arg("-c")
            .arg(command)
            .stdin(Stdio::inherit())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| KeyError::Command(error.to_string()))?;
        if !output.status.success() {
            return Err(KeyError::Command(output.status.to_string()));
        }
        Signer::read(&String::from_utf8_lossy(&output.stdout))
    }

    /// The key in a file, which nobody else may be able to read.
    pub fn from_file(path: &Path) -> Result<Signer, KeyError> {
        let failed = |source| KeyError::File {
            path: path.to_owned(),
            source,
        };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Open {
                path: path.to_owned(),
            });
        }
        Signer::read(&fs::read_to_string(path).map_err(failed)?)
    }

    fn read(text: &str) -> Result<Signer, KeyError> {
        let secret = SecretKeyBox::from_string(text.trim())
            .and_then(SecretKeyBox::into_unencrypted_secret_key)
            .map_err(|_| KeyError::Malformed)?;
        let public = PublicKey::from_secret_key(&secret).map_err(|_| KeyError::Malformed)?;
        Ok(Signer { secret, public })
    }

    /// The signature file of `content`: pre-hashed, with `comment` under the signature.
    pub fn sign(&self, content: &[u8], comment: &str) -> Result<Vec<u8>, KeyError> {
        minisign::sign(
            Some(&self.public),
            &self.secret,
            content,
            Some(comment),
            Some("signature of a reagent release"),
        )
        .map(|signature| signature.to_bytes())
        .map_err(|error| KeyError::Sign(error.to_string()))
    }
}

/// The public keys that devices carry.
#[derive(Clone, Debug)]
pub struct PublicKeys {
    keys: Vec<PublicKey>,
    place: String,
}

impl PublicKeys {
    /// Those of the files `*.pub` in a directory; a file of nothing but comments is a place without a key.
    pub fn in_directory(directory: &Path) -> Result<PublicKeys, KeyError> {
        let failed = |source| KeyError::File {
            path: directory.to_owned(),
            source,
        };
        let mut keys = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "pub") {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(failed)?;
            if is_vacant(&text) {
                continue;
            }
            let key = PublicKeyBox::from_string(text.trim())
                .and_then(PublicKeyBox::into_public_key)
                .map_err(|_| KeyError::Public { path })?;
            keys.push(key);
        }
        Ok(PublicKeys {
            keys,
            place: directory.display().to_string(),
        })
    }

    /// Refuses a signer that devices would not believe.
    pub fn require(&self, signer: &Signer) -> Result<(), KeyError> {
        match self.keys.contains(&signer.public) {
            true => Ok(()),
            false if self.keys.is_empty() => Err(KeyError::Vacant(self.place.clone())),
            false => Err(KeyError::Foreign(self.place.clone())),
        }
    }

    /// Whether one of them made this signature of this content.
    pub fn believe(&self, content: &[u8], signature: &[u8]) -> bool {
        let Some(signature) = std::str::from_utf8(signature)
            .ok()
            .and_then(|text| SignatureBox::from_string(text).ok())
        else {
            return false;
        };
        self.keys
            .iter()
            .any(|key| minisign::verify(key, &signature, Cursor::new(content), true, false, false).is_ok())
    }

    /// Whether a binary carries one of them: without, a device that runs it could never be updated again.
    pub fn are_in(&self, binary: &[u8]) -> bool {
        self.keys.iter().any(|key| {
            let text = key.to_base64();
            binary.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }
}

/// Whether a public key file is only the place for one.
fn is_vacant(text: &str) -> bool {
    text.lines()
        .all(|line| line.starts_with("untrusted comment:") || line.trim().is_empty())
}

/// Makes a pair: the secret half for its owner alone and outside of every git working tree, the public half for the
/// repository. No key is ever overwritten.
pub fn generate(secret: &Path, public: &Path) -> Result<(), KeyError> {
    let failed = |error: minisign::PError| KeyError::Generate(error.to_string());
    if let Some(tree) = working_tree(secret).map_err(cannot_make(secret))? {
        return Err(KeyError::InTree {
            path: secret.to_owned(),
            tree,
        });
    }
    let pair = KeyPair::generate_unencrypted_keypair().map_err(failed)?;
    let secret_text = pair
        .sk
        .to_box(Some(
            "secret key of reagent releases: keep it where nobody else can read it",
        ))
        .map_err(failed)?
        .into_string();
    let public_text = pair.pk.to_box().map_err(failed)?.into_string();
    let is_place = fs::read_to_string(public).is_ok_and(|text| is_vacant(&text));
    if public.exists() && !is_place {
        return Err(cannot_make(public)(io::ErrorKind::AlreadyExists.into()));
    }
    // A place without a key is what every build reads, so it goes last, and in one step.
    let half = write_beside(public, &public_text).map_err(cannot_make(public))?;
    create_secret(secret, &secret_text).map_err(cannot_make(secret))?;
    let placed = match is_place {
        true => half.persist(public),
        false => half.persist_noclobber(public),
    };
    placed.map(drop).map_err(|failure| {
        // Without its other half it is of no use, and in the way of the next attempt.
        let _ = fs::remove_file(secret);
        cannot_make(public)(failure.error)
    })
}

/// A key on disk that has no name yet.
fn write_beside(path: &Path, text: &str) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".keys-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(directory(path))?;
    write(file.as_file_mut(), text)?;
    Ok(file)
}

fn create_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    write(&mut file, text).inspect_err(|_| {
        // Half of a key is none.
        let _ = fs::remove_file(path);
    })
}

fn write(file: &mut fs::File, text: &str) -> io::Result<()> {
    file.write_all(text.trim_end().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn cannot_make(path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Create { path, source }
}

/// The directory of a file.
fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The git working tree in which a file is, or would be.
fn working_tree(file: &Path) -> io::Result<Option<PathBuf>> {
    let place = directory(file).canonicalize()?;
    // A directory, or in a further tree of the same repository a file.
    let tree = place.ancestors().find(|place| place.join(".git").exists());
    Ok(tree.map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_signs_what_its_public_half_believes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, public) = (
            folder.path().join("release.key"),
            folder.path().join("current.pub"),
        );
        generate(&secret, &public).unwrap();
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(
            folder.path().join("next.pub"),
            "untrusted comment: not made yet\n",
        )
        .unwrap();
        let signer = Signer::from_file(&secret).unwrap();
        let keys = PublicKeys::in_directory(folder.path()).unwrap();
        keys.require(&signer).unwrap();
        let signature = signer.sign(b"content", "comment").unwrap();
        assert!(keys.believe(b"content", &signature));
        assert!(!keys.believe(b"other", &signature));
        assert!(!keys.believe(b"content", b"no signature"));
        let binary = [b"code ".as_slice(), &fs::read(&public).unwrap(), b" code"].concat();
        assert!(keys.are_in(&binary) && !keys.are_in(b"a binary without keys"));
        assert!(
            !format!("{signer:?}").contains(fs::read_to_string(&secret).unwrap().lines().nth(1).unwrap())
        );
    }

    #[test]
    fn keys_are_never_overwritten_and_a_foreign_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        generate(&path("a.key"), &path("a.pub")).unwrap();
        assert!(matches!(
            generate(&path("a.key"), &path("b.pub")),
            Err(KeyError::Create { .. })
        ));
        assert!(matches!(
            generate(&path("b.key"), &path("a.pub")),
            Err(KeyError::Create { .. })
        ));
        assert!(!path("b.key").exists());
        fs::write(path("c.pub"), "untrusted comment: not made yet\n").unwrap();
        generate(&path("c.key"), &path("c.pub")).unwrap();
        fs::create_dir(path("elsewhere")).unwrap();
        fs::write(path("elsewhere/current.pub"), "untrusted comment: not made yet\n").unwrap();
        let none = PublicKeys::in_directory(&path("elsewhere")).unwrap();
        let signer = Signer::from_file(&path("a.key")).unwrap();
        let refused = none.require(&signer).unwrap_err();
        assert!(refused.to_string().contains("'make keys'"), "{refused}");
        generate(&path("elsewhere/c.key"), &path("elsewhere/c.pub")).unwrap();
        let foreign = Signer::from_file(&path("elsewhere/c.key")).unwrap();
        let keys = PublicKeys::in_directory(folder.path()).unwrap();
        assert!(matches!(keys.require(&foreign), Err(KeyError::Foreign(_))));
        fs::set_permissions(path("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Signer::from_file(&path("a.key")),
            Err(KeyError::Open { .. })
        ));
    }

    #[test]
    fn no_secret_key_is_made_in_a_git_working_tree() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("tree/release")).unwrap();
        // As in a tree that `git worktree` made.
        fs::write(path("tree/.git"), "gitdir: elsewhere").unwrap();
        std::os::unix::fs::symlink(path("tree/release"), path("outside")).unwrap();
        let public = path("tree/release/current.pub");
        for secret in ["tree/a.key", "tree/release/a.key", "outside/a.key"] {
            let refused = generate(&path(secret), &public).unwrap_err();
            assert!(matches!(refused, KeyError::InTree { .. }), "{refused}");
            assert!(refused.to_string().contains("outside of it"), "{refused}");
            assert!(!path(secret).exists() && !public.exists(), "{secret}");
        }
        generate(&path("a.key"), &public).unwrap();
    }

    #[test]
    fn a_pair_of_which_one_half_cannot_be_made_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let place = "untrusted comment: not made yet\n";
        fs::create_dir(path("release")).unwrap();
        fs::write(path("release/next.pub"), place).unwrap();
        fs::write(path("taken.key"), "somebody's").unwrap();
        for secret in ["not-mounted/next.key", "taken.key"] {
            let refused = generate(&path(secret), &path("release/next.pub")).unwrap_err();
            assert!(refused.to_string().contains(secret), "{refused}");
            assert_eq!(fs::read_to_string(path("release/next.pub")).unwrap(), place);
        }
        assert_eq!(fs::read_to_string(path("taken.key")).unwrap(), "somebody's");
        for public in ["missing/next.pub", "release"] {
            generate(&path("next.key"), &path(public)).unwrap_err();
            assert!(!path("next.key").exists(), "{public}");
        }
        assert_eq!(fs::read_dir(path("release")).unwrap().count(), 1);
        generate(&path("next.key"), &path("release/next.pub")).unwrap();
        let signer = Signer::from_file(&path("next.key")).unwrap();
        let keys = PublicKeys::in_directory(&path("release")).unwrap();
        keys.require(&signer).unwrap();
    }
}
