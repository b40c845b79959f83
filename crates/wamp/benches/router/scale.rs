//! Whether a message costs the same however much the router holds.
//!
//! Two routers run side by side, one with little and one with much, and are measured in turns, so that both see the
//! same machine.

use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use wamp::Codec;

use crate::events::FanOut;
use crate::load::Meter;
use crate::peer::Peer;
use crate::rpc::{self, Caller};
use crate::target::Target;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(500);
/// Callees that share the registrations: one session may not have all of them, and both routers must have as many.
const CALLEES: usize = 2;

/// CPU time per operation with little and with much, microseconds: the median of the rounds.
pub(crate) struct Pair {
    pub(crate) little: f64,
    pub(crate) much: f64,
}

/// Calls all over the registrations.
pub(crate) async fn registrations(codec: Codec, little: usize, much: usize) -> Pair {
    let (small, large) = (Target::ours(), Target::ours());
    let measured = async {
        let (mut small_caller, _small) = registered(&small, codec, little).await;
        let (mut large_caller, _large) = registered(&large, codec, much).await;
        let mut costs = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            costs.0.push(call(&small, &mut small_caller).await);
            costs.1.push(call(&large, &mut large_caller).await);
        }
        medians(costs)
    };
    LocalSet::new().run_until(measured).await
}

async fn registered(target: &Target, codec: Codec, count: usize) -> (Caller, tokio::task::JoinSet<()>) {
    let name = |number: usize| format!("bench.device.{number}.echo");
    let mut callees = Vec::new();
    for first in 0..CALLEES {
        let mut callee = Peer::join(target.address, codec).await;
        callee
            .register_all((first..count).step_by(CALLEES).map(name))
            .await;
        callees.push(callee);
    }
    // Spread over all of them: a prime keeps neighbours apart.
    let procedures = (0..count).map(|turn| name(turn * 7919 % count)).collect();
    let caller = Caller::new(Peer::join(target.address, codec).await, procedures);
    (caller, rpc::answer_all(callees))
}

async fn call(target: &Target, caller: &mut Caller) -> f64 {
    let meter = Meter::start(target);
    let tally = caller.keep_calling(64, Instant::now() + ROUND).await;
    meter.stop(tally.answered, tally.errors, tally.lost).cpu()
}

/// Publications to one subscriber, beside pattern subscriptions that do not match.
pub(crate) async fn patterns(codec: Codec, little: usize, much: usize) -> Pair {
    let (small, large) = (Target::ours(), Target::ours());
    let measured = async {
        let (mut small_events, _small) = subscribed(&small, codec, little).await;
        let (mut large_events, _large) = subscribed(&large, codec, much).await;
        let mut costs = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            costs.0.push(publish(&small, &mut small_events).await);
            costs.1.push(publish(&large, &mut large_events).await);
        }
        medians(costs)
    };
    LocalSet::new().run_until(measured).await
}

async fn subscribed(target: &Target, codec: Codec, patterns: usize) -> (FanOut, Peer) {
    let fan_out = FanOut::new(target, codec, 1).await;
    let mut watcher = Peer::join(target.address, codec).await;
    let pattern = |number: usize| match number % 2 {
        0 => ("prefix", format!("bench.device{number}.")),
        _ => ("wildcard", format!("bench..device{number}")),
    };
    watcher.subscribe_all((0..patterns).map(pattern)).await;
    (fan_out, watcher)
}

async fn publish(target: &Target, events: &mut FanOut) -> f64 {
    let meter = Meter::start(target);
    let (delivered, lost) = events.publish(64, ROUND).await;
    meter.stop(delivered, 0, lost).cpu()
}

fn medians((mut little, mut much): (Vec<f64>, Vec<f64>)) -> Pair {
    Pair {
        little: crate::load::percentile(&mut little, 0.5),
        much: crate::load::percentile(&mut much, 0.5),
    }
}
