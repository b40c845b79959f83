//! The suite against a real Crossbar.io node.

use std::time::Duration;

use testkit::crossbar::{Crossbar, User};
use wamp::client::{CallOptions, Session};
use wamp::{Codec, Payload};

use crate::suite::{self, BACKEND, DEVICE, SALTED};

fn node() -> Crossbar {
    let [device, salted, backend] = suite::users();
    let user = |of: suite::Principal| {
        let user = User::new(of.authid, of.secret, of.role);
        match of.salting {
            None => user,
            Some(salting) => user.salted(salting),
        }
    };
    assert_eq!(
        [device.authid, salted.authid, backend.authid],
        [DEVICE, SALTED, BACKEND]
    );
    Crossbar::start(&[user(device), user(salted), user(backend)]).unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn c_01_crossbar_serves_the_client_over_json() {
    let node = node();
    suite::admission(&node.url()).await;
    suite::all(&node.url(), Codec::Json).await;
}

#[tokio::test]
async fn c_01_crossbar_serves_the_client_over_messagepack() {
    let node = node();
    suite::all(&node.url(), Codec::MessagePack).await;
}

#[tokio::test]
async fn c_01_crossbar_serves_the_client_over_cbor() {
    let node = node();
    suite::all(&node.url(), Codec::Cbor).await;
}

#[tokio::test]
async fn c_01_crossbar_serves_the_client_over_rawsocket() {
    let node = node();
    suite::admission(&node.raw_url()).await;
    for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
        suite::all(&node.raw_url(), codec).await;
    }
}

/// A PING would end the connection (`wamp-interop.md` 3.8).
#[tokio::test]
async fn crossbar_is_not_pinged_on_a_rawsocket() {
    let node = node();
    let mut config = suite::config(&node.raw_url(), Codec::Cbor, BACKEND);
    config.ping_interval = Duration::from_millis(20);
    let session = Session::connect(&config).await.unwrap();
    let mut pause = tokio::time::interval(5 * config.ping_interval);
    for _ in 0..5 {
        pause.tick().await;
        let count = session.call("wamp.session.count", Payload::Empty, CallOptions::default());
        count.await.unwrap();
    }
    session.leave().await;
}
