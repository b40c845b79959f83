//! The byte stream below every transport: notes signs of life, and takes back the octet that told transports apart.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Tells whether the peer has shown life: a byte from it, or room in a full send buffer, which its acknowledgements
/// make. The latter keeps a connection alive whose line is too slow for a ping to get through behind a long message.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<AtomicBool>);

impl Activity {
    /// Whether there was a sign of life since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Any byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// A byte stream that notes signs of life.
pub(super) struct Socket {
    inner: Box<dyn Io>,
    pub(super) activity: Activity,
    /// Read already, and to be read again.
    returned: Option<u8>,
    /// The send buffer was full at the last attempt.
    full: bool,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Socket")
    }
}

impl Socket {
    pub(super) fn new(inner: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Socket {
        Socket::over(inner, Activity::default())
    }

    /// On top of another one that notes signs of life already: TLS in between buffers what the peer does not take.
    pub(super) fn over(
        inner: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        activity: Activity,
    ) -> Socket {
        Socket {
            inner: Box::new(inner),
            activity,
            returned: None,
            full: false,
        }
    }

    /// Gives back the octet that was read last: it comes first again.
    pub(super) fn unread(&mut self, octet: u8) {
        self.returned = Some(octet);
    }

    fn note_write(&mut self, polled: &Poll<std::io::Result<usize>>) {
        if self.full && matches!(polled, Poll::Ready(Ok(_))) {
            self.activity.note();
        }
        self.full = polled.is_pending();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(octet) = self.returned.take()
        {
            buffer.put_slice(&[octet]);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.note();
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
