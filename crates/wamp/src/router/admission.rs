//! From HELLO to the identity of a session: realm, roles, authentication.
//!
//! An unknown authid runs through the same steps as a known one with a wrong secret, with a random secret and to the
//! same words, so that nobody learns which authids exist. Contract: `wamp-interop.md` 3.2 and the cases R-S3 to R-S14.

use std::sync::Arc;

use super::counters::Cause;
use super::hub::Hub;
use super::outbox::{abort, violation};
use super::permission::Lines;
use super::realms::Realms;
use super::session::{AUTH_PROVIDER, Features, Identity};
use super::{JoinRequest, Principal};
use crate::Id;
use crate::auth::{self, ChallengeSubject, Salting, cryptosign};
use crate::message::Message;
use crate::uri::error;
use crate::value::{Dict, Value};

mod asked;

use self::asked::ask;

const WAMPCRA: &str = "wampcra";
const TICKET: &str = "ticket";
const CRYPTOSIGN: &str = "cryptosign";

/// What clients of Crossbar.io know a wrong secret by.
const WRONG_SIGNATURE: &str = "WAMP-CRA client signature is invalid";
const WRONG_TICKET: &str = "ticket in WAMP-Ticket authentication is invalid";

const WRONG_KEY: &str = "cryptosign signature is invalid";

/// The first half of the handshake: what to do about a HELLO.
#[derive(Debug)]
pub(super) enum Step {
    /// No proof needed.
    Admitted(Admitted),
    /// Send the CHALLENGE, then ask [`Challenge::check`] about the AUTHENTICATE.
    Challenged(Message, Box<Challenge>),
}

/// Somebody who may join a realm.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) hub: Arc<Hub>,
    pub(super) identity: Identity,
}

/// A challenge under way. Used up by the first answer, so a nonce never serves twice.
#[derive(Debug)]
pub(super) struct Challenge {
    proof: Proof,
    /// `None`: there is no such principal, so no answer will do.
    admitted: Option<Admitted>,
    peer: String,
}

enum Proof {
    Signature { key: String, challenge: String },
    Ticket(String),
    Keys { keys: Vec<String>, challenge: String },
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Proof::Signature { .. } => "Signature",
            Proof::Ticket(_) => "Ticket",
            Proof::Keys { .. } => "Keys",
        })
    }
}

/// Why a HELLO is refused, and the ABORT.
struct Refusal(Cause, Box<Message>);

impl Refusal {
    fn new(cause: Cause, reason: &str, text: &str) -> Refusal {
        Refusal(cause, Box::new(abort(reason, text)))
    }

    fn violation(text: &str) -> Refusal {
        Refusal(Cause::Violation, Box::new(violation(text)))
    }

    fn no_such_realm(text: &str) -> Refusal {
        Refusal::new(Cause::NoSuchRealm, error::NO_SUCH_REALM, text)
    }

    fn no_method() -> Refusal {
        let text = "none of the offered authentication methods can be used";
        Refusal::new(Cause::NoAuthMethod, error::NO_MATCHING_AUTH_METHOD, text)
    }

    fn internal() -> Refusal {
        let text = "the router cannot authenticate anybody";
        Refusal::new(Cause::Authenticator, error::RUNTIME_ERROR, text)
    }
}

/// Answers a HELLO. `session` is the id that WELCOME will carry. `Err` is the ABORT.
pub(super) async fn begin(
    hello: Message,
    session: Id,
    realms: &Realms,
    peer: String,
) -> Result<Step, Box<Message>> {
    let mut wanted = None;
    match answer_hello(hello, session, realms, &peer, &mut wanted).await {
        Ok(step) => Ok(step),
        Err(Refusal(cause, abort)) => {
            realms.count_refusal(wanted.as_deref(), cause, &peer);
            Err(abort)
        }
    }
}

