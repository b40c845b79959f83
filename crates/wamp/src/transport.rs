//! How messages travel: WebSocket and RawSocket, over TCP, TLS and Unix sockets, for both ends of a connection.
//!
//! [`dial::dial`] opens a client's connection and [`accept::accept`] a server's; both give a [`Connection`], whose sink
//! and stream belong to different tasks, so that writing bulk data never delays reading. Nothing here knows what a frame
//! says.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::Codec;

pub mod accept;
#[cfg(feature = "client")]
pub mod dial;
pub mod keepalive;
#[cfg(feature = "client")]
pub mod proxy;
pub mod rawsocket;
mod socket;
pub mod tls;
mod websocket;

pub use accept::{AcceptError, accept};
#[cfg(feature = "client")]
pub use dial::{DialError, dial};
pub use keepalive::Keepalive;
#[cfg(feature = "client")]
pub use proxy::{Proxies, ProxyError};
pub use rawsocket::RawSocketError;
use rawsocket::{RawSink, RawSource};
pub use socket::Activity;
#[cfg(feature = "router")]
pub(crate) use socket::Io;
#[cfg(feature = "router")]
pub use tls::ServerTls;
#[cfg(feature = "client")]
pub use tls::TlsOptions;
use websocket::{WebSocketSink, WebSocketSource};

/// A connection on which messages can travel.
#[derive(Debug)]
pub struct Connection {
    /// The codec that both ends agreed on.
    pub codec: Codec,
    /// Largest message that the peer takes, bytes; `usize::MAX` where the transport does not tell (WebSocket). A larger
    /// one would end the connection.
    pub max_sent: usize,
    pub sink: FrameSink,
    pub stream: FrameStream,
    /// Tells whether the peer is alive.
    pub activity: Activity,
}

/// The sending half. None of its functions may be abandoned half-way: the connection is unusable afterwards.
#[derive(Debug)]
pub struct FrameSink(SinkKind);

#[derive(Debug)]
enum SinkKind {
    WebSocket(WebSocketSink),
    Raw(RawSink),
}

/// The receiving half. It must be polled all the time: it also answers pings and close frames.
#[derive(Debug)]
pub struct FrameStream(StreamKind);

#[derive(Debug)]
enum StreamKind {
    WebSocket(WebSocketSource),
    Raw(RawSource),
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// One message, in the kind of frame that the codec demands.
    Data(Bytes),
    /// A PONG with its payload.
    Pong(Bytes),
    /// The peer's close frame. It is answered by polling on until the end. RawSocket has none: it just ends.
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
    /// Against the protocol of the transport. Close with 1002.
    #[error("protocol violation in the transport")]
    Protocol(#[source] Box<dyn Error + Send + Sync>),
    /// The socket failed, or the peer vanished without a close frame.
    #[error("the connection broke")]
    Lost(#[source] Box<dyn Error + Send + Sync>),
}

impl TransportError {
    /// The WebSocket close code that tells the peer what was wrong; `None` when nobody is left to tell.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            TransportError::WrongFrame => Some(1003),
            TransportError::TooLarge => Some(1009),
            TransportError::Protocol(_) => Some(1002),
            TransportError::Lost(_) => None,
        }
    }
}

impl FrameSink {
    /// Hands over one encoded message of at most [`Connection::max_sent`] bytes. Waits while the socket takes nothing
    /// more; use [`FrameSink::flush`] when no further message is at hand.
    pub async fn feed(&mut self, message: Bytes) -> Result<(), TransportError> {
        match &mut self.0 {
            SinkKind::WebSocket(sink) => sink.feed(message).await,
            SinkKind::Raw(sink) => sink.feed(message).await,
        }
    }

    /// Writes out everything that was fed.
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        match &mut self.0 {
            SinkKind::WebSocket(sink) => sink.flush().await,
            SinkKind::Raw(sink) => sink.flush().await,
        }
    }

    /// Sends a PING of at most 125 bytes.
    pub async fn ping(&mut self, payload: Bytes) -> Result<(), TransportError> {
        match &mut self.0 {
            SinkKind::WebSocket(sink) => sink.ping(payload).await,
            SinkKind::Raw(sink) => sink.ping(payload).await,
        }
    }

    /// Says that nothing more will come: by a close frame with code and reason on a WebSocket, by the end of the stream on a
    /// RawSocket, which has no words for it. Polling [`FrameStream::next`] until the end waits for the peer's.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), TransportError> {
        match &mut self.0 {
            SinkKind::WebSocket(sink) => sink.close(code, reason).await,
            SinkKind::Raw(sink) => sink.close().await,
        }
    }

    /// Whether this is a RawSocket.
    pub fn is_raw(&self) -> bool {
        matches!(self.0, SinkKind::Raw(_))
    }
}

impl FrameStream {
    /// The next thing from the peer; `None` when the connection has been closed in good order. May be abandoned and
    /// called again.
    pub async fn next(&mut self) -> Option<Result<Incoming, TransportError>> {
        match &mut self.0 {
            StreamKind::WebSocket(source) => source.next().await,
            StreamKind::Raw(source) => source.next().await,
        }
    }

    /// Whether the peer survives a PING. Every WebSocket does; on a RawSocket only one that has sent PING or PONG itself is
    /// known to: autobahn-python and Crossbar.io take the header for a length and are lost (`wamp-interop.md` 3.8).
    #[cfg(feature = "router")]
    pub(crate) fn knows_pings(&self) -> bool {
        match &self.0 {
            StreamKind::WebSocket(_) => true,
            StreamKind::Raw(source) => source.knows_pings,
        }
    }
}

/// Closes the sending half and waits for the peer to hang up, both together no longer than `within`.
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

/// An error and all its causes in one line.
#[cfg(any(feature = "client", feature = "router"))]
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
