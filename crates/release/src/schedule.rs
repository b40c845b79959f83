//! Who gets a version when, by itself: signed rollout data beside the version list (`update-and-system.md` 9.4 F2). A
//! device has a place between 0 and 1 for each version, from its serial number; agents that know nothing of the file
//! take a version at once.

use std::collections::BTreeSet;

use jiff::Timestamp;
use protocol::rollout::MAX_SCHEDULE;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::Unproven;
use crate::bucket::{Bucket, BucketError};
use crate::keys::{KeyError, PublicKeys, Signer};
use crate::layout::{self, ROLLOUTS};
use crate::manifest::{later, seconds};

/// Why the schedule was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(
        "{ROLLOUTS} in the bucket is not signed by a key that devices know: if somebody else is changing it right now, run \
         this again; else begin a new one with --replace-unproven"
    )]
    Signature,
    #[error(
        "somebody else has changed {ROLLOUTS} in the bucket meanwhile, and your change may not be in it: look at it and run \
         this again"
    )]
    Changed,
    #[error(
        "the clock of this machine is behind {ROLLOUTS} in the bucket, issued at {0}: devices that have seen that would \
         refuse another one. Set the clock; if that date is wrong, say it again with --replace-unproven"
    )]
    Clock(Timestamp),
    #[error(
        "{ROLLOUTS} would have {size} bytes, and devices that find more than {MAX_SCHEDULE} take nothing by themselves any \
         more: run this again with --forget VERSION for versions that no device can take any more because all run them or \
         higher ones; the lowest there are {lowest}"
    )]
    TooLarge { size: usize, lowest: String },
    #[error("{ROLLOUTS} in the bucket cannot be read")]
    Malformed(#[source] serde_json::Error),
}

/// The file, as signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Devices refuse one that was issued before one they have seen.
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub rollouts: Vec<Rollout>,
}

/// How one version reaches one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub version: String,
    /// `production`, `test`, `local`; `all`: every other.
    pub channel: String,
    #[serde(flatten)]
    pub pace: Pace,
}

/// Which devices take it by themselves. What is asked for by a person or a studio is not held up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Those whose place is below so many hundredths.
    Percent(u8),
    /// All of them, in the order of their places, between `start` and so many seconds later.
    Over { start: Timestamp, seconds: u64 },
    /// None.
    Stopped {},
}

/// The schedule in the bucket, proven; an empty one if there is none.
pub fn read(bucket: &Bucket, keys: &PublicKeys) -> Result<Vec<Rollout>, ScheduleError> {
    Ok(current(bucket, keys)?.map_or_else(Vec::new, |schedule| schedule.rollouts))
}

fn current(bucket: &Bucket, keys: &PublicKeys) -> Result<Option<Schedule>, ScheduleError> {
    match bucket.read(ROLLOUTS)? {
        Some(content) => proven(bucket, keys, &content).map(Some),
        None => Ok(None),
    }
}

fn proven(bucket: &Bucket, keys: &PublicKeys, content: &[u8]) -> Result<Schedule, ScheduleError> {
    let signature = bucket.read(&layout::signature(ROLLOUTS))?.unwrap_or_default();
    if !keys.believe(content, &signature) {
        return Err(ScheduleError::Signature);
    }
    serde_json::from_slice(content).map_err(ScheduleError::Malformed)
}

/// Puts a rollout into the schedule, in place of one for the same version and channel, and takes out whatever it says of
/// the versions in `forget`. Nothing leaves it unasked: as long as a version is published, whoever can write into the
/// bucket can offer it to devices that run a lower one. A schedule that is signed by nobody is not added to.
pub fn set(
    bucket: &Bucket,
    signer: &Signer,
    keys: &PublicKeys,
    rollout: Rollout,
    forget: &[String],
    days: u32,
    unproven: Unproven,
) -> Result<Schedule, ScheduleError> {
    let before = bucket.read(ROLLOUTS)?;
    let known = before.as_deref().map(|content| proven(bucket, keys, content));
    let mut rollouts = match known.transpose() {
        Err(ScheduleError::Signature | ScheduleError::Malformed(_)) if unproven == Unproven::Replace => {
            Vec::new()
        }
        known => match known? {
            Some(schedule) if unproven == Unproven::Refuse && schedule.issued > Timestamp::now() => {
                return Err(ScheduleError::Clock(schedule.issued));
            }
            known => known.map_or_else(Vec::new, |schedule| schedule.rollouts),
        },
    };
    rollouts.retain(|known| !forget.contains(&known.version));
    rollouts.retain(|known| (&known.version, &known.channel) != (&rollout.version, &rollout.channel));
    rollouts.push(rollout);
    write(bucket, signer, keys, before.as_deref(), rollouts, days)
}

