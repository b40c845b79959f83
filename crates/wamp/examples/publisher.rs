//! Publishes a reading ten times a second, until Ctrl-C or as often as is said.
//!
//!     cargo run -p wamp --example publisher -- ws://127.0.0.1:8080 realm1 20

use std::error::Error;
use std::time::Duration;

use serde::Serialize;
use wamp::client::{ClientConfig, PublishOptions, Session};
use wamp::payload::{IntoPayload as _, Kwargs};

#[derive(Serialize)]
struct Reading {
    number: u64,
    celsius: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://127.0.0.1:8080".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());
    let times = arguments.next().map_or(Ok(u64::MAX), |times| times.parse())?;
    let session = Session::connect(&ClientConfig::new(url, realm)).await?;

    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for number in 1..=times {
        tokio::select! {
            _ = tick.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        let reading = Reading {
            number,
            celsius: 60.0 + (number as f64).sin(),
        };
        // Kept by the router, so that a subscriber that comes later has one at once.
        let options = PublishOptions {
            retain: true,
            ..PublishOptions::default()
        };
        let payload = Kwargs(reading).into_payload()?;
        session
            .publish_acknowledged("com.example.reading", options, payload)
            .await?;
        println!("publisher: reading {number}");
    }
    session.leave().await;
    Ok(())
}
