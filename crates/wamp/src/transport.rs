//! WebSocket framing over TCP and TLS: one WAMP message per WebSocket message, for both ends of a connection.
//!
//! [`dial::dial`] opens a client's connection and [`accept::accept`] a server's; both give a [`Connection`], whose sink
//! and stream belong to different tasks, so that writing bulk data never delays reading. Long messages leave in
//! fragments, so that a PONG waits for one fragment at most, and because servers limit frames more tightly than
//! messages. Nothing here knows what a frame says.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage, error::CapacityError};

use crate::codec::Codec;

pub mod accept;
#[cfg(feature = "client")]
pub mod dial;
pub mod keepalive;
#[cfg(feature = "client")]
pub mod proxy;
#[cfg(feature = "client")]
pub mod tls;

pub use accept::{AcceptError, accept};
#[cfg(feature = "client")]
pub use dial::{DialError, dial};
pub use keepalive::Keepalive;
#[cfg(feature = "client")]
pub use proxy::{Proxies, ProxyError};
#[cfg(feature = "client")]
pub use tls::TlsOptions;

/// Longest fragment of a message that is sent. Small enough for a PONG to slip in on a slow line, large enough for the
/// frame headers not to matter.
const FRAGMENT: usize = 64 << 10;

/// An upgraded connection.
#[derive(Debug)]
pub struct Connection {
    /// The codec that both ends agreed on.
    pub codec: Codec,
    pub sink: FrameSink,
    pub stream: FrameStream,
    /// Tells whether the peer is alive.
    pub activity: Activity,
}

/// The sending half. None of its functions may be abandoned half-way: the connection is unusable afterwards.
#[derive(Debug)]
pub struct FrameSink {
    inner: SplitSink<WebSocketStream<Socket>, WsMessage>,
    opcode: Data,
}

/// The receiving half. It must be polled all the time: it also answers pings and close frames.
#[derive(Debug)]
pub struct FrameStream {
    inner: SplitStream<WebSocketStream<Socket>>,
    binary: bool,
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// One message, in the kind of frame that the codec demands.
    Data(Bytes),
    /// A PONG with its payload.
    Pong(Bytes),
    /// The peer's close frame. It is answered by polling on until the end.
    Close { code: Option<u16>, reason: String },
}

/// Why a connection is broken.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Text where the codec is binary, or the reverse. Close with 1003.
    #[error("wrong kind of frame for the codec")]
    WrongFrame,
    /// Larger than the configured message size. Close with 1009.
    #[error("the message is too large")]
    TooLarge,
    /// Against the WebSocket protocol. Close with 1002.
    #[error("WebSocket protocol violation")]
    Protocol(#[source] Box<WsError>),
    /// The socket failed, or the peer vanished without a close frame.
    #[error("the connection broke")]
    Lost(#[source] Box<WsError>),
}

impl TransportError {
    /// The close code that tells the peer what was wrong; `None` when nobody is left to tell.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            TransportError::WrongFrame => Some(1003),
            TransportError::TooLarge => Some(1009),
            TransportError::Protocol(_) => Some(1002),
            TransportError::Lost(_) => None,
        }
    }
}

impl From<WsError> for TransportError {
    fn from(error: WsError) -> TransportError {
        use tokio_tungstenite::tungstenite::error::ProtocolError;
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => TransportError::TooLarge,
            WsError::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
            ) => TransportError::Lost(Box::new(error)),
            WsError::Protocol(_) | WsError::Utf8(_) => TransportError::Protocol(Box::new(error)),
            _ => TransportError::Lost(Box::new(error)),
        }
    }
}

impl FrameSink {
    /// Hands over one encoded message. Waits while the socket takes nothing more; use [`FrameSink::flush`] when no
    /// further message is at hand.
    pub async fn feed(&mut self, message: Bytes) -> Result<(), TransportError> {
        let mut rest = message;
        let mut opcode = self.opcode;
        while rest.len() > FRAGMENT {
            let fragment = rest.split_to(FRAGMENT);
            self.feed_frame(Frame::message(fragment, OpCode::Data(opcode), false))
                .await?;
            opcode = Data::Continue;
        }
        self.feed_frame(Frame::message(rest, OpCode::Data(opcode), true))
            .await
    }

