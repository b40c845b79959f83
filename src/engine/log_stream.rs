//! Reading a container's log as lines.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::daemon::{READ, Raw, bytes};
use super::lines::Lines;
use super::{Engine, EngineError, LogLine, LogRange};

/// Portions between daemon and reader. Full: we stop reading, and the daemon keeps the rest on disk. Small, because a
/// line may have a megabyte.
const QUEUE: usize = 4;

/// How long a portion waits for more after its first bytes. The daemon sends every line on its own, and what is woken for
/// each pays far more for that than for the line. Lines wait much longer to be published.
const COMPANY: Duration = Duration::from_millis(5);

/// Bytes of the daemon's answer after which a portion goes out, however many more are there.
const PORTION: usize = 64 << 10;

impl Engine {
    /// Lines of a container's log, oldest first; the channel ends with the log, or after one error.
    /// Back-pressure: a full channel stops reading. Streams of containers without TTY are demultiplexed.
    /// Dropping the receiver ends the reading task.
    pub fn logs(&self, name: &str, range: LogRange) -> mpsc::Receiver<Result<LogLine, EngineError>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut portions = self.log_portions(name, range);
        tokio::spawn(async move {
            while let Some(portion) = portions.recv().await {
                let lines = match portion {
                    Ok(lines) => lines.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                };
                for line in lines {
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
            }
        });
        receiver
    }

    /// The same with all lines that one read of the daemon's answer completed together: for logs that flood.
    pub fn log_portions(
        &self,
        name: &str,
        range: LogRange,
    ) -> mpsc::Receiver<Result<Vec<LogLine>, EngineError>> {
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
    sender: &mpsc::Sender<Result<Vec<LogLine>, EngineError>>,
) -> Result<(), EngineError> {
    let name = super::checked(name)?;
    let path = path_of(name, range)?;
    let framed = !engine.has_tty(name).await?;
    let mut stream = bytes(engine.client(READ)?, Raw::get(path));
    let mut lines = Lines::new(framed, range.timestamps);
    let mut complete = Vec::new();
    let mut taken = 0;
    let silence = tokio::time::sleep(READ);
    let company = tokio::time::sleep(COMPANY);
    tokio::pin!(silence, company);
    loop {
        let next = tokio::select! {
            biased;
            chunk = stream.next() => Some(chunk),
            () = &mut company, if taken > 0 => None,
            // With bytes in hand, the attempt to send them will tell.
            () = sender.closed(), if taken == 0 => return Ok(()),
            // A log that is followed may be silent for ever; one that is only read may not.
            () = &mut silence, if !range.follow && taken == 0 => return Err(EngineError::Timeout(READ, "read log")),
        };
        match next {
            Some(Some(Ok(bytes))) => {
                if taken == 0 {
                    company.as_mut().reset(Instant::now() + COMPANY);
                }
                taken += bytes.len();
                lines.feed(&bytes, &mut |line| complete.push(line));
                if taken < PORTION {
                    continue;
                }
            }
            Some(Some(Err(error))) => {
                // What came before it came.
                let _ = sender.send(Ok(complete)).await;
                return Err(engine.meaning(error, name));
            }
            Some(None) => {
                lines.finish(&mut |line| complete.push(line));
                if !complete.is_empty() {
                    // The receiver may be gone: then nobody wants to know.
                    let _ = sender.send(Ok(complete)).await;
                }
                return Ok(());
            }
            None => {}
        }
        taken = 0;
        if !complete.is_empty() && sender.send(Ok(std::mem::take(&mut complete))).await.is_err() {
            return Ok(());
        }
        silence.as_mut().reset(Instant::now() + READ);
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
    for (name, moment) in [("since", &range.since), ("until", &range.until)] {
        let Some(moment) = moment else { continue };
        if !moment.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(EngineError::Other(format!("invalid log bound {moment:?}")));
        }
        path.push('&');
        path.push_str(name);
        path.push('=');
        path.push_str(moment);
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
                    until: Some("13".to_owned()),
                    timestamps: true,
                }
            ),
            Ok(
                "/containers/prod_1_x/logs?stdout=1&stderr=1&follow=1&timestamps=1&tail=all&since=12.000000034&until=13"
                    .to_owned()
            )
        );
    }
}
