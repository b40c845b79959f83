//! The dynamic authenticator: asks a procedure about a principal and reads its answer (`wamp-interop.md` 3.1).

use std::sync::Arc;

use super::{Applicant, CRYPTOSIGN, Refusal, TICKET, WAMPCRA};
use crate::auth::{DEFAULT_ITERATIONS, DEFAULT_KEYLEN, Salting};
use crate::payload::Payload;
use crate::router::counters::Cause;
use crate::router::hub::Hub;
use crate::router::service::{self, Unanswered};
use crate::router::{AskedProcedure, Principal};
use crate::uri::{self, error};
use crate::value::{Dict, Value};

/// Calls the procedure. `hub` is the realm to call it in, if there is one.
pub(super) async fn ask(
    asked: &AskedProcedure,
    applicant: &Applicant<'_>,
    hub: Option<&Arc<Hub>>,
) -> Result<Principal, Refusal> {
    let Some(hub) = hub else {
        return Err(Refusal::no_such_realm(
            "the authenticator has no realm to be called in",
        ));
    };
    let methods = [WAMPCRA, TICKET, CRYPTOSIGN];
    let mut offered = applicant.request.methods.iter().map(String::as_str);
    let method = offered
        .find(|method| methods.contains(method))
        .ok_or_else(Refusal::no_method)?;
    let arguments = arguments(applicant, method);
    match service::call(hub, &asked.procedure, arguments, asked.timeout).await {
        Ok(answer) => {
            let answer = answer.args().ok().and_then(|args| args.into_iter().next());
            let principal = answer.as_ref().and_then(|answer| principal(answer, method));
            principal.ok_or_else(|| {
                // The answer may hold a secret, so it is not shown.
                tracing::warn!(
                    procedure = asked.procedure,
                    "unusable answer of the authenticator"
                );
                failed("the authenticator's answer cannot be used")
            })
        }
        Err(Unanswered::Timeout) => {
            tracing::warn!(procedure = asked.procedure, "the authenticator does not answer");
            Err(failed("the authenticator did not answer in time"))
        }
        Err(Unanswered::Error { uri, text }) => {
            let reason = match uri::is_loose(&uri) {
                true => uri.as_str(),
                false => error::RUNTIME_ERROR,
            };
            Err(Refusal::new(Cause::Authenticator, reason, &text))
        }
    }
}

fn failed(text: &str) -> Refusal {
    Refusal::new(Cause::Authenticator, error::RUNTIME_ERROR, text)
}

/// `(realm, authid, details)`
fn arguments(applicant: &Applicant<'_>, method: &str) -> Payload {
    let request = &applicant.request;
    let authid = request
        .authid
        .as_deref()
        .map_or(Value::Null, |authid| authid.into());
    let transport = Dict::from([("peer".to_owned(), applicant.peer.into())]);
    let details = Dict::from([
        ("authmethod".to_owned(), method.into()),
        ("authid".to_owned(), authid.clone()),
        ("authrole".to_owned(), Value::Null),
        ("authextra".to_owned(), request.authextra.clone().into()),
        ("session".to_owned(), Value::Uint(applicant.session)),
        ("transport".to_owned(), transport.into()),
    ]);
    let realm = match request.realm.is_empty() {
        true => Value::Null,
        false => request.realm.as_str().into(),
    };
    Payload::from_args(vec![realm, authid, details.into()])
}

/// The principal of an answer; `None` when it makes no sense.
fn principal(answer: &Value, method: &str) -> Option<Principal> {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    let role = text("role")?;
    let extra = match answer.get("extra") {
        None | Some(Value::Null) => Dict::new(),
        Some(extra) => extra.as_dict()?.clone(),
    };
    let principal = match method {
        WAMPCRA => Principal::Cra {
            secret: text("secret")?,
            role,
            salting: salting(answer)?,
            extra,
        },
        TICKET => Principal::Ticket {
            ticket: text("secret")?,
            role,
            extra,
        },
        _ => Principal::Cryptosign {
            keys: match answer.get("pubkey")? {
                Value::Str(key) => vec![key.clone()],
                keys => {
                    let keys = keys.as_list()?.iter();
                    keys.map(|key| key.as_str().map(str::to_owned))
                        .collect::<Option<_>>()?
                }
            },
            role,
            extra,
        },
    };
    Some(Principal::Assigned {
        principal: Box::new(principal),
        realm: text("realm"),
        authid: text("authid"),
    })
}

/// `None`: malformed; `Some(None)`: not salted.
fn salting(answer: &Value) -> Option<Option<Salting>> {
    let salt = match answer.get("salt") {
        None | Some(Value::Null) => return Some(None),
        Some(salt) => salt.as_str()?.to_owned(),
    };
    let number = |key: &str, default: u32| match answer.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    Some(Some(Salting {
        salt,
        iterations: number("iterations", DEFAULT_ITERATIONS)?,
        keylen: number("keylen", DEFAULT_KEYLEN)?,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(answer: serde_json::Value, method: &str) -> Option<Principal> {
        principal(&Value::from(answer), method)
    }

    #[test]
    fn an_answer_of_crossbars_form_is_understood() {
        let answer = json!({
            "secret": "s", "role": "device", "realm": "other", "authid": null, "extra": {"device_key": 42},
            "salt": "salt123", "iterations": 100, "keylen": 16, "cache": true,
        });
        let Some(Principal::Assigned {
            principal,
            realm,
            authid,
        }) = read(answer, WAMPCRA)
        else {
            panic!("not understood");
        };
        assert_eq!((realm.as_deref(), authid), (Some("other"), None));
        let Principal::Cra {
            secret,
            role,
            salting,
            extra,
        } = *principal
        else {
            panic!("{principal:?}");
        };
        assert_eq!((secret.as_str(), role.as_str()), ("s", "device"));
        let salting = salting.unwrap();
        assert_eq!((salting.iterations, salting.keylen), (100, 16));
        assert_eq!(extra["device_key"], Value::Uint(42));
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        for (answer, method) in [
            (json!("device"), WAMPCRA),
            (json!(null), WAMPCRA),
            (json!({"secret": "s"}), WAMPCRA),
            (json!({"role": "device"}), WAMPCRA),
            (json!({"role": "device"}), TICKET),
            (json!({"role": "device", "secret": 5}), TICKET),
            (json!({"role": "device", "secret": "s"}), CRYPTOSIGN),
            (json!({"role": "device", "pubkey": [1]}), CRYPTOSIGN),
            (json!({"role": "device", "secret": "s", "extra": 1}), WAMPCRA),
            (json!({"role": "device", "secret": "s", "salt": 1}), WAMPCRA),
            (
                json!({"role": "device", "secret": "s", "salt": "x", "keylen": -1}),
                WAMPCRA,
            ),
        ] {
            assert!(read(answer.clone(), method).is_none(), "{answer}");
        }
    }
}
