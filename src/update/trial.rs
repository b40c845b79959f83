//! The first thing a start does about updates: whose turn is it, and has the new version used up its chances
//! (`update-and-system.md` 9.3.1). Pure: looks at what is remembered and changes it. Must not know files or processes.

use super::state::{Phase, State};
use super::version;

/// Starts that a new version gets to prove itself.
pub(crate) const STARTS: u32 = 3;
/// At this start of the old version the new one was evidently never executed.
const OLD_STARTS: u32 = 3;

/// What a start under the vendor's manager script has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Managed {
    /// Go on.
    GoOn,
    /// Remember the changed state, then go on.
    Remember,
    /// Take the new version out of use and go on.
    Demote,
    /// Take this very version out of use and end, so that the old one is started.
    DemoteMyself,
}

/// Said when a power cut came between remembering a new version and giving it its name, or a disk lost it.
const MISSING: &str = "the new version is missing or damaged on disk";

/// A start of `running` under the manager script, which decides itself what it starts. `sha256` is asked only when
/// the digest of the running binary matters, `has_candidate` whether the new version is complete on disk.
pub(crate) fn managed(
    state: &mut State,
    running: &str,
    sha256: impl FnOnce() -> Option<String>,
    has_candidate: impl FnOnce(&State) -> bool,
) -> Managed {
    match state.phase {
        // Of Windows.
        Phase::None | Phase::Swapping => Managed::GoOn,
        // A power cut may have come before the links were right. Blocked or not: nothing else is there to return to.
        Phase::Rolledback if running == state.old_version => Managed::Demote,
        Phase::Rolledback => {
            let suspect = state.blocked.iter().any(|blocked| blocked.version == running);
            match suspect.then(sha256).flatten() {
                Some(sha256) if state.blocked(running, &sha256).is_some() => Managed::DemoteMyself,
                _ => Managed::GoOn,
            }
        }
        Phase::Staged | Phase::Probation if running == state.new_version => {
            state.count_start();
            if state.attempts <= STARTS {
                return Managed::Remember;
            }
            state.roll_back(&exhausted());
            Managed::DemoteMyself
        }
        Phase::Staged | Phase::Probation if running == state.old_version || running == state.staged_by => {
            if !has_candidate(state) {
                state.abandon(MISSING);
                return Managed::Remember;
            }
            // One that staged another before it had proven itself is nothing to return to.
            let demote = match running == state.old_version {
                true => Managed::Demote,
                false => Managed::DemoteMyself,
            };
            if state.attempts > STARTS {
                state.roll_back(&exhausted());
                return demote;
            }
            if state.phase == Phase::Probation {
                // Rolled back once by the manager, which tries again by itself.
                return Managed::GoOn;
            }
            state.old_starts += 1;
            if state.old_starts < OLD_STARTS {
                return Managed::Remember;
            }
            state.roll_back("the new version was never executed");
            demote
        }
        // Somebody put a third version there.
        Phase::Staged | Phase::Probation => {
            state.phase = Phase::None;
            Managed::Remember
        }
    }
}

/// Whether nothing remembered accounts for `running`: another agent or a person brought it here (1.16). Then it has
/// proven nothing, and nobody but itself can take it out of use. `Rolledback` comes here only with a build that is not
/// blocked.
pub(crate) fn is_stranger(state: &State, running: &str) -> bool {
    match state.phase {
        Phase::None | Phase::Swapping => running != state.new_version && running != state.old_version,
        Phase::Rolledback => running != state.old_version,
        Phase::Staged | Phase::Probation => false,
    }
}

/// What a start under the service manager of Windows has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swapped {
    /// Go on, with the state as it is now.
    GoOn,
    /// The same; this version has to prove itself.
    Try,
    /// Take this version out of use, remember that and end; if that fails, go on and try it at the next start.
    PutBack,
}

