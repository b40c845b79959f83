//! The suite against our own router.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::Codec;
use wamp::router::{JoinRequest, Limits, Lookup, Permission, Principal, Router, RouterConfig};
use wamp::value::Dict;

use crate::suite;

async fn start() -> String {
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
    let router = Router::new(RouterConfig {
        realm: suite::REALM.to_owned(),
        roles: HashMap::from(roles),
        authenticator: Arc::new(authenticator),
        limits: Limits::default(),
    });
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
async fn our_router_serves_the_client_over_json() {
    suite::all(&start().await, Codec::Json).await;
}

#[tokio::test]
async fn our_router_serves_the_client_over_messagepack() {
    suite::all(&start().await, Codec::MessagePack).await;
}

#[tokio::test]
async fn our_router_serves_the_client_over_cbor() {
    suite::all(&start().await, Codec::Cbor).await;
}
