//! WAMP-CRA (`session-and-api.md` 4.5, `wamp-interop.md` rule 14) and, in [`cryptosign`], signatures: pure functions,
//! no I/O.
//!
//! The client answers a challenge with [`answer`]; a router builds one with [`challenge`] and checks the answer with
//! [`verify`]. Nothing here logs or prints a secret.

pub mod cryptosign;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::Id;
use crate::value::{Dict, Value};

/// Rounds used when a salted challenge names none.
pub const DEFAULT_ITERATIONS: u32 = 1000;
/// Key length in bytes used when a salted challenge names none.
pub const DEFAULT_KEYLEN: u32 = 32;
/// Most PBKDF2 rounds that are computed.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// Longest derived key, bytes.
pub const MAX_KEYLEN: u32 = 1024;

/// Every 32 bytes of key cost all the rounds again, so the two bounds together would still allow half a minute of
/// hashing. This bounds the product.
const MAX_HASHES: u64 = 2_000_000;

/// Parameters of a salted secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salting {
    /// The salt's text; its UTF-8 bytes are the PBKDF2 salt.
    pub salt: String,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// Length of the derived key in bytes.
    pub keylen: u32,
}

/// Why a challenge is not answered or a key not derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// CHALLENGE extra has no `challenge` text.
    #[error("the challenge has no text")]
    NoChallenge,
    /// `salt`, `iterations` or `keylen` is of a wrong type or negative.
    #[error("the challenge's {0} is malformed")]
    Malformed(&'static str),
    /// More work than a sensible router asks for.
    #[error("the challenge asks for too much work: {iterations} iterations, key of {keylen} bytes")]
    TooExpensive { iterations: u64, keylen: u64 },
    /// The private key is not 32 bytes in hex.
    #[error("the private key is not 64 hex digits")]
    BadKey,
}

/// The signing key of a salted secret: base64 text of PBKDF2-HMAC-SHA256. Computes for up to about a second at the
/// upper bounds: not for a thread that must stay responsive.
pub fn derive_key(secret: &str, salting: &Salting) -> Result<String, AuthError> {
    let (iterations, keylen) = (salting.iterations, salting.keylen);
    let hashes = u64::from(iterations) * u64::from(keylen.div_ceil(32));
    if iterations > MAX_ITERATIONS || keylen > MAX_KEYLEN || hashes > MAX_HASHES {
        return Err(AuthError::TooExpensive {
            iterations: u64::from(iterations),
            keylen: u64::from(keylen),
        });
    }
    let mut key = vec![0; keylen as usize];
    pbkdf2::pbkdf2_hmac::<Sha256>(secret.as_bytes(), salting.salt.as_bytes(), iterations, &mut key);
    Ok(BASE64.encode(key))
}

/// The signature of `challenge`, byte for byte as received: base64 text of HMAC-SHA256. `key` is the secret itself,
/// or what [`derive_key`] made of it.
pub fn sign(key: &str, challenge: &str) -> String {
    BASE64.encode(mac(key, challenge))
}

/// Whether `signature` is the one of `challenge`; takes the same time wherever the two differ.
pub fn verify(key: &str, challenge: &str, signature: &str) -> bool {
    let Ok(signature) = BASE64.decode(signature) else {
        return false;
    };
    mac(key, challenge)[..].ct_eq(&signature).into()
}

/// Whether two secrets (tickets) are equal, without telling by the time it takes where they differ.
pub fn same_secret(known: &str, offered: &str) -> bool {
    known.as_bytes().ct_eq(offered.as_bytes()).into()
}

/// The answer to a CHALLENGE of method `wampcra` with these `extra` details. Costs what [`derive_key`] costs when the
/// challenge is salted.
pub fn answer(secret: &str, extra: &Dict) -> Result<String, AuthError> {
    let challenge = extra
        .get("challenge")
        .and_then(Value::as_str)
        .ok_or(AuthError::NoChallenge)?;
    match salting(extra)? {
        None => Ok(sign(secret, challenge)),
        Some(salting) => Ok(sign(&derive_key(secret, &salting)?, challenge)),
    }
}

