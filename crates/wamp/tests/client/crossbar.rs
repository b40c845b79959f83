//! The suite against a real Crossbar.io node.

use testkit::crossbar::{Crossbar, User};
use wamp::Codec;

use crate::suite::{self, BACKEND, DEVICE, SALTED};

pub(crate) fn node() -> Crossbar {
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
