//! Freeing disk space (`prune_images`). Nothing that belongs to a known app goes, running or not (weakness R63).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::daemon::{Raw, escaped, read};
use super::image::Reference;
use super::{Engine, EngineError};

/// Bound of one prune: the daemon deletes gigabytes from slow flash.
const PRUNE: Duration = Duration::from_secs(5 * 60);

type Filters = HashMap<&'static str, Vec<String>>;

impl Engine {
    /// `docker image prune -f`; with `all` what `docker system prune -af --volumes` does, but volumes, containers,
    /// networks and images of known apps are kept (weakness R63). Returns the text for the caller.
    ///
    /// `keep_names`: container names of known apps (`prod_6_myapp`), and any further image references to keep.
    pub async fn prune(&self, all: bool, keep_names: &[String]) -> Result<String, EngineError> {
        let mut report = Report::default();
        if all {
            self.prune_containers(keep_names, &mut report).await?;
            self.prune_networks(keep_names, &mut report).await?;
            self.prune_volumes(keep_names, &mut report).await?;
            self.prune_unused_images(keep_names, &mut report).await?;
        }
        self.prune_dangling(&mut report).await?;
        if all {
            let pruned = self.pruned("prune build cache", "/build/prune?all=true").await?;
            report.answered("build cache objects", &pruned, "CachesDeleted");
        }
        Ok(report.text())
    }

    async fn prune_containers(&self, keep: &[String], report: &mut Report) -> Result<(), EngineError> {
        let filters = query(&not_of_apps(keep, true));
        let pruned = self
            .pruned("prune containers", &format!("/containers/prune?{filters}"))
            .await?;
        report.answered("Containers", &pruned, "ContainersDeleted");
        Ok(())
    }

    async fn prune_networks(&self, keep: &[String], report: &mut Report) -> Result<(), EngineError> {
        let filters = query(&not_of_apps(keep, false));
        let pruned = self
            .pruned("prune networks", &format!("/networks/prune?{filters}"))
            .await?;
        report.answered("Networks", &pruned, "NetworksDeleted");
        Ok(())
    }

    async fn prune_volumes(&self, keep: &[String], report: &mut Report) -> Result<(), EngineError> {
        let filters = query(&not_of_apps(keep, false));
        let pruned = self
            .pruned("prune volumes", &format!("/volumes/prune?{filters}"))
            .await?;
        report.answered("Volumes", &pruned, "VolumesDeleted");
        Ok(())
    }

    /// One by one, because the daemon can leave out images by label only, and images of apps carry none.
    async fn prune_unused_images(&self, keep: &[String], report: &mut Report) -> Result<(), EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Container {
            #[serde(rename = "ImageID")]
            image_id: String,
        }
        let containers: Vec<Container> = self.get("list containers", "", "/containers/json?all=1").await?;
        let mut removed = Vec::new();
        for image in self.images().await? {
            let used = containers.iter().any(|container| container.image_id == image.id);
            if used || image.repo_tags.iter().any(|tag| is_kept(tag, keep)) {
                continue;
            }
            for tag in image.repo_tags.into_iter().filter(|tag| !tag.contains("<none>")) {
                if self.remove_image(&tag).await? {
                    removed.push(tag);
                }
            }
        }
        report.section("Images", Some(removed), None);
        Ok(())
    }

    async fn prune_dangling(&self, report: &mut Report) -> Result<(), EngineError> {
        let filters = Filters::from([("dangling", vec!["true".to_owned()])]);
        let pruned = self
            .pruned("prune images", &format!("/images/prune?{}", query(&filters)))
            .await?;
        report.answered("Images", &pruned, "ImagesDeleted");
        Ok(())
    }

    /// The daemon's answer to one prune.
    async fn pruned(&self, doing: &'static str, path: &str) -> Result<Value, EngineError> {
        read(doing, &self.send(doing, PRUNE, "", Raw::post(path)).await?)
    }
}

fn query(filters: &Filters) -> String {
    format!("filters={}", escaped(&json!(filters).to_string()))
}

/// Leaves out what compose made for a known app and, for containers, everything that an agent made: an app's
/// container that nobody knows is for the reconcile with the backend to judge, not for a prune.
fn not_of_apps(keep: &[String], containers: bool) -> Filters {
    let mut labels: Vec<String> = keep
        .iter()
        .map(|name| format!("com.docker.compose.project={}", project_of(name)))
        .collect();
    if containers {
        labels.push("real=True".to_owned());
    }
    if labels.is_empty() {
        Filters::new()
    } else {
        Filters::from([("label!", labels)])
    }
}

