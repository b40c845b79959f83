//! Joining, and what a session costs that only exists.

use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};
use wamp::Codec;

use crate::load::{Load, Meter};
use crate::peer::Peer;
use crate::target::Target;

/// Joins that are under way at a time.
const AT_ONCE: usize = 16;

/// Joins and hangs up, again and again.
pub(crate) async fn joins(target: &Target, codec: Codec, duration: Duration) -> Load {
    let measured = async {
        let meter = Meter::start(target);
        let until = Instant::now() + duration;
        let mut joining = JoinSet::new();
        for _ in 0..AT_ONCE {
            let address = target.address;
            joining.spawn_local(async move {
                let mut joins = 0;
                while Instant::now() < until {
                    let stream = Peer::join(address, codec).await.into_stream();
                    // Ports must not run out: the connection is reset, so that none of them has to linger.
                    let _ = stream.set_zero_linger();
                    joins += 1;
                }
                joins
            });
        }
        let joins = joining.join_all().await.into_iter().sum();
        meter.stop(joins, 0, 0)
    };
    LocalSet::new().run_until(measured).await
}

/// Bytes of resident memory of the router for each of so many idle sessions.
pub(crate) async fn idle(target: &Target, codec: Codec, sessions: usize) -> f64 {
    let before = target.resident();
    let mut held = Vec::with_capacity(sessions);
    while held.len() < sessions {
        let batch = AT_ONCE.min(sessions - held.len());
        let address = target.address;
        let joined = async {
            let mut joining = JoinSet::new();
            for _ in 0..batch {
                joining.spawn_local(async move { Peer::join(address, codec).await.into_stream() });
            }
            joining.join_all().await
        };
        held.extend(LocalSet::new().run_until(joined).await);
    }
    (target.resident() - before) as f64 / sessions as f64
}
