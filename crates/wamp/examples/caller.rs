//! Calls the procedures of the example `callee`.
//!
//!     cargo run -p wamp --example caller -- ws://127.0.0.1:8080 realm1

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt as _;
use wamp::Payload;
use wamp::client::{CallOptions, CallPart, ClientConfig, RequestError, Session};
use wamp::payload::{Args, One};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "ws://127.0.0.1:8080".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());
    let session = Session::connect(&ClientConfig::new(url, realm)).await?;
    let bound = || CallOptions::timeout(Duration::from_secs(5));

    let One(sum): One<i64> = session.ask("com.example.add", Args((40, 2)), bound()).await?;
    println!("caller: 40 + 2 = {sum}");

    match session
        .ask::<_, One<i64>>("com.example.add", Args((i64::MAX, 1)), bound())
        .await
    {
        Ok(One(sum)) => println!("caller: a surprising {sum}"),
        Err(RequestError::Peer(error)) => println!("caller: {error}"),
        Err(other) => return Err(other.into()),
    }

    let mut parts = session.call_stream("com.example.count", Payload::Empty, bound());
    while let Some(part) = parts.next().await {
        match part? {
            CallPart::Partial(part) => println!("caller: counted to {:?}", part.payload.first::<u64>()?),
            CallPart::Final(_) => println!("caller: done"),
        }
    }
    session.leave().await;
    Ok(())
}