/// The normalised compose project name of an app (`app-lifecycle.md` 2.1).
fn project_of(container: &str) -> String {
    let allowed = |character: &char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || "_-".contains(*character)
    };
    let name: String = format!("{container}_compose")
        .to_lowercase()
        .chars()
        .filter(allowed)
        .collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

/// Whether an image belongs to one of the kept names: the app's image of any architecture and registry
/// (`<stage>_<arch>_<key>_<name>`), or the very reference.
fn is_kept(tag: &str, keep: &[String]) -> bool {
    let Some(image) = Reference::parse(tag) else {
        // Unreadable: not proven to be nobody's.
        return true;
    };
    let last = image.repository.rsplit('/').next().unwrap_or_default();
    let container = match last.splitn(3, '_').collect::<Vec<_>>()[..] {
        [stage, _arch, rest] => Some(format!("{stage}_{rest}")),
        _ => None,
    };
    keep.iter().any(|name| {
        container
            .as_deref()
            .is_some_and(|container| is_app_or_service(container, name))
            || Reference::parse(name).is_some_and(|reference| reference == image)
    })
}

/// The image of a compose service adds `_<service>` to the app's image name.
fn is_app_or_service(container: &str, name: &str) -> bool {
    container
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// What was removed, in the words of the docker command line.
#[derive(Default)]
struct Report {
    text: String,
    reclaimed: u64,
}

impl Report {
    /// What an answer lists as `member`: names, or what was done to images.
    fn answered(&mut self, what: &str, answer: &Value, member: &str) {
        let names = answer.get(member).and_then(Value::as_array);
        let names = names.into_iter().flatten().filter_map(|item| {
            let name = item.get("Deleted").or(item.get("Untagged")).unwrap_or(item);
            name.as_str().map(str::to_owned)
        });
        let reclaimed = answer.get("SpaceReclaimed").and_then(Value::as_i64);
        self.section(what, Some(names.collect()), reclaimed);
    }

    fn section(&mut self, what: &str, names: Option<Vec<String>>, reclaimed: Option<i64>) {
        self.reclaimed += u64::try_from(reclaimed.unwrap_or(0)).unwrap_or(0);
        let names = names.unwrap_or_default();
        if names.is_empty() {
            return;
        }
        let _ = writeln!(self.text, "Deleted {what}:");
        for name in names {
            let _ = writeln!(self.text, "{name}");
        }
        self.text.push('\n');
    }

    fn text(self) -> String {
        format!("{}Total reclaimed space: {}\n", self.text, human(self.reclaimed))
    }
}

/// Decimal units, as the docker command line prints them.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    // Four significant digits, without trailing zeros.
    let decimals = if unit == 0 || size >= 1000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        3
    };
    let mut text = format!("{size:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep() -> Vec<String> {
        vec![
            "prod_6_my_app".to_owned(),
            "docker.io/library/postgres:15".to_owned(),
        ]
    }

    #[test]
    fn prunes_leave_out_what_belongs_to_apps() {
        let labels = |containers| not_of_apps(&keep()[..1], containers).remove("label!");
        let project = "com.docker.compose.project=prod_6_my_app_compose".to_owned();
        assert_eq!(labels(true), Some(vec![project.clone(), "real=True".to_owned()]));
        assert_eq!(labels(false), Some(vec![project]));
        assert!(not_of_apps(&[], false).is_empty());
        assert_eq!(project_of("prod_6_My App!"), "prod_6_myapp_compose");
    }

    #[test]
    fn images_of_known_apps_are_kept_and_similar_names_are_not() {
        for kept in [
            "registry.example/apps/prod_arm64_6_my_app:1.0",
            "prod_amd64_6_my_app:latest",
            "registry.example/apps/prod_arm64_6_my_app_web:1.0",
            "postgres:15",
        ] {
            assert!(is_kept(kept, &keep()), "{kept}");
        }
        for other in [
            "registry.example/apps/prod_arm64_6_my_app2:1.0",
            "registry.example/apps/dev_arm64_6_my_app:1.0",
            "registry.example/apps/prod_arm64_16_my_app:1.0",
            "postgres:16",
            "nginx:latest",
        ] {
            assert!(!is_kept(other, &keep()), "{other}");
        }
    }

    #[test]
    fn the_report_reads_like_the_command_lines() {
        let mut report = Report::default();
        report.section("Containers", Some(vec!["abc".to_owned()]), Some(1_234_567));
        report.section("Volumes", Some(Vec::new()), Some(-1));
        assert_eq!(
            report.text(),
            "Deleted Containers:\nabc\n\nTotal reclaimed space: 1.235MB\n"
        );
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (45_600_000, "45.6MB"),
            (123_400_000_000, "123.4GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
