//! Rollouts of agent versions: start, status, pause, resume, abort. There is one at a time.

use std::sync::Arc;

use protocol::Privilege;
use wamp::Payload;

use crate::api::rollout::{ResumeRollout, RolloutDevice, RolloutView, StartRollout};
use crate::bucket;
use crate::fault::Fault;
use crate::keys::{AccountKey, DeviceKey};
use crate::rollout::plan;
use crate::store::{NewRollout, Rollout, RolloutState};
use crate::studio::{Request, Studio, reply};

/// No agent answers later than this.
const LONGEST_PATIENCE: u32 = 24 * 3600;
/// Why it is paused or aborted, when it did not do that by itself.
const ASKED: &str = "somebody asked for it";

pub(super) async fn start(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let wanted: StartRollout = request.kwargs()?;
    check(&wanted)?;
    let mut devices = members(&studio, account, &wanted.devices).await?;
    let mut canary = Vec::new();
    for (key, serial) in members_named(&studio, account, &wanted.canary).await? {
        if !devices.iter().any(|(known, _)| *known == key) {
            devices.push((key, serial));
        }
        if !canary.contains(&key) {
            canary.push(key);
        }
    }
    if devices.is_empty() {
        return Err(Fault::NotFound(
            "there is no device that your account may maintain".to_owned(),
        ));
    }
    if !wanted.unchecked {
        is_published(&studio, &wanted.version, &devices).await?;
    }
    if canary.is_empty() {
        canary = plan::first(&devices, &wanted.version, 1);
    }
    let new = NewRollout {
        waves: plan::waves(&canary, &devices, &wanted.version, &wanted.waves),
        version: wanted.version,
        account,
        threshold: wanted.threshold,
        patience: wanted.patience,
    };
    let rollout = studio.store.add_rollout(new).await?;
    tracing::info!(
        version = rollout.version,
        devices = rollout.members.len(),
        "rollout started"
    );
    studio.alarm.ring();
    reply(&view(&rollout))
}

fn check(wanted: &StartRollout) -> Result<(), Fault> {
    let numbers: Vec<_> = wanted.version.split('.').collect();
    let is_number =
        |text: &&str| !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    if numbers.len() != 3 || !numbers.iter().all(is_number) {
        return Err(Fault::Invalid(format!(
            "{:?} is no agent version: write it like 1.4.0",
            wanted.version
        )));
    }
    if wanted.waves.last() != Some(&100)
        || !wanted.waves.is_sorted_by(|one, other| one < other)
        || wanted.waves[0] == 0
    {
        return Err(Fault::Invalid(
            "waves have to grow from 1 to 100, like 10,50,100".to_owned(),
        ));
    }
    if wanted.threshold > 100 {
        return Err(Fault::Invalid(
            "threshold is in hundredths, 100 at most".to_owned(),
        ));
    }
    if wanted.patience == 0 || wanted.patience > LONGEST_PATIENCE {
        return Err(Fault::Invalid(
            "patience is between a second and a day".to_owned(),
        ));
    }
    Ok(())
}

/// Refuses a version that is not in the bucket which is served here, for each of the devices. What other buckets hold is
/// not known: there the canary finds out.
async fn is_published(studio: &Studio, version: &str, devices: &[(DeviceKey, String)]) -> Result<(), Fault> {
    let Some(directory) = studio.settings.bucket.clone() else {
        return Ok(());
    };
    let looked_for = version.to_owned();
    let looked = tokio::task::spawn_blocking(move || bucket::platforms_of(&directory, &looked_for)).await;
    let published = match looked.map_err(std::io::Error::other).flatten() {
        Ok(published) => published,
        Err(error) => {
            tracing::warn!(%error, "the bucket cannot be read: the version of the rollout is not checked");
            return Ok(());
        }
    };
    let mut needed = Vec::new();
    for (key, _) in devices {
        let device = studio.store.device(*key).await?;
        needed.extend(device.and_then(|device| platform(&device.os, &device.architecture)));
    }
    needed.sort();
    needed.dedup();
    let missing: Vec<String> = needed
        .into_iter()
        .filter(|platform| !published.contains(platform))
        .collect();
    if missing.is_empty() && !published.is_empty() {
        return Ok(());
    }
    let what = match missing.is_empty() {
        true => String::new(),
        false => format!(" for {}", missing.join(", ")),
    };
    Err(Fault::NotFound(format!(
        "version {version} is not published{what} in the bucket of this studio: publish it ('make publish BUCKET=…'), or \
         say --unchecked if the devices have another bucket"
    )))
}

