//! Calls what the `callee` example offers.
//!
//! `cargo run --example caller [url] [realm]`, by default `ws://127.0.0.1:8080/ws` and `realm1`. It ends by itself.

use std::time::Duration;

use futures_util::StreamExt as _;
use wamp::Payload;
use wamp::client::{CallOptions, ClientConfig, RequestError, Session};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://127.0.0.1:8080/ws".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());

    let session = Session::connect(&ClientConfig::new(url, realm)).await?;
    let bound = CallOptions::timeout(Duration::from_secs(5));

    let numbers = Payload::of(&(2, 40))?;
    let result = session.call("com.example.add", numbers, bound.clone()).await?;
    println!("2 + 40 = {}", result.payload.parse::<i64>()?);

    // An error of the callee has a URI and arguments of its own.
    let nonsense = Payload::of(&(2, "forty"))?;
    match session.call("com.example.add", nonsense, bound.clone()).await {
        Err(RequestError::Peer(error)) => println!("2 + forty: {error}"),
        other => println!("2 + forty: {other:?}"),
    }

    let mut results = session
        .call_stream("com.example.countdown", Payload::of(&(3,))?, bound)
        .await?;
    while let Some(result) = results.next().await {
        let result = result?;
        match result.is_partial() {
            true => println!("{} …", result.payload.parse::<u32>()?),
            false => println!("{}", result.payload.parse::<String>()?),
        }
    }

    session.leave().await;
    Ok(())
}