/// A start of `running` as the service (1.14), whose binary was put in its place by an update or not.
pub(crate) fn swapped(state: &mut State, running: &str) -> Swapped {
    match state.phase {
        Phase::None => Swapped::GoOn,
        Phase::Rolledback => {
            let is_known = state.blocked.iter().any(|one| one.version == state.new_version);
            if !is_known && !state.new_version.is_empty() {
                // The marker is another agent's, which remembers one version and no digest.
                state.roll_back("it failed under another agent");
            }
            Swapped::GoOn
        }
        // The power went before or between the two renames, or right after them: then this is its first start.
        Phase::Staged | Phase::Swapping if running != state.new_version => {
            state.phase = Phase::None;
            Swapped::GoOn
        }
        Phase::Staged | Phase::Swapping => {
            state.attempts = 0;
            state.count_start();
            Swapped::Try
        }
        Phase::Probation if running == state.new_version => {
            state.count_start();
            match state.attempts <= STARTS {
                true => Swapped::Try,
                false => Swapped::PutBack,
            }
        }
        // It was put back, and the power went before that was remembered; or it did not even start.
        Phase::Probation if running == state.old_version => {
            match state.attempts > STARTS {
                true => state.roll_back(&exhausted()),
                false => state.roll_back("the version before was put in its place"),
            }
            Swapped::GoOn
        }
        // Somebody put a third version there.
        Phase::Probation => {
            state.phase = Phase::None;
            Swapped::GoOn
        }
    }
}

pub(crate) fn exhausted() -> String {
    format!("it did not prove its health in {STARTS} starts")
}

/// What a launcher, which is never the version under test, has to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launch {
    /// The version that is being tried; a start is counted.
    Candidate,
    /// The version that proved itself.
    Active,
    /// The launcher itself.
    Myself,
}

/// A start without an external manager, by the installed binary of version `launcher`. `has` says whether a file of the
/// agent directory is complete; `changed` tells that the state has to be remembered before anything is started.
pub(crate) fn launch(
    state: &mut State,
    launcher: &str,
    has_candidate: impl FnOnce(&State) -> bool,
    has_active: impl FnOnce(&State) -> bool,
) -> (Launch, bool) {
    let mut changed = false;
    if state.is_trial() {
        if is_overtaken(state, launcher) {
            state.abandon("a newer version was installed meanwhile");
        } else if !has_candidate(state) {
            state.abandon(MISSING);
        } else if state.attempts >= STARTS {
            state.roll_back(&exhausted());
        } else {
            state.count_start();
            return (Launch::Candidate, true);
        }
        changed = true;
    }
    (settled(state, launcher, has_active), changed)
}

/// Whether the trial belongs to another installation than `launcher`, which is at least as new as what is tried.
fn is_overtaken(state: &State, launcher: &str) -> bool {
    let staged_it = state.old_version == launcher;
    let installed_it = state
        .active
        .as_ref()
        .is_some_and(|active| active.launcher == launcher);
    !staged_it && !installed_it && !version::is_after(&state.new_version, launcher)
}

