//! The router that peers of other makes are tried against, by `scripts/interop`: an example of `crates/wamp` in all but
//! its place. Whoever names nobody is anonymous; `plain` and `salted` have to answer a challenge, `ticket` has to show
//! one, all with the secret that the environment holds.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wamp::Dict;
use wamp::auth::Salting;
use wamp::router::{Limits, Permission, Principal, Router, RouterConfig};

const ROLE: &str = "peer";

/// What the router knows of `authid`.
fn principal(authid: Option<&str>, secret: &str) -> Option<Principal> {
    let challenged = |salting| Principal::Cra {
        secret: secret.to_owned(),
        role: ROLE.to_owned(),
        salting,
        extra: Dict::new(),
    };
    match authid {
        None => Some(Principal::Anonymous {
            authid: "guest".to_owned(),
            role: ROLE.to_owned(),
        }),
        Some("plain") => Some(challenged(None)),
        Some("salted") => Some(challenged(Some(Salting {
            salt: "salt123".to_owned(),
            iterations: 1_000,
            keylen: 32,
        }))),
        Some("ticket") => Some(Principal::Ticket {
            ticket: secret.to_owned(),
            role: ROLE.to_owned(),
            extra: Dict::new(),
        }),
        Some(_) => None,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let secret: Arc<str> = std::env::var("INTEROP_SECRET")?.into();
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
        realm: "realm1".to_owned(),
        roles: HashMap::from([(ROLE.to_owned(), vec![everything])]),
        authenticator: Arc::new(move |request| {
            let secret = Arc::clone(&secret);
            Box::pin(async move { principal(request.authid.as_deref(), &secret).ok_or(None) })
        }),
        limits: Limits::default(),
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("listens on {}", listener.local_addr()?);
    // Until it is killed.
    router.serve(listener, CancellationToken::new()).await?;
    Ok(())
}
