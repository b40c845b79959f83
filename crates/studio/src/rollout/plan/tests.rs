use super::*;
use crate::keys::{AccountKey, RolloutKey};
use crate::store::RolloutState;

fn devices(count: u64) -> Vec<(DeviceKey, String)> {
    (1..=count)
        .map(|number| (DeviceKey(number), format!("00000000-0000-4000-8000-{number:012}")))
        .collect()
}

fn member(number: u64, wave: u32, state: MemberState) -> Member {
    Member {
        device: DeviceKey(number),
        name: format!("gate-{number}"),
        serial: format!("00000000-0000-4000-8000-{number:012}"),
        status: "CONNECTED".to_owned(),
        agent_version: "1.0.0".to_owned(),
        wave,
        state,
        from: "1.0.0".to_owned(),
        reason: "it crashed".to_owned(),
        asked: Some(1000),
        excused: false,
        retried: false,
    }
}

fn rollout(wave: u32, waves: u32, members: Vec<Member>) -> Rollout {
    Rollout {
        key: RolloutKey(1),
        version: "1.0.1".to_owned(),
        account: AccountKey(1),
        state: RolloutState::Running,
        reason: String::new(),
        wave,
        waves,
        may_be_empty: None,
        threshold: 90,
        patience: 100,
        created: String::new(),
        updated: String::new(),
        members,
    }
}

#[test]
fn every_device_is_in_one_wave_and_the_canaries_are_in_the_first() {
    let devices = devices(50);
    let canary = [DeviceKey(7), DeviceKey(9)];
    let cut = waves(&canary, &devices, "1.0.1", &[10, 50, 100]);
    let sizes: Vec<_> = cut.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 5, 19, 24]);
    let mut all: Vec<_> = cut.concat();
    all.sort();
    assert_eq!(all, devices.iter().map(|(key, _)| *key).collect::<Vec<_>>());
    // Another version has other pioneers.
    assert_ne!(cut[1], waves(&canary, &devices, "1.0.2", &[10, 50, 100])[1]);
    assert_eq!(waves(&canary, &devices, "1.0.1", &[10, 50, 100]), cut);
}

#[test]
fn few_devices_make_few_waves() {
    let devices = devices(2);
    let canary = first(&devices, "1.0.1", 1);
    assert_eq!(waves(&canary, &devices, "1.0.1", &[10, 50, 100]).len(), 2);
    assert_eq!(waves(&canary, &devices[..0], "1.0.1", &[100]).len(), 1);
}

#[test]
fn a_wave_follows_when_the_one_before_has_ended_well() {
    let waiting = member(2, 1, MemberState::Waiting);
    for (state, verdict) in [
        (MemberState::Waiting, Verdict::Go),
        (MemberState::Asked, Verdict::Go),
        (MemberState::Staged, Verdict::Go),
        (MemberState::Updated, Verdict::Next),
    ] {
        let judged = judge(&rollout(0, 2, vec![member(1, 0, state), waiting.clone()]));
        assert_eq!(judged, verdict, "{state:?}");
    }
    let last = rollout(
        1,
        2,
        vec![
            member(1, 0, MemberState::Updated),
            member(2, 1, MemberState::Updated),
        ],
    );
    assert_eq!(judge(&last), Verdict::Done);
}

#[test]
fn one_bad_canary_stops_everything_and_one_bad_device_of_many_does_not() {
    let bad = judge(&rollout(
        0,
        2,
        vec![
            member(1, 0, MemberState::Failed),
            member(2, 1, MemberState::Waiting),
        ],
    ));
    let Verdict::Pause(reason) = bad else {
        panic!("{bad:?}")
    };
    assert!(reason.contains("gate-1: it crashed"), "{reason}");
    let mut many: Vec<_> = (1..20)
        .map(|number| member(number, 0, MemberState::Updated))
        .collect();
    many.push(member(20, 0, MemberState::Failed));
    assert_eq!(judge(&rollout(0, 1, many.clone())), Verdict::Done);
    many[0].state = MemberState::Failed;
    many[1].state = MemberState::Failed;
    assert!(matches!(judge(&rollout(0, 1, many.clone())), Verdict::Pause(_)));
    // Somebody has looked at those.
    for member in &mut many {
        member.excused = true;
    }
    assert_eq!(judge(&rollout(0, 1, many)), Verdict::Done);
}

#[test]
fn a_wave_whose_devices_were_removed_has_proven_nothing() {
    let others = vec![member(2, 1, MemberState::Waiting)];
    let mut emptied = rollout(0, 2, others.clone());
    let judged = judge(&emptied);
    assert!(matches!(judged, Verdict::Pause(_)), "{judged:?}");
    // Somebody went on, or nobody was to go first.
    emptied.may_be_empty = Some(0);
    assert_eq!(judge(&emptied), Verdict::Next);
    // That is said of one wave.
    let mut later = rollout(1, 3, vec![member(1, 0, MemberState::Updated)]);
    later.may_be_empty = Some(0);
    assert!(matches!(judge(&later), Verdict::Pause(_)));
    // Nothing follows the last one.
    assert_eq!(
        judge(&rollout(1, 2, vec![member(1, 0, MemberState::Updated)])),
        Verdict::Done
    );
}

