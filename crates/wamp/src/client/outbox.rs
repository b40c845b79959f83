//! The way out: one queue, in order, drained by one task that owns the sending half of the transport.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::link::{Host, Parcel};
use crate::transport::{FrameSink, TransportError};

/// Messages of the application that wait for the socket. Whoever has one more waits for a place.
const PLACES: usize = 64;

/// Short answers of the session itself (ERROR, CANCEL, GOODBYE) that wait. They cannot wait for a place, because the
/// receive path and destructors send them; when these are used up, the router reads nothing and the session is lost.
const URGENT_PLACES: usize = 4096;

/// Messages written before a flush, at most.
const BATCH: usize = 64;

/// Payload of keep-alive pings (`session-and-api.md` 4.7).
const KEEPALIVE: &[u8] = b"keepalive";

/// The queue's entrance. The queue itself has no bound: every message in it holds a place.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Queued>,
    places: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    ping: Arc<Notify>,
}

/// The queue's exit.
#[derive(Debug)]
pub(super) struct Queue {
    messages: mpsc::UnboundedReceiver<Queued>,
    ping: Arc<Notify>,
}

/// Room for one message.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Queued {
    message: Parcel,
    _place: Place,
}

/// The last words on a connection.
#[derive(Debug)]
pub(super) struct Farewell {
    /// A last message, behind all that are queued.
    pub(super) message: Option<Parcel>,
    /// WebSocket close code and reason.
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

pub(super) fn outbox() -> (Outbox, Queue) {
    let (sender, messages) = mpsc::unbounded_channel();
    let ping = Arc::new(Notify::new());
    let outbox = Outbox {
        queue: sender,
        places: Arc::new(Semaphore::new(PLACES)),
        urgent: Arc::new(Semaphore::new(URGENT_PLACES)),
        ping: ping.clone(),
    };
    (outbox, Queue { messages, ping })
}

impl Outbox {
    /// Waits for a place. `None` once the outbox is closed.
    pub(super) async fn place(&self) -> Option<Place> {
        let permit = self.places.clone().acquire_owned().await.ok()?;
        Some(Place { _permit: permit })
    }

    /// A place that needs no waiting; `None` when the router has stopped reading.
    pub(super) fn urgent_place(&self) -> Option<Place> {
        let permit = self.urgent.clone().try_acquire_owned().ok()?;
        Some(Place { _permit: permit })
    }

    /// Queues a message behind those that are already there.
    pub(super) fn push(&self, place: Place, message: Parcel) {
        // The receiver is gone when the session has ended: there is nobody to send to.
        let _ = self.queue.send(Queued {
            message,
            _place: place,
        });
    }

    /// Sends a ping before everything that is queued.
    pub(super) fn ping(&self) {
        self.ping.notify_one();
    }

    /// Nobody gets a place any more; those who wait learn it at once.
    pub(super) fn close(&self) {
        self.places.close();
        self.urgent.close();
    }
}

impl Queue {
    /// Writes until the farewell has been said or the transport fails.
    pub(super) async fn drain(
        mut self,
        mut sink: FrameSink,
        mut farewell: oneshot::Receiver<Farewell>,
    ) -> Result<(), TransportError> {
        loop {
            tokio::select! {
                biased;
                said = &mut farewell => {
                    return match said {
                        Ok(farewell) => self.finish(sink, farewell).await,
                        Err(_) => Ok(()),
                    };
                }
                () = self.ping.notified() => sink.ping(Bytes::from_static(KEEPALIVE)).await?,
                Some(first) = self.messages.recv() => {
                    feed(&mut sink, first.message).await?;
                    for _ in 1..BATCH {
                        match self.messages.try_recv() {
                            Ok(next) => feed(&mut sink, next.message).await?,
                            Err(_) => break,
                        }
                    }
                    sink.flush().await?;
                }
            }
        }
    }

    async fn finish(mut self, mut sink: FrameSink, farewell: Farewell) -> Result<(), TransportError> {
        if let Some(last) = farewell.message {
            while let Ok(queued) = self.messages.try_recv() {
                feed(&mut sink, queued.message).await?;
            }
            feed(&mut sink, last).await?;
        }
        sink.close(farewell.code, farewell.reason).await
    }

    /// Hands messages to a router in this process until the farewell has been said. A ping would find nothing out.
    pub(super) async fn hand_over(
        mut self,
        host: Arc<dyn Host>,
        mut farewell: oneshot::Receiver<Farewell>,
    ) -> Result<(), TransportError> {
        let mut due: Option<Instant> = None;
        loop {
            let expiry = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                said = &mut farewell => {
                    if let Ok(Farewell { message: Some(last), .. }) = said {
                        while let Ok(queued) = self.messages.try_recv() {
                            send(&*host, queued.message);
                        }
                        send(&*host, last);
                    }
                    return Ok(());
                }
                () = expiry => due = host.expire(),
                Some(queued) = self.messages.recv() => due = send(&*host, queued.message),
            }
        }
    }
}

async fn feed(sink: &mut FrameSink, parcel: Parcel) -> Result<(), TransportError> {
    match parcel {
        Parcel::Frame(frame) => sink.feed(frame).await,
        // Never made for a connection.
        Parcel::Message(_) => Ok(()),
    }
}

fn send(host: &dyn Host, parcel: Parcel) -> Option<Instant> {
    match parcel {
        Parcel::Message(message) => host.send(message),
        // Never made for a router in this process.
        Parcel::Frame(_) => None,
    }
}

/// Bound for the close handshake of the transport.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
