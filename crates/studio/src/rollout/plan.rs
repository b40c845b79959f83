//! The decisions of a rollout, without effects: who is in which wave, and what follows from how devices did.

use std::collections::HashMap;
use std::time::Duration;

use protocol::rollout::place;
use tokio::time::Instant;

use super::ask::{Outcome, Report};
use crate::keys::{DeviceKey, RolloutKey};
use crate::store::{Member, MemberState, Rollout};

/// What follows from how devices did so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// On with this wave.
    Go,
    Next,
    Pause(String),
    Done,
}

/// Cuts devices (key and serial number) into waves: the canary group, then everybody else up to each of `steps`
/// (hundredths, the last one being 100). Waves without a device are left out, an empty canary group is not.
pub(crate) fn waves(
    canary: &[DeviceKey],
    devices: &[(DeviceKey, String)],
    version: &str,
    steps: &[u8],
) -> Vec<Vec<DeviceKey>> {
    let mut others: Vec<_> = devices
        .iter()
        .filter(|(key, _)| !canary.contains(key))
        .map(|(key, serial)| (place(serial, version), *key))
        .collect();
    others.sort_unstable();
    let mut waves = vec![canary.to_vec()];
    let mut begun = 0;
    for step in steps {
        let end = (others.len() * usize::from(*step))
            .div_ceil(100)
            .min(others.len());
        if end > begun {
            waves.push(others[begun..end].iter().map(|(_, key)| *key).collect());
            begun = end;
        }
    }
    waves
}

/// The first `count` devices by their places: a canary group that nobody has chosen.
pub(crate) fn first(devices: &[(DeviceKey, String)], version: &str, count: usize) -> Vec<DeviceKey> {
    let mut all: Vec<_> = devices
        .iter()
        .map(|(key, serial)| (place(serial, version), *key))
        .collect();
    all.sort_unstable();
    all.into_iter().take(count).map(|(_, key)| key).collect()
}

fn begun(rollout: &Rollout) -> Vec<&Member> {
    let is_begun = |member: &&Member| member.wave <= rollout.wave;
    rollout.members.iter().filter(is_begun).collect()
}

/// Whether more devices failed than may, those aside that somebody was told of.
pub(crate) fn too_many_failed(rollout: &Rollout) -> Option<String> {
    // Devices that nobody called yet say nothing about the version: neither the rest of a large wave nor those away.
    let mut asked = begun(rollout);
    asked.retain(|member| member.asked.is_some());
    let is_news = |member: &&&Member| member.state == MemberState::Failed && !member.excused;
    let failed: Vec<_> = asked.iter().filter(is_news).collect();
    let allowed = asked.len() * usize::from(100 - rollout.threshold.min(100)) / 100;
    let first = failed.first().filter(|_| failed.len() > allowed)?;
    Some(format!(
        "{} of {} devices failed, {allowed} may; {}: {}",
        failed.len(),
        asked.len(),
        first.name,
        first.reason
    ))
}

/// What follows for a running rollout.
pub(super) fn judge(rollout: &Rollout) -> Verdict {
    if let Some(reason) = too_many_failed(rollout) {
        return Verdict::Pause(reason);
    }
    let begun = begun(rollout);
    let undecided = begun.iter().any(|member| match member.state {
        MemberState::Asked | MemberState::Staged => true,
        MemberState::Waiting => is_reachable(member),
        MemberState::Updated | MemberState::Failed => false,
    });
    if undecided {
        return Verdict::Go;
    }
    // Devices that are away are asked when they come. But a wave that is away as a whole has proven nothing.
    let wave = || begun.iter().filter(|member| member.wave == rollout.wave);
    let away = wave().any(|member| member.state == MemberState::Waiting);
    let proven = wave().any(|member| member.state == MemberState::Updated);
    if away && !proven {
        return Verdict::Go;
    }
    if rollout.wave + 1 < rollout.waves {
        // Neither has one whose devices were removed.
        if wave().next().is_none() && rollout.may_be_empty != Some(rollout.wave) {
            return Verdict::Pause(format!(
                "no device of wave {} is left, so it has proven nothing",
                rollout.wave
            ));
        }
        return Verdict::Next;
    }
    let all_decided = rollout
        .members
        .iter()
        .all(|member| member.state != MemberState::Waiting);
    if all_decided { Verdict::Done } else { Verdict::Go }
}

fn is_reachable(member: &Member) -> bool {
    member.status == "CONNECTED"
}

/// Whether the device went after it was asked, and before it answered.
pub(super) fn is_gone(member: &Member) -> bool {
    member.state == MemberState::Asked && !is_reachable(member)
}

/// Whether the device is to be called now. One that was asked is called again when the call was lost.
pub(super) fn is_due(member: &Member, wave: u32) -> bool {
    let open = matches!(member.state, MemberState::Waiting | MemberState::Asked);
    open && member.wave <= wave && is_reachable(member)
}

/// How long devices that were asked have said nothing, by a clock that only runs while this studio listens: what a device
/// says to a studio that is off is lost, and a wall clock may be set.
#[derive(Debug, Default)]
pub(super) struct Silence(HashMap<DeviceKey, Instant>);

impl Silence {
    /// The silence of a device that is looked at `now`; none when no word is due from it.
    pub(super) fn of(&mut self, member: &Member, now: Instant) -> Option<Duration> {
        if !matches!(member.state, MemberState::Asked | MemberState::Staged) {
            self.0.remove(&member.device);
            return None;
        }
        let since = *self.0.entry(member.device).or_insert(now);
        Some(now.saturating_duration_since(since))
    }
}

