use super::*;
use crate::store::NewDevice;

struct Fleet {
    store: Store,
    rollout: RolloutKey,
    /// The canary first.
    devices: Vec<DeviceKey>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    /// A rollout to three devices: one goes first.
    async fn new() -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("studio.db")).await.unwrap();
        let account = store.ensure_first_account("operator").await.unwrap().key;
        let swarm = store.first_swarm().await.unwrap();
        let mut devices = Vec::new();
        for name in ["one", "two", "three"] {
            let NewDevice { device, .. } = store.add_device(name.to_owned(), swarm, account).await.unwrap();
            devices.push(device.key);
        }
        let new = NewRollout {
            version: "1.0.1".to_owned(),
            account,
            threshold: 90,
            patience: 100,
            waves: vec![vec![devices[0]], devices[1..].to_vec()],
        };
        Fleet {
            rollout: store.add_rollout(new).await.unwrap().key,
            store,
            devices,
            _folder: folder,
        }
    }

    async fn ask(&self, device: DeviceKey) {
        assert!(self.store.ask_member(self.rollout, device, 1000).await.unwrap());
    }

    async fn pause(&self, told: &[DeviceKey]) {
        let reason = "too many failed".to_owned();
        let paused = self.store.pause_rollout(self.rollout, reason, told.to_vec());
        paused.await.unwrap();
    }

    /// What the device has become after `state` came in.
    async fn settle(&self, device: DeviceKey, state: MemberState, reason: &str) -> Member {
        self.store
            .settle_member(self.rollout, device, state, reason.to_owned())
            .await
            .unwrap();
        self.member(device).await
    }

    async fn member(&self, device: DeviceKey) -> Member {
        let rollout = self.store.rollout().await.unwrap().unwrap();
        let found = rollout.members.into_iter().find(|member| member.device == device);
        found.unwrap()
    }
}

#[tokio::test]
async fn a_device_that_runs_the_version_after_all_has_not_failed() {
    let fleet = Fleet::new().await;
    let device = fleet.devices[0];
    fleet.ask(device).await;
    let failed = fleet
        .settle(device, MemberState::Failed, "no word within 100 s; it is away")
        .await;
    assert_eq!(failed.state, MemberState::Failed);
    let late = fleet.settle(device, MemberState::Updated, "").await;
    assert_eq!((late.state, late.reason.as_str()), (MemberState::Updated, ""));
    // The first end stays otherwise.
    let more = fleet
        .settle(device, MemberState::Failed, "rolledback: it crashed")
        .await;
    assert_eq!((more.state, more.reason.as_str()), (MemberState::Updated, ""));
}

#[tokio::test]
async fn a_device_may_take_back_that_it_runs_the_version_that_it_was_asked_for() {
    let fleet = Fleet::new().await;
    let device = fleet.devices[0];
    fleet.ask(device).await;
    // It failed once, and somebody went on.
    fleet.settle(device, MemberState::Failed, "it is away").await;
    fleet.pause(&[device]).await;
    fleet.store.resume_rollout(fleet.rollout, false).await.unwrap();
    fleet.settle(device, MemberState::Updated, "").await;
    let fail = async |asked| {
        let reason = "rolledback: it crashed".to_owned();
        let failed = fleet.store.fail_member(fleet.rollout, device, asked, reason);
        failed.await.unwrap();
        fleet.member(device).await
    };
    assert_eq!(fail(999).await.state, MemberState::Updated, "another question");
    let failed = fail(1000).await;
    assert_eq!((failed.state, failed.excused), (MemberState::Failed, false));
    assert_eq!(failed.reason, "rolledback: it crashed");
}

#[tokio::test]
async fn only_failures_that_somebody_was_told_of_are_excused() {
    let fleet = Fleet::new().await;
    let [told, later, other] = fleet.devices[..] else {
        unreachable!()
    };
    for device in [told, later, other] {
        fleet.ask(device).await;
    }
    fleet.settle(told, MemberState::Failed, "it crashed").await;
    fleet.pause(&[told, other]).await;
    for device in [later, other] {
        fleet.settle(device, MemberState::Failed, "it crashed").await;
    }
    let excused = async || {
        let rollout = fleet.store.rollout().await.unwrap().unwrap();
        let excused = rollout.members.iter().filter(|member| member.excused);
        excused.map(|member| member.device).collect::<Vec<_>>()
    };
    assert_eq!(excused().await, [told], "another one had not failed yet");
    fleet.store.resume_rollout(fleet.rollout, false).await.unwrap();
    assert_eq!(excused().await, [told]);
    // Whoever tries again shall see how that ends.
    fleet.pause(&[told, later, other]).await;
    fleet.store.resume_rollout(fleet.rollout, true).await.unwrap();
    assert_eq!(excused().await, []);
    assert_eq!(fleet.member(told).await.state, MemberState::Waiting);
    // What is over stays over.
    fleet.ask(told).await;
    fleet.settle(told, MemberState::Failed, "it crashed").await;
    let done = fleet
        .store
        .set_rollout(fleet.rollout, RolloutState::Done, String::new());
    done.await.unwrap();
    fleet.pause(&[told]).await;
    assert_eq!(excused().await, []);
}

#[tokio::test]
async fn a_device_that_nobody_asked_cannot_fail() {
    let fleet = Fleet::new().await;
    let device = fleet.devices[1];
    // It tried by itself, as devices do.
    let tried = fleet
        .settle(device, MemberState::Failed, "failed: no space")
        .await;
    assert_eq!((tried.state, tried.reason.as_str()), (MemberState::Waiting, ""));
    // What it has by itself, it has.
    let has = fleet.settle(device, MemberState::Updated, "").await;
    assert_eq!(has.state, MemberState::Updated);
}

#[tokio::test]
async fn a_wave_without_devices_is_known_to_whoever_goes_on() {
    let fleet = Fleet::new().await;
    let pause = async || {
        fleet.pause(&[]).await;
        fleet.store.resume_rollout(fleet.rollout, false).await.unwrap();
        fleet.store.rollout().await.unwrap().unwrap().may_be_empty
    };
    // Its device is still there.
    assert_eq!(pause().await, None);
    fleet.store.remove_device(fleet.devices[0]).await.unwrap();
    assert_eq!(pause().await, Some(0));
}
