//! What a router tells of itself.

/// What the router holds and what it had to drop, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Joined sessions.
    pub sessions: usize,
    /// Registrations, shared ones counted once.
    pub registrations: usize,
    /// Subscriptions, counted once however many subscribers they have.
    pub subscriptions: usize,
    pub dropped_events: Dropped,
    /// Sessions closed because they did not read replies or invocations.
    pub overflowed_sessions: u64,
}

/// EVENTs that were not delivered, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The receiver's send queue was full.
    pub queue_full: u64,
    /// The payload has no form in the receiver's encoding.
    pub unencodable: u64,
}
