//! Watching the daemon: container events for ever, across restarts of the daemon (weakness W17).

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::daemon::{READ, Raw, bytes};
use super::lines::Lines;
use super::{Engine, EngineEvent};

/// Events between daemon and reader. Full: what follows is dropped and one [`EngineEvent::Resync`] takes its place.
const QUEUE: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A subscription that lived so long was a good one: the next failure starts with the first pause again.
const STABLE: Duration = Duration::from_secs(30);

/// Only what can change the state of an app. Everything else, above all the `exec_…` of health checks, would wake us
/// for nothing.
const FILTERS: &str = "{%22type%22:[%22container%22],%22event%22:[%22create%22,%22start%22,%22die%22,%22destroy%22,\
    %22pause%22,%22unpause%22,%22oom%22,%22health_status%22,%22rename%22]}";

/// The members of an event record that we read.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "Actor", default)]
    actor: Actor,
    #[serde(rename = "timeNano", default)]
    nanoseconds: u64,
}

#[derive(Default, Deserialize)]
struct Actor {
    #[serde(rename = "Attributes", default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Attributes {
    name: Option<String>,
    /// With leading slash; only of `rename`.
    old_name: Option<String>,
    /// Labels are attributes, too.
    #[serde(rename = "com.docker.compose.project")]
    project: Option<String>,
}

impl Engine {
    /// Container events, re-subscribed with back-off and a cursor for ever; ends when the receiver is dropped.
    /// Bounded: when the receiver is behind, events collapse into one [`EngineEvent::Resync`]. A daemon that cannot
    /// be reached is told once, by [`EngineEvent::Down`]; its return by [`EngineEvent::Resync`].
    pub fn events(&self) -> mpsc::Receiver<EngineEvent> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let engine = self.clone();
        tokio::spawn(async move {
            // The watch has no end of its own; the reader leaving is its end.
            tokio::select! {
                () = watch(&engine, &sender) => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }
}

async fn watch(engine: &Engine, sender: &mpsc::Sender<EngineEvent>) {
    let mut down = false;
    let mut pause = FIRST_PAUSE;
    let mut cursor = None;
    loop {
        let began = Instant::now();
        match engine.client(READ) {
            Ok(docker) if engine.is_up(READ).await => {
                down = false;
                // Taken before the reader looks at everything: the daemon repeats what happens between that look and
                // the moment at which the subscription is in place.
                let since: &mut u64 = cursor.get_or_insert_with(now);
                if sender.send(EngineEvent::Resync).await.is_err() {
                    return;
                }
                let path = format!("/events?since={}&filters={FILTERS}", seconds(*since));
                follow(bytes(docker, Raw::get(path)), since, sender).await;
                // The daemon that comes back may be another.
                engine.unprivileged.store(false, Ordering::Relaxed);
            }
            Ok(_) | Err(_) => {
                if !down && sender.send(EngineEvent::Down).await.is_err() {
                    return;
                }
                down = true;
            }
        }
        if began.elapsed() >= STABLE {
            pause = FIRST_PAUSE;
        }
        // Jitter is not needed: one client, one daemon, same machine.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Passes events on until the stream ends. `cursor` follows the newest one, in nanoseconds since 1970.
async fn follow(
    stream: impl Stream<Item = Result<Bytes, Error>> + Unpin,
    cursor: &mut u64,
    sender: &mpsc::Sender<EngineEvent>,
) {
    let mut stream = stream;
    let mut lines = Lines::plain();
    let mut behind = false;
    loop {
        let chunk = tokio::select! {
            place = sender.reserve(), if behind => {
                let Ok(place) = place else { return };
                place.send(EngineEvent::Resync);
                behind = false;
                continue;
            }
            chunk = stream.next() => chunk,
        };
        let Some(Ok(chunk)) = chunk else { return };
        lines.feed(&chunk, &mut |line| {
            // A record that cannot be read may be the one that matters.
            let Ok(record) = serde_json::from_str::<Record>(&line.text) else {
                behind = true;
                return;
            };
            *cursor = record.nanoseconds.max(*cursor);
            let Attributes {
                name,
                old_name,
                project,
            } = record.actor.attributes;
            for name in [name, old_name].into_iter().flatten() {
                let name = name.trim_start_matches('/').to_owned();
                let project = project.clone();
                behind = behind || sender.try_send(EngineEvent::Container { name, project }).is_err();
            }
        });
    }
}

fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// As the daemon wants a moment: `seconds.nanoseconds`.
fn seconds(nanoseconds: u64) -> String {
    format!(
        "{}.{:09}",
        nanoseconds / 1_000_000_000,
        nanoseconds % 1_000_000_000
    )
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn record(name: &str, nanoseconds: u64) -> Result<Bytes, Error> {
        Ok(Bytes::from(format!(
            "{{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{{\"ID\":\"1\",\"Attributes\":{{\"name\":\"{name}\"}}}},\
             \"timeNano\":{nanoseconds}}}\n"
        )))
    }

    fn container(name: &str) -> EngineEvent {
        EngineEvent::Container {
            name: name.to_owned(),
            project: None,
        }
    }

    #[tokio::test]
    async fn events_move_the_cursor_and_a_rename_is_an_event_of_both_names() {
        let (sender, mut receiver) = mpsc::channel(10);
        let renamed = "{\"Actor\":{\"Attributes\":{\"name\":\"new\",\"oldName\":\"/old\"}},\"timeNano\":7}\n";
        let records = stream::iter([record("a", 9), Ok(Bytes::from(renamed))]);
        let mut cursor = 5;
        follow(records, &mut cursor, &sender).await;
        drop(sender);
        assert_eq!(cursor, 9);
        for name in ["a", "new", "old"] {
            assert_eq!(receiver.recv().await, Some(container(name)));
        }
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn an_event_tells_the_compose_project_of_its_container() {
        let (sender, mut receiver) = mpsc::channel(10);
        let started =
            "{\"Actor\":{\"Attributes\":{\"name\":\"p-web-1\",\"com.docker.compose.project\":\"p\"}}}\n";
        follow(stream::iter([Ok(Bytes::from(started))]), &mut 0, &sender).await;
        let expected = EngineEvent::Container {
            name: "p-web-1".to_owned(),
            project: Some("p".to_owned()),
        };
        assert_eq!(receiver.recv().await, Some(expected));
    }

    #[tokio::test]
    async fn events_that_find_no_place_become_one_resync() {
        let (sender, mut receiver) = mpsc::channel(2);
        let (feed, source) = mpsc::channel(1);
        let records = stream::unfold(source, |mut source| async {
            source.recv().await.map(|record| (record, source))
        });
        let follower = tokio::spawn(async move { follow(Box::pin(records), &mut 0, &sender).await });
        for (number, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            feed.send(record(name, number as u64)).await.unwrap();
        }
        // The follower has taken "d" or "e" off its queue by now, so "c" has been refused.
        assert_eq!(receiver.recv().await, Some(container("a")));
        assert_eq!(receiver.recv().await, Some(container("b")));
        assert_eq!(receiver.recv().await, Some(EngineEvent::Resync));
        drop(feed);
        follower.await.unwrap();
    }

    #[test]
    fn a_moment_has_nine_digits_after_the_point() {
        assert_eq!(seconds(12_000_000_034), "12.000000034");
    }
}
