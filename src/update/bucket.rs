//! The update bucket: where things lie in it (`update-and-system.md` 1.2, 1.3, 1.6) and which version it offers a
//! device. Must not know how it is reached.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::system::platform;

/// Name of the bucket below the base URL.
const BUCKET: &str = "re-agent";

/// One bucket as one kind of device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    base: String,
    os: String,
    arch: String,
}

impl Bucket {
    /// The bucket below `base` (without the bucket's name), for this build. The first non-empty one of the `.flock`
    /// and the flag counts.
    pub(crate) fn of(flock: &str, flag: &str) -> Bucket {
        let base = if flock.is_empty() { flag } else { flock };
        Bucket::for_platform(base, platform::os(), platform::build_arch())
    }

    /// The same for any platform.
    pub(crate) fn for_platform(base: &str, os: &str, arch: &str) -> Bucket {
        Bucket {
            base: base.trim_end_matches('/').to_owned(),
            os: os.to_owned(),
            arch: arch.to_owned(),
        }
    }

    /// `linux`, `darwin`, `windows`.
    pub(crate) fn os(&self) -> &str {
        &self.os
    }

    /// `amd64`, `arm64`, `armv7`, `armv6`, `armv5`.
    pub(crate) fn arch(&self) -> &str {
        &self.arch
    }

    /// The version list.
    pub(crate) fn versions(&self) -> String {
        format!("{}/{BUCKET}/availableVersions.json", self.base)
    }

    /// Which devices take a version when.
    pub(crate) fn rollouts(&self) -> String {
        format!("{}/{BUCKET}/rollouts.json", self.base)
    }

    /// The agent binary of a version.
    pub(crate) fn binary(&self, version: &str) -> String {
        let suffix = if self.os == "windows" { ".exe" } else { "" };
        self.beside(version, &format!("reagent{suffix}"))
    }

    /// The manifest that says what the binary must be.
    pub(crate) fn manifest(&self, version: &str) -> String {
        format!("{}.manifest.json", self.binary(version))
    }

    /// Another object in the directory of a version.
    pub(crate) fn beside(&self, version: &str, name: &str) -> String {
        format!(
            "{}/{BUCKET}/{}/{}/{version}/{name}",
            self.base, self.os, self.arch
        )
    }
}

/// Where the signature of the object at `url` lies.
pub(crate) fn signature(url: &str) -> String {
    format!("{url}.minisig")
}

/// The version for `environment` in a version list: its own, else that of `all`. `Err` says what is wrong with the list.
pub(crate) fn offered(list: &[u8], environment: &str) -> Result<String, &'static str> {
    let list: BTreeMap<String, Value> =
        serde_json::from_slice(list).map_err(|_| "the version list is not a JSON object")?;
    let text = |key: &str| {
        let text = list.get(key)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    text(environment)
        .or_else(|| text("all"))
        .ok_or("the version list has no version for this device's environment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_lie_where_agents_of_every_make_look_for_them() {
        let arm = Bucket::for_platform("https://storage.googleapis.com", "linux", "armv7");
        assert_eq!(
            arm.binary("0.20.20"),
            "https://storage.googleapis.com/re-agent/linux/armv7/0.20.20/reagent"
        );
        let appliance = Bucket::for_platform("https://appliance.example/dl/", "windows", "amd64");
        assert_eq!(
            appliance.binary("0.20.20"),
            "https://appliance.example/dl/re-agent/windows/amd64/0.20.20/reagent.exe"
        );
        assert_eq!(
            signature(&appliance.manifest("1.0.0")),
            "https://appliance.example/dl/re-agent/windows/amd64/1.0.0/reagent.exe.manifest.json.minisig"
        );
        assert_eq!(
            arm.versions(),
            "https://storage.googleapis.com/re-agent/availableVersions.json"
        );
    }

    #[test]
    fn the_base_of_the_flock_wins() {
        assert!(
            Bucket::of("http://a", "http://b")
                .versions()
                .starts_with("http://a/")
        );
        assert!(Bucket::of("", "http://b").versions().starts_with("http://b/"));
    }

    #[test]
    fn a_device_follows_its_environment_and_else_all() {
        let list = br#"{"production": "1.0.1", "test": "", "all": "1.0.0", "other": 7}"#;
        assert_eq!(offered(list, "production").as_deref(), Ok("1.0.1"));
        assert_eq!(offered(list, "test").as_deref(), Ok("1.0.0"));
        assert_eq!(offered(list, "other").as_deref(), Ok("1.0.0"));
        offered(br#"{"production": "1.0.1"}"#, "test").unwrap_err();
        offered(b"<html>not found</html>", "test").unwrap_err();
    }
}
