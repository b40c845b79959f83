//! Version order of releases (`update-and-system.md` 1.5): what counts as newer. Must not know where versions come from.

use semver::Version;

/// Why a text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a version")]
pub(crate) struct NotAVersion {
    text: String,
}

/// Reads a version as the reference does: a leading `v` and missing minor and patch numbers are tolerated.
pub(crate) fn parse(text: &str) -> Result<Version, NotAVersion> {
    let bad = || NotAVersion {
        text: text.chars().take(80).collect(),
    };
    let bare = text.strip_prefix('v').unwrap_or(text);
    let (core, rest) = bare.split_at(bare.find(['-', '+']).unwrap_or(bare.len()));
    let missing = match core.matches('.').count() {
        0 => ".0.0",
        1 => ".0",
        _ => "",
    };
    Version::parse(&format!("{core}{missing}{rest}")).map_err(|_| bad())
}

/// Whether `offered` is an update of `running`: strictly greater, and never a pre-release for a device that runs a
/// release.
pub(crate) fn is_update(running: &str, offered: &str) -> Result<bool, NotAVersion> {
    let (running, offered) = (parse(running)?, parse(offered)?);
    if !offered.pre.is_empty() && running.pre.is_empty() {
        return Ok(false);
    }
    // Metadata behind `+` takes no part.
    Ok(offered.cmp_precedence(&running).is_gt())
}

/// Whether `one` comes after `other`. What cannot be read comes first.
pub(crate) fn is_after(one: &str, other: &str) -> bool {
    match (parse(one), parse(other)) {
        (Ok(one), Ok(other)) => one.cmp_precedence(&other).is_gt(),
        (Ok(_), Err(_)) => true,
        (Err(_), _) => false,
    }
}

/// Whether `text` may become part of a path and a URL: nothing but what versions are made of.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_strictly_greater_version_is_an_update() {
        for (running, offered, expected) in [
            ("1.2.3", "1.2.4", true),
            ("1.2.3", "1.3.0", true),
            ("1.2.3", "1.2.3", false),
            ("1.2.3", "1.2.2", false),
            ("1.2.3", "v1.2.4", true),
            ("1.2.3", "2", true),
            ("1.2.9", "1.3", true),
            ("1.2.3", "1.2.3+build.7", false),
            ("1.2.3", "1.3.0-rc.1", false),
            ("1.3.0-rc.1", "1.3.0-rc.2", true),
            ("1.3.0-rc.1", "1.3.0", true),
            ("1.9.0", "1.10.0", true),
        ] {
            assert_eq!(
                is_update(running, offered),
                Ok(expected),
                "{running} -> {offered}"
            );
        }
    }

    #[test]
    fn what_is_no_version_is_an_error_and_never_an_update() {
        for (running, offered) in [
            ("not-a-version", "1.0.0"),
            ("1.0.0", "not-a-version"),
            ("1.0.0", ""),
        ] {
            is_update(running, offered).unwrap_err();
        }
        assert!(!is_after("x", "1.0.0"));
    }

    #[test]
    fn no_version_leads_out_of_its_directory() {
        for bad in ["", "..", "1/2", "1.0.0\n", "%2e%2e", ".1", "1 0"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
        assert!(is_plain("1.2.3-rc.1+b7"));
    }
}
