//! RawSocket: WAMP straight on a byte stream, four octets before every message.
//!
//! The handshake is four octets each way: magic, limit and codec, and what went wrong. Then every frame is preceded by its
//! kind and a 24-bit length. Messages cannot be fragmented; what the peer takes at most is known from the handshake
//! (WAMP specification, "RawSocket Transport"; `wamp-interop.md` 3.8).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::task::AtomicWaker;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedParts};

use super::socket::Socket;
use super::{Connection, FrameSink, FrameStream, Incoming, SinkKind, StreamKind, TransportError};
use crate::codec::Codec;

/// First octet of both handshakes. No HTTP request begins like this.
pub(super) const MAGIC: u8 = 0x7F;

/// Length of a handshake, and of the header of a frame.
const HEADER: usize = 4;

/// Limits are powers of two, from this one on.
const SMALLEST_LIMIT_LOG2: u32 = 9;

/// What 24 bits can say.
const LONGEST: usize = (1 << 24) - 1;

/// Written at once; a long message is handed over in pieces of this size, so that it is not held twice.
const PIECE: usize = 16 << 10;

/// Room for what is read next. Allocated for every connection, used or not.
const READ_BUFFER: usize = 4 << 10;

/// Payload of a PING or PONG that is answered; longer ones are against any use.
const LONGEST_PING: usize = 1 << 10;

/// Why two ends did not come together.
#[derive(Debug, thiserror::Error)]
pub enum RawSocketError {
    /// The server does not speak the codec.
    #[error("the server does not speak {0}")]
    Codec(&'static str),
    /// The peer refuses the limit on message sizes that it was given.
    #[error("the peer refuses the limit on message sizes")]
    Limit,
    /// Reserved octets were not zero.
    #[error("the peer uses reserved octets, or finds that we do")]
    Reserved,
    /// The server has enough connections.
    #[error("the server has too many connections")]
    Full,
    /// An error code that the specification does not know.
    #[error("the server refuses with the unknown code {0}")]
    Refused(u8),
    /// What answers is something else.
    #[error("the peer does not speak RawSocket")]
    NotRawSocket,
    /// The peer hung up. Some servers do that instead of naming an error.
    #[error("the connection ended in the handshake")]
    Lost(#[source] io::Error),
}

/// The four octets of either handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Greeting {
    /// Largest message the sender takes is 2^(9 + this); the error code in a refusal.
    limit: u8,
    /// 0 in a refusal.
    codec: u8,
}

impl Greeting {
    fn encode(self) -> [u8; HEADER] {
        [MAGIC, self.limit << 4 | self.codec, 0, 0]
    }

    fn decode([magic, both, reserved @ ..]: [u8; HEADER]) -> Result<Greeting, RawSocketError> {
        if magic != MAGIC {
            return Err(RawSocketError::NotRawSocket);
        }
        if reserved != [0, 0] {
            return Err(RawSocketError::Reserved);
        }
        Ok(Greeting {
            limit: both >> 4,
            codec: both & 0x0F,
        })
    }

