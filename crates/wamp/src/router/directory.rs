//! Registrations or subscriptions of a realm: found by id, by key and by matching URI.
//!
//! An entry exists as long as it has members. Knows nothing of messages.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::id_map::IdMap;
use super::pattern::{MatchPolicy, PatternIndex};
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// Sessions behind an entry.
pub(super) trait Members {
    /// Their ids.
    fn ids(&self) -> Vec<Id>;
    /// Adds what `wamp.….get` says beyond id, creation time, URI and match policy.
    fn describe(&self, details: &mut Dict);
}

impl Members for BTreeSet<Id> {
    fn ids(&self) -> Vec<Id> {
        self.iter().copied().collect()
    }

    fn describe(&self, _details: &mut Dict) {}
}

/// One registration or subscription.
#[derive(Debug)]
pub(super) struct Entry<M> {
    pub(super) id: Id,
    pub(super) uri: String,
    pub(super) policy: MatchPolicy,
    created: Timestamp,
    pub(super) members: M,
}

impl<M: Members> Entry<M> {
    /// The details dictionary of meta events and of `wamp.….get`.
    pub(super) fn details(&self) -> Dict {
        let mut details = Dict::from([
            ("id".to_owned(), Value::Uint(self.id)),
            ("created".to_owned(), self.created.to_string().into()),
            ("uri".to_owned(), self.uri.as_str().into()),
            ("match".to_owned(), self.policy.name().into()),
        ]);
        self.members.describe(&mut details);
        details
    }

    /// Entries about the router's own topics are not shown by the meta API and cause no meta events.
    pub(super) fn is_hidden(&self) -> bool {
        is_reserved(&self.uri)
    }
}

/// Whether `uri` belongs to the router.
pub(super) fn is_reserved(uri: &str) -> bool {
    uri.starts_with("wamp.")
}

/// All entries of one kind.
#[derive(Debug)]
pub(super) struct Directory<M> {
    entries: IdMap<Entry<M>>,
    index: PatternIndex<Id>,
}

impl<M: Members> Directory<M> {
    pub(super) fn new() -> Directory<M> {
        Directory {
            entries: IdMap::default(),
            index: PatternIndex::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, id: Id) -> Option<&Entry<M>> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Entry<M>> {
        self.entries.get_mut(&id)
    }

    /// The entry with exactly this key and policy.
    pub(super) fn find(&self, policy: MatchPolicy, uri: &str) -> Option<Id> {
        self.index.get(policy, uri)
    }

    /// The entry that wins for `uri`.
    pub(super) fn best(&self, uri: &str) -> Option<Id> {
        self.index.best(uri)
    }

    /// Every entry whose key matches `uri`.
    pub(super) fn all(&self, uri: &str, found: &mut Vec<Id>) {
        self.index.all(uri, found);
    }

    /// Creates an entry under a key that is free. Ids are random, so that they tell nobody how many there are.
    pub(super) fn create(
        &mut self,
        policy: MatchPolicy,
        uri: String,
        members: M,
        random: &mut fastrand::Rng,
    ) -> Id {
        let id = loop {
            let id = random.u64(1..=MAX_ID);
            if !self.entries.contains_key(&id) {
                break id;
            }
        };
        self.index.insert(policy, &uri, id);
        let entry = Entry {
            id,
            uri,
            policy,
            created: Timestamp::now(),
            members,
        };
        self.entries.insert(id, entry);
        id
    }

    /// Removes an entry and its key.
    pub(super) fn remove(&mut self, id: Id) -> Option<Entry<M>> {
        let entry = self.entries.remove(&id)?;
        self.index.remove(entry.policy, &entry.uri);
        Some(entry)
    }

    /// Every entry, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<M>> {
        self.entries.values()
    }
}