/// The salting that CHALLENGE extra asks for. An absent, null or empty salt is none; an absent, null or zero number is
/// the default.
fn salting(extra: &Dict) -> Result<Option<Salting>, AuthError> {
    let salt = match extra.get("salt") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Str(salt)) if salt.is_empty() => return Ok(None),
        Some(Value::Str(salt)) => salt.clone(),
        Some(_) => return Err(AuthError::Malformed("salt")),
    };
    let number = |key, default: u32| match extra.get(key) {
        None | Some(Value::Null | Value::Uint(0)) => Ok(u64::from(default)),
        Some(Value::Uint(number)) => Ok(*number),
        // Some serializers know only floats.
        Some(Value::Float(number)) if *number >= 1.0 && number.fract() == 0.0 => Ok(*number as u64),
        Some(_) => Err(AuthError::Malformed(key)),
    };
    let iterations = number("iterations", DEFAULT_ITERATIONS)?;
    let keylen = number("keylen", DEFAULT_KEYLEN)?;
    match (u32::try_from(iterations), u32::try_from(keylen)) {
        (Ok(iterations), Ok(keylen)) => Ok(Some(Salting {
            salt,
            iterations,
            keylen,
        })),
        _ => Err(AuthError::TooExpensive { iterations, keylen }),
    }
}

/// What a challenge says about the session it is for.
#[derive(Clone, Copy, Debug)]
pub struct ChallengeSubject<'a> {
    pub authid: &'a str,
    pub authrole: &'a str,
    /// Who knows the secret, for example `static` or `dynamic`.
    pub authprovider: &'a str,
    /// The id that WELCOME will carry.
    pub session: Id,
}

/// The text of a new challenge, with a nonce of 16 random bytes. Never issue the same one twice.
pub fn challenge(subject: ChallengeSubject<'_>, now: jiff::Timestamp) -> Result<String, getrandom::Error> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)?;
    let challenge = serde_json::json!({
        "authid": subject.authid,
        "authrole": subject.authrole,
        "authmethod": "wampcra",
        "authprovider": subject.authprovider,
        "session": subject.session,
        "nonce": BASE64.encode(nonce),
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    });
    Ok(challenge.to_string())
}

/// The entries that a salted CHALLENGE carries beside `challenge`.
pub fn salting_details(salting: &Salting) -> Dict {
    Dict::from([
        ("salt".to_owned(), Value::from(salting.salt.as_str())),
        ("iterations".to_owned(), Value::from(salting.iterations)),
        ("keylen".to_owned(), Value::from(salting.keylen)),
    ])
}

