//! Brings a version of the agent to devices in waves: asks each device by `update_agent`, hears how it ended, goes on to
//! the next wave when enough ended well, and stops by itself when too many did not.
//!
//! The store knows how far it is; this task only looks there, takes the next steps and looks again: after an outcome, a
//! connect, a word from a person, and every few seconds. A studio that is started again goes on where it was.

mod ask;
pub(crate) mod plan;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wamp::Dict;
use wamp::client::{Event, RequestError, Session, Subscription};

use crate::backend;
use crate::keys::DeviceKey;
use crate::store::{Member, MemberState, Rollout, RolloutState, StoreError};
use crate::studio::Studio;
use ask::{Answer, Report};
use plan::{Due, Looks, Silence, Verdict};

/// Every device's final word about an update; the serial number is in the middle.
pub(crate) const RESULTS: &str = "re.mgmt..agent_update_result";
/// Looks again at the latest after this.
const TICK: Duration = Duration::from_secs(5);
/// Devices that are called at a time; the others of a wave wait for an answer. As many may be asked how it ended.
const CALLS: usize = 32;
/// A call that has lasted so long holds up nobody any more: its device may stall for the whole patience of the rollout.
const HOLDS: Duration = Duration::from_secs(2 * 60);

/// Wakes the task: something about a rollout or a device has changed.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Notify);

impl Alarm {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }
}

/// Subscribes to what devices say about the end of updates.
pub(crate) async fn listen(session: &Session) -> Result<Subscription, RequestError> {
    let options = Dict::from([("match".to_owned(), wamp::Value::from("wildcard"))]);
    session.subscribe(RESULTS, options).await
}