/// Replaces the schedule, if it still is what it was before; `None`: there was none.
fn write(
    bucket: &Bucket,
    signer: &Signer,
    keys: &PublicKeys,
    before: Option<&[u8]>,
    rollouts: Vec<Rollout>,
    days: u32,
) -> Result<Schedule, ScheduleError> {
    keys.require(signer)?;
    let issued = seconds(Timestamp::now());
    let schedule = Schedule {
        issued,
        expires: later(issued, days),
        rollouts,
    };
    let mut content = serde_json::to_vec(&schedule).expect("plain members have a JSON form");
    content.push(b'\n');
    if content.len() > MAX_SCHEDULE {
        return Err(ScheduleError::TooLarge {
            size: content.len(),
            lowest: lowest(&schedule.rollouts),
        });
    }
    let signature = signer.sign(&content, "reagent rollouts")?;
    if !bucket.replace_unchanged(ROLLOUTS, before, &content)? {
        return Err(ScheduleError::Changed);
    }
    // Somebody who begins a new one in between has not seen this one; as soon as the signature is there, somebody may go
    // on from it and put another in its place.
    let signed = bucket.replace(&layout::signature(ROLLOUTS), &signature);
    let is_there = bucket.read(ROLLOUTS)?.as_ref() == Some(&content);
    match signed {
        Ok(()) | Err(BucketError::ReadBack { .. }) if !is_there => Err(ScheduleError::Changed),
        signed => Ok(signed.map(|()| schedule)?),
    }
}