#[test]
fn only_devices_that_were_asked_may_have_failures_forgiven() {
    // A wave of 500 that fails everywhere; 32 were called.
    let mut wave: Vec<_> = (1..=500)
        .map(|number| member(number, 0, MemberState::Waiting))
        .collect();
    for member in &mut wave {
        member.asked = None;
    }
    for member in &mut wave[..32] {
        (member.state, member.asked) = (MemberState::Asked, Some(1000));
    }
    for member in &mut wave[..3] {
        member.state = MemberState::Failed;
    }
    assert_eq!(judge(&rollout(0, 2, wave.clone())), Verdict::Go);
    wave[3].state = MemberState::Failed;
    let Verdict::Pause(reason) = judge(&rollout(0, 2, wave)) else {
        panic!("four of 32 are more than a tenth")
    };
    assert!(reason.starts_with("4 of 32 devices failed, 3 may"), "{reason}");

    // Those that are away forgive nothing either.
    let mut few: Vec<_> = (1..=5)
        .map(|number| member(number, 0, MemberState::Failed))
        .collect();
    few[0].state = MemberState::Updated;
    few.extend((6..=100).map(|number| Member {
        status: "DISCONNECTED".to_owned(),
        asked: None,
        ..member(number, 0, MemberState::Waiting)
    }));
    let judged = judge(&rollout(0, 2, few));
    assert!(matches!(judged, Verdict::Pause(_)), "{judged:?}");
}

#[test]
fn devices_that_are_away_hold_nothing_up_but_their_own_update() {
    let mut away = member(1, 0, MemberState::Waiting);
    away.status = "DISCONNECTED".to_owned();
    let alone = rollout(0, 2, vec![away.clone(), member(3, 1, MemberState::Waiting)]);
    // Nothing is proven yet.
    assert_eq!(judge(&alone), Verdict::Go);
    let with_other = rollout(
        0,
        2,
        vec![
            away.clone(),
            member(2, 0, MemberState::Updated),
            member(3, 1, MemberState::Waiting),
        ],
    );
    assert_eq!(judge(&with_other), Verdict::Next);
    let end = rollout(0, 1, vec![away.clone(), member(2, 0, MemberState::Updated)]);
    assert_eq!(judge(&end), Verdict::Go);
    assert!(!is_due(&away, 1));
    away.status = "CONNECTED".to_owned();
    assert!(is_due(&away, 1));
    assert!(!is_due(&member(3, 2, MemberState::Waiting), 1));
}

#[test]
fn a_device_that_says_nothing_has_failed_unless_its_version_is_all_it_ever_says() {
    assert!(!is_overdue(100, None));
    assert!(!is_overdue(100, Some(Duration::from_secs(100))));
    assert!(is_overdue(100, Some(Duration::from_secs(101))));

    let rollout = rollout(0, 1, vec![member(1, 0, MemberState::Staged)]);
    let silent = &rollout.members[0];
    let failed = |member: &Member, report: Option<&Report>, why: &str| {
        let (state, reason) = overdue(&rollout, member, report);
        assert_eq!(state, MemberState::Failed, "{report:?}");
        assert_eq!(reason, format!("no word within 100 s; {why}"));
    };
    let before = || Outcome {
        to: "1.0.0".to_owned(),
        ..outcome("updated", None)
    };
    failed(
        silent,
        Some(&report("1.0.0", None, None)),
        "it runs version 1.0.0",
    );
    // An agent of the reference.
    let there = report("1.0.1", None, None);
    assert_eq!(overdue(&rollout, silent, Some(&there)).0, MemberState::Updated);
    // One that says how updates end has not said it of this one.
    for (trial, last, why) in [
        (
            None,
            Some(before()),
            "it runs version 1.0.1, and has not said that it has proven itself",
        ),
        (Some("1.0.1"), None, "version 1.0.1 has yet to prove itself there"),
        (
            Some("1.0.1"),
            Some(before()),
            "version 1.0.1 has yet to prove itself there",
        ),
    ] {
        failed(silent, Some(&report("1.0.1", trial, last)), why);
    }
    // What it said when it connected counts no more.
    let mut gone = silent.clone();
    gone.agent_version = "1.0.1".to_owned();
    failed(
        &gone,
        None,
        "it does not answer, and ran version 1.0.1 when it connected",
    );
    gone.agent_version.clear();
    failed(&gone, None, "it does not answer");
    gone.status = "DISCONNECTED".to_owned();
    failed(&gone, Some(&there), "it is away");
}

#[test]
fn a_device_is_silent_only_while_somebody_listens() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let seconds = |silence: Option<Duration>| silence.map(|silence| silence.as_secs());
    // It was asked long ago by a studio that was off since then.
    let asked = member(1, 0, MemberState::Asked);
    let mut silence = Silence::default();
    assert_eq!(seconds(silence.of(&asked, at(0))), Some(0));
    assert_eq!(seconds(silence.of(&asked, at(60))), Some(60));
    // What it answered is one step of several: the patience is for all of them.
    let staged = member(1, 0, MemberState::Staged);
    assert_eq!(seconds(silence.of(&staged, at(101))), Some(101));
    assert_eq!(silence.of(&member(2, 0, MemberState::Waiting), at(101)), None);
    // Asked once more after it had failed.
    assert_eq!(silence.of(&member(1, 0, MemberState::Failed), at(101)), None);
    assert_eq!(seconds(silence.of(&asked, at(200))), Some(0));
    assert_eq!(silence.of(&member(1, 0, MemberState::Updated), at(9999)), None);
}

