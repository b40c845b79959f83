//! wamp_async against a router: `interop-wamp-async ws://HOST:PORT tcp://HOST:PORT`, each URL in JSON and in MessagePack
//! (`tcp` is its name for RawSocket). One line per check; the first that fails ends it.

use std::error::Error;
use std::time::Duration;

use wamp_async::{Client, ClientConfig, SerializerType, WampArgs, WampError, WampKwArgs};

const REALM: &str = "realm1";

/// Bound for everything that is waited for.
const SOON: Duration = Duration::from_secs(20);

type Answer = Result<(Option<WampArgs>, Option<WampKwArgs>), WampError>;

async fn echo(args: Option<WampArgs>, kwargs: Option<WampKwArgs>) -> Answer {
    Ok((args, kwargs))
}

async fn fail(_: Option<WampArgs>, _: Option<WampKwArgs>) -> Answer {
    Err(WampError::UnknownError("on purpose".to_owned()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        return Err("usage: interop-wamp-async URL…".into());
    }
    for url in &urls {
        for serializer in [SerializerType::Json, SerializerType::MsgPack] {
            tokio::time::timeout(SOON, judge(url, serializer)).await??;
        }
    }
    Ok(())
}

async fn join(url: &str, serializer: SerializerType) -> Result<Client<'static>, Box<dyn Error>> {
    let config = ClientConfig::default().set_serializers(vec![serializer]);
    let (mut client, (events, calls)) = Client::connect(url, Some(config)).await?;
    tokio::spawn(events);
    if let Some(mut calls) = calls {
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                tokio::spawn(call);
            }
        });
    }
    client.join_realm(REALM).await?;
    Ok(client)
}

async fn judge(url: &str, serializer: SerializerType) -> Result<(), Box<dyn Error>> {
    let check = |what: &str, holds: bool| -> Result<(), Box<dyn Error>> {
        let verdict = if holds { "ok" } else { "FAILED" };
        println!("wamp_async {url} {serializer:?}: {what}: {verdict}");
        if holds { Ok(()) } else { Err(what.into()) }
    };
    let mut callee = join(url, serializer).await?;
    let mut caller = join(url, serializer).await?;
    check("two sessions join", true)?;

    let echoing = callee.register("interop.echo", echo).await?;
    let failing = callee.register("interop.fail", fail).await?;
    let args: WampArgs = vec![
        "text".into(),
        42.into(),
        (-7).into(),
        0.5.into(),
        true.into(),
        vec![1, 2].into(),
    ];
    let mut kwargs = WampKwArgs::new();
    kwargs.insert("name".to_owned(), "value".into());
    let result = caller
        .call("interop.echo", Some(args.clone()), Some(kwargs.clone()))
        .await?;
    check(
        "a call brings back what it took",
        result == (Some(args.clone()), Some(kwargs)),
    )?;
    check(
        "the error of a callee arrives",
        caller.call("interop.fail", None, None).await.is_err(),
    )?;
    check(
        "an unknown procedure is an error",
        caller.call("interop.none", None, None).await.is_err(),
    )?;
    callee.unregister(echoing).await?;
    callee.unregister(failing).await?;
    check(
        "an unregistered procedure is gone",
        caller.call("interop.echo", None, None).await.is_err(),
    )?;

    let (subscription, mut events) = callee.subscribe("interop.topic").await?;
    let silent = caller
        .publish("interop.topic", Some(args.clone()), None, false)
        .await?;
    check("nothing acknowledges a plain publication", silent.is_none())?;
    let acknowledged = caller
        .publish("interop.topic", Some(args.clone()), None, true)
        .await?;
    check("a publication is acknowledged on request", acknowledged.is_some())?;
    let first = events.recv().await.ok_or("no event")?;
    let second = events.recv().await.ok_or("no second event")?;
    check(
        "events arrive in order with their arguments",
        first.1 == Some(args.clone()) && second.1 == Some(args),
    )?;
    check(
        "an event bears the id of its publication",
        Some(second.0) == acknowledged,
    )?;
    callee.unsubscribe(subscription).await?;

    callee.leave_realm().await?;
    caller.leave_realm().await?;
    // Not `disconnect`: it panics when the router has closed the connection already, as ours does after GOODBYE.
    check("both leave", true)
}