/// `wanted` becomes the realm that HELLO names, as soon as it is known.
async fn answer_hello(
    hello: Message,
    session: Id,
    realms: &Realms,
    peer: &str,
    wanted: &mut Option<Arc<Hub>>,
) -> Result<Step, Refusal> {
    let Message::Hello { realm, details } = hello else {
        return Err(Refusal::violation("the first message has to be HELLO"));
    };
    let authenticator = match &realm {
        Some(name) => {
            let place = realms
                .get(name)
                .ok_or_else(|| Refusal::no_such_realm(&format!("no realm {name:?} exists on this router")))?;
            *wanted = Some(Arc::clone(&place.hub));
            &place.authenticator
        }
        None => realms
            .assigner()
            .ok_or_else(|| Refusal::no_such_realm("HELLO names no realm"))?,
    };
    let Some(features) = Features::from_hello(&details) else {
        return Err(Refusal::violation("HELLO announces no client role"));
    };
    let request = JoinRequest {
        realm: realm.unwrap_or_default(),
        authid: text(&details, "authid"),
        methods: methods(&details),
        authextra: match details.get("authextra") {
            Some(Value::Dict(extra)) => extra.clone(),
            _ => Dict::new(),
        },
    };
    let applicant = Applicant {
        session,
        peer,
        features,
        request: request.clone(),
    };
    let found = match authenticator(request).await {
        Ok(principal) => find(principal, &applicant, realms, wanted.as_ref()).await?,
        Err(None) => None,
        Err(Some((reason, text))) => return Err(Refusal::new(Cause::Authenticator, &reason, &text)),
    };
    let found = match found {
        Some(found) => found.settle(&applicant, realms, wanted.as_ref())?,
        None => None,
    };
    applicant.challenge(found).await
}

/// A principal as its authenticator described it, unwrapped.
struct Found {
    /// None of those that wrap another one.
    principal: Principal,
    own_rights: Option<Arc<Lines>>,
    realm: Option<String>,
    authid: Option<String>,
}

impl Found {
    /// Where and as whom the principal would join.
    fn settle(
        self,
        applicant: &Applicant<'_>,
        realms: &Realms,
        wanted: Option<&Arc<Hub>>,
    ) -> Result<Option<(Principal, Admitted)>, Refusal> {
        let hub = match (&self.realm, wanted) {
            (Some(name), _) => match realms.get(name) {
                Some(place) => Arc::clone(&place.hub),
                None => {
                    return Err(Refusal::no_such_realm(&format!(
                        "no realm {name:?} exists on this router"
                    )));
                }
            },
            (None, Some(wanted)) => Arc::clone(wanted),
            (None, None) => {
                // To the peer it is as if the principal did not exist.
                tracing::warn!(peer = applicant.peer, "a principal was assigned no realm");
                return Ok(None);
            }
        };
        let (role, authmethod, authextra, authid) = match &self.principal {
            Principal::Anonymous { authid, role } => (role, "anonymous", None, Some(authid)),
            Principal::Cra { role, extra, .. } => (role, WAMPCRA, Some(extra), None),
            Principal::Ticket { role, extra, .. } => (role, TICKET, Some(extra), None),
            Principal::Cryptosign { role, extra, .. } => (role, CRYPTOSIGN, Some(extra), None),
            Principal::Personal { .. } | Principal::Assigned { .. } | Principal::Asked(_) => return Ok(None),
        };
        let authid = self.authid.as_ref().or(authid);
        let identity = Identity {
            authid: authid.cloned().unwrap_or_else(|| applicant.authid()),
            authrole: role.clone(),
            authmethod,
            authextra: authextra.cloned().unwrap_or_default(),
            peer: applicant.peer.to_owned(),
            features: applicant.features,
            own_rights: self.own_rights,
        };
        Ok(Some((self.principal, Admitted { hub, identity })))
    }
}