/// Drives rollouts for as long as the session lasts. Calls that are open when this is dropped are asked again later.
pub(crate) async fn drive(studio: &Studio, session: &Session) {
    let mut calls = Calls::default();
    let mut words = Words::default();
    loop {
        if let Err(error) = advance(studio, session, &mut calls, &mut words).await {
            tracing::error!(%error, "the rollout cannot be driven");
        }
        tokio::select! {
            () = studio.alarm.0.notified() => {}
            Some(answered) = calls.tasks.join_next() => {
                if let Ok(answered) = answered
                    && let Err(error) = calls.settle(studio, answered, &mut words).await
                {
                    tracing::error!(%error, "an answer of a device cannot be stored");
                }
            }
            Some(found) = words.tasks.join_next() => {
                if let Ok(found) = found
                    && let Err(error) = words.settle(studio, found).await
                {
                    tracing::error!(%error, "the outcome of an update could not be stored");
                }
            }
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// The words that devices owe.
#[derive(Default)]
struct Words {
    silence: Silence,
    looks: Looks,
    tasks: JoinSet<Found>,
}

/// What a device remembers about its update.
struct Found {
    rollout: crate::keys::RolloutKey,
    device: DeviceKey,
    report: Option<Report>,
    end: Option<(MemberState, String)>,
}

impl Words {
    /// Asks the device how its update ended.
    fn look(&mut self, session: &Session, rollout: &Rollout, member: &Member, overdue: bool) {
        if self.tasks.len() >= CALLS {
            return;
        }
        self.looks.begin(member.device, overdue);
        let (session, member) = (session.clone(), member.clone());
        let rollout = Rollout {
            members: Vec::new(),
            ..rollout.clone()
        };
        self.tasks.spawn(async move {
            let report = ask::look(&session, &member.serial).await;
            Found {
                rollout: rollout.key,
                device: member.device,
                end: report
                    .as_ref()
                    .and_then(|report| plan::found(&rollout, &member, report)),
                report,
            }
        });
    }

    async fn settle(&mut self, studio: &Studio, found: Found) -> Result<(), StoreError> {
        let Found {
            rollout,
            device,
            report,
            end,
        } = found;
        self.looks.end(device, report);
        let Some((state, reason)) = end else {
            return Ok(());
        };
        tracing::info!(%device, state = state.as_str(), reason, "how an update ended was asked for");
        studio.store.settle_member(rollout, device, state, reason).await
    }
}

/// What a device answered.
struct Answered {
    rollout: crate::keys::RolloutKey,
    device: DeviceKey,
    answer: Answer,
}

/// The calls that are under way.
#[derive(Default)]
struct Calls {
    tasks: JoinSet<Answered>,
    /// When each device was called last.
    called: HashMap<DeviceKey, Call>,
    /// Devices that are asked and that no call with the present question can have reached.
    unreached: HashSet<DeviceKey>,
    /// A call found nobody, although the device counts as connected.
    missed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Since then.
    Open(Instant),
    /// It was busy or went away; again after a while.
    Over(Instant),
}

impl Calls {
    fn may_call(&self, device: DeviceKey) -> bool {
        let is_held = |call: &&Call| matches!(call, Call::Open(since) if since.elapsed() < HOLDS);
        self.called.values().filter(is_held).count() < CALLS
            && match self.called.get(&device) {
                None => true,
                Some(Call::Open(_)) => false,
                Some(Call::Over(since)) => since.elapsed() >= TICK,
            }
    }

    /// Whether the device was asked and is known not to have heard it.
    fn is_unreached(&self, device: DeviceKey) -> bool {
        self.unreached.contains(&device) && matches!(self.called.get(&device), Some(Call::Over(_)))
    }

    async fn settle(
        &mut self,
        studio: &Studio,
        answered: Answered,
        words: &mut Words,
    ) -> Result<(), StoreError> {
        let Answered {
            rollout,
            device,
            answer,
        } = answered;
        self.called.insert(device, Call::Over(Instant::now()));
        let (state, reason) = match answer {
            Answer::Staged => {
                words.looks.heard(device);
                (MemberState::Staged, String::new())
            }
            Answer::UpToDate => (MemberState::Updated, String::new()),
            Answer::Refused(reason) => (MemberState::Failed, reason),
            Answer::Later(reason) => {
                tracing::debug!(%device, reason, "asked again later");
                self.unreached.remove(&device);
                return Ok(());
            }
            Answer::Absent => {
                tracing::debug!(%device, "not there when it was asked");
                self.missed = true;
                return Ok(());
            }
        };
        self.unreached.remove(&device);
        tracing::info!(%device, state = state.as_str(), reason, "rollout");
        studio.store.settle_member(rollout, device, state, reason).await
    }
}

/// One look at the newest rollout, and the steps that follow from it.
async fn advance(
    studio: &Studio,
    session: &Session,
    calls: &mut Calls,
    words: &mut Words,
) -> Result<(), StoreError> {
    if std::mem::take(&mut calls.missed)
        && let Err(error) = backend::roll_call(studio, session).await
    {
        tracing::debug!(%error, "some devices may wrongly show as connected");
    }
    let Some(rollout) = studio.store.rollout().await? else {
        return Ok(());
    };
    if !rollout.state.is_open() {
        return Ok(());
    }
    let now = Instant::now();
    let mut rollout = rollout;
    for place in 0..rollout.members.len() {
        let member = &rollout.members[place];
        if plan::is_gone(member) && calls.is_unreached(member.device) {
            // It owes no word, and holds up nobody.
            studio.store.unask_member(rollout.key, member.device).await?;
            let member = &mut rollout.members[place];
            (member.state, member.asked) = (MemberState::Waiting, None);
            continue;
        }
        let overdue = plan::is_overdue(rollout.patience, words.silence.of(member, now));
        match words.looks.due(member, overdue) {
            Due::Look => words.look(session, &rollout, member, overdue),
            Due::End => {
                let report = words.looks.report(member.device);
                let (state, reason) = plan::overdue(&rollout, member, report);
                studio
                    .store
                    .settle_member(rollout.key, member.device, state, reason.clone())
                    .await?;
                let member = &mut rollout.members[place];
                (member.state, member.reason) = (state, reason);
            }
            Due::Nothing => {}
        }
    }
    if rollout.state != RolloutState::Running {
        return Ok(());
    }
    match plan::judge(&rollout) {
        Verdict::Go => {}
        Verdict::Next => {
            rollout.wave += 1;
            tracing::info!(
                version = rollout.version,
                wave = rollout.wave,
                "the next wave of the rollout begins"
            );
            studio.store.set_wave(rollout.key, rollout.wave).await?;
        }
        Verdict::Pause(reason) => {
            tracing::warn!(version = rollout.version, reason, "the rollout pauses itself");
            return studio
                .store
                .pause_rollout(rollout.key, reason, rollout.failures())
                .await;
        }
        Verdict::Done => {
            tracing::info!(version = rollout.version, "the rollout is done");
            return studio
                .store
                .set_rollout(rollout.key, RolloutState::Done, String::new())
                .await;
        }
    }
    let at = Timestamp::now().as_second();
    for member in rollout
        .members
        .iter()
        .filter(|member| plan::is_due(member, rollout.wave))
    {
        if calls.may_call(member.device) && studio.store.ask_member(rollout.key, member.device, at).await? {
            call(session, &rollout, member, at, calls);
        }
    }
    Ok(())
}

fn call(session: &Session, rollout: &Rollout, member: &Member, at: i64, calls: &mut Calls) {
    calls.called.insert(member.device, Call::Open(Instant::now()));
    if member.state == MemberState::Waiting {
        calls.unreached.insert(member.device);
    }
    let (rollout_key, device) = (rollout.key, member.device);
    let question = ask::Question {
        serial: member.serial.clone(),
        version: rollout.version.clone(),
        account: rollout.account,
        force: member.retried,
        // As it was stored, or is now.
        id: plan::id(rollout.key, member.asked.unwrap_or(at)),
        deadline: Duration::from_secs(u64::from(rollout.patience)),
    };
    let session = session.clone();
    calls.tasks.spawn(async move {
        Answered {
            rollout: rollout_key,
            device,
            answer: ask::ask(&session, &question).await,
        }
    });
}

/// A device told how its update ended.
pub(crate) async fn ended(studio: &Studio, event: &Event) {
    let Some(outcome) = ask::outcome(event) else {
        return tracing::warn!("an unreadable outcome of an update was ignored");
    };
    let stored = async {
        let Some(rollout) = studio.store.rollout().await? else {
            return Ok(());
        };
        let member = rollout
            .members
            .iter()
            .find(|member| member.serial == outcome.serial);
        let Some(member) = member else {
            return Ok(());
        };
        if outcome
            .author
            .is_some_and(|author| author.device != member.device)
        {
            tracing::warn!(
                device = member.name,
                "an outcome that another device told was ignored"
            );
            return Ok(());
        }
        tracing::info!(
            device = member.name,
            from = outcome.from,
            to = outcome.to,
            result = outcome.result,
            reason = outcome.reason,
            "an update ended"
        );
        let Some((state, reason)) = plan::ended(&rollout, member, &outcome) else {
            return Ok(());
        };
        let (store, device) = (&studio.store, member.device);
        match member.asked {
            Some(asked) if state == MemberState::Failed && plan::is_answer(&rollout, member, &outcome) => {
                store.fail_member(rollout.key, device, asked, reason).await
            }
            _ => store.settle_member(rollout.key, device, state, reason).await,
        }
    };
    if let Err(error) = stored.await as Result<(), StoreError> {
        tracing::error!(%error, "the outcome of an update could not be stored");
    }
    studio.alarm.ring();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn devices_that_stall_do_not_hold_a_large_wave() {
        let mut calls = Calls::default();
        for number in 0..CALLS {
            let device = DeviceKey(number as u64);
            assert!(calls.may_call(device));
            calls.called.insert(device, Call::Open(Instant::now()));
        }
        let next = DeviceKey(1000);
        assert!(!calls.may_call(next));
        tokio::time::advance(HOLDS).await;
        assert!(calls.may_call(next));
        assert!(!calls.may_call(DeviceKey(0)), "it still has one");
        calls.called.insert(DeviceKey(0), Call::Over(Instant::now()));
        assert!(!calls.may_call(DeviceKey(0)), "not at once");
        tokio::time::advance(TICK).await;
        assert!(calls.may_call(DeviceKey(0)));
    }
}
