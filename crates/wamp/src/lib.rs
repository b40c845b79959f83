//! WAMP v2 for Rust: typed messages with undecoded payloads, JSON / MessagePack / CBOR codecs, a client and a router.
//!
//! The crate knows nothing of devices. `message`, `codec`, `value`, `payload` and `auth` do no I/O; `transport`
//! (feature `transport`) moves frames; `client` and `router` are features of their own.

pub mod auth;
pub mod codec;
pub mod message;
pub mod payload;
pub mod uri;
pub mod value;

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "router")]
pub mod router;
#[cfg(feature = "transport")]
pub mod transport;

pub use codec::Codec;
pub use message::Message;
pub use payload::Payload;
pub use value::{Dict, Value};

/// A WAMP id: session, publication, subscription, registration or request. Legal range 0..=[`MAX_ID`].
pub type Id = u64;

/// Largest legal WAMP id, 2^53.
pub const MAX_ID: Id = 1 << 53;

/// Compiles the example of the README.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
