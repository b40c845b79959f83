//! How much a call costs inside one process, with no socket and no codec in between: our router with two attached
//! sessions, battler-wamp with two peers connected directly, and wampproto's dealer, which is a library without tasks,
//! queues or sessions of its own: two function calls a call. One thread, one call at a time and 64 in flight, among ten
//! registrations and among ten thousand. Lines as those of `make bench-wamp`.

mod battler;
mod ours;
mod proto;

use std::time::{Duration, Instant};

/// How long each is measured, after a tenth of it to warm up.
const ROUND: Duration = Duration::from_secs(2);

/// Registrations beside the one that is called.
const CROWDS: [usize; 2] = [10, 10_000];

/// Microseconds per call while `call` (so many calls each) is repeated.
async fn cost(calls: usize, mut call: impl AsyncFnMut()) -> f64 {
    let warm = Instant::now();
    while warm.elapsed() < ROUND / 10 {
        call().await;
    }
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < ROUND {
        call().await;
        done += calls;
    }
    begun.elapsed().as_secs_f64() * 1e6 / done as f64
}

fn peer(name: &str, crowd: usize, value: f64) {
    println!("in_process_{name}_{crowd} {value:.3} us/call peer");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for crowd in CROWDS {
        let (alone, many) = ours::measure(crowd).await;
        println!("in_process_call_{crowd} {alone:.3} us/call info");
        println!("in_process_call_64_{crowd} {many:.3} us/call info");
        let routing = proto::measure(crowd).await;
        peer("wampproto_dealer", crowd, routing);
        let (alone, many) = battler::measure(crowd).await;
        peer("battler_call", crowd, alone);
        peer("battler_call_64", crowd, many);
    }
}
