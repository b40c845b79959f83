//! Offers two procedures, and comes back whenever the router does.
//!
//!     cargo run -p wamp --example callee -- ws://127.0.0.1:8080 realm1

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wamp::Payload;
use wamp::client::{ClientConfig, Component, RegisterOptions, Report, Taken, WampError, handler, procedure};
use wamp::payload::{Args, IntoPayload as _, One};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://127.0.0.1:8080".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());

    // Typed: arguments that are no two integers are refused before this is called.
    let add = procedure(|Args((a, b)): Args<(i64, i64)>, _| async move {
        println!("callee: {a} + {b}");
        a.checked_add(b)
            .map(One)
            .ok_or_else(|| WampError::new("com.example.overflow", "the sum is too large"))
    });
    // By hand: partial results while it works, and an end when the caller does not want it any more.
    let count = handler(|invocation| async move {
        for number in 1..=5_u64 {
            if let Ok(part) = One(number).into_payload() {
                invocation.progress(part).await;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = invocation.cancelled.cancelled() => break,
            }
        }
        Ok(Payload::Empty)
    });

    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopping.cancel();
        }
    });
    Component::new(ClientConfig::new(url, realm))
        .register("com.example.add", RegisterOptions::default(), Taken::Retry, add)
        .register(
            "com.example.count",
            RegisterOptions::default(),
            Taken::Retry,
            count,
        )
        .run(stop, |report| match report {
            Report::Connected { session, .. } => println!("callee: ready as session {}", session.id()),
            Report::Unreachable { error, retry_in } => println!("callee: {error}; again in {retry_in:?}"),
            Report::Lost { reason, retry_in } => println!("callee: lost ({reason:?}); again in {retry_in:?}"),
            Report::Registered { procedure } => println!("callee: {procedure} is ours"),
            Report::Unregistered { procedure, .. } => println!("callee: {procedure} is somebody else's"),
            Report::Unsubscribed { topic } => println!("callee: no more events of {topic}"),
            Report::Stopped => println!("callee: goodbye"),
        })
        .await;
}
