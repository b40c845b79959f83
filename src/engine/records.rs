//! The stream of JSON records with which the daemon tells how a pull, a push or a build goes on: the action owns and
//! reads it, checks every record, and knows a cancel by its token (weakness W29).

use std::pin::pin;
use std::time::Duration;

use bollard::errors::Error;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::daemon::{Raw, bytes};
use super::lines::Lines;
use super::{Engine, EngineError, LogLine};

/// What is done, and what its errors mean.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    /// For the text of a stall: `pull`.
    pub(super) name: &'static str,
    /// Without any record for so long it has failed. It has no bound as a whole: images are large, links are slow.
    pub(super) stall: Duration,
    /// Of the text in an error answer or record.
    pub(super) meaning: fn(String) -> EngineError,
}

/// The members of a record that decide.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    error: Option<String>,
    error_detail: Option<ErrorDetail>,
    progress_detail: Option<ProgressDetail>,
}

impl Record {
    /// What is no record says nothing about itself.
    fn of(line: &str) -> Record {
        serde_json::from_str(line).unwrap_or_default()
    }

    /// The failure that it reports, if it reports one.
    fn failure(self) -> Option<String> {
        self.error
            .or(self.error_detail.and_then(|detail| detail.message))
            .filter(|text| !text.is_empty())
    }

    /// It says how far something is: the next one says so again.
    fn is_progress(&self) -> bool {
        let current = self.progress_detail.as_ref().and_then(|detail| detail.current);
        current.is_some()
    }
}

/// Empty in a record that says that something has begun or is done.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ProgressDetail {
    current: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    message: Option<String>,
}

impl Engine {
    /// Sends `raw` and follows the records. Each goes to `progress` as its JSON line. When the channel is full, those that
    /// say how far something is are left out; for everything else, each line of a build above all, the daemon is read
    /// slower: whoever has the other end reads it while this goes on, or drops it. Ends with [`EngineError::Canceled`] when
    /// `cancel` fires: closing the connection is what ends the work inside the daemon.
    pub(super) async fn follow_records(
        &self,
        operation: Operation,
        raw: Raw,
        progress: mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let stream = bytes(self.client(operation.stall)?, raw);
        let _work = self.works.begin();
        crate::crash::before(operation.name);
        let result = cancel
            .run_until_cancelled(self.follow(operation, stream, progress))
            .await
            .unwrap_or(Err(EngineError::Canceled));
        crate::crash::after(operation.name);
        result
    }

