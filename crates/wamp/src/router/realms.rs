//! The realms of a router by name, and what they have in common: bounds, room for sessions, refused peers.
//!
//! Each realm has a lock of its own. Knows nothing of connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::counters::{Cause, Counters, Refused};
use super::hub::Hub;
use super::joining::Seats;
use super::permission::Lines;
use super::realm::Realm;
use super::{Authenticator, Limits, Permission, RealmsConfig};
use crate::auth::{self, Salting};
use crate::{Id, MAX_ID};

/// Every realm of a router.
pub(super) struct Realms {
    places: BTreeMap<String, Place>,
    assigner: Option<Authenticator>,
    limits: Arc<Limits>,
    /// Room for key derivations: strangers cause them, and each can keep a core busy for a second. Whoever finds no room
    /// waits, at most until the handshake's deadline.
    derivations: Arc<Semaphore>,
    /// Peers refused before it was known which realm they would be in.
    refused: Mutex<Refused>,
    started: Instant,
}

/// Key derivations at the same time.
const DERIVATIONS: usize = 2;

/// A realm and who may join it.
pub(super) struct Place {
    pub(super) hub: Arc<Hub>,
    pub(super) authenticator: Authenticator,
}

impl Realms {
    pub(super) fn new(config: RealmsConfig) -> Realms {
        let limits = Arc::new(config.limits);
        let seats = Arc::new(Seats::new(limits.max_sessions));
        let places = config.realms.into_iter().map(|(name, config)| {
            let realm = Realm::new(&name, &config, &limits, &seats, fastrand::Rng::new());
            let place = Place {
                hub: Arc::new(Hub::new(realm)),
                authenticator: config.authenticator,
            };
            (name, place)
        });
        Realms {
            places: places.collect(),
            assigner: config.assigner,
            limits,
            derivations: Arc::new(Semaphore::new(DERIVATIONS)),
            refused: Mutex::default(),
            started: Instant::now(),
        }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// Who is asked about a HELLO without a realm.
    pub(super) fn assigner(&self) -> Option<&Authenticator> {
        self.assigner.as_ref()
    }

    pub(super) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// The signing key of a salted secret, computed where it holds up no session; `None`: it cannot be.
    pub(super) async fn derive_key(&self, secret: String, salting: Salting) -> Option<String> {
        let permit = Arc::clone(&self.derivations).acquire_owned().await.ok()?;
        let derived = tokio::task::spawn_blocking(move || {
            // Until the work is done, even if nobody waits for it any more.
            let _permit = permit;
            auth::derive_key(&secret, &salting)
        });
        derived.await.ok()?.ok()
    }

    /// A random id for a session that is about to join; it appears in the challenge and in WELCOME.
    pub(super) fn fresh_id() -> Id {
        fastrand::u64(1..=MAX_ID)
    }

    /// Counts and logs a peer that does not get a session. `realm`: the one it would have been in, if that is known.
    pub(super) fn count_refusal(&self, realm: Option<&Hub>, cause: Cause, peer: &str) {
        match realm {
            Some(hub) => hub.count_refusal(cause),
            None => self
                .refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .count(cause),
        }
        let realm = realm.map(Hub::name);
        tracing::info!(realm, peer, reason = cause.name(), "peer refused");
    }

    /// Says GOODBYE to every session of a listener.
    pub(super) fn dismiss_all(&self, listener: u64, reason: &str) {
        for place in self.places.values() {
            place.hub.dismiss_all(listener, reason);
        }
    }

    /// Gives every session of `authid` other permissions of its own.
    pub(super) fn set_own_rights(&self, authid: &str, permissions: &[Permission]) {
        let own = Arc::new(Lines::new(permissions));
        for place in self.places.values() {
            place.hub.set_own_rights(authid, &own);
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let mut counters = Counters {
            refused_sessions: *self.refused.lock().unwrap_or_else(PoisonError::into_inner),
            uptime: self.started.elapsed(),
            ..Counters::default()
        };
        for place in self.places.values() {
            counters.add(&place.hub.counters());
        }
        counters
    }
}
