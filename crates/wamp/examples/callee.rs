//! Offers two procedures, and comes back when the router goes away for a while.
//!
//! `cargo run --example callee [url] [realm]`, by default `ws://127.0.0.1:8080/ws` and `realm1`. Ctrl-C ends it.

use wamp::Payload;
use wamp::client::reconnect::{Plan, WhenTaken};
use wamp::client::{ClientConfig, Invocation, RegisterOptions, procedure};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://127.0.0.1:8080/ws".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());

    // Two positional arguments. Whoever sends anything else gets `wamp.error.invalid_argument`.
    let add = procedure(|(a, b): (i64, i64), _| async move {
        println!("add {a} and {b}");
        Ok(a + b)
    });
    // Answers in parts, if the caller wants them.
    let countdown = procedure(|(from,): (u32,), invocation: Invocation| async move {
        println!("count down from {from}");
        for number in (1..=from).rev() {
            if let Ok(number) = Payload::of(&number) {
                invocation.progress(number).await;
            }
        }
        Ok("lift-off")
    });

    let options = RegisterOptions::default;
    let session = Plan::new(ClientConfig::new(url, realm))
        .register("com.example.add", options(), WhenTaken::Retry, add)
        .register("com.example.countdown", options(), WhenTaken::Retry, countdown)
        .connected(|session| async move { println!("serving in session {}", session.id()) })
        .start();
    tokio::signal::ctrl_c().await?;
    session.stop().await;
    println!("left");
    Ok(())
}
