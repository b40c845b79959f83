//! From HELLO to the identity of a session: realm, roles, authentication.
//!
//! An unknown authid runs through the same steps as a known one with a wrong secret, with a random secret and to the
//! same words, so that nobody learns which authids exist. Contract: `wamp-interop.md` 3.2 and the cases R-S3 to R-S14.

use std::sync::Arc;

use crate::auth::{self, ChallengeSubject, Salting};
use crate::message::Message;
use crate::uri::error;
use crate::value::{Dict, Value};
use crate::{Id, Payload};

use super::outbox::{abort, violation};
use super::permission::Lines;
use super::session::{AUTH_PROVIDER, Features, Identity};
use super::{Authenticator, JoinRequest, Principal};

/// What clients of Crossbar.io know a wrong secret by.
const WRONG_SIGNATURE: &str = "WAMP-CRA client signature is invalid";
const WRONG_TICKET: &str = "ticket in WAMP-Ticket authentication is invalid";

/// The first half of the handshake: what to do about a HELLO.
#[derive(Debug)]
pub(super) enum Step {
    /// No proof needed.
    Admitted(Identity),
    /// Send the CHALLENGE, then ask [`Challenge::check`] about the AUTHENTICATE.
    Challenged(Message, Challenge),
}

/// A challenge under way. Used up by the first answer, so a nonce never serves twice.
#[derive(Debug)]
pub(super) struct Challenge {
    proof: Proof,
    identity: Identity,
    /// Whether there is such a principal at all.
    known: bool,
}

enum Proof {
    Signature { key: String, challenge: String },
    Ticket(String),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Proof::Signature { .. } => "Signature",
            Proof::Ticket(_) => "Ticket",
        })
    }
}

/// Answers a HELLO. `session` is the id that WELCOME will carry. `Err` is the ABORT.
pub(super) async fn begin(
    hello: Message,
    session: Id,
    realm: &str,
    peer: String,
    authenticator: &Authenticator,
) -> Result<Step, Box<Message>> {
    let Message::Hello {
        realm: wanted,
        details,
    } = hello
    else {
        return Err(Box::new(violation("the first message has to be HELLO")));
    };
    if wanted.as_deref() != Some(realm) {
        let text = match wanted {
            Some(wanted) => format!("no realm {wanted:?} exists on this router"),
            None => "HELLO names no realm".to_owned(),
        };
        return Err(Box::new(abort(error::NO_SUCH_REALM, &text)));
    }
    let Some(features) = Features::from_hello(&details) else {
        return Err(Box::new(violation("HELLO announces no client role")));
    };
    let request = JoinRequest {
        realm: realm.to_owned(),
        authid: text(&details, "authid"),
        methods: methods(&details),
        authextra: match details.get("authextra") {
            Some(Value::Dict(extra)) => extra.clone(),
            _ => Dict::new(),
        },
    };
    let methods = request.methods.clone();
    let offers = |method: &str| methods.iter().any(|offered| offered == method);
    let no_method = || {
        Err(Box::new(abort(
            error::NO_MATCHING_AUTH_METHOD,
            "none of the offered authentication methods can be used",
        )))
    };
    let authid = request.authid.clone().unwrap_or_default();
    let identity = |role: String, authmethod, authextra| Identity {
        authid: authid.clone(),
        authrole: role,
        authmethod,
        authextra,
        peer: peer.clone(),
        features,
        own_rights: None,
    };
    let (found, own_rights) = match authenticator(request).await {
        Ok(principal) => {
            let (principal, own_rights) = unwrap(principal);
            (Ok(principal), own_rights)
        }
        Err(refusal) => (Err(refusal), None),
    };
    let identity = |role, authmethod, authextra| Identity {
        own_rights: own_rights.clone(),
        ..identity(role, authmethod, authextra)
    };
    match found {
        Ok(Principal::Anonymous { authid, role }) if offers("anonymous") => {
            let mut identity = identity(role, "anonymous", Dict::new());
            identity.authid = authid;
            Ok(Step::Admitted(identity))
        }
        Ok(Principal::Cra {
            secret,
            role,
            salting,
            extra,
        }) if offers("wampcra") => {
            signature(session, identity(role, "wampcra", extra), secret, salting, true).await
        }
        Ok(Principal::Ticket { ticket, role, extra }) if offers("ticket") => {
            Ok(ask_ticket(identity(role, "ticket", extra), ticket, true))
        }
        Ok(Principal::Anonymous { .. }) => no_method(),
        Err(Some((reason, text))) => Err(Box::new(abort(&reason, &text))),
        // Nobody of that name, or somebody who proves it in another way: a refusal of the method would tell which.
        Err(None) | Ok(Principal::Cra { .. } | Principal::Ticket { .. } | Principal::Personal { .. }) => {
            if offers("wampcra") {
                let identity = identity(String::new(), "wampcra", Dict::new());
                signature(session, identity, random_secret()?, None, false).await
            } else if offers("ticket") {
                let identity = identity(String::new(), "ticket", Dict::new());
                Ok(ask_ticket(identity, random_secret()?, false))
            } else {
                no_method()
            }
        }
    }
}

