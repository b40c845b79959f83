//! WebSocket framing: one WAMP message per WebSocket message.
//!
//! Long messages leave in fragments, so that a PONG waits for one fragment at most, and because servers limit frames
//! more tightly than messages.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage, error::CapacityError};

use super::socket::Socket;
use super::{Connection, FrameSink, FrameStream, Incoming, SinkKind, StreamKind, TransportError};
use crate::codec::Codec;

/// Longest fragment of a message that is sent. Small enough for a PONG to slip in on a slow line, large enough for the
/// frame headers not to matter.
const FRAGMENT: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct WebSocketSink {
    inner: SplitSink<WebSocketStream<Socket>, WsMessage>,
    opcode: Data,
}

#[derive(Debug)]
pub(super) struct WebSocketSource {
    inner: SplitStream<WebSocketStream<Socket>>,
    binary: bool,
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

impl WebSocketSink {
    pub(super) async fn feed(&mut self, message: Bytes) -> Result<(), TransportError> {
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

    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        Ok(self.inner.flush().await?)
    }

    pub(super) async fn ping(&mut self, payload: Bytes) -> Result<(), TransportError> {
        Ok(self.inner.send(WsMessage::Ping(payload)).await?)
    }

    /// The reason is cut to what a close frame can carry.
    pub(super) async fn close(&mut self, code: u16, reason: &str) -> Result<(), TransportError> {
        let end = reason.floor_char_boundary(120);
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason[..end].into(),
        };
        Ok(self.inner.send(WsMessage::Close(Some(frame))).await?)
    }
}

impl WebSocketSource {
    pub(super) async fn next(&mut self) -> Option<Result<Incoming, TransportError>> {
        loop {
            let message = match self.inner.next().await? {
                Ok(message) => message,
                Err(error) => return Some(Err(error.into())),
            };
            return Some(match message {
                WsMessage::Text(text) if !self.binary => Ok(Incoming::Data(text.into())),
                WsMessage::Binary(bytes) if self.binary => Ok(Incoming::Data(bytes)),
                WsMessage::Text(_) | WsMessage::Binary(_) => Err(TransportError::WrongFrame),
                WsMessage::Ping(_) => {
                    // The next poll sends the PONG, before anything else is read. A peer that sends nothing but pings must
                    // not starve who waits elsewhere.
                    tokio::task::yield_now().await;
                    continue;
                }
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

pub(super) fn config(max_message_size: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        // Allocated for every connection, used or not.
        .read_buffer_size(4 << 10)
        // Many small messages leave in one write; a fragment leaves at once.
        .write_buffer_size(16 << 10)
        .max_message_size(Some(max_message_size))
        .max_frame_size(Some(max_message_size))
}

pub(super) fn connection(socket: WebSocketStream<Socket>, codec: Codec) -> Connection {
    let activity = socket.get_ref().activity.clone();
    let (sink, source) = socket.split();
    let opcode = if codec.is_binary() {
        Data::Binary
    } else {
        Data::Text
    };
    Connection {
        codec,
        // WebSocket tells nobody what the peer takes.
        max_sent: usize::MAX,
        sink: FrameSink(SinkKind::WebSocket(WebSocketSink { inner: sink, opcode })),
        stream: FrameStream(StreamKind::WebSocket(WebSocketSource {
            inner: source,
            binary: codec.is_binary(),
        })),
        activity,
    }
}