fn mac(key: &str, challenge: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(challenge.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str = r#"{"nonce":"abc"}"#;

    fn extra(entries: &[(&str, Value)]) -> Dict {
        let mut extra = Dict::from([("challenge".to_owned(), Value::from(CHALLENGE))]);
        extra.extend(
            entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone())),
        );
        extra
    }

    fn answered(entries: &[(&str, Value)]) -> Result<String, AuthError> {
        answer("test-secret", &extra(entries))
    }

    #[test]
    fn the_vectors_of_the_contract_are_met() {
        let plain = "Krsa34kwZ3Odt2QHA+B6MDy+UkKmvlIULdSgzy8fXQc=";
        for entries in [
            vec![],
            vec![("salt", Value::Null)],
            vec![("salt", Value::from(""))],
        ] {
            assert_eq!(answered(&entries).unwrap(), plain);
        }
        let salt = ("salt", Value::from("salt123"));
        let salted = "3BHPYtQ/nMOfvzKbBfzd6b0i1ePMSGmu9tFBbAiE43w=";
        for (iterations, keylen) in [
            (Value::Null, Value::Null),
            (Value::Uint(0), Value::Uint(0)),
            (Value::Uint(1000), Value::Float(32.0)),
        ] {
            let entries = [salt.clone(), ("iterations", iterations), ("keylen", keylen)];
            assert_eq!(answered(&entries).unwrap(), salted);
        }
        assert_eq!(answered(std::slice::from_ref(&salt)).unwrap(), salted);
        let other = [
            salt,
            ("iterations", Value::Uint(100)),
            ("keylen", Value::Uint(16)),
        ];
        assert_eq!(
            answered(&other).unwrap(),
            "EDukfKcRhdXT4mdZJstVCeJrAUggHqlqw3CV0cVsOmQ="
        );
        let salting = Salting {
            salt: "salt123".to_owned(),
            iterations: 1000,
            keylen: 32,
        };
        assert_eq!(
            derive_key("test-secret", &salting).unwrap(),
            "HKNjFb6KK8EG5E3AwJtjV++K7fdXRhyLnK2fdpwwGoQ="
        );
        assert_eq!(
            salting_of(&salting_details(&salting)),
            Some(salting),
            "what a router sends is what a client reads"
        );
    }

    fn salting_of(details: &Dict) -> Option<Salting> {
        salting(details).unwrap()
    }

    #[test]
    fn a_signature_verifies_only_with_its_own_key_and_challenge() {
        let signature = sign("key", CHALLENGE);
        assert!(verify("key", CHALLENGE, &signature));
        assert!(!verify("other", CHALLENGE, &signature));
        assert!(!verify("key", "{}", &signature));
        assert!(!verify("key", CHALLENGE, ""));
        assert!(!verify("key", CHALLENGE, "not base64!"));
        assert!(!verify("key", CHALLENGE, &signature[..40]));
        assert!(same_secret("a", "a") && !same_secret("a", "b") && !same_secret("a", "aa"));
    }

    #[test]
    fn expensive_and_malformed_challenges_are_refused_at_once() {
        for (iterations, keylen) in [
            (1_000_000_000, 32),
            (1 << 40, 32),
            (1000, 1025),
            (1000, 1 << 33),
            (1_000_000, 1024),
        ] {
            let entries = [
                ("salt", Value::from("s")),
                ("iterations", Value::Uint(iterations)),
                ("keylen", Value::Uint(keylen)),
            ];
            assert_eq!(
                answered(&entries),
                Err(AuthError::TooExpensive { iterations, keylen })
            );
        }
        for entries in [
            [("salt", Value::Uint(1)), ("keylen", Value::Null)],
            [("salt", Value::from("s")), ("iterations", Value::Int(-1))],
            [("salt", Value::from("s")), ("keylen", Value::Float(0.5))],
        ] {
            assert!(matches!(answered(&entries), Err(AuthError::Malformed(_))));
        }
        assert_eq!(answer("s", &Dict::new()), Err(AuthError::NoChallenge));
    }

    #[test]
    fn challenges_carry_the_subject_and_never_repeat() {
        let subject = ChallengeSubject {
            authid: "7-42",
            authrole: "device",
            authprovider: "dynamic",
            session: 12,
        };
        let now = jiff::Timestamp::from_millisecond(1_767_225_600_007).unwrap();
        let first = challenge(subject, now).unwrap();
        assert_ne!(first, challenge(subject, now).unwrap());
        let read: serde_json::Value = serde_json::from_str(&first).unwrap();
        assert_eq!(read["authid"], "7-42");
        assert_eq!(read["authrole"], "device");
        assert_eq!(read["authmethod"], "wampcra");
        assert_eq!(read["authprovider"], "dynamic");
        assert_eq!(read["session"], 12);
        assert_eq!(read["timestamp"], "2026-01-01T00:00:00.007Z");
        assert_eq!(BASE64.decode(read["nonce"].as_str().unwrap()).unwrap().len(), 16);
    }
}
