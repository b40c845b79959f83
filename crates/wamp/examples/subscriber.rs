//! Shows the readings of the example `publisher`, until Ctrl-C or as many as is said.
//!
//!     cargo run -p wamp --example subscriber -- ws://127.0.0.1:8080 realm1 10

use std::error::Error;

use serde::Deserialize;
use wamp::client::{ClientConfig, Match, Session, SubscribeOptions};
use wamp::payload::Kwargs;

#[derive(Deserialize)]
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

    let options = SubscribeOptions {
        match_policy: Match::Prefix,
        get_retained: true,
        ..SubscribeOptions::default()
    };
    let mut readings = session.subscribe("com.example.", options).await?;
    println!("subscriber: ready");
    for _ in 0..times {
        let event = tokio::select! {
            event = readings.events.recv() => event,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(event) = event else {
            println!("subscriber: {:?}", session.closed().await);
            return Ok(());
        };
        if event.missed > 0 {
            println!("subscriber: too slow for {} readings", event.missed);
        }
        match event.payload.parse::<Kwargs<Reading>>() {
            Ok(Kwargs(reading)) => println!(
                "subscriber: reading {} {:.1} degrees",
                reading.number, reading.celsius
            ),
            Err(error) => println!("subscriber: {error}"),
        }
    }
    session.leave().await;
    Ok(())
}