    async fn feed_frame(&mut self, frame: Frame) -> Result<(), TransportError> {
        Ok(self.inner.feed(WsMessage::Frame(frame)).await?)
    }

    /// Writes out everything that was fed.
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        Ok(self.inner.flush().await?)
    }

    /// Sends a PING of at most 125 bytes.
    pub async fn ping(&mut self, payload: Bytes) -> Result<(), TransportError> {
        Ok(self.inner.send(WsMessage::Ping(payload)).await?)
    }

    /// Sends a close frame. The reason is cut to what a close frame can carry. Polling [`FrameStream::next`] until the
    /// end waits for the peer's.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), TransportError> {
        let end = reason.floor_char_boundary(120);
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason[..end].into(),
        };
        Ok(self.inner.send(WsMessage::Close(Some(frame))).await?)
    }
}

impl FrameStream {
    /// The next thing from the peer; `None` when the connection has been closed in good order. May be abandoned and
    /// called again.
    pub async fn next(&mut self) -> Option<Result<Incoming, TransportError>> {
        loop {
            let message = match self.inner.next().await? {
                Ok(message) => message,
                Err(error) => return Some(Err(error.into())),
            };
            return Some(match message {
                WsMessage::Text(text) if !self.binary => Ok(Incoming::Data(text.into())),
                WsMessage::Binary(bytes) if self.binary => Ok(Incoming::Data(bytes)),
                WsMessage::Text(_) | WsMessage::Binary(_) => Err(TransportError::WrongFrame),
                // The next poll sends the PONG, before anything else is read.
                WsMessage::Ping(_) => continue,
                WsMessage::Pong(payload) => Ok(Incoming::Pong(payload)),
                WsMessage::Close(frame) => Ok(Incoming::Close {
                    code: frame.as_ref().map(|frame| frame.code.into()),
                    reason: frame.map(|frame| frame.reason.to_string()).unwrap_or_default(),
                }),
                WsMessage::Frame(_) => continue,
            });
        }
    }
}

/// Sends a close frame and waits for the peer to hang up, both together no longer than `within`.
pub async fn close(
    sink: &mut FrameSink,
    stream: &mut FrameStream,
    code: u16,
    reason: &str,
    within: Duration,
) {
    // An error or the end of time leads to the same thing: the socket is dropped.
    let _ = tokio::time::timeout(within, async {
        // What the peer still sends is read at the same time, else both sides could wait for the other to read.
        let (sent, ()) = tokio::join!(sink.close(code, reason), async {
            while let Some(Ok(_)) = stream.next().await {}
        });
        sent
    })
    .await;
}

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
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// A byte stream that notes signs of life.
struct Socket {
    inner: Box<dyn Io>,
    activity: Activity,
    /// The send buffer was full at the last attempt.
    full: bool,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Socket")
    }
}

impl Socket {
    fn new(inner: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Socket {
        Socket {
            inner: Box::new(inner),
            activity: Activity::default(),
            full: false,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.0.store(true, Ordering::Relaxed);
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
        if self.full && matches!(polled, Poll::Ready(Ok(_))) {
            self.activity.0.store(true, Ordering::Relaxed);
        }
        self.full = polled.is_pending();
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

fn websocket_config(max_message_size: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        // Allocated for every connection, used or not.
        .read_buffer_size(4 << 10)
        // Many small messages leave in one write; a fragment leaves at once.
        .write_buffer_size(16 << 10)
        .max_message_size(Some(max_message_size))
        .max_frame_size(Some(max_message_size))
}

fn connection(socket: WebSocketStream<Socket>, codec: Codec) -> Connection {
    let activity = socket.get_ref().activity.clone();
    let (sink, stream) = socket.split();
    Connection {
        codec,
        sink: FrameSink {
            inner: sink,
            opcode: if codec.is_binary() {
                Data::Binary
            } else {
                Data::Text
            },
        },
        stream: FrameStream {
            inner: stream,
            binary: codec.is_binary(),
        },
        activity,
    }
}
