//! The WAMP messages, typed. Details and options are decoded dictionaries, payloads stay as received.
//!
//! Encoding and decoding live in [`crate::codec`]; shapes follow the WAMP specification, section "Messages".

use crate::Id;
use crate::payload::Payload;
use crate::value::Dict;

/// Detail of an EVENT, of our own: so many of this subscription were dropped before it, because the session did not keep
/// up or could not be given them. Other routers do not say that.
pub const DROPPED: &str = "x_dropped";

/// Feature of a subscriber that understands an EVENT of publication 0 without payload, which stands for none: it only has
/// [`DROPPED`], because no other one has come.
pub const DROPPED_EVENTS: &str = "x_dropped_events";

/// One WAMP message, either direction.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// `[1, realm, details]`. The realm is `None` when the wire had null.
    Hello { realm: Option<String>, details: Dict },
    /// `[2, session, details]`
    Welcome { session: Id, details: Dict },
    /// `[3, details, reason]` with optional payload
    Abort {
        details: Dict,
        reason: String,
        payload: Payload,
    },
    /// `[4, authmethod, extra]`
    Challenge { method: String, extra: Dict },
    /// `[5, signature, extra]`
    Authenticate { signature: String, extra: Dict },
    /// `[6, details, reason]`
    Goodbye { details: Dict, reason: String },
    /// `[8, request type, request, details, error, args?, kwargs?]`
    Error {
        request_type: u64,
        request: Id,
        details: Dict,
        error: String,
        payload: Payload,
    },
    /// `[16, request, options, topic, args?, kwargs?]`
    Publish {
        request: Id,
        options: Dict,
        topic: String,
        payload: Payload,
    },
    /// `[17, request, publication]`
    Published { request: Id, publication: Id },
    /// `[32, request, options, topic]`
    Subscribe {
        request: Id,
        options: Dict,
        topic: String,
    },
    /// `[33, request, subscription]`
    Subscribed { request: Id, subscription: Id },
    /// `[34, request, subscription]`
    Unsubscribe { request: Id, subscription: Id },
    /// `[35, request, details?]`; request 0 is a revocation
    Unsubscribed { request: Id, details: Dict },
    /// `[36, subscription, publication, details, args?, kwargs?]`
    Event {
        subscription: Id,
        publication: Id,
        details: Dict,
        payload: Payload,
    },
    /// `[48, request, options, procedure, args?, kwargs?]`
    Call {
        request: Id,
        options: Dict,
        procedure: String,
        payload: Payload,
    },
    /// `[49, request, options]`
    Cancel { request: Id, options: Dict },
    /// `[50, request, details, args?, kwargs?]`
    Result {
        request: Id,
        details: Dict,
        payload: Payload,
    },
    /// `[64, request, options, procedure]`
    Register {
        request: Id,
        options: Dict,
        procedure: String,
    },
    /// `[65, request, registration]`
    Registered { request: Id, registration: Id },
    /// `[66, request, registration]`
    Unregister { request: Id, registration: Id },
    /// `[67, request, details?]`; request 0 is a revocation
    Unregistered { request: Id, details: Dict },
    /// `[68, request, registration, details, args?, kwargs?]`
    Invocation {
        request: Id,
        registration: Id,
        details: Dict,
        payload: Payload,
    },
    /// `[69, request, options]`
    Interrupt { request: Id, options: Dict },
    /// `[70, request, options, args?, kwargs?]`
    Yield {
        request: Id,
        options: Dict,
        payload: Payload,
    },
}

/// Message type codes.
pub mod code {
    pub const HELLO: u64 = 1;
    pub const WELCOME: u64 = 2;
    pub const ABORT: u64 = 3;
    pub const CHALLENGE: u64 = 4;
    pub const AUTHENTICATE: u64 = 5;
    pub const GOODBYE: u64 = 6;
    pub const ERROR: u64 = 8;
    pub const PUBLISH: u64 = 16;
    pub const PUBLISHED: u64 = 17;
    pub const SUBSCRIBE: u64 = 32;
    pub const SUBSCRIBED: u64 = 33;
    pub const UNSUBSCRIBE: u64 = 34;
    pub const UNSUBSCRIBED: u64 = 35;
    pub const EVENT: u64 = 36;
    pub const CALL: u64 = 48;
    pub const CANCEL: u64 = 49;
    pub const RESULT: u64 = 50;
    pub const REGISTER: u64 = 64;
    pub const REGISTERED: u64 = 65;
    pub const UNREGISTER: u64 = 66;
    pub const UNREGISTERED: u64 = 67;
    pub const INVOCATION: u64 = 68;
    pub const INTERRUPT: u64 = 69;
    pub const YIELD: u64 = 70;
}

impl Message {
    /// The message's type code.
    pub fn code(&self) -> u64 {
        match self {
            Message::Hello { .. } => code::HELLO,
            Message::Welcome { .. } => code::WELCOME,
            Message::Abort { .. } => code::ABORT,
            Message::Challenge { .. } => code::CHALLENGE,
            Message::Authenticate { .. } => code::AUTHENTICATE,
            Message::Goodbye { .. } => code::GOODBYE,
            Message::Error { .. } => code::ERROR,
            Message::Publish { .. } => code::PUBLISH,
            Message::Published { .. } => code::PUBLISHED,
            Message::Subscribe { .. } => code::SUBSCRIBE,
            Message::Subscribed { .. } => code::SUBSCRIBED,
            Message::Unsubscribe { .. } => code::UNSUBSCRIBE,
            Message::Unsubscribed { .. } => code::UNSUBSCRIBED,
            Message::Event { .. } => code::EVENT,
            Message::Call { .. } => code::CALL,
            Message::Cancel { .. } => code::CANCEL,
            Message::Result { .. } => code::RESULT,
            Message::Register { .. } => code::REGISTER,
            Message::Registered { .. } => code::REGISTERED,
            Message::Unregister { .. } => code::UNREGISTER,
            Message::Unregistered { .. } => code::UNREGISTERED,
            Message::Invocation { .. } => code::INVOCATION,
            Message::Interrupt { .. } => code::INTERRUPT,
            Message::Yield { .. } => code::YIELD,
        }
    }
}
