//! The suite against our own router.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use testkit::wait;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::client::{CallOptions, RegisterOptions, RequestError, Session, handler};
use wamp::router::{
    AttachError, Attachment, JoinRequest, Limits, Lookup, Permission, Principal, Router, RouterConfig,
};
use wamp::value::Dict;
use wamp::{Codec, Payload, Value, uri};

use crate::suite::{self, Way};

pub(crate) fn router() -> Router {
    router_with(Limits::default())
}

fn router_with(limits: Limits) -> Router {
    let everything = Permission {
        uri: String::new(),
        prefix: true,
        call: true,
        register: true,
        publish: true,
        subscribe: true,
        force_register: true,
        disclose: true,
    };
    let roles = ["device", "backend"].map(|role| (role.to_owned(), vec![everything.clone()]));
    let authenticator = |join: JoinRequest| -> Lookup {
        let known = suite::users()
            .into_iter()
            .find(|user| Some(user.authid) == join.authid.as_deref());
        Box::pin(async move {
            let user = known.ok_or(None)?;
            Ok(Principal::Cra {
                secret: user.secret.to_owned(),
                role: user.role.to_owned(),
                salting: user.salting,
                extra: Dict::new(),
            })
        })
    };
    Router::new(RouterConfig {
        realm: suite::REALM.to_owned(),
        roles: HashMap::from(roles),
        authenticator: Arc::new(authenticator),
        limits,
    })
}

pub(crate) async fn start() -> String {
    serve(router()).await
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    // Ends with the test's runtime.
    tokio::spawn(async move { router.serve(listener, CancellationToken::new()).await });
    url
}

#[tokio::test]
async fn our_router_lets_in_who_has_the_secret_and_nobody_else() {
    suite::admission(&start().await).await;
}

#[tokio::test]
async fn c_01_our_router_serves_the_client_over_json() {
    suite::all(&start().await, Codec::Json).await;
}

#[tokio::test]
async fn c_01_our_router_serves_the_client_over_messagepack() {
    suite::all(&start().await, Codec::MessagePack).await;
}

#[tokio::test]
async fn c_01_our_router_serves_the_client_over_cbor() {
    suite::all(&start().await, Codec::Cbor).await;
}

#[tokio::test]
async fn c_01_our_router_serves_the_client_over_rawsocket() {
    for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
        let url = start().await.replace("ws://", "rs://");
        suite::admission(&url).await;
        suite::all(&url, codec).await;
    }
}

#[tokio::test]
async fn c_23_what_is_above_the_routers_limit_is_refused_locally() {
    // RawSocket tells the limit of the router in the handshake.
    let limits = Limits {
        max_message_size: 64 << 10,
        ..Limits::default()
    };
    let url = serve(router_with(limits)).await.replace("ws://", "rs://");
    let session = Session::connect(&suite::config(&url, Codec::Cbor, suite::DEVICE))
        .await
        .unwrap();
    let echo = handler(|invocation| async move {
        let doubled = invocation.payload.first::<String>().unwrap().unwrap().repeat(2);
        Ok(Payload::from_args(vec![doubled.into()]))
    });
    session
        .register("re.mgmt.double", RegisterOptions::default(), echo)
        .await
        .unwrap();
    let call = |length| {
        let payload = Payload::from_args(vec!["x".repeat(length).into()]);
        session.call("re.mgmt.double", payload, CallOptions::default())
    };
    let refused = call(64 << 10).await;
    assert!(matches!(refused, Err(RequestError::TooLarge(_))), "{refused:?}");
    // A result that is too large becomes an error at the callee.
    let refused = call(40 << 10).await;
    assert!(
        matches!(&refused, Err(RequestError::Peer(error)) if error.uri == uri::error::PAYLOAD_SIZE_EXCEEDED),
        "{refused:?}"
    );
    assert!(call(10 << 10).await.is_ok(), "the session goes on");
}

#[tokio::test]
async fn our_router_serves_sessions_of_its_own_process() {
    suite::all_by(&Way::Inside(&router())).await;
}

#[tokio::test]
async fn attaching_to_what_is_not_there_is_refused() {
    let attachment = |realm: &str, role: &str| Attachment {
        realm: realm.to_owned(),
        authid: "somebody".to_owned(),
        role: role.to_owned(),
    };
    let refused = router().attach(attachment("elsewhere", "device")).unwrap_err();
    assert_eq!(refused, AttachError::NoSuchRealm("elsewhere".to_owned()));
    let refused = router().attach(attachment(suite::REALM, "nobody")).unwrap_err();
    assert!(matches!(refused, AttachError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn an_attached_session_ends_with_its_last_handle_and_talks_to_the_others() {
    let router = router();
    let inside = router
        .attach(Attachment {
            realm: suite::REALM.to_owned(),
            authid: "inside".to_owned(),
            role: "backend".to_owned(),
        })
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let serving = router.clone();
    tokio::spawn(async move { serving.serve(listener, CancellationToken::new()).await });

    // Values that no codec has seen reach a peer in each encoding, and come back.
    let echo = handler(|invocation| async move { Ok(invocation.payload.clone()) });
    inside
        .register("re.mgmt.inside.echo", RegisterOptions::default(), echo)
        .await
        .unwrap();
    for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
        let outside = Session::connect(&suite::config(&url, codec, suite::BACKEND))
            .await
            .unwrap();
        let args = vec![Value::Bytes(vec![0, 255]), Value::Float(0.1), Value::Null];
        let payload = Payload::from_args(args.clone());
        let result = outside
            .call("re.mgmt.inside.echo", payload, CallOptions::default())
            .await
            .unwrap();
        assert_eq!(result.payload.args().unwrap(), args, "{codec:?}");
        outside.leave().await;
    }
    assert_eq!(router.counters().sessions, 1);
    drop(inside);
    wait::until_async("the session is gone", Duration::from_secs(10), || async {
        (router.counters().sessions == 0).then_some(())
    })
    .await;
}
