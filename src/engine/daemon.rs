//! One request to the daemon: connection, deadline, raw bytes, and what an answer means as an [`EngineError`].
//!
//! Owns how we talk, not what we say. Every request opens its own connection, so nothing is held while idle and a
//! daemon that was restarted, replaced or not yet started needs no special case. Requests carry no API version: the
//! daemon answers in its own newest one.

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hyper::header::HeaderValue;
use serde::de::DeserializeOwned;

use super::{Engine, EngineError};

/// Bound of a call that changes something (`app-lifecycle.md` 11).
pub(super) const CHANGE: Duration = Duration::from_secs(30);
/// Bound of a call that only reads (weakness R62).
pub(super) const READ: Duration = Duration::from_secs(10);
/// Largest JSON answer that is read whole.
const MAX_ANSWER: usize = 64 << 20;

impl Engine {
    /// A client whose answer headers must arrive within `within`. Does not connect.
    pub(super) fn client(&self, within: Duration) -> Result<Docker, EngineError> {
        // bollard counts whole seconds; `deadline` is the exact bound, this one must only not be shorter.
        Docker::connect_with_host(&self.host)
            .map(|docker| docker.with_timeout(within + Duration::from_secs(1)))
            .map_err(|error| self.meaning(error, ""))
    }

    /// Sends one request and reads its answer whole, under a deadline. `subject` is the container or image that it is
    /// about.
    pub(super) async fn send(
        &self,
        doing: &'static str,
        within: Duration,
        subject: &str,
        raw: Raw,
    ) -> Result<Vec<u8>, EngineError> {
        let docker = self.client(within)?;
        let changes = within >= CHANGE;
        if changes {
            crate::crash::before(doing);
        }
        let answer = tokio::time::timeout(within, whole(docker, raw)).await;
        if changes {
            crate::crash::after(doing);
        }
        match answer {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(Error::RequestTimeoutError)) | Err(_) => Err(EngineError::Timeout(within, doing)),
            Ok(Err(error)) => Err(self.meaning(error, subject)),
        }
    }

    /// `GET path` read as JSON into the caller's own type.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        subject: &str,
        path: &str,
    ) -> Result<T, EngineError> {
        read(doing, &self.send(doing, READ, subject, Raw::get(path)).await?)
    }

    /// Turns an error of the client library into ours. `subject` names the container it is about.
    pub(super) fn meaning(&self, error: Error, subject: &str) -> EngineError {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                of_answer(status_code, message.trim().to_owned(), subject)
            }
            Error::DockerStreamError { error } => of_text(error),
            Error::SocketNotFoundError(path) => {
                EngineError::Unreachable(format!("{path}: no such file or directory"))
            }
            error @ (Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }) => {
                EngineError::Unreachable(format!("{}: {}", self.host, root_cause(&error)))
            }
            other => EngineError::Other(other.to_string()),
        }
    }
}

/// A JSON answer as the caller's own type. bollard's models are not used: they drop members they do not know, refuse enum
/// values they do not know, and each is thousands of lines of reading what nobody asks for.
pub(super) fn read<T: DeserializeOwned>(doing: &str, body: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(body)
        .map_err(|error| EngineError::Other(format!("unreadable answer of the daemon ({doing}): {error}")))
}

async fn whole(docker: Docker, raw: Raw) -> Result<Vec<u8>, Error> {
    let mut stream = bytes(docker, raw);
    let mut body = Vec::new();
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk?);
        if body.len() > MAX_ANSWER {
            return Err(std::io::Error::other("the daemon's answer is too large").into());
        }
    }
    Ok(body)
}

