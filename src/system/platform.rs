//! What this machine and this build are called (`session-and-api.md` 1.5, `update-and-system.md` 3.1).

use std::fs;
use std::path::{Path, PathBuf};

/// Target triple of this build.
const TARGET: &str = env!("REAGENT_TARGET");

/// Names under which the backend and the update bucket know this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `amd64`, `arm64`, `arm`.
    pub arch: String,
    /// `v7`, `v6`, `v5` or empty.
    pub variant: String,
    /// For example `linux debian 13.3 6.1.0-28-amd64`.
    pub detailed_os: String,
}

impl Platform {
    /// Reads the facts of this machine. A few small files; do it once.
    pub fn detect() -> Platform {
        let (arch, variant) = split(build_arch());
        let etc = std::env::var_os("HOST_ETC").map_or_else(|| PathBuf::from("/etc"), PathBuf::from);
        Platform {
            arch: arch.to_owned(),
            variant: variant.to_owned(),
            detailed_os: detailed_os(&etc, Path::new("/usr/bin/raspi-config")),
        }
    }

    /// Arch and variant in one word, as in image names and download URLs: `armv7`.
    pub fn architecture(&self) -> String {
        format!("{}{}", self.arch, self.variant)
    }
}

/// Family of the operating system: `linux`, `darwin`, `windows`.
pub fn os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The target triple of this build.
pub fn target() -> &'static str {
    TARGET
}

/// The architecture of this build, as `-arch` prints it: `amd64`, `arm64`, `armv7`, `armv6`, `armv5`.
pub fn build_arch() -> &'static str {
    arch_of(TARGET)
}

fn arch_of(target: &str) -> &str {
    let cpu = target.split('-').next().unwrap_or_default();
    match cpu {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        // Without a number it is the ARMv6 of the first boards.
        "arm" => "armv6",
        _ if cpu.starts_with("armv7") || cpu.starts_with("thumbv7") => "armv7",
        _ if cpu.starts_with("armv6") => "armv6",
        _ if cpu.starts_with("armv5") => "armv5",
        other => other,
    }
}

/// `armv7` is `arm` and `v7`; everything else has no variant.
fn split(arch: &str) -> (&str, &str) {
    match arch.find('v') {
        Some(place) if arch.contains("arm") && arch.matches('v').count() == 1 => arch.split_at(place),
        _ => (arch, ""),
    }
}

fn detailed_os(etc: &Path, raspi_config: &Path) -> String {
    let (platform, version) = distribution(etc, raspi_config).unwrap_or_default();
    let kernel = crate::os::kernel();
    let mut words = vec![os().to_owned()];
    if platform != os() {
        words.push(platform);
    }
    words.extend([version, kernel]);
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Platform name and version, by the first evidence that is there.
fn distribution(etc: &Path, raspi_config: &Path) -> Option<(String, String)> {
    let read = |name: &str| {
        // Anything shorter is no evidence.
        fs::read_to_string(etc.join(name))
            .ok()
            .filter(|text| text.len() > 4)
    };
    let first_line = |text: &str| text.lines().next().unwrap_or_default().trim().to_owned();
    for name in ["oracle-release", "enterprise-release"] {
        if let Some(text) = read(name) {
            return Some(("oracle".to_owned(), release_number(&text)));
        }
    }
    if let Some(text) = read("slackware-version") {
        return Some((
            "slackware".to_owned(),
            first_line(&text).replace("Slackware ", ""),
        ));
    }
    if let Some(text) = read("debian_version") {
        let lsb = read("lsb-release").unwrap_or_default();
        let name = match assignment(&lsb, "DISTRIB_ID").as_deref() {
            Some("Ubuntu") => "ubuntu",
            Some("LinuxMint") => "linuxmint",
            _ if raspi_config.exists() => return Some(("raspbian".to_owned(), first_line(&text))),
            _ => return Some(("debian".to_owned(), first_line(&text))),
        };
        return Some((
            name.to_owned(),
            assignment(&lsb, "DISTRIB_RELEASE").unwrap_or_default(),
        ));
    }
    for name in ["redhat-release", "system-release"] {
        if let Some(text) = read(name) {
            let word = text.split_whitespace().next().unwrap_or_default().to_lowercase();
            let platform = if word == "red" { "redhat".to_owned() } else { word };
            return Some((platform, release_number(&text)));
        }
    }
    for (name, platform) in [
        ("gentoo-release", "gentoo"),
        ("SuSE-release", "suse"),
        ("arch-release", "arch"),
        ("alpine-release", "alpine"),
    ] {
        if let Some(text) = read(name) {
            let line = first_line(&text);
            let version = line.split_whitespace().last().unwrap_or_default().to_owned();
            return Some((platform.to_owned(), version));
        }
    }
    let text = read("os-release")?;
    Some((
        assignment(&text, "ID")?,
        assignment(&text, "VERSION_ID").unwrap_or_default(),
    ))
}

/// `NAME=value` or `NAME="value"` in a file of assignments.
fn assignment(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })
}