fn outcome(result: &str, id: Option<&str>) -> Outcome {
    Outcome {
        serial: String::new(),
        author: None,
        from: "1.0.0".to_owned(),
        to: "1.0.1".to_owned(),
        result: result.to_owned(),
        reason: "it crashed".to_owned(),
        id: id.map(str::to_owned),
    }
}

fn report(version: &str, trial: Option<&str>, last: Option<Outcome>) -> Report {
    Report {
        version: version.to_owned(),
        trial: trial.map(str::to_owned),
        last,
    }
}

#[test]
fn the_end_of_another_try_fails_no_device() {
    let rollout = rollout(0, 1, vec![member(1, 0, MemberState::Staged)]);
    let member = &rollout.members[0];
    let told = |result, id| ended(&rollout, member, &outcome(result, id));
    let failed = Some((MemberState::Failed, "rolledback: it crashed".to_owned()));
    assert_eq!(told("rolledback", Some("1-1000")), failed);
    assert_eq!(told("rolledback", None), failed, "an older agent");
    assert_eq!(told("rolledback", Some("1-999")), None);
    assert_eq!(told("rolledback", Some("7-1000")), None);
    let updated = Some((MemberState::Updated, String::new()));
    assert_eq!(told("updated", Some("7-1000")), updated);

    let found = |version: &str, last| found(&rollout, member, &report(version, None, Some(last)));
    assert_eq!(found("1.0.0", outcome("rolledback", Some("1-1000"))), failed);
    assert_eq!(
        found("1.0.0", outcome("rolledback", None)),
        None,
        "it may be long ago"
    );
    assert_eq!(
        found("1.0.0", outcome("updated", None)),
        None,
        "it was left again"
    );
    assert_eq!(found("1.0.1", outcome("updated", None)), updated);
}

#[test]
fn a_device_that_names_what_is_on_trial_runs_everything_else_for_good() {
    let rollout = rollout(0, 1, vec![member(1, 0, MemberState::Staged)]);
    let found = |version: &str, trial, last| {
        found(&rollout, &rollout.members[0], &report(version, Some(trial), last))
    };
    let updated = Some((MemberState::Updated, String::new()));
    assert_eq!(found("1.0.1", "", None), updated);
    assert_eq!(found("1.0.1", "1.0.2", None), updated);
    assert_eq!(found("1.0.0", "", None), None);
    // What it remembers is the end of an earlier try.
    let before = || outcome("failed", Some("1-1000"));
    for version in ["1.0.0", "1.0.1"] {
        assert_eq!(found(version, "1.0.1", None), None);
        assert_eq!(found(version, "1.0.1", Some(before())), None);
    }
    // It failed and could not be taken out of use.
    assert_eq!(
        found("1.0.1", "", Some(before())).map(|(state, _)| state),
        Some(MemberState::Failed)
    );
    assert_eq!(found("1.0.1", "", Some(outcome("failed", Some("7-1000")))), None);
}

#[test]
fn a_device_is_asked_when_it_comes_back_and_before_it_has_failed() {
    let mut looks = Looks::default();
    let mut staged = member(1, 0, MemberState::Staged);
    looks.heard(staged.device);
    assert_eq!(looks.due(&staged, false), Due::Nothing, "it has just said so");
    staged.status = "DISCONNECTED".to_owned();
    assert_eq!(looks.due(&staged, false), Due::Nothing);
    staged.status = "CONNECTED".to_owned();
    assert_eq!(looks.due(&staged, false), Due::Look);
    assert_eq!(looks.due(&staged, false), Due::Look, "all calls were taken");
    looks.begin(staged.device, false);
    assert_eq!(looks.due(&staged, true), Due::Nothing, "it may answer");
    looks.end(staged.device, None);
    assert_eq!(looks.due(&staged, false), Due::Nothing);
    assert_eq!(looks.due(&staged, true), Due::Look);
    looks.begin(staged.device, true);
    assert_eq!(looks.report(staged.device), None);
    looks.end(staged.device, Some(report("1.0.1", None, None)));
    assert_eq!(looks.due(&staged, true), Due::End);
    assert_eq!(looks.report(staged.device), Some(&report("1.0.1", None, None)));
    // A studio that was away knows nothing of what was said.
    assert_eq!(Looks::default().due(&staged, false), Due::Look);
    let asked = member(1, 0, MemberState::Asked);
    assert_eq!(Looks::default().due(&asked, false), Due::Nothing, "it is called");
    assert_eq!(Looks::default().due(&asked, true), Due::Look);
    staged.status = "DISCONNECTED".to_owned();
    assert_eq!(Looks::default().due(&staged, true), Due::End);
}
