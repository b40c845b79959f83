//! One session of the router, from the first octet to the last.
//!
//! One task per connection reads and writes side by side: writing never waits for reading nor the other way round, and
//! a session that is slow in either direction keeps nobody but itself waiting. Deadlines: opening handshake, HELLO and
//! AUTHENTICATE, silence (`wamp-interop.md` 2 "liveness", R-S20, R-S21), the call timeouts of the session, GOODBYE.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::admission::{self, Admitted, Step};
use super::counters::Cause;
use super::hub::Hub;
use super::listener::Accepted;
use super::outbox::{Ending, Undeliverable, abort};
use super::queue::{Next, Queue};
use super::realms::Realms;
use super::wire::Wire;
use crate::codec::Codec;
use crate::message::Message;
use crate::transport::{self, Connection, FrameSink, FrameStream, Incoming, TransportError};
use crate::uri::{close, error};
use crate::{Id, transport::accept};

/// Messages handled in a row before other sessions get the thread.
const BURST: u32 = 64;

/// Everything a connection needs from its router.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) realms: Arc<Realms>,
    pub(super) limits: Arc<Limits>,
    /// Which call of `serve` this is.
    pub(super) listener: u64,
    pub(super) stop: CancellationToken,
}

/// What a peer may send before it has joined: upgrade, HELLO and AUTHENTICATE. Anybody can connect, so this bounds the
/// memory that a stranger can occupy; one that sends more is refused.
const STRANGERS_BYTES: usize = 128 << 10;

/// WebSocket close codes.
mod closing {
    pub(super) const NORMAL: (u16, &str) = (1000, "");
    pub(super) const PROTOCOL: (u16, &str) = (1002, "protocol violation");
    pub(super) const TOO_LARGE: (u16, &str) = (1009, "message too large");
}

