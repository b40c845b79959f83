//! Joining with a secret. wamp_async hands CHALLENGE over as it is; the answer is computed here with OpenSSL.

use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use wamp_async::{Arg, AuthenticationChallengeResponse, AuthenticationMethod, WampDict};

use crate::session::{End, Identity, Session};
use crate::{Outcome, check, complaints};

/// The answer to CHALLENGE.
pub(crate) fn answer(
    method: &AuthenticationMethod,
    extra: &WampDict,
    secret: &str,
) -> Outcome<AuthenticationChallengeResponse> {
    let signature = match method {
        AuthenticationMethod::WampCra => sign(extra, secret)?,
        AuthenticationMethod::Ticket => secret.to_owned(),
        AuthenticationMethod::Anonymous => return Err("a challenge to nobody".into()),
    };
    Ok(AuthenticationChallengeResponse::with_signature(signature))
}

fn sign(extra: &WampDict, secret: &str) -> Outcome<String> {
    let challenge = text(extra, "challenge").ok_or("no challenge")?;
    let key = match text(extra, "salt") {
        None => secret.to_owned(),
        Some(salt) => {
            let mut key = vec![0; number(extra, "keylen")?];
            let iterations = number(extra, "iterations")?;
            pbkdf2_hmac(
                secret.as_bytes(),
                salt.as_bytes(),
                iterations,
                MessageDigest::sha256(),
                &mut key,
            )?;
            openssl::base64::encode_block(&key)
        }
    };
    let key = PKey::hmac(key.as_bytes())?;
    let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
    let signature = signer.sign_oneshot_to_vec(challenge.as_bytes())?;
    Ok(openssl::base64::encode_block(&signature))
}

/// wamp_async reads every string as an URI and every positive integer as an id.
fn text<'a>(extra: &'a WampDict, key: &str) -> Option<&'a str> {
    match extra.get(key) {
        Some(Arg::Uri(text) | Arg::String(text)) => Some(text),
        _ => None,
    }
}

fn number(extra: &WampDict, key: &str) -> Outcome<usize> {
    match extra.get(key) {
        Some(Arg::Integer(number)) => Ok(*number),
        Some(Arg::Id(id)) => Ok(id.to_string().parse()?),
        _ => Err(format!("no {key}").into()),
    }
}

pub(crate) async fn judge(end: &End, secret: &str) -> Outcome {
    let who = end.to_string();
    for (what, authid, method) in [
        (
            "WAMP-CRA",
            "plain",
            (|| AuthenticationMethod::WampCra) as fn() -> _,
        ),
        ("salted WAMP-CRA", "salted", || AuthenticationMethod::WampCra),
        ("a ticket", "ticket", || AuthenticationMethod::Ticket),
    ] {
        let session = Session::join(
            end,
            Identity::Named {
                authid,
                method,
                secret,
            },
        )
        .await?;
        let unexpected = complaints::take();
        check(&who, &format!("{what} opens the door"), unexpected.is_empty())?;
        session.leave().await?;
        let wrong = Session::join(
            end,
            Identity::Named {
                authid,
                method,
                secret: "wrong",
            },
        )
        .await;
        let refusal = wrong.err().map(|error| error.to_string()).unwrap_or_default();
        let refused = refusal.contains("Abort") && refusal.contains("wamp.error.");
        check(&who, &format!("{what} that is wrong does not"), refused)?;
        complaints::take();
    }
    Ok(())
}
