//! Names of containers, images and directories (`app-lifecycle.md` 2.1): shared by device and registry.

use crate::app::{AppId, Stage};

/// `<stage>_<key>_<name>`, lower case: the container and the last component of its log topic.
pub fn container(app: AppId, name: &str) -> String {
    format!("{}_{}_{name}", app.stage.lower(), app.key).to_lowercase()
}

/// `pub_<key>_<name>`, lower case: the log channel of a publication, never a container.
pub fn publish_channel(key: u64, name: &str) -> String {
    format!("pub_{key}_{name}").to_lowercase()
}

/// `<stage>_<key>_<name>_compose`, normalised: what compose puts into `com.docker.compose.project`. Equal to the plain
/// formula for every name that compose accepts as it is (weakness W50).
pub fn compose_project(app: AppId, name: &str) -> String {
    let full = format!("{}_compose", container(app, name));
    full.chars()
        .filter(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(*letter))
        .collect()
}

/// `<stage>_<arch>_<key>_<name>`, lower case. `arch` is architecture plus variant: `amd64`, `arm64`, `armv7`.
pub fn image(app: AppId, arch: &str, name: &str) -> String {
    format!("{}_{arch}_{}_{name}", app.stage.lower(), app.key).to_lowercase()
}

/// Registry, repository and image without tag, lower case. Registry and repository carry their own slashes.
pub fn registry_image(registry: &str, repository: &str, app: AppId, arch: &str, name: &str) -> String {
    format!("{registry}{repository}{}", image(app, arch, name)).to_lowercase()
}

/// Repository part of an image reference: without tag and digest. A registry's port is not a tag.
pub fn repository(reference: &str) -> &str {
    let reference = reference.split('@').next().unwrap_or(reference);
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => reference,
    }
}

/// Why a container name is not one of an app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadContainerName {
    #[error("container name is empty")]
    Empty,
    #[error("invalid container name")]
    Invalid,
}

/// Reads `dev_6_my_app` or `/prod_6_my_app`. `pub_…` counts as DEV. The name comes back lower case.
pub fn parse_container(name: &str) -> Result<(AppId, String), BadContainerName> {
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() {
        return Err(BadContainerName::Empty);
    }
    let mut parts = name.splitn(3, '_');
    let (Some(stage), Some(key), Some(app_name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(BadContainerName::Invalid);
    };
    let stage = match stage {
        "dev" | "pub" => Stage::Dev,
        "prod" => Stage::Prod,
        _ => return Err(BadContainerName::Invalid),
    };
    let key = crate::number::decimal(key).ok_or(BadContainerName::Invalid)?;
    Ok((AppId { key, stage }, app_name.to_owned()))
}

/// Whether an app name is one safe path component (weakness W38).
pub fn is_safe_app_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROD_6: AppId = AppId {
        key: 6,
        stage: Stage::Prod,
    };

    #[test]
    fn names_are_those_of_the_contract() {
        assert_eq!(container(PROD_6, "MyApp"), "prod_6_myapp");
        assert_eq!(publish_channel(6, "MyApp"), "pub_6_myapp");
        assert_eq!(compose_project(PROD_6, "My_App-2"), "prod_6_my_app-2_compose");
        assert_eq!(compose_project(PROD_6, "My App.v2!"), "prod_6_myappv2_compose");
        assert_eq!(image(PROD_6, "arm64", "MyApp"), "prod_arm64_6_myapp");
        assert_eq!(
            registry_image("registry.ironflock.com/", "apps/", PROD_6, "arm64", "MyApp"),
            "registry.ironflock.com/apps/prod_arm64_6_myapp"
        );
    }

    #[test]
    fn container_names_parse_back() {
        assert_eq!(
            parse_container("/prod_6_net_data"),
            Ok((PROD_6, "net_data".to_owned()))
        );
        assert_eq!(
            parse_container("pub_7_x"),
            Ok((
                AppId {
                    key: 7,
                    stage: Stage::Dev
                },
                "x".to_owned()
            ))
        );
        assert_eq!(parse_container(""), Err(BadContainerName::Empty));
        for foreign in ["db_2_main", "prod_6", "prod_x_y", "prod", "prod_-1_x"] {
            assert_eq!(
                parse_container(foreign),
                Err(BadContainerName::Invalid),
                "{foreign}"
            );
        }
    }

    #[test]
    fn the_repository_of_a_reference_keeps_the_port_of_the_registry() {
        for (reference, expected) in [
            ("r.example:5000/apps/x:1.2", "r.example:5000/apps/x"),
            ("r.example:5000/apps/x", "r.example:5000/apps/x"),
            ("x:latest", "x"),
            ("r/x@sha256:00", "r/x"),
        ] {
            assert_eq!(repository(reference), expected);
        }
    }

    #[test]
    fn app_names_that_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", "a\0"] {
            assert!(!is_safe_app_name(bad), "{bad:?}");
        }
        assert!(is_safe_app_name("My App.v2"));
    }
}