/// Where the bucket has what such a device takes: `linux/armv7`. None for one that has not said what it is.
fn platform(os: &str, architecture: &str) -> Option<String> {
    // `linux debian 13.3 …`
    let family = os.split_whitespace().next()?.to_ascii_lowercase();
    let known = matches!(family.as_str(), "linux" | "windows" | "darwin") && !architecture.is_empty();
    known.then(|| format!("{family}/{architecture}"))
}

/// The named devices, or all that the account may maintain.
async fn members(
    studio: &Studio,
    account: AccountKey,
    names: &[String],
) -> Result<Vec<(DeviceKey, String)>, Fault> {
    if !names.is_empty() {
        return members_named(studio, account, names).await;
    }
    let mut members = Vec::new();
    for device in studio.store.devices().await? {
        if studio
            .store
            .is_allowed(account, device.key, Privilege::Maintain)
            .await?
        {
            members.push((device.key, device.serial));
        }
    }
    Ok(members)
}

async fn members_named(
    studio: &Studio,
    account: AccountKey,
    names: &[String],
) -> Result<Vec<(DeviceKey, String)>, Fault> {
    let mut members: Vec<(DeviceKey, String)> = Vec::new();
    for name in names {
        let device = studio.device_for(account, name).await?;
        studio.require(account, &device, Privilege::Maintain).await?;
        if !members.iter().any(|(known, _)| *known == device.key) {
            members.push((device.key, device.serial));
        }
    }
    Ok(members)
}

pub(super) async fn status(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    reply(&view(&mine(&studio, &request).await?))
}

pub(super) async fn pause(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let rollout = mine(&studio, &request).await?;
    if rollout.state != RolloutState::Running {
        return Err(wrong_state(&rollout, "paused"));
    }
    let reason = match plan::too_many_failed(&rollout) {
        Some(failures) => format!("{ASKED}; {failures}"),
        None => ASKED.to_owned(),
    };
    studio
        .store
        .pause_rollout(rollout.key, reason, rollout.failures())
        .await?;
    changed(&studio, &request, "paused").await
}

pub(super) async fn resume(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let rollout = mine(&studio, &request).await?;
    let ResumeRollout { retry } = request.kwargs()?;
    if rollout.state != RolloutState::Paused {
        return Err(wrong_state(&rollout, "resumed"));
    }
    // Nobody goes on past failures that nobody was told of.
    if let Some(failures) = plan::too_many_failed(&rollout) {
        let refusal = Fault::Conflict(format!(
            "since the rollout of version {} paused, {failures}: look at 'studio rollout status', and resume it once more \
             to go on all the same",
            rollout.version
        ));
        studio
            .store
            .pause_rollout(rollout.key, failures, rollout.failures())
            .await?;
        return Err(refusal);
    }
    studio.store.resume_rollout(rollout.key, retry).await?;
    changed(&studio, &request, "resumed").await
}

pub(super) async fn abort(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let rollout = mine(&studio, &request).await?;
    if !rollout.state.is_open() {
        return Err(wrong_state(&rollout, "aborted"));
    }
    studio
        .store
        .set_rollout(rollout.key, RolloutState::Aborted, ASKED.to_owned())
        .await?;
    changed(&studio, &request, "aborted").await
}