/// The same where nothing can be tried: what proved itself, else the launcher.
pub(crate) fn settled(state: &State, launcher: &str, has_active: impl FnOnce(&State) -> bool) -> Launch {
    let usable = state.active.as_ref().is_some_and(|active| {
        // A launcher that was replaced by a newer one is a new installation and wins.
        let same_installation = active.launcher == launcher;
        same_installation || version::is_after(&active.version, launcher)
    });
    match usable && has_active(state) {
        true => Launch::Active,
        false => Launch::Myself,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::state::Binary;

    fn staged() -> State {
        State {
            phase: Phase::Staged,
            new_version: "2.0.0".to_owned(),
            old_version: "1.0.0".to_owned(),
            new_sha256: "new".to_owned(),
            ..State::default()
        }
    }

    fn start(state: &mut State, running: &str) -> Managed {
        managed(state, running, || Some("new".to_owned()), |_| true)
    }

    #[test]
    fn a_new_version_has_three_starts_and_takes_itself_out_at_the_fourth() {
        let mut state = staged();
        for attempt in 1..=3 {
            assert_eq!(start(&mut state, "2.0.0"), Managed::Remember);
            assert_eq!((state.phase, state.attempts), (Phase::Probation, attempt));
            assert_eq!(
                start(&mut state, "1.0.0"),
                Managed::GoOn,
                "the manager rolls back and forth"
            );
        }
        assert_eq!(start(&mut state, "2.0.0"), Managed::DemoteMyself);
        assert_eq!(state.phase, Phase::Rolledback);
        assert_eq!(
            start(&mut state, "1.0.0"),
            Managed::Demote,
            "the links are made right once more"
        );
        assert_eq!(
            start(&mut state, "2.0.0"),
            Managed::DemoteMyself,
            "however often it is started"
        );
    }

    #[test]
    fn starts_that_are_excused_use_nothing_up() {
        let mut state = staged();
        for _ in 0..10 {
            assert_eq!(start(&mut state, "2.0.0"), Managed::Remember);
            state.excuse_start();
            let launched = launch(&mut state, "1.0.0", |_| true, |_| true);
            assert_eq!(launched, (Launch::Candidate, true));
            state.excuse_start();
        }
        assert_eq!(state.attempts, 0);
    }

    #[test]
    fn a_version_that_cannot_even_be_executed_is_taken_out_at_the_third_start_of_the_old_one() {
        let mut state = staged();
        assert_eq!(start(&mut state, "1.0.0"), Managed::Remember);
        assert_eq!(start(&mut state, "1.0.0"), Managed::Remember);
        assert_eq!(start(&mut state, "1.0.0"), Managed::Demote);
        assert!(state.blocked("2.0.0", "new").is_some());
    }

    #[test]
    fn the_old_version_takes_a_new_one_out_that_died_before_it_could() {
        let mut state = staged();
        state.phase = Phase::Probation;
        state.attempts = 4;
        assert_eq!(start(&mut state, "1.0.0"), Managed::Demote);
    }

    #[test]
    fn a_fixed_build_of_a_blocked_number_runs() {
        let mut state = staged();
        state.roll_back("it crashed");
        let fixed = managed(&mut state, "2.0.0", || Some("fixed".to_owned()), |_| true);
        assert_eq!(fixed, Managed::GoOn);
    }

    #[test]
    fn a_version_that_a_power_cut_kept_from_the_disk_is_not_blamed() {
        let mut state = staged();
        let start = managed(&mut state, "1.0.0", || None, |_| false);
        assert_eq!((start, state.phase), (Managed::Remember, Phase::None));
        assert!(state.blocked.is_empty());
        let mut state = staged();
        let launched = launch(&mut state, "1.0.0", |_| false, |_| true);
        assert_eq!((launched, state.phase), ((Launch::Myself, true), Phase::None));
        assert!(state.blocked.is_empty());
    }

    #[test]
    fn a_version_that_nobody_announced_is_a_stranger_until_it_is_known() {
        assert!(is_stranger(&State::default(), "2.0.0"));
        let mut state = staged();
        assert!(!is_stranger(&state, "2.0.0"), "it is tried already");
        state.roll_back("it crashed");
        assert!(!is_stranger(&state, "1.0.0"));
        assert!(is_stranger(&state, "2.0.0"), "a fixed build of the number");
        assert!(is_stranger(&state, "3.0.0"), "the next one, of another agent");
        state.prove();
        assert!(!is_stranger(&state, "2.0.0"));
        assert!(!is_stranger(&state, "1.0.0"));
    }

    #[test]
    fn the_way_back_leads_to_a_version_that_failed_once_if_there_is_no_other() {
        let mut state = State {
            old_version: "2.0.0".to_owned(),
            ..staged()
        };
        state.roll_back("it crashed");
        state.blocked[0].version = "2.0.0".to_owned();
        let sha256 = state.blocked[0].sha256.clone();
        let verdict = managed(&mut state, "2.0.0", || Some(sha256), |_| true);
        assert_eq!(verdict, Managed::Demote);
    }

    #[test]
    fn a_version_under_test_that_staged_the_next_one_keeps_the_way_back_to_the_good_one() {
        // 2.0.0 was on trial and staged 3.0.0.
        let mut state = State {
            new_version: "3.0.0".to_owned(),
            staged_by: "2.0.0".to_owned(),
            ..staged()
        };
        let before = state.clone();
        assert_eq!(start(&mut state, "2.0.0"), Managed::Remember);
        assert!(!is_stranger(&state, "2.0.0"));
        state.old_starts = 0;
        assert_eq!(state, before, "the way back leads to 1.0.0");
        assert_eq!(start(&mut state, "3.0.0"), Managed::Remember);
        assert_eq!(
            start(&mut state, "2.0.0"),
            Managed::GoOn,
            "the script tries once more"
        );
        for _ in 0..2 {
            assert_eq!(start(&mut state, "3.0.0"), Managed::Remember);
        }
        assert_eq!(start(&mut state, "3.0.0"), Managed::DemoteMyself);
        assert_eq!(start(&mut state, "1.0.0"), Managed::Demote);

        // It never gets started, and the one that staged it has proven nothing either.
        let mut state = before;
        for _ in 1..OLD_STARTS {
            assert_eq!(start(&mut state, "2.0.0"), Managed::Remember);
        }
        assert_eq!(start(&mut state, "2.0.0"), Managed::DemoteMyself);
        assert_eq!(state.blocked[0].version, "3.0.0");
    }

    #[test]
    fn a_third_version_ends_the_trial() {
        let mut state = staged();
        assert_eq!(start(&mut state, "3.0.0"), Managed::Remember);
        assert_eq!(state.phase, Phase::None);
    }

    #[test]
    fn the_launcher_counts_starts_of_the_candidate_and_returns_by_itself() {
        let mut state = staged();
        for attempt in 1..=3 {
            assert_eq!(
                launch(&mut state, "1.0.0", |_| true, |_| true),
                (Launch::Candidate, true)
            );
            assert_eq!(state.attempts, attempt);
        }
        assert_eq!(
            launch(&mut state, "1.0.0", |_| true, |_| true),
            (Launch::Myself, true)
        );
        assert_eq!(state.phase, Phase::Rolledback);
        assert_eq!(
            launch(&mut state, "1.0.0", |_| true, |_| true),
            (Launch::Myself, false)
        );
    }

    #[test]
    fn a_failed_candidate_leads_back_to_the_version_that_proved_itself() {
        let mut state = staged();
        state.active = Some(Binary {
            version: "1.5.0".to_owned(),
            launcher: "1.0.0".to_owned(),
            ..Binary::default()
        });
        let lost = launch(&mut state, "1.0.0", |_| false, |_| true);
        assert_eq!(lost, (Launch::Active, true));
        let damaged = launch(&mut state, "1.0.0", |_| true, |_| false);
        assert_eq!(damaged, (Launch::Myself, false));
    }

    #[test]
    fn a_newer_installation_ends_an_older_trial_and_no_other() {
        let launched = |state: &State, launcher: &str| {
            let mut state = state.clone();
            let launched = launch(&mut state, launcher, |_| true, |_| true);
            (launched, state.phase)
        };
        let tried = ((Launch::Candidate, true), Phase::Probation);
        let ended = ((Launch::Myself, true), Phase::None);
        let state = staged();
        assert_eq!(launched(&state, "2.0.0"), ended);
        assert_eq!(launched(&state, "2.1.0"), ended);
        assert_eq!(launched(&state, "1.9.0"), tried, "older than what is tried");
        let mut way_back = staged();
        way_back.new_version = "0.9.0".to_owned();
        assert_eq!(launched(&way_back, "1.0.0"), tried, "it staged that itself");
        way_back.old_version = "1.5.0".to_owned();
        way_back.active = Some(Binary {
            version: "1.5.0".to_owned(),
            launcher: "1.0.0".to_owned(),
            ..Binary::default()
        });
        assert_eq!(launched(&way_back, "1.0.0"), tried, "what it launched did");
        assert_eq!(launched(&way_back, "1.6.0"), ended);
    }

    #[test]
    fn a_newer_installation_wins_over_an_older_download() {
        let mut state = State {
            active: Some(Binary {
                version: "1.5.0".to_owned(),
                launcher: "1.0.0".to_owned(),
                ..Binary::default()
            }),
            ..State::default()
        };
        assert_eq!(
            launch(&mut state, "1.6.0", |_| true, |_| true),
            (Launch::Myself, false)
        );
        assert_eq!(
            launch(&mut state, "1.4.0", |_| true, |_| true),
            (Launch::Active, false)
        );
        let mut downgraded = state.clone();
        downgraded.active.as_mut().unwrap().version = "0.9.0".to_owned();
        assert_eq!(
            launch(&mut downgraded, "1.0.0", |_| true, |_| true),
            (Launch::Active, false)
        );
    }
}