    /// The largest message that this end takes, bytes.
    fn longest(self) -> usize {
        (1 << (SMALLEST_LIMIT_LOG2 + u32::from(self.limit))).min(LONGEST)
    }
}

/// The largest limit that can be announced and is not above `max_message_size`; the smallest there is for less.
fn limit(max_message_size: usize) -> u8 {
    let log2 = max_message_size.max(1).ilog2();
    u8::try_from(log2.saturating_sub(SMALLEST_LIMIT_LOG2).min(15)).expect("at most 15")
}

fn number(codec: Codec) -> u8 {
    match codec {
        Codec::Json => 1,
        Codec::MessagePack => 2,
        Codec::Cbor => 3,
    }
}

/// The client's side of the handshake.
#[cfg(feature = "client")]
pub(super) async fn connect(
    mut socket: Socket,
    codec: Codec,
    max_message_size: usize,
) -> Result<Connection, RawSocketError> {
    let ours = Greeting {
        limit: limit(max_message_size),
        codec: number(codec),
    };
    let exchange = async {
        socket.write_all(&ours.encode()).await?;
        socket.flush().await?;
        let mut answer = [0; HEADER];
        socket.read_exact(&mut answer).await?;
        Ok(answer)
    };
    let theirs = Greeting::decode(exchange.await.map_err(RawSocketError::Lost)?)?;
    match (theirs.codec, theirs.limit) {
        (0, 1) => Err(RawSocketError::Codec(codec.subprotocol())),
        (0, 2) => Err(RawSocketError::Limit),
        (0, 3) => Err(RawSocketError::Reserved),
        (0, 4) => Err(RawSocketError::Full),
        (0, other) => Err(RawSocketError::Refused(other)),
        (agreed, _) if agreed == ours.codec => Ok(connection(socket, codec, ours, theirs)),
        _ => Err(RawSocketError::NotRawSocket),
    }
}

/// The server's side of the handshake, on a stream whose first octet is still unread. A refusal is said to the client.
pub(super) async fn accept(
    mut socket: Socket,
    known: &[Codec],
    max_message_size: usize,
) -> Result<Connection, RawSocketError> {
    let mut request = [0; HEADER];
    socket
        .read_exact(&mut request)
        .await
        .map_err(RawSocketError::Lost)?;
    let theirs = match Greeting::decode(request) {
        Ok(theirs) => theirs,
        Err(error) => {
            if matches!(error, RawSocketError::Reserved) {
                refuse(&mut socket, 3).await;
            }
            return Err(error);
        }
    };
    let Some(codec) = known.iter().find(|codec| number(**codec) == theirs.codec) else {
        refuse(&mut socket, 1).await;
        return Err(RawSocketError::Codec("the codec that the client wants"));
    };
    let ours = Greeting {
        limit: limit(max_message_size),
        codec: theirs.codec,
    };
    socket
        .write_all(&ours.encode())
        .await
        .map_err(RawSocketError::Lost)?;
    socket.flush().await.map_err(RawSocketError::Lost)?;
    Ok(connection(socket, *codec, ours, theirs))
}

async fn refuse(socket: &mut Socket, error: u8) {
    let refusal = Greeting {
        limit: error,
        codec: 0,
    };
    // A client that is gone needs no refusal.
    if socket.write_all(&refusal.encode()).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

fn connection(socket: Socket, codec: Codec, ours: Greeting, theirs: Greeting) -> Connection {
    let activity = socket.activity.clone();
    let (sink, source) = RawSocket::new(socket, ours.longest()).split();
    Connection {
        codec,
        max_sent: theirs.longest(),
        sink: FrameSink(SinkKind::Raw(RawSink { inner: sink })),
        stream: FrameStream(StreamKind::Raw(RawSource {
            inner: source,
            knows_pings: false,
        })),
        activity,
    }
}

#[derive(Debug)]
pub(super) struct RawSink {
    inner: SplitSink<RawSocket, Piece>,
}

#[derive(Debug)]
pub(super) struct RawSource {
    inner: SplitStream<RawSocket>,
    /// The peer has sent a PING or PONG.
    pub(super) knows_pings: bool,
}

impl RawSink {
    pub(super) async fn feed(&mut self, message: Bytes) -> Result<(), TransportError> {
        self.feed_frame(Kind::Message, message).await
    }

    async fn feed_frame(&mut self, kind: Kind, mut payload: Bytes) -> Result<(), TransportError> {
        if payload.len() > LONGEST {
            return Err(TransportError::TooLarge);
        }
        self.inner.feed(Piece::Begin(kind, payload.len())).await?;
        while !payload.is_empty() {
            let piece = payload.split_to(payload.len().min(PIECE));
            self.inner.feed(Piece::Payload(piece)).await?;
        }
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        self.inner.flush().await
    }

    pub(super) async fn ping(&mut self, payload: Bytes) -> Result<(), TransportError> {
        self.feed_frame(Kind::Ping, payload).await?;
        self.flush().await
    }

    pub(super) async fn close(&mut self) -> Result<(), TransportError> {
        self.inner.close().await
    }
}

impl RawSource {
    pub(super) async fn next(&mut self) -> Option<Result<Incoming, TransportError>> {
        loop {
            return Some(match self.inner.next().await? {
                Ok((Kind::Message, payload)) => Ok(Incoming::Data(payload)),
                Ok((Kind::Pong, payload)) => {
                    self.knows_pings = true;
                    Ok(Incoming::Pong(payload))
                }
                Ok((Kind::Ping, _)) => {
                    self.knows_pings = true;
                    // The next poll answers. A peer that sends nothing but pings must not starve who waits elsewhere.
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => Err(error),
            });
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    Ping,
    Pong,
}

/// A part of a frame on its way out.
#[derive(Debug)]
enum Piece {
    /// The header of a frame whose payload has this length.
    Begin(Kind, usize),
    /// A part of its payload.
    Payload(Bytes),
}

/// A byte stream cut into frames. Answers pings by itself.
#[derive(Debug)]
struct RawSocket {
    framed: Framed<Socket, Frames>,
    /// Bytes of the current frame that have not been handed over yet.
    rest: usize,
    /// The answer to the last ping.
    pong: Option<Bytes>,
    /// The reading half has written something that is not flushed.
    unflushed: bool,
    wakers: Arc<Wakers>,
}

/// Both halves write, and the socket remembers one waker only.
#[derive(Debug, Default)]
struct Wakers {
    read: AtomicWaker,
    write: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Wakers>) {
        self.read.wake();
        self.write.wake();
    }
}

impl RawSocket {
    fn new(socket: Socket, longest: usize) -> RawSocket {
        let mut parts = FramedParts::new::<Bytes>(socket, Frames { longest });
        parts.read_buf.reserve(READ_BUFFER);
        let mut framed = Framed::from_parts(parts);
        // Many small messages leave in one write.
        framed.set_backpressure_boundary(PIECE);
        RawSocket {
            framed,
            rest: 0,
            pong: None,
            unflushed: false,
            wakers: Arc::default(),
        }
    }

    /// Answers a ping, unless a message is half written. Pending while the socket takes nothing.
    fn poll_pong(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.rest > 0 {
            // The sink answers when it has written the message.
            return Poll::Ready(Ok(()));
        }
        if self.pong.is_some() {
            ready!(Pin::new(&mut self.framed).poll_ready(context))?;
            if let Some(payload) = self.pong.take() {
                let mut frame = BytesMut::with_capacity(HEADER + payload.len());
                put_header(&mut frame, Kind::Pong, payload.len());
                frame.put(payload);
                Pin::new(&mut self.framed).start_send(frame.freeze())?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.framed).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for RawSocket {
    type Item = Result<(Kind, Bytes), TransportError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.pong.is_some() || this.unflushed {
            this.wakers.read.register(context.waker());
            let both = Waker::from(Arc::clone(&this.wakers));
            // A peer that reads nothing gets no answer, but is still listened to.
            if let Poll::Ready(Err(error)) = this.poll_pong(&mut Context::from_waker(&both)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let frame = ready!(Pin::new(&mut this.framed).poll_next(context));
        if let Some(Ok((Kind::Ping, payload))) = &frame {
            // Only the newest is answered: nothing piles up for a peer that does not read.
            this.pong = Some(payload.clone());
        }
        Poll::Ready(frame)
    }
}

impl RawSocket {
    /// The context for the writing half.
    fn both(&self, context: &Context<'_>) -> Waker {
        self.wakers.write.register(context.waker());
        Waker::from(Arc::clone(&self.wakers))
    }
}

impl Sink<Piece> for RawSocket {
    type Error = TransportError;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let this = self.get_mut();
        let both = this.both(context);
        let mut context = Context::from_waker(&both);
        if this.pong.is_some() {
            ready!(this.poll_pong(&mut context))?;
        }
        Pin::new(&mut this.framed).poll_ready(&mut context)
    }

    fn start_send(self: Pin<&mut Self>, piece: Piece) -> Result<(), TransportError> {
        let this = self.get_mut();
        let bytes = match piece {
            Piece::Begin(kind, length) => {
                debug_assert_eq!(this.rest, 0, "a frame begins where the last one ended");
                this.rest = length;
                let mut header = BytesMut::with_capacity(HEADER);
                put_header(&mut header, kind, length);
                header.freeze()
            }
            Piece::Payload(bytes) => {
                this.rest = this.rest.saturating_sub(bytes.len());
                bytes
            }
        };
        Pin::new(&mut this.framed).start_send(bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let this = self.get_mut();
        let both = this.both(context);
        let mut context = Context::from_waker(&both);
        ready!(this.poll_pong(&mut context))?;
        Pin::new(&mut this.framed).poll_flush(&mut context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let this = self.get_mut();
        let both = this.both(context);
        Pin::new(&mut this.framed).poll_close(&mut Context::from_waker(&both))
    }
}

fn put_header(buffer: &mut BytesMut, kind: Kind, length: usize) {
    buffer.put_u8(match kind {
        Kind::Message => 0,
        Kind::Ping => 1,
        Kind::Pong => 2,
    });
    buffer.put_uint(length as u64, 3);
}

/// Cuts frames out of a byte stream; what is sent comes with its header already.
#[derive(Debug)]
struct Frames {
    /// Longest message that is taken, bytes.
    longest: usize,
}

impl Decoder for Frames {
    type Item = (Kind, Bytes);
    type Error = TransportError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<(Kind, Bytes)>, TransportError> {
        let Some(&[kind, a, b, c]) = source.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let (kind, longest) = match kind {
            0 => (Kind::Message, self.longest),
            1 => (Kind::Ping, LONGEST_PING),
            2 => (Kind::Pong, LONGEST_PING),
            _ => {
                let unknown = format!("unknown kind of frame {kind}");
                return Err(TransportError::Protocol(unknown.into()));
            }
        };
        if length > longest {
            return Err(TransportError::TooLarge);
        }
        let missing = (HEADER + length).saturating_sub(source.len());
        if missing > 0 {
            // Memory grows with what has come, not with what was promised.
            source.reserve(missing.min(source.len().max(READ_BUFFER)));
            return Ok(None);
        }
        let mut frame = source.split_to(HEADER + length);
        let _ = frame.split_to(HEADER);
        if length > READ_BUFFER {
            // The message has its memory for itself: neither does the connection keep it for as long as it lasts, nor
            // can a short message that follows, and is kept, hold all of it.
            let mut rest = BytesMut::with_capacity(source.len().max(READ_BUFFER));
            rest.extend_from_slice(source);
            *source = rest;
        }
        Ok(Some((kind, frame.freeze())))
    }
}

impl Encoder<Bytes> for Frames {
    type Error = TransportError;

    fn encode(&mut self, bytes: Bytes, buffer: &mut BytesMut) -> Result<(), TransportError> {
        buffer.extend_from_slice(&bytes);
        Ok(())
    }
}

impl From<io::Error> for TransportError {
    fn from(error: io::Error) -> TransportError {
        TransportError::Lost(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_leaves_no_large_buffer_behind() {
        const LONG: usize = 1 << 20;
        let mut frames = Frames { longest: LONG };
        let mut buffer = BytesMut::with_capacity(READ_BUFFER);
        put_header(&mut buffer, Kind::Message, LONG);
        buffer.put_bytes(b'x', LONG);
        put_header(&mut buffer, Kind::Message, 2);
        buffer.put_slice(b"[]\0\0");
        buffer.reserve(LONG);
        let (_, long) = frames.decode(&mut buffer).unwrap().unwrap();
        assert_eq!(long.len(), LONG);
        drop(long);
        assert!(buffer.capacity() <= 2 * READ_BUFFER, "{}", buffer.capacity());
        let (_, short) = frames.decode(&mut buffer).unwrap().unwrap();
        assert_eq!(short, b"[]"[..]);
        assert_eq!(buffer, b"\0\0"[..]);
    }
}
