//! What a client needs to know before it can join.

use std::time::Duration;

use crate::codec::Codec;
use crate::transport::{Proxies, TlsOptions};

/// How to authenticate.
#[derive(Clone)]
pub enum Credentials {
    /// No authentication.
    Anonymous,
    /// A ticket for `authid`.
    Ticket { authid: String, ticket: String },
    /// Challenge-response with a shared secret.
    Cra { authid: String, secret: String },
    /// Signature with an ed25519 key.
    Cryptosign {
        /// Without one the router finds the principal by its public key.
        authid: Option<String>,
        /// The private key (seed), 32 bytes in hex. The public one follows from it.
        private_key: String,
    },
}

impl std::fmt::Debug for Credentials {
    /// Without the secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Anonymous => formatter.write_str("Anonymous"),
            Credentials::Ticket { authid, .. } => write!(formatter, "Ticket({authid})"),
            Credentials::Cra { authid, .. } => write!(formatter, "Cra({authid})"),
            Credentials::Cryptosign { authid, .. } => write!(formatter, "Cryptosign({authid:?})"),
        }
    }
}

/// Everything [`Session::connect`](super::Session::connect) needs.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// WebSocket: `ws://`, `wss://` (aliases `http://`, `https://`), `ws+unix:///path/of/socket`. RawSocket: `rs://`,
    /// `rss://`, `rs+unix:///path/of/socket`.
    pub url: String,
    pub realm: String,
    pub credentials: Credentials,
    /// Codecs offered, in order.
    pub codecs: Vec<Codec>,
    pub tls: TlsOptions,
    /// The way out; by default what the environment says.
    pub proxies: Proxies,
    /// Bound for DNS + TCP + TLS + the handshake of the transport. Zero: none.
    pub connect_timeout: Duration,
    /// Bound for every reply of the router: HELLO, AUTHENTICATE, SUBSCRIBE, REGISTER, acknowledged PUBLISH, GOODBYE.
    pub reply_timeout: Duration,
    /// Ping interval; dead after two unanswered. Zero: no pings. Crossbar.io is never pinged on a RawSocket, which it does
    /// not survive.
    pub ping_interval: Duration,
    /// Largest message accepted from the router, bytes.
    pub max_message_size: usize,
}

impl ClientConfig {
    /// Anonymous, JSON first, 10 s to connect, 7 s for a reply, 5 s pings, 16 MiB messages.
    pub fn new(url: impl Into<String>, realm: impl Into<String>) -> ClientConfig {
        ClientConfig {
            url: url.into(),
            realm: realm.into(),
            credentials: Credentials::Anonymous,
            codecs: vec![Codec::Json, Codec::MessagePack, Codec::Cbor],
            tls: TlsOptions::default(),
            proxies: Proxies::from_environment(),
            connect_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(7),
            ping_interval: Duration::from_secs(5),
            max_message_size: 16 << 20,
        }
    }
}
