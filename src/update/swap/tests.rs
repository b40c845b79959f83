use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

const OLD: &str = "1.0.0";
const NEW: &str = "2.0.0";

/// A device whose service runs 1.0.0 and has staged 2.0.0.
struct Device {
    directory: tempfile::TempDir,
}

impl Device {
    fn staged() -> Device {
        let device = Device {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(device.path(ACTIVE), OLD).unwrap();
        fs::write(device.path(PREVIOUS), "0.9.0").unwrap();
        fs::write(device.path("reagent-v2.0.0.exe"), NEW).unwrap();
        let mut state = State {
            phase: Phase::Staged,
            new_version: NEW.to_owned(),
            old_version: OLD.to_owned(),
            new_sha256: disk::digest(&device.path("reagent-v2.0.0.exe")).unwrap(),
            new_file: device.path("reagent-v2.0.0.exe"),
            old_file: device.path(ACTIVE),
            ..State::default()
        };
        state.save(device.at()).unwrap();
        device
    }

    /// One whose service runs 2.0.0, which has to prove itself.
    fn swapped() -> Device {
        let device = Device::staged();
        device.swap(&mut device.hands()).unwrap();
        device
    }

    fn at(&self) -> &Path {
        self.directory.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at().join(name)
    }

    fn state(&self) -> State {
        State::load(self.at())
    }

    fn hands(&self) -> Faulty {
        Faulty {
            directory: self.at().to_owned(),
            renames: 0,
            broken: &[],
            steps: 0,
            cut: usize::MAX,
        }
    }

    fn swap(&self, hands: &mut Faulty) -> Result<(), SwapError> {
        swap(hands, self.at(), &self.path(ACTIVE), OLD, &self.state())
    }

    /// The version of a file, by its content; empty: there is none.
    fn has(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What the repair script does.
    fn repair(&self) {
        if !self.path(ACTIVE).exists() {
            fs::rename(self.path(PREVIOUS), self.path(ACTIVE)).unwrap();
        }
    }

    /// A start of the service, as far as the table decides it.
    fn start(&self) -> Swapped {
        let mut state = self.state();
        let verdict = trial::swapped(&mut state, &self.has(ACTIVE));
        state.save(self.at()).unwrap();
        verdict
    }
}

/// Renames fail, or the power goes before a step.
struct Faulty {
    directory: PathBuf,
    renames: usize,
    /// The renames that fail, from 1.
    broken: &'static [usize],
    steps: usize,
    cut: usize,
}

impl Faulty {
    fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < self.cut, "the power goes");
    }
}

impl Hands for Faulty {
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        self.renames += 1;
        assert!(!to.exists(), "{to:?} is in the way");
        match self.broken.contains(&self.renames) {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => fs::rename(from, to),
        }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        disk::remove(path)
    }

    fn remember(&mut self, change: &dyn Fn(&mut State)) -> io::Result<()> {
        self.step();
        AtStart(&self.directory).remember(change)
    }
}

#[test]
fn a_new_version_takes_over_the_name_and_the_old_one_is_kept() {
    let device = Device::swapped();
    assert_eq!(device.has(ACTIVE), NEW);
    assert_eq!(device.has(PREVIOUS), OLD, "an older one made room");
    assert!(!device.path("reagent-v2.0.0.exe").exists());
    let state = device.state();
    assert_eq!((state.phase, state.attempts), (Phase::Probation, 0));
    assert_eq!(state.old_file, device.path(PREVIOUS));
}

#[test]
fn a_binary_that_the_service_does_not_start_is_not_replaced() {
    let device = Device::staged();
    let elsewhere = device.path("reagent-v2.0.0.exe");
    let refused = swap(&mut device.hands(), device.at(), &elsewhere, OLD, &device.state());
    assert!(matches!(refused, Err(SwapError::Elsewhere(_))), "{refused:?}");
    assert_eq!(device.has(ACTIVE), OLD);
    assert_eq!(device.state().phase, Phase::Staged);
}

