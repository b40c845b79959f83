use std::str::FromStr;

use proptest::prelude::*;
use protocol::{AppState, Stage};

use super::{Action, Situation, next};

const TARGETS: [AppState; 6] = [
    AppState::Present,
    AppState::Running,
    AppState::Built,
    AppState::Published,
    AppState::Removed,
    AppState::Uninstalled,
];

/// The contract's table, 3.1, without its footnote signs. "A/B" is PROD/DEV.
const MATRIX: &str = "
REMOVED     | pull/no-op       | run             | build | publish                | no-op           | uninstall
UNINSTALLED | pull             | run             | build | publish                |                 | no-op
PRESENT     | no-op            | run             | build | publish                | remove          | uninstall
RUNNING     | stop             | no-op           | stop  | nothing/remove+publish | remove          | uninstall
FAILED      | recover-present  | recover-running | build | publish                | remove          | uninstall
BUILT       | no-op            | run             | build | publish                | remove          | uninstall
PUBLISHED   | no-op            | run             | build | publish                | remove          | uninstall
STOPPED     |                  | run             | build | publish                | remove          | uninstall
TRANSFERED  | pull             |                 |       |                        | remove          | uninstall
TRANSFERING | cancel-transfer  |                 |       |                        | cancel-transfer | cancel-transfer
DOWNLOADING | pull             |                 |       |                        | cancel-pull     | cancel-pull
BUILDING    |                  |                 |       |                        | cancel-build    |
PUBLISHING  |                  |                 |       |                        | cancel-push     |
STARTING    | stop             | run             |       |                        | remove          | uninstall
STOPPING    | stop             | run             |       |                        | remove          | uninstall
UPDATING    | cancel-update    |                 |       |                        | cancel-update   | cancel-update
DELETING    |                  |                 |       |                        | remove          | uninstall
";

/// Where we differ on purpose: stage, current, target, action, weakness.
const BETTER: &[(Stage, AppState, AppState, Action, &str)] = &[
    (
        Stage::Prod,
        AppState::Downloading,
        AppState::Running,
        Action::Run,
        "W16",
    ),
    (
        Stage::Dev,
        AppState::Downloading,
        AppState::Running,
        Action::Run,
        "W16",
    ),
    (
        Stage::Dev,
        AppState::Uninstalled,
        AppState::Present,
        Action::Report,
        "W62",
    ),
];

fn action(cell: &str, stage: Stage) -> Action {
    let cell = match (cell.split_once('/'), stage) {
        (None, _) => cell,
        (Some((prod, _)), Stage::Prod) => prod,
        (Some((_, dev)), Stage::Dev) => dev,
    };
    match cell {
        "" => Action::Undefined,
        "no-op" => Action::Report,
        "nothing" => Action::Impossible,
        "pull" => Action::Pull,
        "run" => Action::Run,
        "stop" => Action::Stop,
        "remove" => Action::Remove,
        "uninstall" => Action::Uninstall,
        "build" => Action::Build,
        "publish" => Action::Publish,
        "remove+publish" => Action::RemoveThenPublish,
        "recover-present" => Action::RecoverPresent,
        "recover-running" => Action::RecoverRunning,
        "cancel-pull" => Action::CancelPull,
        "cancel-build" => Action::CancelBuild,
        "cancel-push" => Action::CancelPush,
        "cancel-transfer" => Action::CancelTransfer,
        "cancel-update" => Action::CancelUpdate,
        other => panic!("unknown cell {other:?}"),
    }
}

fn cells() -> Vec<(Stage, AppState, AppState, Action)> {
    let mut cells = Vec::new();
    for line in MATRIX.lines().filter(|line| !line.is_empty()) {
        let mut columns = line.split('|').map(str::trim);
        let current = AppState::from_str(columns.next().unwrap()).unwrap();
        for (cell, target) in columns.zip(TARGETS) {
            for stage in [Stage::Prod, Stage::Dev] {
                cells.push((stage, current, target, action(cell, stage)));
            }
        }
    }
    cells
}

