//! The router's end of a byte stream: notes when the peer gave a sign of life, bounds what a stranger may send, and hangs
//! up in good order.
//!
//! Knows nothing of frames; `transport` puts WebSocket or RawSocket on top.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

use crate::transport::Io;

/// Observes a connection whose bytes go through a [`WireStream`].
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Inner>);

struct Inner {
    /// Bytes that may still be read; reading more fails.
    allowance: AtomicUsize,
    vital: Mutex<Vital>,
    /// The byte stream, when the [`WireStream`] has been dropped.
    returned: Mutex<Option<Box<dyn Io>>>,
}

#[derive(Clone, Copy, Debug)]
struct Vital {
    life: Instant,
    blocked_since: Option<Instant>,
}

/// The byte stream itself. Dropping it gives what is below back to the [`Wire`], to be drained or dropped as well.
pub(super) struct WireStream {
    inner: Arc<Inner>,
    /// There until this is dropped.
    stream: Option<Box<dyn Io>>,
}

impl Wire {
    /// Lets `allowance` bytes through until [`Wire::lift`].
    pub(super) fn new(stream: Box<dyn Io>, allowance: usize) -> (Wire, WireStream) {
        let inner = Arc::new(Inner {
            allowance: AtomicUsize::new(allowance),
            vital: Mutex::new(Vital {
                life: Instant::now(),
                blocked_since: None,
            }),
            returned: Mutex::new(None),
        });
        let wire = Wire(Arc::clone(&inner));
        let stream = Some(stream);
        (wire, WireStream { inner, stream })
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

    /// After the [`WireStream`] has been dropped: says that nothing more will come, then reads and discards until the peer
    /// hangs up, at most `within`. Closing a socket with unread data resets the connection, and the peer might never see
    /// what it was told last.
    pub(super) async fn drain(&self, within: Duration) {
        let returned = self
            .0
            .returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut stream) = returned else {
            return;
        };
        let drained = async {
            // A peer that has reset the connection is not there to be told.
            let _ = stream.shutdown().await;
            let mut discarded = vec![0; 16 << 10];
            while let Ok(1..) = stream.read(&mut discarded).await {}
        };
        // Out of time: the socket is dropped all the same.
        let _ = tokio::time::timeout(within, drained).await;
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Inner")
            .field("vital", &self.vital)
            .finish_non_exhaustive()
    }
}

impl Drop for WireStream {
    fn drop(&mut self) {
        *self.inner.returned.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
    }
}

impl WireStream {
    fn stream(&mut self) -> Pin<&mut dyn Io> {
        Pin::new(self.stream.as_deref_mut().expect("there until the drop"))
    }
}

impl Inner {
    fn vital(&self) -> MutexGuard<'_, Vital> {
        self.vital.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for WireStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream().poll_read(context, buffer))?;
        let count = buffer.filled().len() - before;
        if count > 0 {
            let inner = &self.inner;
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
            inner.vital().life = Instant::now();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WireStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write(context, bytes);
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
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
