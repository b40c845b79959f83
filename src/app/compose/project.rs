//! What the containers of a project say about the app (`app-lifecycle.md` 1.9, 5.6), and whose a project is. Pure.
//!
//! Projects are known by label only, never by parsing names (W32, W36).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::app::container::COMPOSE_PROJECT;
use crate::engine::{ContainerFacts, ContainerStatus};

const SERVICE: &str = "com.docker.compose.service";
/// Of containers that somebody started beside the project (`compose run`).
const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Which documents a project was made from; compose writes it since long before our oldest one.
const CONFIG_FILES: &str = "com.docker.compose.project.config_files";

/// How far a start has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything that is to run runs.
    Up,
    Waiting,
    /// It will not come up; the text says why.
    Failed(String),
}

/// The service of a container.
pub(crate) fn service(facts: &ContainerFacts) -> &str {
    facts.labels.get(SERVICE).map_or(&facts.name, |name| name)
}

/// The containers that count: those of services.
pub(crate) fn of_services(mut facts: Vec<ContainerFacts>) -> Vec<ContainerFacts> {
    let one_off = |facts: &ContainerFacts| {
        facts
            .labels
            .get(ONE_OFF)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    };
    facts.retain(|facts| !one_off(facts));
    facts
}

/// The project seen as one container. `None` without any. Helpers that have done their work do not make it fail, but a
/// project of which nothing runs does not run (W37).
pub(crate) fn status(facts: &[ContainerFacts]) -> Option<ContainerStatus> {
    if facts.is_empty() {
        return None;
    }
    let any = |wanted: &[ContainerStatus]| facts.iter().any(|facts| wanted.contains(&facts.status));
    Some(if any(&[ContainerStatus::Running]) {
        ContainerStatus::Running
    } else if any(&[ContainerStatus::Paused]) {
        ContainerStatus::Paused
    } else if facts.iter().any(has_failed) || any(&[ContainerStatus::Restarting]) {
        ContainerStatus::Exited
    } else {
        ContainerStatus::Created
    })
}

/// How far a start has come. `lasting`: services that are not meant to end.
pub(crate) fn progress(facts: &[ContainerFacts], lasting: &BTreeSet<String>) -> Progress {
    let mut running = false;
    let mut waiting = false;
    for facts in facts {
        match facts.status {
            ContainerStatus::Running => running = true,
            _ if has_failed(facts) => return Progress::Failed(failure(facts)),
            ContainerStatus::Exited if lasting.contains(service(facts)) => {
                return Progress::Failed(failure(facts));
            }
            ContainerStatus::Exited => {}
            ContainerStatus::Created
            | ContainerStatus::Paused
            | ContainerStatus::Restarting
            | ContainerStatus::Removing
            | ContainerStatus::Dead
            | ContainerStatus::Unknown => waiting = true,
        }
    }
    if waiting || facts.is_empty() {
        Progress::Waiting
    } else if running {
        Progress::Up
    } else {
        Progress::Failed("the container has exited".to_owned())
    }
}

/// Ended for a reason that is not its own wish. One that Docker restarts has ended so, too, but is not given up yet
/// while a start waits for it.
fn has_failed(facts: &ContainerFacts) -> bool {
    match facts.status {
        ContainerStatus::Exited => facts.exit_code != 0,
        ContainerStatus::Dead => true,
        ContainerStatus::Restarting
        | ContainerStatus::Created
        | ContainerStatus::Running
        | ContainerStatus::Paused
        | ContainerStatus::Removing
        | ContainerStatus::Unknown => false,
    }
}

/// What happened to a service, for the app's log.
pub(crate) fn failure(facts: &ContainerFacts) -> String {
    let why = match (facts.oom_killed, facts.error.as_str()) {
        (true, _) => " (out of memory)".to_owned(),
        (false, "") => String::new(),
        (false, error) => format!(" ({error})"),
    };
    format!(
        "service {} exited with status code: {}{why}",
        service(facts),
        facts.exit_code
    )
}

/// Those of the containers that have failed.
pub(crate) fn failed(facts: &[ContainerFacts]) -> impl Iterator<Item = &ContainerFacts> {
    facts.iter().filter(|facts| has_failed(facts))
}

