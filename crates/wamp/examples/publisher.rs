//! Publishes the time since its start once a second.
//!
//! `cargo run --example publisher [url] [realm]`, by default `ws://127.0.0.1:8080/ws` and `realm1`. Ctrl-C ends it.

use std::time::Duration;

use serde::Serialize;
use wamp::Payload;
use wamp::client::{ClientConfig, PublishOptions, Session};

/// The keyword arguments of the event.
#[derive(Serialize)]
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

    let session = Session::connect(&ClientConfig::new(url, realm)).await?;
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    let mut seconds = 0;
    loop {
        tokio::select! {
            _ = clock.tick() => {
                // Who subscribes later gets the last one at once, if it asks for what is retained.
                let options = PublishOptions { retain: true, ..PublishOptions::default() };
                let event = Payload::of(&Tick { seconds })?;
                let publication = session.publish_acknowledged("com.example.clock", options, event).await?;
                println!("second {seconds} is publication {publication}");
                seconds += 1;
            }
            reason = session.closed() => {
                println!("the session has ended: {reason:?}");
                break;
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                session.leave().await;
                println!("left");
                break;
            }
        }
    }
    Ok(())
}