/// Whether a device that was asked has said nothing for too long. `patience` is in seconds.
pub(super) fn is_overdue(patience: u32, silence: Option<Duration>) -> bool {
    silence.is_some_and(|silence| silence > Duration::from_secs(u64::from(patience)))
}

/// What becomes of a device that is overdue; `report` is what it answers when it is asked, and says nothing about the end
/// of its update. The version alone counts only of agents that never say how an update ended.
pub(super) fn overdue(rollout: &Rollout, member: &Member, report: Option<&Report>) -> (MemberState, String) {
    let wanted = &rollout.version;
    let known = match report {
        _ if !is_reachable(member) => "it is away".to_owned(),
        None if member.agent_version.is_empty() => "it does not answer".to_owned(),
        None => format!(
            "it does not answer, and ran version {} when it connected",
            member.agent_version
        ),
        Some(Report { version, .. }) if version != wanted => format!("it runs version {version}"),
        Some(Report {
            trial: None,
            last: None,
            ..
        }) => return (MemberState::Updated, String::new()),
        Some(report) if report.trial.as_ref() == Some(wanted) => {
            format!("version {wanted} has yet to prove itself there")
        }
        Some(_) => format!("it runs version {wanted}, and has not said that it has proven itself"),
    };
    let patience = rollout.patience;
    (
        MemberState::Failed,
        format!("no word within {patience} s; {known}"),
    )
}

/// What a device calls the outcome of the update that it is asked for. Another rollout, or another try, has another.
pub(super) fn id(rollout: RolloutKey, asked: i64) -> String {
    format!("{rollout}-{asked}")
}

fn id_of(rollout: &Rollout, member: &Member) -> Option<String> {
    member.asked.map(|asked| id(rollout.key, asked))
}

/// Whether `outcome` is the end of the very update that `member` was asked for.
pub(super) fn is_answer(rollout: &Rollout, member: &Member, outcome: &Outcome) -> bool {
    outcome.id.is_some() && outcome.id == id_of(rollout, member)
}

/// What follows from how an update of `member` ended. Of another question's end, told late, only the good one counts.
pub(super) fn ended(rollout: &Rollout, member: &Member, outcome: &Outcome) -> Option<(MemberState, String)> {
    if outcome.to != rollout.version {
        return None;
    }
    if outcome.result == "updated" {
        return Some((MemberState::Updated, String::new()));
    }
    // Agents that are older give it no name.
    if outcome.id.is_some() && !is_answer(rollout, member, outcome) {
        return None;
    }
    let reason = format!("{}: {}", outcome.result, outcome.reason);
    Some((MemberState::Failed, reason))
}

/// What follows from what a device says of itself; what it remembers may be long ago.
pub(super) fn found(rollout: &Rollout, member: &Member, report: &Report) -> Option<(MemberState, String)> {
    let wanted = &rollout.version;
    let has_it = report.version == *wanted;
    match (&report.trial, &report.last) {
        // It has not ended.
        (Some(trial), _) if trial == wanted => None,
        (_, Some(last)) if is_answer(rollout, member, last) => ended(rollout, member, last),
        // One that failed and could not be taken out of use runs, too.
        (_, Some(last)) if has_it && last.to == *wanted => {
            ended(rollout, member, last).filter(|(state, _)| *state == MemberState::Updated)
        }
        (Some(_), _) if has_it => Some((MemberState::Updated, String::new())),
        _ => None,
    }
}

/// When devices that owe a word are asked for it: when they come back, and before they are said to have failed.
#[derive(Debug, Default)]
pub(super) struct Looks(HashMap<DeviceKey, Look>);

#[derive(Debug, Default)]
struct Look {
    open: bool,
    /// What it answered.
    report: Option<Report>,
    /// Asked, or heard, since it came.
    since_it_came: bool,
    /// Asked when its time was up.
    at_the_end: bool,
}

/// What is to be done about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Look,
    /// Nothing more can be learnt from it.
    End,
}

impl Looks {
    /// `overdue`: it has owed its word for too long.
    pub(super) fn due(&mut self, member: &Member, overdue: bool) -> Due {
        if !matches!(member.state, MemberState::Asked | MemberState::Staged) {
            self.0.remove(&member.device);
            return Due::Nothing;
        }
        let look = self.0.entry(member.device).or_default();
        if !is_reachable(member) {
            look.since_it_came = false;
            return if overdue { Due::End } else { Due::Nothing };
        }
        // While it is called it may still answer.
        let is_news = member.state == MemberState::Staged && !look.since_it_came;
        match (look.open, overdue) {
            (true, _) => Due::Nothing,
            (false, true) if look.at_the_end => Due::End,
            (false, true) => Due::Look,
            (false, false) if is_news => Due::Look,
            (false, false) => Due::Nothing,
        }
    }

    /// It is asked now.
    pub(super) fn begin(&mut self, device: DeviceKey, overdue: bool) {
        let look = Look {
            open: true,
            report: None,
            since_it_came: true,
            at_the_end: overdue,
        };
        self.0.insert(device, look);
    }

    /// It has answered, or has not.
    pub(super) fn end(&mut self, device: DeviceKey, report: Option<Report>) {
        if let Some(look) = self.0.get_mut(&device) {
            (look.open, look.report) = (false, report);
        }
    }

    /// What it answered when it was asked last.
    pub(super) fn report(&self, device: DeviceKey) -> Option<&Report> {
        self.0.get(&device)?.report.as_ref()
    }

    /// It said itself how far it is.
    pub(super) fn heard(&mut self, device: DeviceKey) {
        self.0.entry(device).or_default().since_it_came = true;
    }
}

#[cfg(test)]
mod tests;
