//! Pulling an image: the action owns and reads its stream, checks every record, and knows a cancel by its token
//! (weakness W29).

use std::pin::pin;
use std::time::Duration;

use base64::engine::general_purpose::URL_SAFE;
use bollard::errors::Error;
use futures_util::{Stream, StreamExt as _};
use protocol::request::RegistryLogin;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::daemon::{bytes, of_registry};
use super::image::Reference;
use super::lines::Lines;
use super::{Engine, EngineError};

/// A pull without any record for so long has failed. It has no bound as a whole: images are large, links are slow.
const STALL: Duration = Duration::from_secs(5 * 60);

/// The members of a progress record that decide.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    error: Option<String>,
    error_detail: Option<ErrorDetail>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    message: Option<String>,
}

impl Engine {
    /// Pulls. Every record of the daemon goes to `progress` as its JSON line; a full channel drops lines, never waits.
    /// Ends with [`EngineError::Canceled`] when `cancel` fires, and fails when no progress arrives for five minutes.
    /// Closing the connection is what ends the pull inside the daemon.
    pub async fn pull(
        &self,
        reference: &str,
        login: Option<&RegistryLogin>,
        progress: mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let Some(Reference { repository, version }) = Reference::parse(reference) else {
            return Err(EngineError::NoSuchImage(format!(
                "invalid reference format: {reference:?}"
            )));
        };
        let path = format!("/images/create?fromImage={repository}&tag={version}");
        let stream = bytes(self.client(STALL)?, "POST", &path, login.map(auth_header));
        cancel
            .run_until_cancelled(self.follow_pull(stream, progress, STALL))
            .await
            .unwrap_or(Err(EngineError::Canceled))
    }

    async fn follow_pull(
        &self,
        stream: impl Stream<Item = Result<bytes::Bytes, Error>>,
        progress: mpsc::Sender<String>,
        stall: Duration,
    ) -> Result<(), EngineError> {
        let mut stream = pin!(stream);
        let mut lines = Lines::plain();
        let mut failure = None;
        loop {
            let chunk = tokio::time::timeout(stall, stream.next())
                .await
                .map_err(|_| EngineError::Timeout(stall, "pull"))?;
            let ended = chunk.is_none();
            let mut tee = |line: String| {
                if failure.is_none() {
                    failure = error_of(&line);
                }
                // Full: a viewer misses a progress line, which the next one replaces.
                let _ = progress.try_send(line);
            };
            match chunk {
                Some(Ok(chunk)) => lines.feed(&chunk, &mut |line| tee(line.text)),
                Some(Err(Error::DockerResponseServerError { message, .. })) => {
                    return Err(of_registry(message));
                }
                Some(Err(Error::RequestTimeoutError)) => return Err(EngineError::Timeout(stall, "pull")),
                Some(Err(error)) => return Err(self.meaning(error, "")),
                None => lines.finish(&mut |line| tee(line.text)),
            }
            if let Some(text) = failure {
                return Err(of_registry(text));
            }
            if ended {
                return Ok(());
            }
        }
    }
}

/// The failure that a record reports, if it reports one.
fn error_of(line: &str) -> Option<String> {
    let record: Record = serde_json::from_str(line).ok()?;
    record
        .error
        .or(record.error_detail.and_then(|detail| detail.message))
        .filter(|text| !text.is_empty())
}

/// The value of `X-Registry-Auth` (`app-lifecycle.md` 4.9).
fn auth_header(login: &RegistryLogin) -> String {
    use base64::Engine as _;
    let credentials = serde_json::json!({"username": login.username, "password": login.password});
    URL_SAFE.encode(credentials.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    fn engine() -> Engine {
        Engine::at("unix:///nowhere").unwrap()
    }

    #[tokio::test]
    async fn an_error_in_any_record_fails_the_pull_and_every_record_is_passed_on() {
        let (progress, mut received) = mpsc::channel(10);
        let records = stream::iter([
            Ok(Bytes::from(
                "{\"status\":\"Pulling\"}\r\n{\"errorDetail\":{\"mess",
            )),
            Ok(Bytes::from(
                "age\":\"toomanyrequests\"},\"error\":\"toomanyrequests\"}\r\n",
            )),
            Ok(Bytes::from("{\"status\":\"never read\"}\r\n")),
        ]);
        let result = engine().follow_pull(records, progress, STALL).await;
        assert_eq!(result, Err(EngineError::Other("toomanyrequests".to_owned())));
        assert_eq!(received.recv().await.as_deref(), Some("{\"status\":\"Pulling\"}"));
        assert!(received.recv().await.unwrap().contains("toomanyrequests"));
        assert_eq!(received.recv().await, None);
    }

    #[tokio::test]
    async fn a_full_progress_channel_does_not_stop_the_pull() {
        let (progress, mut received) = mpsc::channel(1);
        let records = stream::iter((0..5).map(|n| Ok(Bytes::from(format!("{{\"status\":\"{n}\"}}\n")))));
        engine().follow_pull(records, progress, STALL).await.unwrap();
        assert_eq!(received.recv().await.as_deref(), Some("{\"status\":\"0\"}"));
        assert_eq!(received.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_without_progress_fails_after_the_bound() {
        let (progress, _received) = mpsc::channel(1);
        let began = tokio::time::Instant::now();
        let result = engine().follow_pull(stream::pending(), progress, STALL).await;
        assert_eq!(result, Err(EngineError::Timeout(STALL, "pull")));
        assert_eq!(began.elapsed(), STALL);
    }

    #[test]
    fn the_auth_header_is_url_safe_base64_of_the_credentials() {
        let header = auth_header(&RegistryLogin {
            username: "t>?".to_owned(),
            password: "s~~~".to_owned(),
        });
        assert_eq!(header, "eyJ1c2VybmFtZSI6InQ-PyIsInBhc3N3b3JkIjoic35-fiJ9");
    }
}