#[test]
fn a_rename_that_fails_leaves_the_running_version_and_no_marker() {
    for broken in [&[1_usize] as &[usize], &[2]] {
        let device = Device::staged();
        let mut hands = device.hands();
        hands.broken = broken;
        device.swap(&mut hands).unwrap_err();
        assert_eq!(device.has(ACTIVE), OLD, "{broken:?}");
        assert_eq!(device.state().phase, Phase::None);
        assert_eq!(device.has("reagent-v2.0.0.exe"), NEW, "it can be tried again");
    }
}

#[test]
fn when_the_way_back_fails_too_the_repair_finds_the_marker_and_the_old_version() {
    let device = Device::staged();
    let mut hands = device.hands();
    hands.broken = &[2, 3];
    device.swap(&mut hands).unwrap_err();
    assert!(!device.path(ACTIVE).exists());
    assert_eq!(device.state().phase, Phase::Swapping);
    device.repair();
    assert_eq!(device.start(), Swapped::GoOn);
    assert_eq!(
        (device.has(ACTIVE), device.state().phase),
        (OLD.to_owned(), Phase::None)
    );
}

#[test]
fn the_power_may_go_at_any_step_of_the_swap() {
    let mut cuts = 0;
    loop {
        let device = Device::staged();
        let mut hands = device.hands();
        hands.cut = cuts + 1;
        let whole = catch_unwind(AssertUnwindSafe(|| device.swap(&mut hands))).is_ok();
        device.repair();
        let verdict = device.start();
        let state = device.state();
        match device.has(ACTIVE).as_str() {
            OLD => {
                assert_eq!((verdict, state.phase), (Swapped::GoOn, Phase::None), "cut {cuts}");
                assert_eq!(device.has("reagent-v2.0.0.exe"), NEW, "cut {cuts}");
                assert!(state.blocked.is_empty(), "it has not been tried");
            }
            NEW => {
                assert_eq!(
                    (verdict, state.phase),
                    (Swapped::Try, Phase::Probation),
                    "cut {cuts}"
                );
                assert_eq!((state.attempts, device.has(PREVIOUS).as_str()), (1, OLD));
            }
            other => panic!("cut {cuts} leaves {other:?}"),
        }
        if whole {
            break;
        }
        cuts += 1;
    }
    assert_eq!(cuts, 5, "remove, remember, two renames, remember");
}

#[test]
fn a_version_that_never_proved_itself_is_nothing_to_return_to() {
    let device = Device::swapped();
    // 2.0.0 is isolated and installs 3.0.0.
    fs::write(device.path("reagent-v3.0.0.exe"), "3.0.0").unwrap();
    let staged = State {
        phase: Phase::Staged,
        new_version: "3.0.0".to_owned(),
        new_file: device.path("reagent-v3.0.0.exe"),
        ..device.state()
    };
    swap(
        &mut device.hands(),
        device.at(),
        &device.path(ACTIVE),
        NEW,
        &staged,
    )
    .unwrap();
    assert_eq!(device.has(ACTIVE), "3.0.0");
    assert_eq!(device.has(PREVIOUS), OLD);
    assert_eq!(device.has("reagent-failed-v2.0.0.exe"), NEW);
}

#[test]
fn three_starts_are_given_and_the_fourth_leads_back() {
    let device = Device::swapped();
    for attempt in 1..=3 {
        assert_eq!(device.start(), Swapped::Try);
        assert_eq!(device.state().attempts, attempt);
    }
    assert_eq!(device.start(), Swapped::PutBack);
    assert!(put_back(&mut device.hands(), device.at(), NEW).unwrap());
    assert_eq!(device.has(ACTIVE), OLD);
    assert_eq!(device.has("reagent-failed-v2.0.0.exe"), NEW);
    assert!(!device.path(PREVIOUS).exists());
    // The power goes before that is remembered.
    assert_eq!(device.start(), Swapped::GoOn);
    let state = device.state();
    assert_eq!(state.phase, Phase::Rolledback);
    assert!(state.blocked(NEW, &state.new_sha256).is_some());
    assert_eq!(state.outcome.unwrap().result, "rolledback");
}

