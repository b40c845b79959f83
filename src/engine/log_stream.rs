//! Reading a container's log as lines.

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::daemon::{READ, Raw, bytes};
use super::lines::Lines;
use super::{Engine, EngineError, LogLine, LogRange};

/// Lines between daemon and reader. Full: we stop reading, and the daemon keeps the rest on disk. Small, because a
/// line may have a megabyte.
const QUEUE: usize = 16;

impl Engine {
    /// Lines of a container's log, oldest first; the channel ends with the log, or after one error.
    /// Back-pressure: a full channel stops reading. Streams of containers without TTY are demultiplexed.
    /// Dropping the receiver ends the reading task.
    pub fn logs(&self, name: &str, range: LogRange) -> mpsc::Receiver<Result<LogLine, EngineError>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (engine, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            if let Err(error) = read(&engine, &name, &range, &sender).await {
                // The receiver may be gone: then nobody wants to know.
                let _ = sender.send(Err(error)).await;
            }
        });
        receiver
    }
}

async fn read(
    engine: &Engine,
    name: &str,
    range: &LogRange,
    sender: &mpsc::Sender<Result<LogLine, EngineError>>,
) -> Result<(), EngineError> {
    let name = super::checked(name)?;
    let path = path_of(name, range)?;
    let framed = !engine.has_tty(name).await?;
    let mut stream = bytes(engine.client(READ)?, Raw::get(path));
    let mut lines = Lines::new(framed, range.timestamps);
    loop {
        let chunk = tokio::select! {
            chunk = stream.next() => chunk,
            () = sender.closed() => return Ok(()),
            // A log that is followed may be silent for ever; one that is only read may not.
            () = tokio::time::sleep(READ), if !range.follow => {
                return Err(EngineError::Timeout(READ, "read log"));
            }
        };
        let mut complete = Vec::new();
        let ended = match chunk {
            Some(chunk) => {
                let chunk = chunk.map_err(|error| engine.meaning(error, name))?;
                lines.feed(&chunk, &mut |line| complete.push(line));
                false
            }
            None => {
                lines.finish(&mut |line| complete.push(line));
                true
            }
        };
        for line in complete {
            if sender.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
    }
}

fn path_of(name: &str, range: &LogRange) -> Result<String, EngineError> {
    let flag = |on: bool| u8::from(on);
    let tail = range.tail.map_or("all".to_owned(), |lines| lines.to_string());
    let mut path = format!(
        "/containers/{name}/logs?stdout=1&stderr=1&follow={}&timestamps={}&tail={tail}",
        flag(range.follow),
        flag(range.timestamps),
    );
    if let Some(since) = &range.since {
        if !since.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(EngineError::Other(format!("invalid log start {since:?}")));
        }
        path.push_str("&since=");
        path.push_str(since);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_says_what_the_contract_says() {
        assert_eq!(
            path_of(
                "prod_1_x",
                &LogRange {
                    tail: Some(50),
                    ..LogRange::default()
                }
            ),
            Ok("/containers/prod_1_x/logs?stdout=1&stderr=1&follow=0&timestamps=0&tail=50".to_owned())
        );
        assert_eq!(
            path_of(
                "prod_1_x",
                &LogRange {
                    follow: true,
                    tail: None,
                    since: Some("12.000000034".to_owned()),
                    timestamps: true,
                }
            ),
            Ok(
                "/containers/prod_1_x/logs?stdout=1&stderr=1&follow=1&timestamps=1&tail=all&since=12.000000034"
                    .to_owned()
            )
        );
    }
}
