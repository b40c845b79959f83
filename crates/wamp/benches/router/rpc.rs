//! Calls: one at a time, and many in flight.

use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::timeout;
use wamp::Codec;
use wamp::message::code;

use crate::frame;
use crate::load::{Load, Meter};
use crate::peer::{PATIENCE, Peer};
use crate::target::Target;

/// A callee that answers every INVOCATION at once. It is gone when the returned set is dropped.
pub(crate) fn answer_all(callees: Vec<Peer>) -> JoinSet<()> {
    let mut set = JoinSet::new();
    for mut callee in callees {
        set.spawn_local(async move {
            loop {
                callee.receive().await;
                while let Some((kind, request)) = callee.next_head() {
                    if kind == code::INVOCATION {
                        callee.put(&frame::answer(callee.codec, request));
                    }
                }
                callee.flush().await;
            }
        });
    }
    set
}

/// Microseconds of `calls` calls, one at a time.
pub(crate) async fn one_at_a_time(target: &Target, codec: Codec, calls: usize) -> Vec<f64> {
    let mut callee = Peer::join(target.address, codec).await;
    callee.register("bench.echo").await;
    let mut caller = Peer::join(target.address, codec).await;
    let measured = async {
        let _callees = answer_all(vec![callee]);
        let warm_up = calls / 10;
        let mut times = Vec::with_capacity(calls);
        for call in 0..calls + warm_up {
            let begin = Instant::now();
            let request = caller.next_request();
            caller.put(&frame::call(codec, request, "bench.echo"));
            caller.flush().await;
            while caller.next_head() != Some((code::RESULT, request)) {
                caller.receive().await;
            }
            if call >= warm_up {
                times.push(begin.elapsed().as_secs_f64() * 1e6);
            }
        }
        times
    };
    LocalSet::new().run_until(measured).await
}

/// How calls are made.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Part of the procedures' names: the callees of one measurement may be gone a little later than it is.
    pub(crate) name: &'static str,
    pub(crate) codec: Codec,
    /// Callers, each with a callee and a procedure of its own.
    pub(crate) pairs: usize,
    /// Calls without an answer that each caller keeps.
    pub(crate) in_flight: usize,
    pub(crate) duration: Duration,
}

/// Keeps calls in flight for a while, after a fifth of that time to warm up, then waits for the last answers.
pub(crate) async fn pipelined(target: &Target, plan: Plan) -> Load {
    let mut callees = Vec::new();
    let mut callers = Vec::new();
    for pair in 0..plan.pairs {
        let procedure = format!("bench.{}.{pair}", plan.name);
        let mut callee = Peer::join(target.address, plan.codec).await;
        callee.register(&procedure).await;
        callees.push(callee);
        let peer = Peer::join(target.address, plan.codec).await;
        callers.push(Caller::new(peer, vec![procedure]));
    }
    let measured = async {
        let _callees = answer_all(callees);
        let (callers, _) = call_all(callers, plan.in_flight, plan.duration / 5).await;
        let meter = Meter::start(target);
        let (_, tally) = call_all(callers, plan.in_flight, plan.duration).await;
        meter.stop(tally.answered + tally.errors, tally.errors, tally.lost)
    };
    LocalSet::new().run_until(measured).await
}

async fn call_all(callers: Vec<Caller>, in_flight: usize, duration: Duration) -> (Vec<Caller>, Tally) {
    let until = Instant::now() + duration;
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            spawn_local(async move {
                let tally = caller.keep_calling(in_flight, until).await;
                (caller, tally)
            })
        })
        .collect();
    let mut callers = Vec::new();
    let mut sum = Tally::default();
    for task in tasks {
        let (caller, tally) = task.await.expect("a caller does not panic");
        callers.push(caller);
        sum.answered += tally.answered;
        sum.errors += tally.errors;
        sum.lost += tally.lost;
    }
    (callers, sum)
}

/// How calls ended.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) lost: u64,
}

/// A session that calls its procedures in turn.
pub(crate) struct Caller {
    peer: Peer,
    procedures: Vec<String>,
    turn: usize,
}

impl Caller {
    pub(crate) fn new(peer: Peer, procedures: Vec<String>) -> Caller {
        Caller {
            peer,
            procedures,
            turn: 0,
        }
    }

    /// Keeps `in_flight` calls without an answer until `until`, then waits for the last answer.
    pub(crate) async fn keep_calling(&mut self, in_flight: usize, until: Instant) -> Tally {
        let Caller {
            peer,
            procedures,
            turn,
        } = self;
        let first = peer.next_request();
        // By request, counted from the first: whether its answer has come.
        let mut done = vec![false];
        let mut open = 0;
        let mut tally = Tally::default();
        peer.put(&frame::call(peer.codec, first, &procedures[0]));
        open += 1;
        loop {
            if Instant::now() < until {
                while open < in_flight {
                    *turn = (*turn + 1) % procedures.len();
                    let request = peer.next_request();
                    peer.put(&frame::call(peer.codec, request, &procedures[*turn]));
                    done.push(false);
                    open += 1;
                }
            }
            peer.flush().await;
            if open == 0 {
                return tally;
            }
            if timeout(PATIENCE, peer.receive()).await.is_err() {
                tally.lost = open as u64;
                return tally;
            }
            while let Some((kind, request)) = peer.next_head() {
                if kind == code::RESULT {
                    let again = std::mem::replace(&mut done[(request - first) as usize], true);
                    assert!(!again, "call {request} was answered twice");
                    tally.answered += 1;
                } else {
                    assert_eq!(kind, code::ERROR, "neither RESULT nor ERROR");
                    tally.errors += 1;
                }
                open -= 1;
            }
        }
    }
}
