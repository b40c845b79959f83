//! A router that lets everybody in and everybody do everything.
//!
//! `cargo run --example router [address] [realm]`, by default `127.0.0.1:8080` and `realm1`. Ctrl-C ends it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::router::{Authenticator, Limits, Permission, Principal, Router, RouterConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());

    // Asked about everybody who says HELLO. A router for others than oneself would look them up.
    let authenticator: Authenticator = Arc::new(|request| {
        Box::pin(async move {
            Ok(Principal::Anonymous {
                authid: request.authid.unwrap_or_else(|| "anonymous".to_owned()),
                role: "anybody".to_owned(),
            })
        })
    });
    // The empty prefix matches every URI.
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
    let router = Router::new(RouterConfig {
        realm: realm.clone(),
        roles: HashMap::from([("anybody".to_owned(), vec![everything])]),
        authenticator,
        limits: Limits::default(),
    });

    let listener = TcpListener::bind(&address).await?;
    println!("listening on ws://{}/ws, realm {realm}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let interrupted = async {
        // Without signals there is no way to be told.
        if tokio::signal::ctrl_c().await.is_ok() {
            println!("stopping: every session gets a GOODBYE");
            stop.cancel();
        }
    };
    let (served, ()) = tokio::join!(router.serve(listener, stop.clone()), interrupted);
    Ok(served?)
}
