//! The command line's session with the studio.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wamp::client::{CallOptions, ClientConfig, Credentials, Session};
use wamp::{Dict, Payload};

use crate::admission::REALM;
use crate::cli::Place;
use crate::exit::{Exit, Failure};
use crate::operator::{self, Operator};

/// The studio answers from its own store within this; where it asks a device, the procedure's own bound is shorter.
pub(super) const DEADLINE: Duration = Duration::from_secs(40);

/// A joined session.
pub(super) struct Client {
    pub(super) session: Session,
}

impl Client {
    pub(super) async fn connect(place: &Place) -> Result<Client, Failure> {
        let operator = credentials(place)?;
        let mut config = ClientConfig::new(operator.url.clone(), REALM);
        config.credentials = Credentials::Cra {
            authid: operator.authid,
            secret: operator.secret,
        };
        let session = Session::connect(&config).await.map_err(|error| {
            let failure = Failure::from(error);
            Failure {
                text: format!("{} ({})", failure.text, operator.url),
                ..failure
            }
        })?;
        Ok(Client { session })
    }

    /// Calls a procedure of the studio: `request` becomes the keyword arguments, the answer is `args[0]`.
    pub(super) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        procedure: &str,
        request: &Q,
    ) -> Result<A, Failure> {
        let payload = self.send(procedure, request, DEADLINE).await?;
        let answer = payload.first::<A>().map_err(|error| unreadable(&error))?;
        answer.ok_or_else(|| unreadable(&"it is empty"))
    }

    /// The same for procedures that answer anything or nothing.
    pub(super) async fn send<Q: Serialize>(
        &self,
        procedure: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<Payload, Failure> {
        let kwargs = match wamp::Value::from_serialize(request) {
            Ok(wamp::Value::Dict(kwargs)) => kwargs,
            Ok(_) => Dict::new(),
            Err(error) => return Err(Failure::new(Exit::Usage, error.to_string())),
        };
        let options = CallOptions::timeout(deadline);
        let result = self
            .session
            .call(procedure, Payload::from_kwargs(kwargs), options)
            .await?;
        Ok(result.payload)
    }

    pub(super) async fn leave(&self) {
        self.session.leave().await;
    }
}

/// What a look at how things stand has found. `None`: whoever answers could not now, because it starts again behind its
/// router for example, and may be able to soon.
pub(super) fn unless_away<T>(found: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match found {
        Err(failure) if failure.exit == Exit::Failed => Ok(None),
        found => found.map(Some),
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("the studio's answer is unreadable: {error}"),
    )
    .hint("studio and command line may be of different versions")
}

/// An empty request.
pub(super) fn nothing() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Flags and environment first, then the file that `serve` wrote.
fn credentials(place: &Place) -> Result<Operator, Failure> {
    let file = place.data.join(operator::FILE);
    if let (Some(authid), Some(secret_file)) = (&place.authid, &place.secret_file) {
        let url = match &place.url {
            Some(url) => url.clone(),
            None => load(&file)?.url,
        };
        let secret = read_secret(secret_file)?;
        return Ok(Operator {
            url,
            authid: authid.clone(),
            secret,
        });
    }
    let operator = load(&file)?;
    Ok(match &place.url {
        Some(url) => Operator {
            url: url.clone(),
            ..operator
        },
        None => operator,
    })
}

/// The secret in a file, without the line end that editors add.
pub(super) fn read_secret(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot read {}: {error}", file.display())))?;
    match text.trim() {
        "" => Err(Failure::new(
            Exit::Usage,
            format!("{} holds no secret: it is empty", file.display()),
        )),
        secret => Ok(secret.to_owned()),
    }
}

fn load(file: &Path) -> Result<Operator, Failure> {
    Operator::load(file).map_err(|error| {
        let exit = match error.kind() {
            // No file: nobody started a studio here.
            std::io::ErrorKind::NotFound => Exit::Unreachable,
            std::io::ErrorKind::PermissionDenied => Exit::Denied,
            _ => Exit::Usage,
        };
        Failure::new(
            exit,
            format!("no credentials: cannot read {}: {error}", file.display()),
        )
        .hint("start 'studio serve' with the same --data, or give --url, --authid and --secret-file")
    })
}
