//! What a realm has to say to the log. Collected under the realm's lock and written once it is free: a slow log must
//! not stop the traffic. Never holds a secret.

use crate::Id;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The transport is gone.
    Lost,
    /// The peer said GOODBYE.
    Goodbye,
    /// The peer said ABORT.
    Aborted,
    /// The peer broke the protocol.
    Violation(String),
    /// The router said GOODBYE, with this reason.
    Dismissed(String),
    /// The peer does not read what it is sent.
    Overflow,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Joined {
        session: Id,
        authid: String,
        authrole: String,
        authmethod: &'static str,
        peer: String,
    },
    /// A peer that has proven who it is and does not get a session all the same.
    Refused {
        authid: String,
        peer: String,
        reason: &'static str,
    },
    Left {
        session: Id,
        authid: String,
        why: Why,
    },
    /// A request without permission.
    Denied {
        session: Id,
        authid: String,
        action: &'static str,
        text: String,
    },
    /// A session was ended through the meta API.
    Killed {
        session: Id,
        by: Id,
        reason: String,
    },
}

impl Note {
    pub(super) fn log(&self, realm: &str) {
        match self {
            Note::Joined {
                session,
                authid,
                authrole,
                authmethod,
                peer,
            } => {
                tracing::info!(
                    realm,
                    session,
                    authid,
                    authrole,
                    authmethod,
                    peer,
                    "session joined"
                );
            }
            Note::Refused { authid, peer, reason } => {
                tracing::info!(realm, authid, peer, reason, "peer refused");
            }
            Note::Left { session, authid, why } => match why {
                Why::Lost => tracing::info!(realm, session, authid, reason = "lost", "session left"),
                Why::Goodbye => tracing::info!(realm, session, authid, reason = "goodbye", "session left"),
                Why::Aborted => tracing::info!(realm, session, authid, reason = "aborted", "session left"),
                Why::Violation(text) => {
                    tracing::warn!(
                        realm,
                        session,
                        authid,
                        reason = text,
                        "session ended: it broke the protocol"
                    );
                }
                Why::Dismissed(reason) => {
                    tracing::info!(realm, session, authid, reason, "session dismissed");
                }
                Why::Overflow => {
                    tracing::warn!(
                        realm,
                        session,
                        authid,
                        reason = "overflow",
                        "session closed: it does not read what it is sent"
                    );
                }
            },
            Note::Denied {
                session,
                authid,
                action,
                text,
            } => tracing::debug!(realm, session, authid, action, reason = text, "not authorized"),
            Note::Killed { session, by, reason } => {
                tracing::info!(realm, session, by, reason, "session killed");
            }
        }
    }
}
