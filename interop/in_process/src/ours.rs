//! Two sessions attached to a router of ours.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use wamp::Payload;
use wamp::client::{CallOptions, RegisterOptions, Session, handler};
use wamp::router::{Attachment, Limits, Permission, Router, RouterConfig};

/// Microseconds per call: one at a time, and with 64 in flight.
pub async fn measure(crowd: usize) -> (f64, f64) {
    let everything = Permission {
        uri: String::new(),
        prefix: true,
        call: true,
        register: true,
        publish: true,
        subscribe: true,
        force_register: true,
        disclose: false,
    };
    let router = Router::new(RouterConfig {
        realm: "realm1".to_owned(),
        roles: HashMap::from([("all".to_owned(), vec![everything])]),
        authenticator: Arc::new(|_| Box::pin(async { Err(None) })),
        limits: Limits::default(),
    });
    let attach = |name: &str| -> Session {
        let attachment = Attachment {
            realm: "realm1".to_owned(),
            authid: name.to_owned(),
            role: "all".to_owned(),
        };
        router
            .attach(attachment)
            .expect("the realm and the role are there")
    };
    let (callee, caller) = (attach("callee"), attach("caller"));
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    for number in 0..crowd {
        let procedure = format!("bench.other.{number}");
        let registered = callee.register(&procedure, RegisterOptions::default(), echo.clone());
        registered.await.expect("registered");
    }
    let registered = callee.register("bench.echo", RegisterOptions::default(), echo);
    registered.await.expect("registered");
    let payload = Payload::from_args(vec!["sixteen bytes...".into()]);
    let call = || caller.call("bench.echo", payload.clone(), CallOptions::default());
    let alone = super::cost(1, async || drop(call().await.expect("answered"))).await;
    let many = super::cost(64, async || {
        for result in join_all((0..64).map(|_| call())).await {
            result.expect("answered");
        }
    })
    .await;
    (alone, many)
}