/// A principal without its permissions, and those, indexed. The outermost ones count.
fn unwrap(principal: Principal) -> (Principal, Option<Arc<Lines>>) {
    match principal {
        Principal::Personal {
            principal,
            permissions,
        } => (unwrap(*principal).0, Some(Arc::new(Lines::new(&permissions)))),
        plain @ (Principal::Anonymous { .. } | Principal::Cra { .. } | Principal::Ticket { .. }) => {
            (plain, None)
        }
    }
}

impl Challenge {
    /// Judges the peer's answer. `Err` is the ABORT.
    pub(super) fn check(self, answer: &Message) -> Result<Identity, Box<Message>> {
        let Message::Authenticate { signature, .. } = answer else {
            return Err(Box::new(violation(
                "the answer to CHALLENGE has to be AUTHENTICATE",
            )));
        };
        let (proven, refusal) = match &self.proof {
            Proof::Signature { key, challenge } => (auth::verify(key, challenge, signature), WRONG_SIGNATURE),
            Proof::Ticket(ticket) => (auth::same_secret(ticket, signature), WRONG_TICKET),
        };
        if proven && self.known {
            Ok(self.identity)
        } else {
            Err(Box::new(abort(error::NOT_AUTHORIZED, refusal)))
        }
    }
}

async fn signature(
    session: Id,
    identity: Identity,
    secret: String,
    salting: Option<Salting>,
    known: bool,
) -> Result<Step, Box<Message>> {
    let subject = ChallengeSubject {
        authid: &identity.authid,
        // The role would tell a known authid from an unknown one.
        authrole: "",
        authprovider: AUTH_PROVIDER,
        session,
    };
    let challenge = auth::challenge(subject, jiff::Timestamp::now()).map_err(|_| internal())?;
    let mut extra = Dict::from([("challenge".to_owned(), challenge.as_str().into())]);
    let key = match salting {
        None => secret,
        Some(salting) => {
            extra.insert("salt".to_owned(), salting.salt.as_str().into());
            extra.insert("iterations".to_owned(), salting.iterations.into());
            extra.insert("keylen".to_owned(), salting.keylen.into());
            // Up to a second of hashing: not on a thread that serves sessions.
            tokio::task::spawn_blocking(move || auth::derive_key(&secret, &salting))
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or_else(internal)?
        }
    };
    let proof = Proof::Signature { key, challenge };
    Ok(Step::Challenged(
        Message::Challenge {
            method: "wampcra".to_owned(),
            extra,
        },
        Challenge {
            proof,
            identity,
            known,
        },
    ))
}

fn ask_ticket(identity: Identity, ticket: String, known: bool) -> Step {
    Step::Challenged(
        Message::Challenge {
            method: "ticket".to_owned(),
            extra: Dict::new(),
        },
        Challenge {
            proof: Proof::Ticket(ticket),
            identity,
            known,
        },
    )
}

/// WELCOME for an admitted identity.
pub(super) fn welcome(session: Id, realm: &str, identity: &Identity) -> Message {
    let details = Dict::from([
        ("realm".to_owned(), realm.into()),
        ("authid".to_owned(), identity.authid.as_str().into()),
        ("authrole".to_owned(), identity.authrole.as_str().into()),
        ("authmethod".to_owned(), identity.authmethod.into()),
        ("authprovider".to_owned(), AUTH_PROVIDER.into()),
        ("authextra".to_owned(), identity.authextra.clone().into()),
        (
            "roles".to_owned(),
            Dict::from([
                ("broker".to_owned(), features(&BROKER_FEATURES)),
                ("dealer".to_owned(), features(&DEALER_FEATURES)),
            ])
            .into(),
        ),
    ]);
    Message::Welcome { session, details }
}

const BROKER_FEATURES: [&str; 6] = [
    "pattern_based_subscription",
    "publisher_exclusion",
    "publisher_identification",
    "session_meta_api",
    "subscriber_blackwhite_listing",
    "subscription_meta_api",
];

const DEALER_FEATURES: [&str; 10] = [
    "call_canceling",
    "call_timeout",
    "caller_identification",
    "pattern_based_registration",
    "progressive_call_results",
    "registration_meta_api",
    "registration_revocation",
    "session_meta_api",
    "shared_registration",
    "testament_meta_api",
];

fn features(names: &[&str]) -> Value {
    let features: Dict = names
        .iter()
        .map(|name| ((*name).to_owned(), Value::Bool(true)))
        .collect();
    Dict::from([("features".to_owned(), features.into())]).into()
}

/// The methods offered, in order; none at all means anonymous.
fn methods(details: &Dict) -> Vec<String> {
    match details.get("authmethods").and_then(Value::as_list) {
        Some(list) if !list.is_empty() => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => vec!["anonymous".to_owned()],
    }
}

fn text(details: &Dict, key: &str) -> Option<String> {
    details.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn random_secret() -> Result<String, Box<Message>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| internal())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn internal() -> Box<Message> {
    Box::new(Message::Abort {
        details: [(
            "message".to_owned(),
            "the router cannot authenticate anybody".into(),
        )]
        .into(),
        reason: error::RUNTIME_ERROR.to_owned(),
        payload: Payload::Empty,
    })
}