/// Unwraps a principal, asking the procedure that knows it if it is not known here. The outermost of what is said twice
/// counts. `None`: unknown after all.
async fn find(
    principal: Principal,
    applicant: &Applicant<'_>,
    realms: &Realms,
    wanted: Option<&Arc<Hub>>,
) -> Result<Option<Found>, Refusal> {
    let mut found = Found {
        principal,
        own_rights: None,
        realm: None,
        authid: None,
    };
    loop {
        match found.principal {
            Principal::Personal {
                principal,
                permissions,
            } => {
                found
                    .own_rights
                    .get_or_insert_with(|| Arc::new(Lines::new(&permissions)));
                found.principal = *principal;
            }
            Principal::Assigned {
                principal,
                realm,
                authid,
            } => {
                found.realm = found.realm.or(realm);
                found.authid = found.authid.or(authid);
                found.principal = *principal;
            }
            Principal::Asked(asked) => {
                let hub = match &asked.realm {
                    Some(name) => realms.get(name).map(|place| &place.hub),
                    None => wanted,
                };
                found.principal = ask(&asked, applicant, hub).await?;
            }
            principal @ (Principal::Anonymous { .. }
            | Principal::Cra { .. }
            | Principal::Ticket { .. }
            | Principal::Cryptosign { .. }) => return Ok(Some(Found { principal, ..found })),
        }
    }
}

/// Whoever said HELLO.
struct Applicant<'p> {
    session: Id,
    peer: &'p str,
    features: Features,
    request: JoinRequest,
}

impl Applicant<'_> {
    fn offers(&self, method: &str) -> bool {
        self.request.methods.iter().any(|offered| offered == method)
    }

    /// The name it wants to go by; without one, its public key.
    fn authid(&self) -> String {
        let request = &self.request;
        let key = || self.public_key().map(str::to_owned);
        request.authid.clone().or_else(key).unwrap_or_default()
    }

    /// The key that it says it has.
    fn public_key(&self) -> Option<&str> {
        self.request.authextra.get("pubkey").and_then(Value::as_str)
    }

    /// Admits a principal that needs no proof and challenges everybody else. Nobody of that name, or somebody who proves
    /// it in another way than those offered: a refusal of the method would tell which, so it is challenged as well.
    async fn challenge(&self, found: Option<(Principal, Admitted)>) -> Result<Step, Refusal> {
        match found {
            Some((Principal::Anonymous { .. }, admitted)) if self.offers("anonymous") => {
                Ok(Step::Admitted(admitted))
            }
            Some((Principal::Anonymous { .. }, _)) => Err(Refusal::no_method()),
            Some((Principal::Cra { secret, salting, .. }, admitted)) if self.offers(WAMPCRA) => {
                self.ask_signature(secret, salting, Some(admitted)).await
            }
            Some((Principal::Ticket { ticket, .. }, admitted)) if self.offers(TICKET) => {
                Ok(self.ask_ticket(ticket, Some(admitted)))
            }
            Some((Principal::Cryptosign { keys, .. }, admitted)) if self.offers(CRYPTOSIGN) => {
                self.ask_key(keys, Some(admitted))
            }
            Some(_) | None => {
                if self.offers(WAMPCRA) {
                    self.ask_signature(random_secret()?, None, None).await
                } else if self.offers(TICKET) {
                    Ok(self.ask_ticket(random_secret()?, None))
                } else if self.offers(CRYPTOSIGN) {
                    self.ask_key(Vec::new(), None)
                } else {
                    Err(Refusal::no_method())
                }
            }
        }
    }

    async fn ask_signature(
        &self,
        secret: String,
        salting: Option<Salting>,
        admitted: Option<Admitted>,
    ) -> Result<Step, Refusal> {
        let subject = ChallengeSubject {
            // As HELLO has it: another name, like the role, would tell a known authid from an unknown one.
            authid: self.request.authid.as_deref().unwrap_or_default(),
            authrole: "",
            authprovider: AUTH_PROVIDER,
            session: self.session,
        };
        let challenge = auth::challenge(subject, jiff::Timestamp::now()).map_err(|_| Refusal::internal())?;
        let mut extra = Dict::from([("challenge".to_owned(), challenge.as_str().into())]);
        let key = match salting {
            None => secret,
            Some(salting) => {
                extra.extend(auth::salting_details(&salting));
                // Up to a second of hashing: not on a thread that serves sessions.
                tokio::task::spawn_blocking(move || auth::derive_key(&secret, &salting))
                    .await
                    .ok()
                    .and_then(Result::ok)
                    .ok_or_else(Refusal::internal)?
            }
        };
        let proof = Proof::Signature { key, challenge };
        Ok(self.challenged(WAMPCRA, extra, proof, admitted))
    }

    fn ask_ticket(&self, ticket: String, admitted: Option<Admitted>) -> Step {
        self.challenged(TICKET, Dict::new(), Proof::Ticket(ticket), admitted)
    }

    fn ask_key(&self, mut keys: Vec<String>, admitted: Option<Admitted>) -> Result<Step, Refusal> {
        if self
            .request
            .authextra
            .get("channel_binding")
            .is_some_and(|binding| !binding.is_null())
        {
            let text = "channel binding is not supported";
            return Err(Refusal::new(Cause::NoAuthMethod, error::NOT_AUTHORIZED, text));
        }
        // Whoever names a key has to have that one.
        if let Some(offered) = self.public_key() {
            keys.retain(|key| key.eq_ignore_ascii_case(offered));
        }
        let challenge = cryptosign::challenge().map_err(|_| Refusal::internal())?;
        let extra = Dict::from([
            ("challenge".to_owned(), challenge.as_str().into()),
            ("channel_binding".to_owned(), Value::Null),
        ]);
        let proof = Proof::Keys { keys, challenge };
        Ok(self.challenged(CRYPTOSIGN, extra, proof, admitted))
    }

    fn challenged(&self, method: &str, extra: Dict, proof: Proof, admitted: Option<Admitted>) -> Step {
        let challenge = Challenge {
            proof,
            admitted,
            peer: self.peer.to_owned(),
        };
        let method = method.to_owned();
        Step::Challenged(Message::Challenge { method, extra }, Box::new(challenge))
    }
}

