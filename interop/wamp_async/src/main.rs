//! wamp_async against a router: `interop-wamp-async ws://HOST:PORT tcp://HOST:PORT` (`tcp` is its name for RawSocket).
//! Each URL in JSON and in MessagePack, as callee and as caller, in every combination; one line per check, and the first
//! that fails ends it with exit code 1. The router has to know the principals of `interop/router.rs`, whose secret is in
//! `INTEROP_SECRET`.

mod complaints;
mod proof;
mod session;
mod story;

use std::error::Error;
use std::time::Duration;

use wamp_async::SerializerType;

use session::End;

const REALM: &str = "realm1";

/// Bound for each story.
const SOON: Duration = Duration::from_secs(20);

/// The errors of wamp_async do not go with `?` into much else.
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        return Err("usage: INTEROP_SECRET=… interop-wamp-async URL…".into());
    }
    let secret = std::env::var("INTEROP_SECRET")?;
    complaints::listen()?;
    let ends: Vec<End> = urls
        .iter()
        .flat_map(|url| {
            [SerializerType::Json, SerializerType::MsgPack].map(|serializer| End {
                url: url.clone(),
                serializer,
            })
        })
        .collect();
    for end in &ends {
        tokio::time::timeout(SOON, proof::judge(end, &secret)).await??;
    }
    for callee in &ends {
        for caller in &ends {
            tokio::time::timeout(SOON, story::judge(callee, caller)).await??;
        }
    }
    Ok(())
}

/// Says how a check went.
fn check(who: &str, what: &str, holds: bool) -> Outcome {
    let verdict = if holds { "ok" } else { "FAILED" };
    println!("wamp_async {who}: {what}: {verdict}");
    if holds {
        Ok(())
    } else {
        Err(format!("{who}: {what}").into())
    }
}
