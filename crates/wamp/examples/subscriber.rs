//! Listens to what the `publisher` example and others publish below `com.example.`, also when the router goes away for a
//! while.
//!
//! `cargo run --example subscriber [url] [realm]`, by default `ws://127.0.0.1:8080/ws` and `realm1`. Ctrl-C ends it.

use serde::Deserialize;
use wamp::Value;
use wamp::client::reconnect::{Feed, Plan};
use wamp::client::{ClientConfig, MatchPolicy, SubscribeOptions};

/// The keyword arguments of a tick.
#[derive(Deserialize)]
struct Tick {
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://127.0.0.1:8080/ws".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());

    let mut plan = Plan::new(ClientConfig::new(url, realm))
        .connected(|session| async move { println!("listening in session {}", session.id()) });
    let options = SubscribeOptions {
        match_policy: MatchPolicy::Prefix,
        get_retained: true,
        ..SubscribeOptions::default()
    };
    let mut events = plan.subscribe("com.example.", options);
    let session = plan.start();
    loop {
        tokio::select! {
            Some(feed) = events.recv() => match feed {
                Feed::Gap => println!("the session was lost and is back: something may be missing here"),
                Feed::Event(event) => {
                    // Which topic it was is said only to those who subscribed to a pattern.
                    let topic = event.details.get("topic").and_then(Value::as_str).unwrap_or_default();
                    match event.payload.parse::<Tick>() {
                        Ok(tick) => println!("{topic}: second {}", tick.seconds),
                        Err(error) => println!("{topic}: {error}"),
                    }
                }
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
        }
    }
    session.stop().await;
    println!("left");
    Ok(())
}
