//! The session with the router: connect loop, testament, heartbeat, (re)registration, report outbox.

/// The current session, `None` while disconnected. Everybody who talks to the router holds one of these.
pub type SessionWatch = tokio::sync::watch::Receiver<Option<wamp::client::Session>>;