impl Challenge {
    /// Judges the peer's answer. `Err` is the ABORT.
    pub(super) fn check(self, answer: &Message, realms: &Realms) -> Result<Admitted, Box<Message>> {
        let realm = self.admitted.as_ref().map(|admitted| &*admitted.hub);
        let Message::Authenticate { signature, .. } = answer else {
            realms.count_refusal(realm, Cause::Violation, &self.peer);
            return Err(Box::new(violation(
                "the answer to CHALLENGE has to be AUTHENTICATE",
            )));
        };
        let (proven, refusal) = match &self.proof {
            Proof::Signature { key, challenge } => (auth::verify(key, challenge, signature), WRONG_SIGNATURE),
            Proof::Ticket(ticket) => (auth::same_secret(ticket, signature), WRONG_TICKET),
            Proof::Keys { keys, challenge } => (cryptosign::verify(keys, challenge, signature), WRONG_KEY),
        };
        match self.admitted {
            Some(admitted) if proven => Ok(admitted),
            admitted => {
                let realm = admitted.as_ref().map(|admitted| &*admitted.hub);
                realms.count_refusal(realm, Cause::Credentials, &self.peer);
                Err(Box::new(abort(error::NOT_AUTHORIZED, refusal)))
            }
        }
    }
}

impl Admitted {
    /// WELCOME.
    pub(super) fn welcome(&self, session: Id) -> Message {
        welcome(session, self.hub.name(), &self.identity)
    }
}

fn welcome(session: Id, realm: &str, identity: &Identity) -> Message {
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

const BROKER_FEATURES: [&str; 8] = [
    "event_retention",
    "pattern_based_subscription",
    "publisher_exclusion",
    "publisher_identification",
    "session_meta_api",
    "subscriber_blackwhite_listing",
    "subscription_meta_api",
    "subscription_revocation",
];

const DEALER_FEATURES: [&str; 11] = [
    "call_canceling",
    "call_timeout",
    "caller_identification",
    "pattern_based_registration",
    "progressive_call_invocations",
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

fn random_secret() -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::internal())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
