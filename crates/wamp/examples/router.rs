//! A router for trying things out: everybody may do everything in one realm.
//!
//!     cargo run -p wamp --example router -- 127.0.0.1:8080 realm1
//!
//! It takes WebSocket (ws://127.0.0.1:8080) and RawSocket (rs://127.0.0.1:8080) on the same port.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::router::{Limits, Permission, Principal, Router, RouterConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let realm = arguments.next().unwrap_or_else(|| "realm1".to_owned());

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
        roles: HashMap::from([("everybody".to_owned(), vec![everything])]),
        // Asked about everybody who says HELLO; it may look into a database, or answer `Principal::Cra` with a secret.
        authenticator: Arc::new(|request| {
            Box::pin(async move {
                Ok(Principal::Anonymous {
                    authid: request.authid.unwrap_or_else(|| "guest".to_owned()),
                    role: "everybody".to_owned(),
                })
            })
        }),
        limits: Limits::default(),
    });

    let listener = TcpListener::bind(&address).await?;
    println!(
        "router: ws://{} realm {realm}, Ctrl-C ends it",
        listener.local_addr()?
    );
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopping.cancel();
        }
    });
    router.serve(listener, stop).await?;
    println!("router: every session has been told, goodbye");
    Ok(())
}