#[test]
fn every_cell_is_the_one_of_the_contract_or_better_for_a_reason() {
    let cells = cells();
    assert_eq!(cells.len(), 17 * 6 * 2, "the table is complete");
    for (stage, current, target, cell) in cells {
        let found = next(Situation {
            stage,
            current,
            target,
            update: false,
        });
        let better = BETTER
            .iter()
            .find(|(on, from, to, ..)| (*on, *from, *to) == (stage, current, target));
        let expected = match better {
            Some((.., action, _)) => *action,
            // A PROD app is never built or published on the device (W62).
            None if stage == Stage::Prod && matches!(target, AppState::Built | AppState::Published) => {
                Action::Impossible
            }
            None => cell,
        };
        assert_eq!(found, expected, "{stage} {current} -> {target}");
    }
}

#[test]
fn other_targets_are_undefined_in_every_row() {
    for stage in [Stage::Prod, Stage::Dev] {
        for current in AppState::ALL {
            for target in AppState::ALL.iter().filter(|target| !TARGETS.contains(target)) {
                let expected = match (current, target) {
                    (AppState::Stopped, AppState::Stopped) => Action::Report,
                    _ => Action::Undefined,
                };
                let situation = Situation {
                    stage,
                    current: *current,
                    target: *target,
                    update: false,
                };
                assert_eq!(next(situation), expected, "{situation:?}");
            }
        }
    }
}

#[test]
fn the_update_gate_opens_only_for_installed_prod_apps_that_shall_stay() {
    for stage in [Stage::Prod, Stage::Dev] {
        for current in AppState::ALL {
            for target in TARGETS {
                let update = next(Situation {
                    stage,
                    current: *current,
                    target,
                    update: true,
                }) == Action::Update;
                let expected = stage == Stage::Prod
                    && matches!(target, AppState::Present | AppState::Running)
                    && !matches!(current, AppState::Removed | AppState::Uninstalled);
                assert_eq!(update, expected, "{stage} {current} -> {target}");
            }
        }
    }
}

/// What an action leaves behind when it succeeds.
fn success(action: Action, target: AppState) -> AppState {
    match action {
        Action::Pull | Action::Stop | Action::RecoverPresent | Action::Update => AppState::Present,
        Action::Run | Action::RecoverRunning => AppState::Running,
        Action::Remove
        | Action::CancelPull
        | Action::CancelBuild
        | Action::CancelPush
        | Action::CancelTransfer => AppState::Removed,
        Action::CancelUpdate => match target {
            AppState::Removed | AppState::Uninstalled => AppState::Removed,
            _ => AppState::Present,
        },
        Action::Uninstall => AppState::Uninstalled,
        Action::Build => AppState::Built,
        Action::Publish | Action::RemoveThenPublish => AppState::Published,
        Action::Report | Action::Undefined | Action::Impossible => unreachable!("not an action"),
    }
}

/// States that an action passes through and in which a kill may leave the app.
fn passes(action: Action) -> &'static [AppState] {
    match action {
        Action::Pull => &[AppState::Downloading],
        Action::Run | Action::RecoverRunning => {
            &[AppState::Starting, AppState::Downloading, AppState::Present]
        }
        Action::RecoverPresent => &[AppState::Downloading],
        Action::Stop => &[AppState::Stopping],
        Action::Remove | Action::Uninstall | Action::RemoveThenPublish => {
            &[AppState::Deleting, AppState::Removed]
        }
        Action::Build => &[AppState::Removed, AppState::Building],
        Action::Publish => &[AppState::Building, AppState::Built, AppState::Publishing],
        Action::Update => &[AppState::Updating],
        Action::CancelPull
        | Action::CancelBuild
        | Action::CancelPush
        | Action::CancelTransfer
        | Action::CancelUpdate => &[AppState::Deleting],
        Action::Report | Action::Undefined | Action::Impossible => &[],
    }
}

/// 8.4 for an app without container: what a look at the host makes of a state in which an action was cut off.
fn corrected(state: AppState) -> AppState {
    match state {
        AppState::Uninstalled | AppState::Failed | AppState::Removed => state,
        AppState::Running => AppState::Running,
        _ => AppState::Present,
    }
}

fn settled(stage: Stage, current: AppState, target: AppState) -> bool {
    matches!(
        next(Situation {
            stage,
            current,
            target,
            update: false
        }),
        Action::Report | Action::Impossible
    )
}

fn any_state() -> impl Strategy<Value = AppState> {
    prop::sample::select(AppState::ALL.to_vec())
}