/// How the WebSocket is to be closed; `None`: it is gone already.
type Close = Option<(u16, &'static str)>;

/// Serves one accepted connection until it is closed.
pub(super) async fn run(setting: Setting, accepted: Accepted, peer: String) {
    let limits = &setting.limits;
    // Boxed like what follows: they need more room than a session does, which would keep it for as long as it lives.
    let opening = Box::pin(open(accepted, limits));
    let opened = tokio::select! {
        () = setting.stop.cancelled() => return,
        opened = timeout(limits.opening_timeout, opening) => opened,
    };
    let (wire, mut connection) = match opened {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => return tracing::debug!(peer, error, "connection refused"),
        Err(_) => return setting.realms.count_refusal(None, Cause::Timeout, &peer),
    };
    let close = match Box::pin(admit(&setting, &mut connection, &wire, &peer)).await {
        Ok(session) => session.serve(&setting, &mut connection, &wire).await,
        Err(close) => close,
    };
    if let Some((code, reason)) = close {
        let Connection { sink, stream, .. } = &mut connection;
        transport::close(sink, stream, code, reason, limits.goodbye_timeout).await;
        drop(connection);
        wire.drain(limits.goodbye_timeout).await;
    }
}

/// The handshakes of TLS and of WebSocket or RawSocket.
async fn open(accepted: Accepted, limits: &Limits) -> Result<(Wire, Connection), String> {
    let wire = Wire::new(STRANGERS_BYTES);
    let stream = accepted
        .open(&wire, limits.ping_interval)
        .await
        .map_err(|error| transport::chain(&error))?;
    let known = [Codec::Json, Codec::MessagePack, Codec::Cbor];
    match accept(wire.carry(stream), &known, limits.max_message_size).await {
        Ok(connection) => Ok((wire, connection)),
        Err(error) => {
            // Whoever sent more than was read would not see the refusal.
            wire.drain(limits.goodbye_timeout).await;
            Err(transport::chain(&error))
        }
    }
}

/// HELLO, CHALLENGE, AUTHENTICATE, WELCOME. `Err` says how to close.
async fn admit(
    setting: &Setting,
    connection: &mut Connection,
    wire: &Wire,
    peer: &str,
) -> Result<Session, Close> {
    let id = Realms::fresh_id();
    let hello = receive(setting, connection, wire, peer).await?;
    let begun = admission::begin(hello, id, &setting.realms, peer.to_owned());
    // The authenticator may ask a database, so it has the same deadline as the peer.
    let step = match timeout(setting.limits.auth_timeout, begun).await {
        Ok(Ok(step)) => step,
        Ok(Err(refusal)) => return Err(refuse(setting, connection, &refusal).await),
        Err(_) => {
            setting.realms.count_refusal(None, Cause::Authenticator, peer);
            let refusal = abort(error::RUNTIME_ERROR, "the authenticator did not answer in time");
            return Err(refuse(setting, connection, &refusal).await);
        }
    };
    let admitted = match step {
        Step::Admitted(admitted) => admitted,
        Step::Challenged(question, challenge) => {
            send(setting, connection, &question).await?;
            let answer = receive(setting, connection, wire, peer).await?;
            match challenge.check(&answer, &setting.realms) {
                Ok(admitted) => admitted,
                Err(refusal) => return Err(refuse(setting, connection, &refusal).await),
            }
        }
    };
    wire.lift();
    join(setting, connection, id, admitted).await
}

async fn join(
    setting: &Setting,
    connection: &mut Connection,
    id: Id,
    admitted: Admitted,
) -> Result<Session, Close> {
    let limits = &setting.limits;
    let welcome = admitted.welcome(id);
    let Admitted { hub, identity } = admitted;
    let queue = Queue::new(limits.send_queue_messages, limits.send_queue_bytes);
    let queue = Arc::new(queue.telling_dropped(identity.features.dropped_events));
    if let Err(error) = hub.join(id, identity, welcome, &queue, setting.listener) {
        let refusal = abort(error.reason(), &error.to_string());
        return Err(refuse(setting, connection, &refusal).await);
    }
    let session = Session { id, queue, hub };
    // A stop before this line has not found the session.
    if setting.stop.is_cancelled() {
        session.hub.dismiss(id, close::SYSTEM_SHUTDOWN);
    }
    Ok(session)
}

/// The next message of the handshake.
async fn receive(
    setting: &Setting,
    connection: &mut Connection,
    wire: &Wire,
    peer: &str,
) -> Result<Message, Close> {
    let within = setting.limits.auth_timeout;
    let incoming = tokio::select! {
        () = setting.stop.cancelled() => {
            let refusal = abort(close::SYSTEM_SHUTDOWN, "the router stops");
            return Err(refuse(setting, connection, &refusal).await);
        }
        incoming = timeout(within, next_frame(&mut connection.stream, connection.codec)) => incoming,
    };
    match incoming {
        Ok(Frame::Message(Message::Abort { .. })) => Err(Some(closing::NORMAL)),
        Ok(Frame::Message(message)) => Ok(message),
        Ok(Frame::Malformed(text)) => {
            setting.realms.count_refusal(None, Cause::Violation, peer);
            Err(refuse(setting, connection, &super::outbox::violation(&text)).await)
        }
        Ok(Frame::End(_)) if wire.is_exhausted() => {
            setting.realms.count_refusal(None, Cause::Violation, peer);
            let refusal = super::outbox::violation("too much to read before joining");
            Err(refuse(setting, connection, &refusal).await)
        }
        Ok(Frame::End(close)) => Err(close),
        Err(_) => {
            setting.realms.count_refusal(None, Cause::Timeout, peer);
            let refusal = abort(error::TIMEOUT, "the handshake took too long");
            Err(refuse(setting, connection, &refusal).await)
        }
    }
}

/// Sends an ABORT; says how to close.
async fn refuse(setting: &Setting, connection: &mut Connection, refusal: &Message) -> Close {
    if let Err(close) = send(setting, connection, refusal).await {
        return close;
    }
    match refusal {
        Message::Abort { reason, .. } if reason == error::PROTOCOL_VIOLATION => Some(closing::PROTOCOL),
        _ => Some(closing::NORMAL),
    }
}

/// Sends a message of the handshake, which is small: a socket that does not take it in time is as good as gone.
async fn send(setting: &Setting, connection: &mut Connection, message: &Message) -> Result<(), Close> {
    let Ok(frame) = connection.codec.encode(message) else {
        return Err(Some(closing::NORMAL));
    };
    let sent = async {
        connection.sink.feed(frame).await?;
        connection.sink.flush().await
    };
    match timeout(setting.limits.auth_timeout, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

/// What a frame turned out to be.
enum Frame {
    Message(Message),
    /// Not a message; the text goes into the ABORT.
    Malformed(String),
    End(Close),
}

/// Reads one message. Cancel safe.
async fn next_frame(stream: &mut FrameStream, codec: Codec) -> Frame {
    loop {
        let bytes = match stream.next().await {
            Some(Ok(Incoming::Data(bytes))) => bytes,
            Some(Ok(Incoming::Pong(_))) => {
                // No message, so it is not part of a burst; the writer and the timer have their turn all the same.
                tokio::task::yield_now().await;
                continue;
            }
            // The peer closes: the answer is due even if it said nothing else.
            Some(Ok(Incoming::Close { .. })) => return Frame::End(Some(closing::NORMAL)),
            None => return Frame::End(None),
            Some(Err(TransportError::TooLarge)) => return Frame::End(Some(closing::TOO_LARGE)),
            Some(Err(TransportError::WrongFrame)) => {
                return Frame::Malformed(format!("wrong kind of frame for {}", codec.subprotocol()));
            }
            Some(Err(TransportError::Protocol(_))) => return Frame::End(Some(closing::PROTOCOL)),
            Some(Err(TransportError::Lost(_))) => return Frame::End(None),
        };
        return match codec.decode(&bytes) {
            Ok(message) => Frame::Message(message),
            Err(error) => Frame::Malformed(error.to_string()),
        };
    }
}

/// A joined session. Dropping it frees the session's state, whatever the reason.
struct Session {
    id: Id,
    queue: Arc<Queue>,
    hub: Arc<Hub>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.lose(self.id);
    }
}

impl Session {
    async fn serve(self, setting: &Setting, connection: &mut Connection, wire: &Wire) -> Close {
        let Connection {
            codec,
            max_sent,
            sink,
            stream,
            ..
        } = connection;
        let codec = *codec;
        let limits = &setting.limits;
        let mut writer = pin!(self.write(sink, codec, *max_sent));
        let mut vigil = Vigil::new(limits, wire);
        let mut timer = pin!(sleep_until(vigil.due()));
        let mut burst = 0;
        let ending = loop {
            tokio::select! {
                // Reading first: what a burst of messages causes is then written in one go.
                biased;
                frame = next_frame(stream, codec), if burst < BURST => match frame {
                    Frame::Message(message) => {
                        vigil.deadline = self.hub.receive(self.id, message);
                        if let Some(deadline) = vigil.deadline.filter(|due| *due < timer.deadline()) {
                            timer.as_mut().reset(deadline);
                        }
                        burst += 1;
                    }
                    Frame::Malformed(text) => {
                        self.hub.violate(self.id, &text);
                        break finish(writer.as_mut(), limits).await;
                    }
                    // A RawSocket that says GOODBYE and nothing more may still be read from.
                    Frame::End(None) if self.queue.has_ended() => break finish(writer.as_mut(), limits).await,
                    Frame::End(close) => return close,
                },
                ending = &mut writer => break ending,
                // Bounds what follows: the last message may have to wait for a peer that does not read.
                () = poll_fn(|context| self.queue.poll_ended(context)), if vigil.farewell.is_none() => {
                    let farewell = Instant::now() + limits.goodbye_timeout;
                    vigil.farewell = Some(farewell);
                    timer.as_mut().reset(farewell);
                }
                () = &mut timer => {
                    vigil.can_ping = stream.knows_pings();
                    if !self.keep_watch(&mut vigil) {
                        tracing::debug!(session = self.id, "peer is silent or does not read");
                        return None;
                    }
                    timer.as_mut().reset(vigil.due());
                }
                // A peer that never pauses must starve neither the timer nor other sessions.
                () = tokio::task::yield_now(), if burst >= BURST => burst = 0,
            }
        };
        match ending? {
            Ending::Left | Ending::Aborted => Some(closing::NORMAL),
            Ending::Violation => Some(closing::PROTOCOL),
            Ending::Dismissed => {
                await_goodbye(stream, codec, limits).await;
                Some(closing::NORMAL)
            }
        }
    }

    /// Writes the queue until the session ends; `None`: the connection is lost.
    async fn write(&self, sink: &mut FrameSink, codec: Codec, max_sent: usize) -> Option<Ending> {
        loop {
            let next = match self.queue.try_pop() {
                Some(next) => next,
                None => {
                    sink.flush().await.ok()?;
                    poll_fn(|context| self.queue.poll_pop(context)).await
                }
            };
            match next {
                Next::Message(outgoing) => match outgoing.encode(codec) {
                    Ok(frame) if frame.len() <= max_sent => sink.feed(frame).await.ok()?,
                    Ok(_) => {
                        let undeliverable = Undeliverable::TooLarge(max_sent);
                        self.hub.fail(self.id, outgoing.message(), &undeliverable);
                    }
                    Err(error) => {
                        let undeliverable = Undeliverable::Unencodable(error);
                        self.hub.fail(self.id, outgoing.message(), &undeliverable);
                    }
                },
                Next::Ping => sink.ping(bytes::Bytes::new()).await.ok()?,
                Next::End(message, ending) => {
                    if let Some(frame) = message.and_then(|message| codec.encode(&message).ok()) {
                        sink.feed(frame).await.ok()?;
                    }
                    sink.flush().await.ok()?;
                    return Some(ending);
                }
                Next::Overflow => return None,
            }
        }
    }

    /// The timer went off: ends calls, pings. `false` when the peer is dead.
    fn keep_watch(&self, vigil: &mut Vigil<'_>) -> bool {
        let now = Instant::now();
        if vigil.deadline.is_some_and(|deadline| deadline <= now) {
            vigil.deadline = self.hub.expire(self.id);
        }
        if vigil.farewell.is_some_and(|farewell| farewell <= now) {
            return false;
        }
        if let Some(since) = self.queue.dropping_since()
            && now - since >= vigil.limits.overflow_patience
        {
            tracing::warn!(
                session = self.id,
                "session closed: it does not keep up with its events"
            );
            return false;
        }
        match vigil.look(now) {
            Sign::Alive => {}
            Sign::Quiet => {
                self.queue.release_room();
                self.queue.ping();
            }
            Sign::Dead => return false,
        }
        true
    }
}

/// Waits for the last message to be written, which the peer may refuse to read.
async fn finish(writer: impl Future<Output = Option<Ending>>, limits: &Limits) -> Option<Ending> {
    timeout(limits.goodbye_timeout, writer).await.ok().flatten()
}

/// Waits for the peer's GOODBYE; everything else it says comes too late.
async fn await_goodbye(stream: &mut FrameStream, codec: Codec, limits: &Limits) {
    let answered = async {
        while let Frame::Message(message) = next_frame(stream, codec).await {
            if matches!(message, Message::Goodbye { .. }) {
                break;
            }
        }
    };
    // Without an answer in time the connection is closed all the same.
    let _ = timeout(limits.goodbye_timeout, answered).await;
}

/// When a session's timer has to go off, and what it means.
struct Vigil<'w> {
    wire: &'w Wire,
    limits: &'w Limits,
    /// The session's next call timeout.
    deadline: Option<Instant>,
    /// The peer knows pings. Otherwise its silence says nothing, and TCP keep-alive has to do.
    can_ping: bool,
    /// A ping has gone out since the last sign of life before this instant.
    pinged: Option<Instant>,
    /// The session has ended; its last message has to be out by then.
    farewell: Option<Instant>,
}

enum Sign {
    Alive,
    /// Silent for an interval: time to ping.
    Quiet,
    Dead,
}

impl<'w> Vigil<'w> {
    fn new(limits: &'w Limits, wire: &'w Wire) -> Vigil<'w> {
        Vigil {
            wire,
            limits,
            deadline: None,
            can_ping: false,
            pinged: None,
            farewell: None,
        }
    }

    fn look(&mut self, now: Instant) -> Sign {
        let interval = self.limits.ping_interval;
        if interval.is_zero() {
            return Sign::Alive;
        }
        let life = self.wire.last_life();
        let stuck = self
            .wire
            .blocked_since()
            .is_some_and(|since| now - since >= 2 * interval);
        if stuck || (self.can_ping && now - life >= 2 * interval) {
            return Sign::Dead;
        }
        if self.can_ping && now - life >= interval && self.pinged != Some(life) {
            self.pinged = Some(life);
            return Sign::Quiet;
        }
        Sign::Alive
    }

    /// When to look again.
    fn due(&self) -> Instant {
        let interval = self.limits.ping_interval;
        let life = self.wire.last_life();
        let watch = if interval.is_zero() {
            // No pings wanted: what is left is a session that does not keep up with its events.
            Instant::now() + self.limits.overflow_patience.max(Duration::from_secs(1))
        } else if !self.can_ping {
            Instant::now() + interval
        } else if self.pinged == Some(life) {
            life + 2 * interval
        } else {
            life + interval
        };
        let stuck = self
            .wire
            .blocked_since()
            .filter(|_| !interval.is_zero())
            .map(|since| since + 2 * interval);
        [Some(watch), stuck, self.deadline, self.farewell]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(watch)
    }
}