#[test]
fn the_power_may_go_at_any_step_of_the_return() {
    for cut in 1..=4 {
        let device = Device::swapped();
        for _ in 0..4 {
            device.start();
        }
        let mut hands = device.hands();
        hands.cut = cut;
        let _ = catch_unwind(AssertUnwindSafe(|| put_back(&mut hands, device.at(), NEW)));
        device.repair();
        match (device.start(), device.has(ACTIVE).as_str()) {
            (Swapped::PutBack, NEW) => {
                assert!(put_back(&mut device.hands(), device.at(), NEW).unwrap());
                assert_eq!(device.start(), Swapped::GoOn);
            }
            (Swapped::GoOn, OLD) => {}
            other => panic!("cut {cut}: {other:?}"),
        }
        assert_eq!(device.has(ACTIVE), OLD, "cut {cut}");
        assert_eq!(device.state().phase, Phase::Rolledback, "cut {cut}");
    }
}

#[test]
fn a_version_that_cannot_be_put_aside_goes_on_and_is_tried_again() {
    for broken in [&[1_usize] as &[usize], &[2]] {
        let device = Device::swapped();
        for _ in 0..4 {
            device.start();
        }
        let mut hands = device.hands();
        hands.broken = broken;
        put_back(&mut hands, device.at(), NEW).unwrap_err();
        assert_eq!(
            (device.has(ACTIVE), device.has(PREVIOUS)),
            (NEW.to_owned(), OLD.to_owned())
        );
        assert_eq!(device.state().phase, Phase::Probation);
        assert_eq!(device.start(), Swapped::PutBack);
    }
    let device = Device::swapped();
    fs::remove_file(device.path(PREVIOUS)).unwrap();
    assert!(!put_back(&mut device.hands(), device.at(), NEW).unwrap());
    assert_eq!(device.has(ACTIVE), NEW, "the only binary stays");
}

#[test]
fn a_proof_ends_the_trial_and_no_block() {
    let device = Device::swapped();
    device.start();
    let mut state = device.state();
    state.prove();
    state.save(device.at()).unwrap();
    for _ in 0..5 {
        assert_eq!(device.start(), Swapped::GoOn);
    }
    assert_eq!(device.has(PREVIOUS), OLD, "it stays");
    let mut state = device.state();
    state.roll_back("it hung");
    let blocked = state.blocked.clone();
    state.new_version = "3.0.0".to_owned();
    state.prove();
    assert_eq!(state.blocked, blocked);
}

#[test]
fn the_markers_of_the_reference_are_understood() {
    let device = Device::staged();
    let marker = |text: &str| fs::write(device.path("update-state.json"), text).unwrap();
    // It has just brought this version, and knows no digests.
    fs::write(device.path(ACTIVE), VERSION).unwrap();
    marker(&format!(
        r#"{{"phase": "probation", "new_version": "{VERSION}", "old_version": "0.20.20", "attempts": 0, "updated_at": "2026-08-14T21:15:25Z"}}"#
    ));
    assert!(matches!(at_start(device.at()), Boot::GoOn(Custody::Service)));
    let state = device.state();
    assert_eq!((state.phase, state.attempts), (Phase::Probation, 1));
    assert_eq!(state.new_sha256, disk::digest(&device.path(ACTIVE)).unwrap());
    assert_eq!(
        (state.was_connected, state.old_file),
        (true, device.path(PREVIOUS))
    );
    for _ in 0..2 {
        assert!(matches!(at_start(device.at()), Boot::GoOn(Custody::Service)));
    }
    assert!(matches!(at_start(device.at()), Boot::End(exit::FAILURE)));
    assert_eq!(device.has(ACTIVE), "0.9.0");
    assert_eq!(device.state().phase, Phase::Rolledback);
    // One that it has blocked is blocked here, whatever its digest.
    marker(r#"{"phase": "rolledback", "new_version": "9.0.0", "old_version": "0.20.20", "attempts": 4}"#);
    at_start(device.at());
    assert!(device.state().blocked("9.0.0", "ab").is_some());
    assert!(device.state().blocked("9.0.1", "ab").is_none());
    // Damaged, it counts as none.
    marker(r#"{"phase": "pro"#);
    assert!(matches!(at_start(device.at()), Boot::GoOn(Custody::Service)));
}
