//! Method `cryptosign`: the router sends 32 random bytes, the client signs them with its ed25519 key.
//!
//! Everything travels as hex. The client names its public key in HELLO's `authextra.pubkey`; the answer is signature
//! and challenge in a row, 96 bytes. Channel binding, which would tie the answer to one TLS connection, is not offered.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::AuthError;
use crate::value::{Dict, Value};

/// Bytes of a challenge, a private key and a public key.
const LEN: usize = 32;
/// Bytes of a signature.
const SIGNATURE_LEN: usize = 64;

/// A new challenge: 32 random bytes in hex. Never issue the same one twice.
pub fn challenge() -> Result<String, getrandom::Error> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// The public key of a private one (the 32 byte seed), both in hex.
pub fn public_key(private_key: &str) -> Result<String, AuthError> {
    Ok(hex(pair(private_key)?.public_key().as_ref()))
}

/// The answer to a CHALLENGE of method `cryptosign` with these `extra` details: hex of signature and challenge.
/// `private_key` is the seed, 32 bytes in hex.
pub fn answer(private_key: &str, extra: &Dict) -> Result<String, AuthError> {
    let challenge = extra
        .get("challenge")
        .and_then(Value::as_str)
        .ok_or(AuthError::NoChallenge)?;
    // Any other length would have us sign whatever a hostile router likes.
    let challenge: [u8; LEN] = unhex(challenge).ok_or(AuthError::Malformed("challenge"))?;
    let mut signed = pair(private_key)?.sign(&challenge).as_ref().to_vec();
    signed.extend_from_slice(&challenge);
    Ok(hex(&signed))
}

/// Whether `answer` is the answer of whoever has the private part of one of `keys` to `challenge`. Malformed keys fit
/// nobody.
pub fn verify(keys: &[String], challenge: &str, answer: &str) -> bool {
    let signed: Option<[u8; SIGNATURE_LEN + LEN]> = unhex(answer);
    let (Some(signed), Some(challenge)) = (signed, unhex::<LEN>(challenge)) else {
        return false;
    };
    let (signature, repeated) = signed.split_at(SIGNATURE_LEN);
    repeated == challenge
        && keys.iter().filter_map(|key| unhex::<LEN>(key)).any(|key| {
            UnparsedPublicKey::new(&ED25519, key)
                .verify(&challenge, signature)
                .is_ok()
        })
}

fn pair(private_key: &str) -> Result<Ed25519KeyPair, AuthError> {
    unhex::<LEN>(private_key)
        .and_then(|seed| Ed25519KeyPair::from_seed_unchecked(&seed).ok())
        .ok_or(AuthError::BadKey)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, TEST 3.
    const SEED: &str = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
    const PUBLIC: &str = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";

    fn asked(challenge: &str) -> Dict {
        Dict::from([("challenge".to_owned(), challenge.into())])
    }

    #[test]
    fn a_public_key_is_derived_as_rfc_8032_says() {
        assert_eq!(public_key(SEED).unwrap(), PUBLIC);
        assert_eq!(public_key("c5aa"), Err(AuthError::BadKey));
    }

    #[test]
    fn an_answer_is_signature_and_challenge_and_fits_only_its_own_key_and_challenge() {
        let (question, other) = (challenge().unwrap(), challenge().unwrap());
        assert_ne!(question, other);
        let answered = answer(SEED, &asked(&question)).unwrap();
        assert_eq!((answered.len(), &answered[128..]), (192, question.as_str()));
        let keys = ["zz".to_owned(), PUBLIC.to_owned()];
        assert!(verify(&keys, &question, &answered));
        assert!(verify(&keys, &question, &answered.to_uppercase()));
        assert!(!verify(&keys, &other, &answered), "another challenge");
        assert!(!verify(&keys[..1], &question, &answered), "no such key");
        assert!(!verify(&[other], &question, &answered), "another key");
        for wrong in [
            "",
            "00",
            &answered[..190],
            &answered[2..],
            &answered.replace('a', "b"),
        ] {
            assert!(!verify(&keys, &question, wrong), "{wrong}");
        }
        assert!(!verify(&keys, &question, &"é".repeat(96)));
    }

    #[test]
    fn a_challenge_that_is_not_32_bytes_is_not_signed() {
        assert_eq!(answer(SEED, &Dict::new()), Err(AuthError::NoChallenge));
        for text in ["", "00", &"0".repeat(66), &"g".repeat(64)] {
            assert_eq!(answer(SEED, &asked(text)), Err(AuthError::Malformed("challenge")));
        }
        assert_eq!(answer("no key", &asked(&"0".repeat(64))), Err(AuthError::BadKey));
    }
}