/// The project of a container that an agent made from a document in one of `roots`, the directories of apps. The name
/// alone is no proof: anybody may call a project like one of ours (W3).
pub(crate) fn made_beneath<'a>(facts: &'a ContainerFacts, roots: &[PathBuf]) -> Option<&'a str> {
    let project = facts.labels.get(COMPOSE_PROJECT)?;
    let named =
        (project.starts_with("prod_") || project.starts_with("dev_")) && project.ends_with("_compose");
    let files = facts.labels.get(CONFIG_FILES)?;
    let file = Path::new(files);
    let ours = file.file_name()? == super::directory::DOCUMENT
        && file
            .parent()
            .and_then(Path::parent)
            .is_some_and(|root| roots.iter().any(|known| known == root));
    (named && ours).then_some(project.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::ContainerStatus::*;
    use super::*;

    fn container(service: &str, status: ContainerStatus, exit_code: i64) -> ContainerFacts {
        ContainerFacts {
            id: service.to_owned(),
            name: format!("p-{service}-1"),
            status,
            started: String::new(),
            exit_code,
            error: String::new(),
            oom_killed: false,
            health: None,
            labels: BTreeMap::from([(SERVICE.to_owned(), service.to_owned())]),
            bindings: Vec::new(),
            image: String::new(),
            network_mode: String::new(),
            log_path: String::new(),
        }
    }

    fn containers(of: &[(ContainerStatus, i64)]) -> Vec<ContainerFacts> {
        of.iter()
            .enumerate()
            .map(|(number, (status, code))| container(&format!("s{number}"), *status, *code))
            .collect()
    }

    #[test]
    fn a_project_is_what_its_containers_are_in_the_order_of_the_contract() {
        for (of, expected) in [
            (&[][..], None),
            (&[(Exited, 1), (Running, 0)], Some(Running)),
            (&[(Exited, 0), (Exited, 137)], Some(Exited)),
            (&[(Dead, 0)], Some(Exited)),
            (&[(Restarting, 1), (Exited, 0)], Some(Exited)),
            (&[(Paused, 0), (Exited, 0)], Some(Paused)),
            (&[(Exited, 0), (Created, 0)], Some(Created)),
            (&[(Exited, 0)], Some(Created)),
        ] {
            assert_eq!(status(&containers(of)), expected, "{of:?}");
        }
    }

    #[test]
    fn helpers_that_end_well_are_fine_and_everything_else_that_ends_is_not() {
        let lasting = BTreeSet::from(["s1".to_owned()]);
        let failed = |text: &str| Progress::Failed(text.to_owned());
        for (of, expected) in [
            (&[][..], Progress::Waiting),
            (&[(Running, 0), (Created, 0)], Progress::Waiting),
            (&[(Running, 0), (Restarting, 1)], Progress::Waiting),
            (&[(Exited, 0), (Running, 0)], Progress::Up),
            (&[(Running, 0), (Running, 0)], Progress::Up),
            (&[(Exited, 0)], failed("the container has exited")),
            (
                &[(Running, 0), (Exited, 0)],
                failed("service s1 exited with status code: 0"),
            ),
            (
                &[(Exited, 3), (Created, 0)],
                failed("service s0 exited with status code: 3"),
            ),
        ] {
            assert_eq!(progress(&containers(of), &lasting), expected, "{of:?}");
        }
    }

    #[test]
    fn a_failure_names_the_service_the_code_and_a_lack_of_memory() {
        let mut facts = container("db", Exited, 137);
        assert_eq!(failure(&facts), "service db exited with status code: 137");
        facts.oom_killed = true;
        assert_eq!(
            failure(&facts),
            "service db exited with status code: 137 (out of memory)"
        );
    }

    #[test]
    fn containers_that_somebody_runs_beside_the_services_do_not_count() {
        let mut beside = container("web", Exited, 1);
        beside.labels.insert(ONE_OFF.to_owned(), "True".to_owned());
        let found = of_services(vec![beside, container("web", Running, 0)]);
        assert_eq!(found, [container("web", Running, 0)]);
    }

    #[test]
    fn a_project_is_ours_by_its_name_and_by_where_its_document_lies() {
        let roots = [PathBuf::from("/apps/compose"), PathBuf::from("/apps/build")];
        let made = |project: &str, file: &str| {
            let mut facts = container("web", Running, 0);
            facts
                .labels
                .insert(COMPOSE_PROJECT.to_owned(), project.to_owned());
            facts.labels.insert(CONFIG_FILES.to_owned(), file.to_owned());
            made_beneath(&facts, &roots).map(str::to_owned)
        };
        let ours = Some("prod_6_my_app_compose".to_owned());
        assert_eq!(
            made(
                "prod_6_my_app_compose",
                "/apps/compose/My_App/docker-compose.json"
            ),
            ours
        );
        for (project, file) in [
            (
                "prod_6_my_app_compose",
                "/home/user/compose/x/docker-compose.json",
            ),
            ("prod_6_my_app_compose", "/apps/compose/x/docker-compose.yml"),
            ("prod_6_my_app_compose", "/apps/compose/docker-compose.json"),
            ("mine", "/apps/compose/x/docker-compose.json"),
        ] {
            assert_eq!(made(project, file), None, "{project} {file}");
        }
        let mut unlabelled = container("web", Running, 0);
        unlabelled
            .labels
            .insert(COMPOSE_PROJECT.to_owned(), "prod_6_x_compose".to_owned());
        assert_eq!(made_beneath(&unlabelled, &roots), None);
    }
}
