//! What an application does with a router, between a callee and a caller, which need not agree on transport and codec.

use serde_json::json;
use wamp_async::{WampArgs, WampError, WampKwArgs};

use crate::session::{End, Identity, Session};
use crate::{Outcome, check, complaints};

/// Publications without acknowledgement in a row.
const BURST: u64 = 100;

type Answer = Result<(Option<WampArgs>, Option<WampKwArgs>), WampError>;

async fn echo(args: Option<WampArgs>, kwargs: Option<WampKwArgs>) -> Answer {
    Ok((args, kwargs))
}

async fn fail(_: Option<WampArgs>, _: Option<WampKwArgs>) -> Answer {
    Err(WampError::UnknownError("on purpose".to_owned()))
}

/// The URI of the router's ERROR.
fn refusal<T>(outcome: Result<T, WampError>) -> String {
    match outcome {
        Err(WampError::ServerError(uri, _)) => uri,
        Err(other) => other.to_string(),
        Ok(_) => "no error".to_owned(),
    }
}

/// One value of each kind that both codecs have.
fn arguments() -> WampArgs {
    vec![
        json!("text, 文字 and \u{1f980}"),
        json!(42),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.1),
        json!(-1e300),
        json!(true),
        json!(null),
        json!([1, [], {"deep": [{}]}]),
    ]
}

pub(crate) async fn judge(callee: &End, caller: &End) -> Outcome {
    let who = format!("{callee} and {caller}");
    let callee = Session::join(callee, Identity::Nobody).await?;
    let caller = Session::join(caller, Identity::Nobody).await?;
    check(&who, "two sessions join", true)?;
    calls(&who, &callee, &caller).await?;
    events(&who, &callee, &caller).await?;
    let unexpected = complaints::take();
    for complaint in &unexpected {
        println!("wamp_async {who}: {complaint}");
    }
    check(&who, "nothing came unasked", unexpected.is_empty())?;
    callee.leave().await?;
    caller.leave().await?;
    // The end of the connection is what wamp_async complains of, even after GOODBYE.
    complaints::take();
    check(&who, "both leave and are let go", true)
}

async fn calls(who: &str, callee: &Session, caller: &Session) -> Outcome {
    let (callee, caller) = (&callee.client, &caller.client);
    let echoing = callee.register("interop.echo", echo).await?;
    let failing = callee.register("interop.fail", fail).await?;
    check(who, "two procedures are registered", echoing != failing)?;
    let again = refusal(caller.register("interop.echo", echo).await);
    let taken = again == "wamp.error.procedure_already_exists";
    check(who, "a procedure is registered once", taken)?;

    let mut kwargs = WampKwArgs::new();
    kwargs.insert("name".to_owned(), json!({"value": [1.5, null]}));
    let plain = caller.call("interop.echo", None, None).await?;
    check(
        who,
        "a call without arguments brings none back",
        plain == (None, None),
    )?;
    let result = caller.call("interop.echo", Some(arguments()), None).await?;
    check(
        who,
        "a call brings its list back",
        result == (Some(arguments()), None),
    )?;
    let result = caller
        .call("interop.echo", Some(arguments()), Some(kwargs.clone()))
        .await?;
    let same = result == (Some(arguments()), Some(kwargs));
    check(who, "a call brings its list and its dictionary back", same)?;
    let large: WampArgs = vec![json!("x".repeat(100_000))];
    let result = caller.call("interop.echo", Some(large.clone()), None).await?;
    check(who, "100 kB come back", result == (Some(large), None))?;

    let failed = refusal(caller.call("interop.fail", None, None).await);
    let theirs = failed == "wamp.async.rs.rpc.failed";
    check(who, "the error of a callee arrives under its name", theirs)?;
    let unknown = refusal(caller.call("interop.none", None, None).await);
    let nobody = unknown == "wamp.error.no_such_procedure";
    check(who, "an unknown procedure is an error", nobody)?;
    let malformed = refusal(caller.call("interop..none", None, None).await);
    let invalid = malformed == "wamp.error.invalid_uri";
    check(who, "an invalid URI is an error, and no more", invalid)?;

    callee.unregister(echoing).await?;
    callee.unregister(failing).await?;
    let gone = refusal(caller.call("interop.echo", None, None).await);
    let nobody = gone == "wamp.error.no_such_procedure";
    check(who, "an unregistered procedure is gone", nobody)
}

async fn events(who: &str, subscriber: &Session, publisher: &Session) -> Outcome {
    let (subscriber, publisher) = (&subscriber.client, &publisher.client);
    let (subscription, mut events) = subscriber.subscribe("interop.topic").await?;
    let malformed = refusal(subscriber.subscribe("interop..topic").await.map(|_| ()));
    let invalid = malformed == "wamp.error.invalid_uri";
    check(who, "no subscription to an invalid URI", invalid)?;

    let own = subscriber.publish("interop.topic", None, None, true).await?;
    check(who, "a publication is acknowledged on request", own.is_some())?;
    // All of it from one side and without a word from the other: over RawSocket wamp_async loses its place in the
    // stream when it has something to send while it is reading.
    for number in 0..BURST {
        let silent = publisher
            .publish("interop.topic", Some(vec![json!(number)]), None, false)
            .await?;
        if silent.is_some() {
            return check(who, "nothing acknowledges a plain publication", false);
        }
    }
    let mut kwargs = WampKwArgs::new();
    kwargs.insert("last".to_owned(), json!(true));
    let last = publisher
        .publish("interop.topic", Some(arguments()), Some(kwargs.clone()), true)
        .await?;
    // The subscriber's own publication is not among them: the first event is the publisher's first.
    let mut in_order = true;
    for number in 0..BURST {
        let (_, args, kwargs) = events.recv().await.ok_or("the events end too soon")?;
        in_order &= args == Some(vec![json!(number)]) && kwargs.is_none();
    }
    check(who, "events arrive in order, one's own left out", in_order)?;
    let (publication, args, given) = events.recv().await.ok_or("the last event is missing")?;
    let same = args == Some(arguments()) && given == Some(kwargs);
    check(who, "an event has all the arguments", same)?;
    let known = Some(publication) == last;
    check(who, "an event bears the id of its publication", known)?;

    subscriber.unsubscribe(subscription).await?;
    // An event after UNSUBSCRIBED would be on its way before the answer to this one.
    publisher.publish("interop.topic", None, None, true).await?;
    subscriber.publish("interop.topic", None, None, true).await?;
    check(
        who,
        "no event after the end of a subscription",
        events.recv().await.is_none(),
    )
}