proptest! {
    #[test]
    fn every_target_is_reached_from_everywhere_in_a_few_actions(
        dev in any::<bool>(), start in any_state(), target in prop::sample::select(TARGETS.to_vec()),
        mishaps in prop::collection::vec((0usize..4, any::<bool>()), 0..4),
    ) {
        let stage = if dev { Stage::Dev } else { Stage::Prod };
        let mut current = start;
        let mut mishaps = mishaps.into_iter();
        let mut undisturbed = 0;
        loop {
            let action = next(Situation { stage, current, target, update: false });
            match action {
                Action::Report | Action::Impossible => break,
                // A dead end of the table is left by the look at the host that precedes a decision at boot.
                Action::Undefined => {
                    let seen = corrected(current);
                    prop_assert!(seen != current || current == AppState::Uninstalled,
                        "{} {} -> {} has no way out", stage, current, target);
                    if seen == current { break; }
                    current = seen;
                }
                action => current = match mishaps.next() {
                    Some((_, true)) => AppState::Failed,
                    // Killed in one of the states passed through, then corrected at the next start.
                    Some((at, false)) => passes(action)
                        .get(at)
                        .map_or(success(action, target), |state| corrected(*state)),
                    None => {
                        undisturbed += 1;
                        prop_assert!(undisturbed <= 3, "{} {} -> {} loops", stage, start, target);
                        success(action, target)
                    }
                },
            }
            // Building ends in BUILT, which rests; the actor then reports PRESENT.
            if current == target { break; }
        }
        prop_assert!(current == target || settled(stage, current, target)
            || (current, target) == (AppState::Uninstalled, AppState::Removed));
    }
}

const DOCUMENT: &str = include_str!("../../../docs/app-states.md");

/// The word of the document for an action.
fn word(action: Action) -> &'static str {
    match action {
        Action::Report => "report",
        Action::Undefined => "",
        Action::Impossible => "refuse",
        Action::Pull => "pull",
        Action::Run => "run",
        Action::Stop => "stop",
        Action::Remove => "remove",
        Action::Uninstall => "uninstall",
        Action::RecoverPresent => "recover to present",
        Action::RecoverRunning => "recover to running",
        Action::Build => "build",
        Action::Publish => "publish",
        Action::RemoveThenPublish => "remove, publish",
        Action::Update => "update",
        Action::CancelPull => "cancel pull",
        Action::CancelBuild => "cancel build",
        Action::CancelPush => "cancel push",
        Action::CancelTransfer => "cancel transfer",
        Action::CancelUpdate => "cancel update",
    }
}

fn documented(stage: Stage, current: AppState, target: AppState) -> &'static str {
    word(next(Situation {
        stage,
        current,
        target,
        update: false,
    }))
}

#[test]
fn the_document_has_every_cell_of_the_code() {
    let rows: Vec<&str> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| from \\ to |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(rows.len(), AppState::ALL.len());
    for row in rows {
        let mut columns = row.trim_matches('|').split('|').map(str::trim);
        let current = AppState::from_str(columns.next().unwrap()).unwrap();
        let cells: Vec<&str> = columns.collect();
        assert_eq!(cells.len(), TARGETS.len(), "{row}");
        for (cell, target) in cells.into_iter().zip(TARGETS) {
            let (prod, dev) = cell.split_once(" / ").unwrap_or((cell, cell));
            for (stage, said) in [(Stage::Prod, prod), (Stage::Dev, dev)] {
                let said = if said == "-" { "" } else { said };
                assert_eq!(
                    said,
                    documented(stage, current, target),
                    "{stage} {current} -> {target}"
                );
            }
        }
    }
}

#[test]
fn the_diagram_shows_what_the_code_does() {
    let arrows: Vec<&str> = DOCUMENT
        .lines()
        .filter(|line| line.contains(" --> ") && line.contains(": "))
        .collect();
    assert!(arrows.len() > 10, "{arrows:?}");
    for arrow in arrows {
        let (from, rest) = arrow.trim().split_once(" --> ").unwrap();
        let (to, action) = rest.split_once(": ").unwrap();
        let [from, to] = [from, to].map(|state| AppState::from_str(state).unwrap());
        let found = [Stage::Prod, Stage::Dev].map(|stage| documented(stage, from, to));
        assert!(found.contains(&action), "{arrow}: {found:?}");
    }
}