/// Some versions of which there is the least to say.
fn lowest(rollouts: &[Rollout]) -> String {
    let versions: BTreeSet<_> = rollouts
        .iter()
        .filter_map(|rollout| Version::parse(&rollout.version).ok())
        .collect();
    let few: Vec<_> = versions.iter().take(5).map(Version::to_string).collect();
    few.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_schedule_reads_as_devices_expect_it() {
        let schedule = Schedule {
            issued: "2026-01-01T00:00:00Z".parse().unwrap(),
            expires: "2026-02-01T00:00:00Z".parse().unwrap(),
            rollouts: vec![
                Rollout {
                    version: "1.0.1".to_owned(),
                    channel: "production".to_owned(),
                    pace: Pace::Percent(10),
                },
                Rollout {
                    version: "1.0.1".to_owned(),
                    channel: "test".to_owned(),
                    pace: Pace::Over {
                        start: "2026-01-02T00:00:00Z".parse().unwrap(),
                        seconds: 3600,
                    },
                },
                Rollout {
                    version: "1.0.1".to_owned(),
                    channel: "all".to_owned(),
                    pace: Pace::Stopped {},
                },
            ],
        };
        let text = serde_json::to_value(&schedule).unwrap();
        assert_eq!(
            text["rollouts"][0],
            serde_json::json!({"version": "1.0.1", "channel": "production", "percent": 10})
        );
        assert_eq!(
            text["rollouts"][1]["over"],
            serde_json::json!({"start": "2026-01-02T00:00:00Z", "seconds": 3600})
        );
        assert_eq!(text["rollouts"][2]["stopped"], serde_json::json!({}));
        assert_eq!(serde_json::from_value::<Schedule>(text).unwrap(), schedule);
    }

    /// A bucket, and a key that signs what is put there.
    struct Place {
        _folder: tempfile::TempDir,
        signer: Signer,
        keys: PublicKeys,
        bucket: Bucket,
    }

    impl Place {
        fn new() -> Place {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            crate::keys::generate(&path("a.key"), &path("a.pub")).unwrap();
            Place {
                signer: Signer::from_file(&path("a.key")).unwrap(),
                keys: PublicKeys::in_directory(folder.path()).unwrap(),
                bucket: Bucket::open(path("bucket").to_str().unwrap()).unwrap(),
                _folder: folder,
            }
        }

        fn set(&self, rollout: Rollout, unproven: Unproven) -> Result<Schedule, ScheduleError> {
            self.set_and_forget(rollout, &[], unproven)
        }

        fn set_and_forget(
            &self,
            rollout: Rollout,
            forget: &[String],
            unproven: Unproven,
        ) -> Result<Schedule, ScheduleError> {
            super::set(
                &self.bucket,
                &self.signer,
                &self.keys,
                rollout,
                forget,
                30,
                unproven,
            )
        }
    }

    fn rollout(version: &str, pace: Pace) -> Rollout {
        Rollout {
            version: version.to_owned(),
            channel: "all".to_owned(),
            pace,
        }
    }

    #[test]
    fn a_rollout_replaces_the_one_before_it_and_a_foreign_schedule_stops_everything() {
        let place = Place::new();
        let (bucket, keys) = (&place.bucket, &place.keys);
        let rollout = |pace| rollout("1.0.1", pace);
        let set = |pace| place.set(rollout(pace), Unproven::Refuse);
        set(Pace::Percent(1)).unwrap();
        let schedule = set(Pace::Stopped {}).unwrap();
        assert_eq!(schedule.rollouts, [rollout(Pace::Stopped {})]);
        assert_eq!(read(bucket, keys).unwrap(), schedule.rollouts);
        bucket.replace(ROLLOUTS, b"{}").unwrap();
        let forged = bucket.read(ROLLOUTS).unwrap();
        let refused = set(Pace::Percent(1)).unwrap_err();
        assert!(matches!(refused, ScheduleError::Signature), "{refused}");
        assert_eq!(bucket.read(ROLLOUTS).unwrap(), forged);
    }

    #[test]
    fn what_another_operator_has_changed_meanwhile_is_not_lost() {
        let place = Place::new();
        let (bucket, keys) = (&place.bucket, &place.keys);
        let slow = |before: Option<&[u8]>| {
            let rollouts = vec![rollout("1.0.1", Pace::Percent(50))];
            write(bucket, &place.signer, keys, before, rollouts, 30)
        };
        let stopped = [rollout("1.0.1", Pace::Stopped {})];
        // Both saw an empty bucket, then both the same schedule.
        for round in 0..2 {
            let before = bucket.read(ROLLOUTS).unwrap();
            assert_eq!(before.is_some(), round > 0);
            place.set(stopped[0].clone(), Unproven::Refuse).unwrap();
            if round > 0 {
                // The same second makes the same bytes: then nothing was changed.
                place
                    .set(rollout("1.0.2", Pace::Percent(1)), Unproven::Refuse)
                    .unwrap();
            }
            let refused = slow(before.as_deref()).unwrap_err();
            assert!(matches!(refused, ScheduleError::Changed), "{refused}");
            assert!(refused.to_string().contains("run this again"), "{refused}");
            let there = read(bucket, keys).unwrap();
            assert_eq!(there[..1], stopped);
        }
    }

    #[test]
    fn operators_who_try_again_lose_nothing() {
        let place = Place::new();
        let versions: Vec<String> = (0..6).map(|number| format!("1.0.{number}")).collect();
        std::thread::scope(|scope| {
            for version in &versions {
                let place = &place;
                scope.spawn(move || {
                    let begin = Instant::now();
                    while let Err(error) = place.set(rollout(version, Pace::Stopped {}), Unproven::Refuse) {
                        assert!(
                            matches!(error, ScheduleError::Changed | ScheduleError::Signature),
                            "{error}"
                        );
                        assert!(begin.elapsed() < Duration::from_secs(60), "{error}");
                    }
                });
            }
        });
        let mut there: Vec<String> = read(&place.bucket, &place.keys)
            .unwrap()
            .into_iter()
            .map(|rollout| rollout.version)
            .collect();
        there.sort();
        assert_eq!(there, versions);
    }

    #[test]
    fn a_schedule_from_the_future_is_not_followed_by_one_from_before() {
        let place = Place::new();
        let mut schedule = place
            .set(rollout("1.0.1", Pace::Percent(1)), Unproven::Refuse)
            .unwrap();
        schedule.issued = later(schedule.issued, 300);
        let content = serde_json::to_vec(&schedule).unwrap();
        place.bucket.replace(ROLLOUTS, &content).unwrap();
        let signature = place.signer.sign(&content, "x").unwrap();
        place
            .bucket
            .replace(&layout::signature(ROLLOUTS), &signature)
            .unwrap();
        let refused = place.set(rollout("1.0.2", Pace::Stopped {}), Unproven::Refuse);
        assert!(matches!(refused, Err(ScheduleError::Clock(_))), "{refused:?}");
        let mended = place.set(rollout("1.0.2", Pace::Stopped {}), Unproven::Replace);
        assert_eq!(mended.unwrap().rollouts.len(), 2, "nothing of it is lost");
    }

    #[test]
    fn a_schedule_whose_signature_was_not_written_any_more_is_replaced_when_somebody_says_so() {
        let place = Place::new();
        let (bucket, keys) = (&place.bucket, &place.keys);
        let set = |version, unproven| place.set(rollout(version, Pace::Stopped {}), unproven);
        set("1.0.1", Unproven::Replace).unwrap();
        // A proven one is never thrown away.
        let signature = layout::signature(ROLLOUTS);
        let before = bucket.read(&signature).unwrap().unwrap();
        let whole = set("1.0.2", Unproven::Replace).unwrap();
        assert_eq!(whole.rollouts.len(), 2);
        bucket.replace(&signature, &before).unwrap();
        let refused = set("1.0.3", Unproven::Refuse).unwrap_err();
        assert!(refused.to_string().contains("--replace-unproven"), "{refused}");
        let replaced = set("1.0.3", Unproven::Replace).unwrap();
        assert_eq!(replaced.rollouts, [rollout("1.0.3", Pace::Stopped {})]);
        assert_eq!(read(bucket, keys).unwrap(), replaced.rollouts);
    }

    #[test]
    fn a_schedule_that_devices_would_not_fetch_is_not_written_until_versions_are_forgotten() {
        let place = Place::new();
        let (bucket, keys) = (&place.bucket, &place.keys);
        // As many as there is room for.
        let mut rollouts = Vec::new();
        let room = MAX_SCHEDULE - 100;
        let mut size = 0;
        while size < room {
            let one = rollout(&format!("1.{}.0", rollouts.len()), Pace::Stopped {});
            size += serde_json::to_vec(&one).unwrap().len() + 1;
            rollouts.push(one);
        }
        rollouts.pop();
        rollouts.reverse();
        write(bucket, &place.signer, keys, None, rollouts.clone(), 30).unwrap();
        let full = bucket.read(ROLLOUTS).unwrap().unwrap();
        assert!(
            rollouts.len() > 900 && full.len() > MAX_SCHEDULE - 200,
            "{} bytes for {}",
            full.len(),
            rollouts.len()
        );

        let more = |number: usize| rollout(&format!("2.{number}.0"), Pace::Percent(10));
        let added = (0..10).find_map(|number| place.set(more(number), Unproven::Refuse).err());
        let refused = added.unwrap();
        let ScheduleError::TooLarge { size, lowest } = &refused else {
            panic!("{refused}");
        };
        assert!(*size > MAX_SCHEDULE, "{size}");
        assert_eq!(lowest, "1.0.0, 1.1.0, 1.2.0, 1.3.0, 1.4.0");
        assert!(refused.to_string().contains("--forget"), "{refused}");
        let there = read(bucket, keys).unwrap();
        assert!(
            there.starts_with(&rollouts) && bucket.read(ROLLOUTS).unwrap().unwrap().len() <= MAX_SCHEDULE
        );

        let forgotten: Vec<_> = ["1.0.0", "1.1.0", "0.0.1"].map(str::to_owned).into();
        let schedule = place
            .set_and_forget(more(10), &forgotten, Unproven::Refuse)
            .unwrap();
        let (said, others) = schedule.rollouts.split_last().unwrap();
        assert_eq!(*said, more(10));
        assert_eq!(others.len(), there.len() - 2);
        assert!(others.iter().all(|known| !forgotten.contains(&known.version)));
    }
}
