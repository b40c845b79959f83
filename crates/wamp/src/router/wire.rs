//! The router's end of a TCP connection: notes when the peer gave a sign of life, and hangs up in good order.
//!
//! Knows nothing of frames; `transport` puts the WebSocket on top.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

/// Observes a connection whose bytes go through a [`WireStream`].
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    read: OwnedReadHalf,
    /// Bytes that may still be read; reading more fails.
    allowance: AtomicUsize,
    vital: Mutex<Vital>,
}

#[derive(Clone, Copy, Debug)]
struct Vital {
    life: Instant,
    blocked_since: Option<Instant>,
}

/// The byte stream itself. Dropping it tells the peer that nothing more will come.
#[derive(Debug)]
pub(super) struct WireStream {
    inner: Arc<Inner>,
    write: OwnedWriteHalf,
}

impl Wire {
    /// Lets `allowance` bytes through until [`Wire::lift`].
    pub(super) fn new(stream: TcpStream, allowance: usize) -> (Wire, WireStream) {
        let (read, write) = stream.into_split();
        let inner = Arc::new(Inner {
            read,
            allowance: AtomicUsize::new(allowance),
            vital: Mutex::new(Vital {
                life: Instant::now(),
                blocked_since: None,
            }),
        });
        (Wire(Arc::clone(&inner)), WireStream { inner, write })
    }

    /// Lets everything through from now on.
    pub(super) fn lift(&self) {
        self.0.allowance.store(usize::MAX, Ordering::Relaxed);
    }

    /// Whether the peer has sent more than it was allowed to.
    pub(super) fn is_exhausted(&self) -> bool {
        self.0.allowance.load(Ordering::Relaxed) == 0
    }

    /// When the peer last gave a sign of life: a byte read, or room made for a write that was blocked.
    pub(super) fn last_life(&self) -> Instant {
        self.0.vital().life
    }

    /// Since when nothing can be written; `None` while writing works.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.0.vital().blocked_since
    }

    /// Reads and discards until the peer hangs up, at most `within`. Closing a socket with unread data resets the
    /// connection, and the peer might never see what it was told last.
    pub(super) async fn drain(&self, within: Duration) {
        let stream = &self.0.read;
        let drained = async {
            let mut discarded = vec![0; 16 << 10];
            while stream.readable().await.is_ok() {
                match stream.try_read(&mut discarded) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        // Out of time: the socket is dropped all the same.
        let _ = tokio::time::timeout(within, drained).await;
    }
}

impl Inner {
    fn vital(&self) -> MutexGuard<'_, Vital> {
        self.vital.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for WireStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &self.inner;
        loop {
            ready!(inner.read.as_ref().poll_read_ready(context))?;
            match inner.read.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    // Only this connection's task reads and lifts, so nothing happens in between.
                    let allowance = inner.allowance.load(Ordering::Relaxed);
                    if allowance != usize::MAX {
                        inner
                            .allowance
                            .store(allowance.saturating_sub(count), Ordering::Relaxed);
                        if count >= allowance {
                            return Poll::Ready(Err(io::Error::other("too much before joining")));
                        }
                    }
                    buffer.advance(count);
                    inner.vital().life = Instant::now();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for WireStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.write).poll_write(context, bytes);
        let mut vital = self.inner.vital();
        if polled.is_pending() {
            vital.blocked_since.get_or_insert_with(Instant::now);
        } else if vital.blocked_since.take().is_some() {
            // The kernel's buffer was full and has room again: the peer took something.
            vital.life = Instant::now();
        }
        drop(vital);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