/// The innermost cause: the layers around it only repeat "client error".
fn root_cause(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// A request whose answer is read as the bytes that the daemon sends.
pub(super) struct Raw {
    pub(super) method: Method,
    /// Only characters that are valid in a URL; names and references are checked or [`escaped`] before they get here.
    pub(super) path: String,
    /// Names and values; the values are secret.
    pub(super) credentials: Option<(&'static str, String)>,
    pub(super) body: Option<Body>,
}

/// What goes to the daemon.
pub(super) enum Body {
    /// A tar, in pieces.
    Archive(Archive),
    Json(String),
}

pub(super) type Archive = std::pin::Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

#[derive(Clone, Copy)]
pub(super) enum Method {
    Get,
    Post,
    Delete,
}

impl Raw {
    pub(super) fn get(path: impl Into<String>) -> Raw {
        Raw {
            method: Method::Get,
            path: path.into(),
            credentials: None,
            body: None,
        }
    }

    pub(super) fn post(path: impl Into<String>) -> Raw {
        Raw {
            method: Method::Post,
            ..Raw::get(path)
        }
    }

    pub(super) fn delete(path: impl Into<String>) -> Raw {
        Raw {
            method: Method::Delete,
            ..Raw::get(path)
        }
    }
}

/// For a name in a path or a value in a query: only the characters that need no escape stay.
pub(super) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' | b':' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The daemon's answer as the bytes it sent, for answers that must not be re-encoded (progress, lists that are passed
/// through) or that the library decodes by guessing (logs: it takes a leading control character of a TTY line for a
/// frame header, and buffers a line without end).
pub(super) fn bytes(docker: Docker, raw: Raw) -> impl Stream<Item = Result<Bytes, Error>> + Unpin + Send {
    // The library has no public raw request. Its request hook may replace everything but the connection, so a request
    // whose answer it hands out undecoded serves as the carrier; status codes are still checked by the library.
    const CARRIER: &str = "/containers/-/export";
    let Raw {
        method,
        path,
        credentials,
        body,
    } = raw;
    // The hook may be called by reference only, the body can be given away once.
    let body = Mutex::new(body);
    let docker = docker.with_request_modifier(move |mut request| {
        let uri = request.uri().to_string();
        let base = uri.strip_suffix(CARRIER).unwrap_or(&uri);
        // A path that is no URL leaves the carrier as it is: the daemon answers 404 for a container named "-".
        if let Ok(uri) = format!("{base}{path}").parse() {
            *request.uri_mut() = uri;
            *request.method_mut() = match method {
                Method::Get => hyper::Method::GET,
                Method::Post => hyper::Method::POST,
                Method::Delete => hyper::Method::DELETE,
            };
            let headers = request.headers_mut();
            if let Some((name, value)) = &credentials
                && let Ok(value) = value.parse()
            {
                headers.insert(*name, value);
                if let Some(value) = headers.get_mut(*name) {
                    value.set_sensitive(true);
                }
            }
            match body.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(Body::Archive(archive)) => {
                    headers.insert("content-type", HeaderValue::from_static("application/x-tar"));
                    *request.body_mut() = bollard::body_try_stream(archive);
                }
                // The library calls the content of every request JSON.
                Some(Body::Json(text)) => *request.body_mut() = bollard::body_full(text.into()),
                None => {}
            }
        }
        request
    });
    docker.export_container("-")
}

/// What an error answer means. Status codes first, the daemon's words where one code has several meanings (G6).
fn of_answer(status: u16, message: String, subject: &str) -> EngineError {
    let lower = message.to_lowercase();
    match status {
        404 if lower.contains("no such container") => EngineError::NoSuchContainer(subject.to_owned()),
        404 if lower.contains("no such image") => EngineError::NoSuchImage(message),
        401 | 403 => EngineError::Denied(message),
        409 if lower.contains("is already in use by") => EngineError::NameInUse(message),
        _ if lower.contains("container which is dead or marked for removal") => {
            EngineError::NoSuchContainer(subject.to_owned())
        }
        _ => of_text(message),
    }
}

/// What an error text means for which the daemon has no status code: failures of parts behind it, reported as 500.
pub(super) fn of_text(message: String) -> EngineError {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["port is already allocated", "address already in use"]) {
        EngineError::PortConflict(message)
    } else if says(&["no space left on device"]) {
        EngineError::NoSpace(message)
    } else {
        EngineError::Other(message)
    }
}

/// What an error text of a pull means: the registry's words, passed on by the daemon as an error answer with varying
/// codes or as a record inside the stream.
pub(super) fn of_registry(message: String) -> EngineError {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&[
        "unauthorized",
        "no basic auth credentials",
        "authentication required",
        "access denied",
        "access to the resource is denied",
        "denied:",
    ]) {
        EngineError::Denied(message)
    } else if says(&[
        "manifest unknown",
        "name unknown",
        "repository name not known",
        "not found",
    ]) {
        EngineError::NoSuchImage(message)
    } else {
        of_text(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_url_is_escaped() {
        assert_eq!(escaped("127.0.0.1:5000/apps/x:1"), "127.0.0.1:5000/apps/x:1");
        assert_eq!(escaped("build_6_My App&x=1"), "build_6_My%20App%26x%3D1");
    }

    #[test]
    fn an_error_answer_is_classified_by_status_and_words() {
        let of = |status, text: &str| of_answer(status, text.to_owned(), "prod_1_x");
        assert_eq!(
            of(404, "No such container: prod_1_x"),
            EngineError::NoSuchContainer("prod_1_x".to_owned())
        );
        assert_eq!(
            of(
                500,
                "can not get logs from container which is dead or marked for removal"
            ),
            EngineError::NoSuchContainer("prod_1_x".to_owned())
        );
        assert!(matches!(
            of(404, "No such image: x:1"),
            EngineError::NoSuchImage(_)
        ));
        assert!(matches!(
            of(
                409,
                "Conflict. The container name \"/a\" is already in use by container \"b\""
            ),
            EngineError::NameInUse(_)
        ));
        assert!(matches!(
            of(500, "Bind for 0.0.0.0:80 failed: port is already allocated"),
            EngineError::PortConflict(_)
        ));
        assert!(matches!(
            of(500, "write /x: no space left on device"),
            EngineError::NoSpace(_)
        ));
        // Words of a registry in the daemon's answer to something else are only words.
        for other in [
            "exec: \"x\": executable file not found in $PATH",
            "exec /x: permission denied: unknown",
        ] {
            assert_eq!(of(400, other), EngineError::Other(other.to_owned()));
        }
    }

    #[test]
    fn an_error_of_a_pull_is_classified_by_the_registrys_words() {
        let of = |text: &str| of_registry(text.to_owned());
        for denied in [
            "Head \"https://r/v2/x/manifests/1\": unauthorized: authentication required",
            "Get \"https://r/v2/\": no basic auth credentials",
            "pull access denied for x, repository does not exist or may require 'docker login'",
        ] {
            assert!(matches!(of(denied), EngineError::Denied(_)), "{denied}");
        }
        assert!(matches!(
            of("manifest for r/x:9 not found: manifest unknown: manifest unknown"),
            EngineError::NoSuchImage(_)
        ));
        assert!(matches!(
            of("write /var/lib/docker/tmp/x: no space left on device"),
            EngineError::NoSpace(_)
        ));
        assert!(matches!(of("dial tcp: i/o timeout"), EngineError::Other(_)));
    }
}
