//! Releases for tests: signing keys made on the spot, patches, and a bucket on disk in the layout of
//! `update-and-system.md` 2.3. No key of the product is involved.

use std::path::{Path, PathBuf};

use minisign::{KeyPair, PublicKeyBox};
use serde_json::{Value, json};

/// A signing key that lives as long as the test.
pub struct Signer {
    keys: KeyPair,
    public: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Signer({})", self.public)
    }
}

impl Default for Signer {
    fn default() -> Signer {
        Signer::new()
    }
}

impl Signer {
    /// A new key.
    pub fn new() -> Signer {
        let keys = KeyPair::generate_unencrypted_keypair().expect("a key pair is made");
        let boxed: PublicKeyBox = keys.pk.to_box().expect("a public key has a text form");
        let public = boxed.to_string();
        Signer { keys, public }
    }

    /// The public key file.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The signature file of `content`.
    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        let signature = minisign::sign(None, &self.keys.sk, content, Some("release"), None);
        signature.expect("a content is signed").to_bytes()
    }
}

/// A zstd patch that makes `new` out of `old`.
pub fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder =
        zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 3, old).expect("an encoder is made");
    let window = (old.len() + new.len()).ilog2().clamp(10, 24) + 1;
    encoder.window_log(window).expect("a legal window");
    encoder.long_distance_matching(true).expect("a legal setting");
    encoder.write_all(new).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

/// SHA-256 as the bucket writes it.
pub fn digest(content: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A bucket on disk for one kind of machine.
#[derive(Debug)]
pub struct BucketDir {
    root: PathBuf,
    os: String,
    arch: String,
}

impl BucketDir {
    /// An empty bucket below `root`.
    pub fn new(root: &Path, os: &str, arch: &str) -> BucketDir {
        std::fs::create_dir_all(root.join("re-agent")).expect("the bucket is made");
        BucketDir {
            root: root.to_owned(),
            os: os.to_owned(),
            arch: arch.to_owned(),
        }
    }

    /// The directory of a version.
    pub fn place(&self, version: &str) -> PathBuf {
        self.root
            .join("re-agent")
            .join(&self.os)
            .join(&self.arch)
            .join(version)
    }

    /// What the manifest of `binary` says when nothing is wrong.
    pub fn manifest(&self, version: &str, binary: &[u8]) -> Value {
        json!({
            "product": "reagent", "version": version, "os": self.os, "arch": self.arch,
            "sha256": digest(binary), "size": binary.len(), "channels": [],
            "issued": "2026-01-01T00:00:00Z", "expires": "2099-01-01T00:00:00Z", "deltas": [],
        })
    }

    /// Publishes `binary` as `version` with a proper manifest.
    pub fn publish(&self, version: &str, binary: &[u8], signer: &Signer) {
        let manifest = self.manifest(version, binary);
        self.publish_with(version, binary, &manifest, signer);
    }

    /// The same with a manifest of one's own.
    pub fn publish_with(&self, version: &str, binary: &[u8], manifest: &Value, signer: &Signer) {
        let content = serde_json::to_vec(manifest).expect("JSON has a text form");
        self.put(version, "reagent", binary);
        self.put(
            version,
            "reagent.sha256",
            format!("{}\n", digest(binary)).as_bytes(),
        );
        self.put(version, "reagent.manifest.json", &content);
        self.put(version, "reagent.manifest.json.minisig", &signer.sign(&content));
    }

    /// Publishes it with a patch from `old`.
    pub fn publish_with_patch(&self, version: &str, binary: &[u8], old: &[u8], signer: &Signer) {
        self.publish_with_this_patch(version, binary, old, &patch(old, binary), signer);
    }

    /// The same with any patch, which is signed as one from `old`.
    pub fn publish_with_this_patch(
        &self,
        version: &str,
        binary: &[u8],
        old: &[u8],
        patch: &[u8],
        signer: &Signer,
    ) {
        let name = "reagent.patch.zst";
        let mut manifest = self.manifest(version, binary);
        manifest["deltas"] = json!([{
            "from_sha256": digest(old), "name": name, "sha256": digest(patch), "size": patch.len(),
        }]);
        self.put(version, name, patch);
        self.publish_with(version, binary, &manifest, signer);
    }

    /// Writes any object of a version.
    pub fn put(&self, version: &str, name: &str, content: &[u8]) {
        let place = self.place(version);
        std::fs::create_dir_all(&place).expect("the version's directory is made");
        std::fs::write(place.join(name), content).expect("the object is written");
    }

    /// Offers `version` to every device.
    pub fn offer(&self, version: &str) {
        let list = json!({ "production": version, "test": version, "local": version, "all": version });
        std::fs::write(
            self.root.join("re-agent/availableVersions.json"),
            list.to_string(),
        )
        .expect("the version list is written");
    }
}
