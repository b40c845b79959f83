//! One session of the load generator.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wamp::message::Message;
use wamp::{Codec, Dict, Id, Value};

use crate::frame;
use crate::target::{AUTHID, REALM, SECRET};

/// Longer than anything that is going to happen at all takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What one read takes at most.
const INPUT: usize = 32 << 10;

pub(crate) struct Peer {
    pub(crate) codec: Codec,
    stream: TcpStream,
    input: Vec<u8>,
    /// The part of `input` that has been read and not been looked at.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    requests: Id,
}

impl Peer {
    /// Connects and joins by WAMP-CRA.
    pub(crate) async fn join(address: SocketAddr, codec: Codec) -> Peer {
        let stream = TcpStream::connect(address).await.expect("the router accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut peer = Peer {
            codec,
            stream,
            input: vec![0; INPUT],
            unread: 0..0,
            output: Vec::new(),
            requests: 0,
        };
        peer.upgrade(&address.to_string()).await;
        let feature = |name: &str| Value::from(Dict::from([(name.to_owned(), true.into())]));
        let callee = Dict::from([("features".to_owned(), feature("caller_identification"))]);
        let roles = Dict::from([
            ("caller".to_owned(), Dict::new().into()),
            ("callee".to_owned(), callee.into()),
            ("publisher".to_owned(), Dict::new().into()),
            ("subscriber".to_owned(), Dict::new().into()),
        ]);
        let hello = Message::Hello {
            realm: Some(REALM.to_owned()),
            details: Dict::from([
                ("roles".to_owned(), roles.into()),
                ("authmethods".to_owned(), vec!["wampcra".into()].into()),
                ("authid".to_owned(), AUTHID.into()),
            ]),
        };
        let question = peer.ask(&hello).await;
        let Message::Challenge { extra, .. } = question else {
            panic!("a CHALLENGE was due: {question:?}");
        };
        let signature = wamp::auth::answer(SECRET, &extra).expect("an unsalted challenge");
        let extra = Dict::new();
        let welcome = peer.ask(&Message::Authenticate { signature, extra }).await;
        assert!(matches!(welcome, Message::Welcome { .. }), "{welcome:?}");
        peer
    }

    async fn upgrade(&mut self, host: &str) {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {}\r\n\r\n",
            self.codec.subprotocol()
        );
        self.output.extend_from_slice(request.as_bytes());
        self.flush().await;
        loop {
            self.receive().await;
            let answer = &self.input[self.unread.clone()];
            if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                assert!(answer.starts_with(b"HTTP/1.1 101"), "{:?}", answer.escape_ascii());
                self.unread.start += at + 4;
                return;
            }
        }
    }

    /// Registers a procedure; returns the registration.
    pub(crate) async fn register(&mut self, procedure: &str) -> Id {
        let request = self.next_request();
        let message = Message::Register {
            request,
            options: Dict::new(),
            procedure: procedure.to_owned(),
        };
        match self.ask(&message).await {
            Message::Registered { registration, .. } => registration,
            other => panic!("REGISTERED was due: {other:?}"),
        }
    }

    /// Registers many procedures, a batch at a time.
    pub(crate) async fn register_all(&mut self, procedures: impl Iterator<Item = String>) {
        let messages = procedures.map(|procedure| Message::Register {
            request: 0,
            options: Dict::new(),
            procedure,
        });
        self.request_all(messages).await;
    }

    /// Subscribes to many patterns, a batch at a time.
    pub(crate) async fn subscribe_all(&mut self, patterns: impl Iterator<Item = (&'static str, String)>) {
        let messages = patterns.map(|(policy, topic)| Message::Subscribe {
            request: 0,
            options: Dict::from([("match".to_owned(), policy.into())]),
            topic,
        });
        self.request_all(messages).await;
    }

    /// Sends requests, numbering them, and waits for as many replies.
    async fn request_all(&mut self, messages: impl Iterator<Item = Message>) {
        let mut messages = messages.peekable();
        while messages.peek().is_some() {
            let mut sent = 0;
            for mut message in messages.by_ref().take(1000) {
                let number = self.next_request();
                if let Message::Register { request, .. } | Message::Subscribe { request, .. } = &mut message {
                    *request = number;
                }
                self.put_message(&message);
                sent += 1;
            }
            self.flush().await;
            for _ in 0..sent {
                let reply = self.next_message().await;
                assert!(
                    matches!(reply, Message::Registered { .. } | Message::Subscribed { .. }),
                    "{reply:?}"
                );
            }
        }
    }

    /// Subscribes to a topic.
    pub(crate) async fn subscribe(&mut self, topic: &str) {
        self.subscribe_all(std::iter::once(("exact", topic.to_owned())))
            .await;
    }

    /// The id of the next request.
    pub(crate) fn next_request(&mut self) -> Id {
        self.requests += 1;
        self.requests
    }

    /// Sends a message and returns the next that comes.
    async fn ask(&mut self, message: &Message) -> Message {
        self.put_message(message);
        self.flush().await;
        self.next_message().await
    }

    fn put_message(&mut self, message: &Message) {
        let body = self.codec.encode(message).expect("text and numbers");
        self.put(&body);
    }

    async fn next_message(&mut self) -> Message {
        let codec = self.codec;
        loop {
            if let Some(message) = self.next() {
                let frame = Bytes::copy_from_slice(message);
                return codec.decode(&frame).expect("a message");
            }
            tokio::time::timeout(PATIENCE, self.receive())
                .await
                .expect("the router answers");
        }
    }

    /// Adds a message to what [`Peer::flush`] writes.
    pub(crate) fn put(&mut self, body: &[u8]) {
        frame::put(&mut self.output, self.codec, body);
    }

    /// Writes everything out.
    pub(crate) async fn flush(&mut self) {
        if !self.output.is_empty() {
            self.stream
                .write_all(&self.output)
                .await
                .expect("the router reads");
            self.output.clear();
        }
    }

    /// Waits until something has come and reads it.
    pub(crate) async fn receive(&mut self) {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == self.input.len() {
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        loop {
            self.stream.readable().await.expect("a socket");
            match self.stream.try_read(&mut self.input[self.unread.end..]) {
                Ok(0) => panic!("the router has hung up"),
                Ok(count) => {
                    self.unread.end += count;
                    return;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
    }

    /// The next message among what has been received.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let (opcode, begin, end) = frame::parse(&self.input[self.unread.clone()])?;
            let payload = self.unread.start + begin..self.unread.start + end;
            self.unread.start += end;
            match opcode {
                1 | 2 => return Some(&self.input[payload]),
                // Goes out with the next flush, which a peer under measurement does all the time.
                9 => frame::put_pong(&mut self.output, &self.input[payload]),
                _ => {}
            }
        }
    }

    /// The next message's type code and second element.
    pub(crate) fn next_head(&mut self) -> Option<(u64, u64)> {
        let codec = self.codec;
        self.next()
            .map(|message| frame::head(codec, message).expect("a message with a number"))
    }

    /// The connection alone, for a session that is only to exist.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}