fn wrong_state(rollout: &Rollout, wish: &str) -> Fault {
    Fault::Conflict(format!(
        "the rollout of version {} is {} and cannot be {wish}",
        rollout.version,
        rollout.state.as_str()
    ))
}

/// The newest rollout, if it is the caller's or the caller is an administrator.
async fn mine(studio: &Studio, request: &Request) -> Result<Rollout, Fault> {
    let account = request.caller.account()?;
    let rollout = studio.store.rollout().await?;
    let rollout = rollout.ok_or_else(|| {
        Fault::NotFound("there was no rollout yet: 'studio rollout start VERSION'".to_owned())
    })?;
    studio
        .require_owner(account, rollout.account, "the rollout")
        .await?;
    Ok(rollout)
}

async fn changed(studio: &Studio, request: &Request, what: &str) -> Result<Payload, Fault> {
    let rollout = mine(studio, request).await?;
    tracing::info!(version = rollout.version, "rollout {what}");
    studio.alarm.ring();
    reply(&view(&rollout))
}

fn view(rollout: &Rollout) -> RolloutView {
    RolloutView {
        rollout_key: rollout.key,
        version: rollout.version.clone(),
        state: rollout.state.as_str().to_owned(),
        reason: match plan::too_many_failed(rollout) {
            Some(failures) if rollout.state == RolloutState::Paused => {
                format!("{}; since then {failures}", rollout.reason)
            }
            _ => rollout.reason.clone(),
        },
        wave: rollout.wave,
        waves: rollout.waves,
        threshold: rollout.threshold,
        patience: rollout.patience,
        created: rollout.created.clone(),
        updated: rollout.updated.clone(),
        devices: rollout
            .members
            .iter()
            .map(|member| RolloutDevice {
                device: member.name.clone(),
                serial_number: member.serial.clone(),
                wave: member.wave,
                state: member.state.as_str().to_owned(),
                status: member.status.clone(),
                from_version: member.from.clone(),
                agent_version: member.agent_version.clone(),
                reason: member.reason.clone(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_said_what_it_is_has_a_place_in_the_bucket() {
        for (os, architecture, expected) in [
            ("linux debian 13.3 6.1.0-28-amd64", "amd64", Some("linux/amd64")),
            ("linux", "armv7", Some("linux/armv7")),
            ("Windows 11", "amd64", Some("windows/amd64")),
            ("", "", None),
            ("linux", "", None),
            ("plan9", "amd64", None),
        ] {
            assert_eq!(
                platform(os, architecture).as_deref(),
                expected,
                "{os} {architecture}"
            );
        }
    }

    #[test]
    fn only_a_version_and_growing_waves_make_a_rollout() {
        let wanted = |version: &str, waves: &[u8], threshold: u8, patience: u32| {
            let text = serde_json::json!({"version": version, "waves": waves, "threshold": threshold, "patience": patience});
            check(&serde_json::from_value(text).unwrap())
        };
        wanted("1.0.1", &[10, 100], 90, 60).unwrap();
        wanted("1.0.1", &[100], 0, 60).unwrap();
        for version in ["", "1.0", "v1.0.1", "latest", "1.0.1-rc", "1..1"] {
            assert!(
                matches!(wanted(version, &[100], 90, 60), Err(Fault::Invalid(_))),
                "{version}"
            );
        }
        for waves in [&[][..], &[10], &[0, 100], &[50, 50, 100], &[50, 10, 100], &[101]] {
            assert!(
                matches!(wanted("1.0.1", waves, 90, 60), Err(Fault::Invalid(_))),
                "{waves:?}"
            );
        }
        assert!(matches!(wanted("1.0.1", &[100], 101, 60), Err(Fault::Invalid(_))));
        assert!(matches!(wanted("1.0.1", &[100], 90, 0), Err(Fault::Invalid(_))));
    }
}