/// The number behind `release ` in a line such as `CentOS Linux release 7.9.2009 (Core)`.
fn release_number(text: &str) -> String {
    text.split_once("release ")
        .map(|(_, rest)| {
            rest.chars()
                .take_while(|character| character.is_ascii_digit() || *character == '.')
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_target_has_its_architecture() {
        for (target, arch, parts) in [
            ("x86_64-unknown-linux-musl", "amd64", ("amd64", "")),
            ("aarch64-unknown-linux-musl", "arm64", ("arm64", "")),
            ("armv7-unknown-linux-musleabihf", "armv7", ("arm", "v7")),
            ("arm-unknown-linux-musleabihf", "armv6", ("arm", "v6")),
            ("armv5te-unknown-linux-musleabi", "armv5", ("arm", "v5")),
            ("x86_64-pc-windows-gnu", "amd64", ("amd64", "")),
            ("aarch64-apple-darwin", "arm64", ("arm64", "")),
            ("riscv64gc-unknown-linux-gnu", "riscv64gc", ("riscv64gc", "")),
        ] {
            assert_eq!(arch_of(target), arch, "{target}");
            assert_eq!(split(arch), parts, "{target}");
        }
    }

    #[test]
    fn distributions_are_told_apart_as_the_reference_does() {
        for (files, expected) in [
            (
                &[
                    ("debian_version", "12.5\n"),
                    ("os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
                ][..],
                "debian 12.5",
            ),
            (
                &[
                    ("debian_version", "bookworm/sid\n"),
                    ("lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\n"),
                ],
                "ubuntu 22.04",
            ),
            (
                &[("redhat-release", "CentOS Linux release 7.9.2009 (Core)\n")],
                "centos 7.9.2009",
            ),
            (
                &[("oracle-release", "Oracle Linux Server release 8.6\n")],
                "oracle 8.6",
            ),
            (&[("alpine-release", "3.20.1\n")], "alpine 3.20.1"),
            (
                &[("os-release", "NAME=x\nID=reswarmos\nVERSION_ID=g0123abc\n")],
                "reswarmos g0123abc",
            ),
            // Too short to be evidence.
            (
                &[("debian_version", "12\n"), ("os-release", "ID=\"tiny\"\n")],
                "tiny",
            ),
        ] {
            let etc = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(etc.path().join(name), text).unwrap();
            }
            let detailed = detailed_os(etc.path(), &etc.path().join("none"));
            let kernel = rustix::system::uname();
            let kernel = kernel.release().to_str().unwrap();
            assert_eq!(detailed, format!("{} {expected} {kernel}", os()));
        }
    }

    #[test]
    fn a_raspberry_is_known_by_its_tool() {
        let etc = tempfile::tempdir().unwrap();
        let tool = etc.path().join("raspi-config");
        fs::write(etc.path().join("debian_version"), "11.9\n").unwrap();
        fs::write(&tool, "").unwrap();
        assert_eq!(
            distribution(etc.path(), &tool),
            Some(("raspbian".to_owned(), "11.9".to_owned()))
        );
    }

    #[test]
    fn an_unknown_machine_is_family_and_kernel() {
        let etc = tempfile::tempdir().unwrap();
        let words = detailed_os(etc.path(), Path::new("none"));
        assert_eq!(words.split(' ').count(), 2, "{words}");
        assert!(words.starts_with(os()), "{words}");
    }
}
