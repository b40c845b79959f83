//! The router's end of a byte stream: notes when the peer gave a sign of life, bounds what a stranger may send, and hangs
//! up in good order.
//!
//! Knows nothing of frames; `transport` puts WebSocket or RawSocket on top.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Instant;

use crate::transport::Io;

/// Observes a connection: the socket through [`Watched`], what a stranger says on it through [`WireStream`]. TLS is
/// between the two, because it buffers: a peer that reads nothing blocks the socket, but not what is above TLS.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    /// Apart from the rest: what is given back to the [`Wire`] has a handle of it.
    pulse: Arc<Pulse>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Pulse(Mutex<Vital>);

struct Inner {
    /// Bytes that may still be read; reading more fails.
    allowance: AtomicUsize,
    /// The byte stream, when the [`WireStream`] has been dropped.
    returned: Mutex<Option<Box<dyn Io>>>,
}

#[derive(Clone, Copy, Debug)]
struct Vital {
    life: Instant,
    blocked_since: Option<Instant>,
}

/// The socket itself.
pub(super) struct Watched<S> {
    pulse: Arc<Pulse>,
    socket: S,
}

/// The byte stream that carries frames. Dropping it gives what is below back to the [`Wire`], to be drained or dropped as well.
pub(super) struct WireStream {
    inner: Arc<Inner>,
    /// There until this is dropped.
    stream: Option<Box<dyn Io>>,
}

impl Wire {
    /// Lets `allowance` bytes through until [`Wire::lift`].
    pub(super) fn new(allowance: usize) -> Wire {
        Wire {
            pulse: Arc::new(Pulse(Mutex::new(Vital {
                life: Instant::now(),
                blocked_since: None,
            }))),
            inner: Arc::new(Inner {
                allowance: AtomicUsize::new(allowance),
                returned: Mutex::new(None),
            }),
        }
    }

    /// Notes the signs of life on a socket.
    pub(super) fn watch<S>(&self, socket: S) -> Watched<S> {
        let pulse = Arc::clone(&self.pulse);
        Watched { pulse, socket }
    }

    /// Counts what is read from a byte stream.
    pub(super) fn carry(&self, stream: Box<dyn Io>) -> WireStream {
        let inner = Arc::clone(&self.inner);
        let stream = Some(stream);
        WireStream { inner, stream }
    }

    /// Lets everything through from now on.
    pub(super) fn lift(&self) {
        self.inner.allowance.store(usize::MAX, Ordering::Relaxed);
    }

    /// Whether the peer has sent more than it was allowed to.
    pub(super) fn is_exhausted(&self) -> bool {
        self.inner.allowance.load(Ordering::Relaxed) == 0
    }

    /// When the peer last gave a sign of life: a byte read, or room made for a write that was blocked.
    pub(super) fn last_life(&self) -> Instant {
        self.pulse.vital().life
    }

    /// Since when nothing can be written; `None` while writing works.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.pulse.vital().blocked_since
    }

    /// After the [`WireStream`] has been dropped: says that nothing more will come, then reads and discards until the peer
    /// hangs up, at most `within`. Closing a socket with unread data resets the connection, and the peer might never see
    /// what it was told last.
    pub(super) async fn drain(&self, within: Duration) {
        let returned = self
            .inner
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
            .field("allowance", &self.allowance)
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

impl Pulse {
    fn vital(&self) -> MutexGuard<'_, Vital> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_read(&self) {
        self.vital().life = Instant::now();
    }

    fn note_write(&self, pending: bool) {
        let mut vital = self.vital();
        if pending {
            vital.blocked_since.get_or_insert_with(Instant::now);
        } else if vital.blocked_since.take().is_some() {
            // The kernel's buffer was full and has room again: the peer took something.
            vital.life = Instant::now();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pulse.note_read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.pulse.note_write(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.pulse.note_write(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
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
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
