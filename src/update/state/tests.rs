use super::*;

#[test]
fn the_state_is_remembered_and_readable_by_agents_of_other_makes() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = State {
        phase: Phase::Probation,
        new_version: "0.20.21".to_owned(),
        old_version: "0.20.20".to_owned(),
        attempts: 1,
        ..State::default()
    };
    state.save(directory.path()).unwrap();
    assert_eq!(State::load(directory.path()), state);
    let text = fs::read(directory.path().join(FILE)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(json["phase"], "probation");
    assert_eq!(json["new_version"], "0.20.21");
    assert_eq!(json["attempts"], 1);
}

#[test]
fn a_marker_of_the_reference_is_read_and_an_unknown_phase_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let marker = |text: &str| {
        fs::write(directory.path().join(FILE), text).unwrap();
        State::load(directory.path())
    };
    let reference = marker(
        r#"{"phase": "probation", "new_version": "0.20.21", "old_version": "0.20.20", "attempts": 1, "updated_at": "2026-08-14T21:15:25Z"}"#,
    );
    assert_eq!((reference.phase, reference.attempts), (Phase::Probation, 1));
    assert_eq!(marker(r#"{"phase": "swapping"}"#).phase, Phase::Swapping);
    assert_eq!(marker(r#"{"phase": "confirming"}"#).phase, Phase::None);
    assert_eq!(marker("{\"phase\": \"prob"), State::default());
}

#[test]
fn a_failed_build_is_blocked_by_its_digest() {
    let mut state = State {
        new_version: "2.0.0".to_owned(),
        new_sha256: "aa".to_owned(),
        ..State::default()
    };
    state.roll_back("it crashed");
    assert_eq!(state.blocked("2.0.0", "aa").unwrap().reason, "it crashed");
    assert_eq!(state.blocked("2.0.0", "bb"), None);
    let mut free = state.clone();
    free.unblock("2.0.0", "bb");
    assert_eq!(free, state);
    free.unblock("2.0.0", "aa");
    assert!(free.blocked.is_empty());
    assert_eq!(state.outcome.as_ref().unwrap().result, "rolledback");
    let mut stuck = state.clone();
    for _ in 0..2 {
        stuck.stay("there is no way back");
        let told = stuck.outcome.as_ref().unwrap();
        assert_eq!(
            (told.result.as_str(), told.reason.as_str()),
            ("failed", "it crashed; there is no way back")
        );
    }
    state.roll_back(&"long ".repeat(1000));
    state.stay("there is no way back");
    let told = &state.outcome.as_ref().unwrap().reason;
    assert!(
        told.ends_with("; there is no way back") && told.len() == REASON,
        "{told}"
    );
    for number in 0..100 {
        state.new_sha256 = number.to_string();
        state.roll_back("it crashed");
    }
    assert_eq!(state.blocked.len(), BLOCKED);
}

#[test]
fn a_version_that_failed_does_not_outdate_what_was_issued_before_it() {
    let at = |text: &str| Some(text.parse::<jiff::Timestamp>().unwrap());
    let (first, second, third) = (
        at("2026-01-01T00:00:00Z"),
        at("2026-02-01T00:00:00Z"),
        at("2026-03-01T00:00:00Z"),
    );
    let mut state = State::default();
    state.saw_manifest("1.4.8", first.unwrap());
    state.saw_manifest("1.5.0", second.unwrap());
    state.saw_manifest("1.5.0", third.unwrap());
    state.saw_manifest("1.4.9", first.unwrap());
    assert_eq!(state.newest_manifest, third);
    let mut other = state.clone();
    other.new_version = "1.4.8".to_owned();
    other.roll_back("it crashed");
    assert_eq!(other.newest_manifest, third, "it was not the newest");
    state.new_version = "1.5.0".to_owned();
    state.roll_back("it crashed");
    assert_eq!(state.newest_manifest, first);
    assert_eq!(state.newest_manifest_of, "1.4.8");
    state.roll_back("it crashed");
    assert_eq!(state.newest_manifest, first, "never lower than that");
}

#[test]
fn a_start_that_is_excused_counts_once_less_and_the_next_one_counts() {
    let mut state = State::default();
    state.excuse_start();
    assert_eq!(state, State::default(), "nothing is tried");
    state.count_start();
    state.backend_away = true;
    state.count_start();
    assert_eq!((state.attempts, state.backend_away), (2, false));
    state.excuse_start();
    state.excuse_start();
    assert_eq!(state.attempts, 1);
    state.count_start();
    assert_eq!(state.attempts, 2);
}

#[test]
fn what_somebody_had_left_is_not_gone_back_to() {
    let mut state = State::default();
    state.leave("1.3.9", "1.4.0", true);
    assert!(!state.has_left("1.4.0"), "that is no way back");
    state.leave("1.4.0", "1.3.9", true);
    state.leave("1.3.9", "1.3.7", true);
    assert!(state.has_left("1.4.0") && state.has_left("1.3.8"));
    assert!(!state.has_left("1.4.1"));
    state.leave("1.3.7", "1.3.8", true);
    assert!(state.has_left("1.4.0"), "still older");
    state.leave("1.3.8", "1.4.0", true);
    assert!(!state.has_left("1.4.0"), "somebody wants it");
    // A list that names an older one is no person.
    state.leave("1.4.0", "1.3.9", false);
    assert_eq!(state.left, "");
}

fn told(state: &mut State) -> Vec<(String, String)> {
    let mut told = Vec::new();
    while let Some(outcome) = state.to_tell().cloned() {
        state.told(&outcome);
        told.push((outcome.to, outcome.reason));
    }
    told
}

#[test]
fn an_outcome_that_was_not_told_yet_outlives_that_of_another_version() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = State {
        new_version: "2".to_owned(),
        ..State::default()
    };
    state.roll_back("it crashed");
    state.fail("1", "3", "no space", "");
    // The power goes here.
    state.save(directory.path()).unwrap();
    let mut state = State::load(directory.path());
    let of = |to: &str, reason: &str| (to.to_owned(), reason.to_owned());
    assert_eq!(told(&mut state), [of("2", "it crashed"), of("3", "no space")]);
    assert_eq!(
        state.outcome.as_ref().unwrap().to,
        "3",
        "it is still the last one"
    );
    state.fail("1", "4", "no space", "");
    assert_eq!(told(&mut state), [of("4", "no space")]);
    assert_eq!(told(&mut state), []);
}

#[test]
fn what_fails_again_and_again_waits_once_with_its_last_reason_for_each_who_asked() {
    let mut state = State::default();
    let of = |to: &str, reason: &str| (to.to_owned(), reason.to_owned());
    for (to, reason, id) in [
        ("2", "no space", "1-1000"),
        ("2", "bad signature", ""),
        ("3", "no space", ""),
        ("2", "no space", "1-1000"),
        ("2", "no space", "2-2000"),
    ] {
        assert!(state.fail("1", to, reason, id));
    }
    let expected = [of("3", "no space"), of("2", "no space"), of("2", "no space")];
    assert_eq!(told(&mut state.clone()), expected);
    // What became of it in the end.
    state.old_version = "1".to_owned();
    state.new_version = "2".to_owned();
    state.id = "2-2000".to_owned();
    state.prove();
    let expected = [of("3", "no space"), of("2", "no space"), of("2", "")];
    assert_eq!(told(&mut state), expected);
}

#[test]
fn of_outcomes_that_nobody_hears_the_newest_stay_and_an_older_agent_sees_the_last() {
    let mut state = State::default();
    for number in 0..100 {
        state.new_version = number.to_string();
        state.new_sha256 = format!("{number:064x}");
        // Whatever a server has said: JSON takes more room for these.
        let said = ["\"", "\\", "\0", "\u{1b}", "ü"][number % 5];
        state.roll_back(&said.repeat(10_000));
    }
    let content = serde_json::to_vec_pretty(&state).unwrap();
    assert!(spare::has_room_for(&content), "{} bytes", content.len());
    let json = serde_json::to_value(&state).unwrap();
    assert_eq!(json["outcome"]["to"], "99");
    assert_eq!(json["reported"], false);
    let told = told(&mut state);
    let versions: Vec<_> = told.iter().map(|(to, _)| to.as_str()).collect();
    assert_eq!(versions, ["92", "93", "94", "95", "96", "97", "98", "99"]);
    // Whoever is told one while another update ends knows that one only.
    state.fail("1", "2", "no space", "");
    let telling = state.to_tell().cloned().unwrap();
    state.fail("1", "3", "no space", "");
    state.told(&telling);
    assert_eq!(state.to_tell().unwrap().to, "3");
}

#[test]
fn the_same_failure_is_told_once() {
    let mut state = State::default();
    assert!(state.fail("1", "2", "no space", ""));
    assert!(!state.fail("1", "2", "no space", ""));
    assert!(state.fail("1", "2", "bad signature", ""));
}

#[test]
fn an_outcome_says_whose_update_it_was_the_end_of() {
    let id = |state: &State| state.outcome.as_ref().unwrap().id.clone();
    let mut state = State {
        new_version: "2".to_owned(),
        id: "1-1000".to_owned(),
        ..State::default()
    };
    state.roll_back("it crashed");
    assert_eq!(id(&state), "1-1000");
    // By itself, later.
    assert!(state.fail("1", "2", "it is blocked: it crashed", ""));
    assert_eq!(id(&state), "1-1000");
    assert!(state.fail("1", "2", "it is blocked: it crashed", "2-2000"));
    assert_eq!(id(&state), "2-2000", "told to the next one, too");
    assert!(state.fail("1", "3", "no space", ""));
    assert_eq!(id(&state), "");
}