    async fn follow(
        &self,
        operation: Operation,
        stream: impl futures_util::Stream<Item = Result<bytes::Bytes, Error>>,
        progress: mpsc::Sender<String>,
    ) -> Result<(), EngineError> {
        let Operation { name, stall, meaning } = operation;
        let mut stream = pin!(stream);
        let mut lines = Lines::plain();
        let mut failure = None;
        loop {
            let chunk = tokio::time::timeout(stall, stream.next())
                .await
                .map_err(|_| EngineError::Timeout(stall, name))?;
            let ended = chunk.is_none();
            let mut received = Vec::new();
            let mut take = |line: LogLine| received.push(line.text);
            match chunk {
                Some(Ok(chunk)) => lines.feed(&chunk, &mut take),
                Some(Err(Error::DockerResponseServerError { message, .. })) => {
                    return Err(meaning(message));
                }
                Some(Err(Error::RequestTimeoutError)) => return Err(EngineError::Timeout(stall, name)),
                Some(Err(error)) => return Err(self.meaning(error, "")),
                None => lines.finish(&mut take),
            }
            for line in received {
                let record = Record::of(&line);
                // Without a reader the work goes on all the same.
                if record.is_progress() {
                    let _ = progress.try_send(line);
                } else {
                    let _ = progress.send(line).await;
                }
                if failure.is_none() {
                    failure = record.failure();
                }
            }
            if let Some(text) = failure {
                return Err(meaning(text));
            }
            if ended {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    const PULL: Operation = Operation {
        name: "pull",
        stall: Duration::from_secs(300),
        meaning: EngineError::Other,
    };

    fn engine() -> Engine {
        Engine::at("unix:///nowhere").unwrap()
    }

    #[tokio::test]
    async fn an_error_in_any_record_is_a_failure_and_every_record_is_passed_on() {
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
        let result = engine().follow(PULL, records, progress).await;
        assert_eq!(result, Err(EngineError::Other("toomanyrequests".to_owned())));
        assert_eq!(received.recv().await.as_deref(), Some("{\"status\":\"Pulling\"}"));
        assert!(received.recv().await.unwrap().contains("toomanyrequests"));
        assert_eq!(received.recv().await, None);
    }

    #[tokio::test]
    async fn progress_that_finds_no_room_is_left_out_and_stops_nothing() {
        let (progress, mut received) = mpsc::channel(1);
        let record = |n| format!("{{\"status\":\"Downloading\",\"progressDetail\":{{\"current\":{n}}}}}");
        let records = stream::iter((0..5).map(|n| Ok(Bytes::from(format!("{}\n", record(n))))));
        engine().follow(PULL, records, progress).await.unwrap();
        assert_eq!(received.recv().await, Some(record(0)));
        assert_eq!(received.recv().await, None);
    }

    #[tokio::test]
    async fn what_is_said_but_once_waits_for_a_slow_reader() {
        let said: Vec<String> = (0..300)
            .map(|n| match n % 3 {
                0 => format!("{{\"stream\":\"line {n}\\n\"}}"),
                1 => format!("{{\"status\":\"Pull complete\",\"progressDetail\":{{}},\"id\":\"{n}\"}}"),
                _ => format!("no record {n}"),
            })
            .collect();
        let chunks: Vec<_> = said
            .chunks(100)
            .map(|lines| Ok(Bytes::from(lines.join("\n") + "\n")))
            .collect();
        let (progress, mut received) = mpsc::channel(1);
        let read = async {
            let mut seen = Vec::new();
            while let Some(line) = received.recv().await {
                seen.push(line);
            }
            seen
        };
        let engine = engine();
        let (result, seen) = tokio::join!(engine.follow(PULL, stream::iter(chunks), progress), read);
        assert_eq!((result, seen), (Ok(()), said.clone()));

        // Nobody reads any more.
        let (progress, received) = mpsc::channel(1);
        drop(received);
        let chunk = Ok(Bytes::from(said.join("\n")));
        assert_eq!(engine.follow(PULL, stream::iter([chunk]), progress).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_progress_it_fails_after_the_bound() {
        let (progress, _received) = mpsc::channel(1);
        let began = tokio::time::Instant::now();
        let result = engine().follow(PULL, stream::pending(), progress).await;
        assert_eq!(result, Err(EngineError::Timeout(PULL.stall, "pull")));
        assert_eq!(began.elapsed(), PULL.stall);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn an_operation_is_work_until_it_ends_or_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        // Takes the request, and never answers.
        let daemon = tokio::net::UnixListener::bind(&socket).unwrap();
        let engine = Engine::at(&format!("unix://{}", socket.display())).unwrap();
        let (progress, _received) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        {
            let pull = engine.pull("busybox:1", None, progress.clone(), &cancel);
            tokio::select! {
                ended = pull => panic!("{ended:?}"),
                taken = daemon.accept() => drop(taken.unwrap()),
            }
            assert!(!engine.works().are_under_way(), "it was dropped");
        }
        let pull = engine.pull("busybox:1", None, progress, &cancel);
        let work = async {
            let _open = daemon.accept().await.unwrap();
            assert!(engine.clone().works().are_under_way());
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(pull, work);
        assert_eq!(ended, Err(EngineError::Canceled));
        assert!(!engine.works().are_under_way());
    }
}
