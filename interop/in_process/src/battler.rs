//! battler-wamp: a router and two peers that are connected to it without a socket.

use battler_wamp::peer::{
    PeerConfig, ProcedureMessage, RpcCall, RpcYield, WebSocketPeer, new_web_socket_peer,
};
use battler_wamp::router::{
    EmptyConnectionPolicies, EmptyPubSubPolicies, EmptyRpcPolicies, RealmAuthenticationConfig, RealmConfig,
    RouterConfig, RouterHandle, new_web_socket_router,
};
use battler_wamp_uri::Uri;
use battler_wamp_values::{List, Value};
use futures_util::future::join_all;

const REALM: &str = "bench.realm";

/// Microseconds per call: one at a time, and with 64 in flight.
pub async fn measure(crowd: usize) -> (f64, f64) {
    let uri = |text: &str| Uri::try_from(text).expect("a legal URI");
    let mut config = RouterConfig::default();
    config.realms.push(RealmConfig {
        name: "bench".to_owned(),
        uri: uri(REALM),
        authentication: RealmAuthenticationConfig::default(),
    });
    let router = new_web_socket_router(
        config,
        Box::new(EmptyConnectionPolicies::default()),
        Box::new(EmptyPubSubPolicies::default()),
        Box::new(EmptyRpcPolicies::default()),
    );
    let (handle, ended) = router.expect("a router").start().await.expect("it starts");
    let (callee, caller) = (join(&handle).await, join(&handle).await);
    let mut idle = Vec::new();
    for number in 0..crowd {
        let procedure = uri(&format!("bench.other.{number}"));
        idle.push(callee.register(procedure).await.expect("registered"));
    }
    let mut procedure = callee.register(uri("bench.echo")).await.expect("registered");
    let serving = tokio::spawn(async move {
        while let Ok(message) = procedure.procedure_message_rx.recv().await {
            if let ProcedureMessage::Invocation(invocation) = message {
                let answer = RpcYield {
                    arguments: invocation.arguments.clone(),
                    ..RpcYield::default()
                };
                if invocation
                    .respond::<battler_wamp::core::error::WampError>(Ok(answer))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    });
    let call = || {
        let arguments = RpcCall {
            arguments: List::from_iter([Value::String("sixteen bytes...".to_owned())]),
            ..RpcCall::default()
        };
        caller.call_and_wait(uri("bench.echo"), arguments)
    };
    let alone = super::cost(1, async || drop(call().await.expect("answered"))).await;
    let many = super::cost(64, async || {
        for result in join_all((0..64).map(|_| call())).await {
            result.expect("answered");
        }
    })
    .await;
    serving.abort();
    let _ = handle.cancel();
    let _ = ended.await;
    (alone, many)
}

async fn join(router: &RouterHandle) -> WebSocketPeer {
    let peer = new_web_socket_peer(PeerConfig::default()).expect("a peer");
    let connection = router.direct_connect();
    peer.direct_connect(connection.stream()).await.expect("connected");
    peer.join_realm(REALM).await.expect("joined");
    peer
}
