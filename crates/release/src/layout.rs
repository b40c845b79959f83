//! Where objects lie in a bucket (`update-and-system.md` 2.3) and how long they may be cached (9.5 P5). Names are
//! relative to the place that holds `availableVersions.json`. Must not know how they get there.

use std::fmt;

/// The version list: the release gate.
pub const VERSIONS: &str = "availableVersions.json";
/// The version that people find at the root.
pub const VERSION: &str = "version.txt";
/// Who gets a version when.
pub const ROLLOUTS: &str = "rollouts.json";
/// The path segment that stands for the version of `production`.
pub const LATEST: &str = "latest";

/// A platform as the bucket calls it: `linux/armv7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    pub os: String,
    pub arch: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.arch)
    }
}

impl Platform {
    /// From a line of the file `targets`: `os/arch[/variant]`, `linux/arm/7` being `linux/armv7`.
    pub fn of_target(line: &str) -> Option<Platform> {
        let mut parts = line.split('/');
        let (os, arch, variant) = (parts.next()?, parts.next()?, parts.next());
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if parts.next().is_some() || !plain(os) || !plain(arch) || variant.is_some_and(|v| !plain(v)) {
            return None;
        }
        let variant = variant.map(|variant| format!("v{variant}")).unwrap_or_default();
        Some(Platform {
            os: os.to_owned(),
            arch: format!("{arch}{variant}"),
        })
    }

    /// From `linux/armv7`.
    pub fn parse(text: &str) -> Option<Platform> {
        let (os, arch) = text.split_once('/')?;
        (!os.is_empty() && !arch.is_empty() && !arch.contains('/')).then(|| Platform {
            os: os.to_owned(),
            arch: arch.to_owned(),
        })
    }

    /// Name of a build of `program`: `reagent-linux-armv7`.
    pub fn build_name(&self, program: &str) -> String {
        format!("{program}-{}-{}", self.os, self.arch)
    }

    /// Name of the agent in a version's directory.
    pub fn program(&self) -> &'static str {
        if self.os == "windows" {
            "reagent.exe"
        } else {
            "reagent"
        }
    }

    /// The directory of a version, with the slash at its end.
    pub fn directory(&self, version: &str) -> String {
        format!("{}/{}/{version}/", self.os, self.arch)
    }

    pub fn binary(&self, version: &str) -> String {
        format!("{}{}", self.directory(version), self.program())
    }

    /// Digest for agents that know no manifest.
    pub fn checksum(&self, version: &str) -> String {
        format!("{}.sha256", self.binary(version))
    }

    pub fn manifest(&self, version: &str) -> String {
        format!("{}.manifest.json", self.binary(version))
    }

    pub fn signature(&self, version: &str) -> String {
        signature(&self.manifest(version))
    }
}

/// Name of the signature of an object.
pub fn signature(name: &str) -> String {
    format!("{name}.minisig")
}

/// The platform and version of an object `os/arch/version/file`, if it is one.
pub fn parse(name: &str) -> Option<(Platform, &str, &str)> {
    let mut parts = name.split('/');
    let (os, arch, version, file) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // `frpc/<os>/<arch>/<version>/…` has one segment more.
    if parts.next().is_some() {
        return None;
    }
    let platform = Platform {
        os: os.to_owned(),
        arch: arch.to_owned(),
    };
    Some((platform, version, file))
}

/// How long what a name stands for may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Never changes.
    Immutable,
    /// May change any time: lists, aliases, and manifests, which expire and are issued again.
    Mutable,
}

impl Lifetime {
    /// Of an object with this name.
    pub fn of(name: &str) -> Lifetime {
        match parse(name) {
            Some((_, LATEST, _)) | None => Lifetime::Mutable,
            Some((_, _, file)) if file.contains(".manifest.json") => Lifetime::Mutable,
            Some(_) => Lifetime::Immutable,
        }
    }

    /// The `Cache-Control` header.
    pub fn cache_control(self) -> &'static str {
        match self {
            Lifetime::Immutable => "public, max-age=31536000, immutable",
            Lifetime::Mutable => "public, max-age=0",
        }
    }
}

/// The `Content-Type` header of an object.
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("json") => "application/json",
        Some("sha256" | "minisig" | "txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Whether `version` is strictly `X.Y.Z`: what every agent in the field reads.
pub fn is_strict(version: &str) -> bool {
    semver::Version::parse(version).is_ok_and(|parsed| parsed.pre.is_empty() && parsed.build.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_objects_have_the_names_of_the_contract() {
        let arm = Platform::of_target("linux/arm/7").unwrap();
        assert_eq!(arm.to_string(), "linux/armv7");
        assert_eq!(arm.build_name("reagent"), "reagent-linux-armv7");
        assert_eq!(arm.binary("0.20.20"), "linux/armv7/0.20.20/reagent");
        let windows = Platform::of_target("windows/amd64").unwrap();
        assert_eq!(
            windows.checksum("0.20.20"),
            "windows/amd64/0.20.20/reagent.exe.sha256"
        );
        assert_eq!(
            windows.signature("latest"),
            "windows/amd64/latest/reagent.exe.manifest.json.minisig"
        );
        for bad in ["", "linux", "linux/", "linux/arm/7/8", "../etc", "linux/arm /7"] {
            assert_eq!(Platform::of_target(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_what_never_changes_is_cached() {
        for (name, lifetime) in [
            ("availableVersions.json", Lifetime::Mutable),
            ("rollouts.json.minisig", Lifetime::Mutable),
            ("linux/amd64/latest/reagent", Lifetime::Mutable),
            (
                "linux/amd64/1.0.0/reagent.manifest.json.minisig",
                Lifetime::Mutable,
            ),
            ("linux/amd64/1.0.0/reagent", Lifetime::Immutable),
            ("linux/amd64/1.0.0/reagent.sha256", Lifetime::Immutable),
        ] {
            assert_eq!(Lifetime::of(name), lifetime, "{name}");
        }
        assert_eq!(parse("frpc/windows/amd64/0.70.0/frpc.exe"), None);
    }

    #[test]
    fn versions_are_three_numbers() {
        for (version, good) in [
            ("1.2.3", true),
            ("v1.2.3", false),
            ("1.2", false),
            ("1.2.3-rc.1", false),
            ("latest", false),
        ] {
            assert_eq!(is_strict(version), good, "{version}");
        }
    }
}
