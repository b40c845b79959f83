//! Maps by WAMP id: sessions, requests, registrations, subscriptions.
//!
//! A message is looked up in half a dozen of them, and the standard library's hash of a number costs more than all
//! else about that. Peers choose some of the ids, so the hash has a key that they cannot know: one multiplication to
//! twice the width whose halves are folded, as wyhash does it. Good for ids, not for anything else.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use crate::Id;

/// A map from ids.
pub(super) type IdMap<V> = HashMap<Id, V, Keyed>;

/// The process's key.
static KEY: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0u64));

/// Makes hashers with the process's key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Keyed {
        Keyed(*KEY)
    }
}

impl BuildHasher for Keyed {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0)
    }
}

/// Hashes one id.
#[derive(Debug)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    #[inline]
    fn write_u64(&mut self, id: u64) {
        // An odd number whose bits are half ones and in no order: the fraction of the golden ratio.
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.0 ^ id) * u128::from(MULTIPLIER);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::MAX_ID;

    #[test]
    fn ids_in_a_row_and_ids_in_steps_spread_over_all_buckets() {
        let keyed = Keyed::default();
        for step in [1, 2, 8, 1 << 16, 1 << 32, 1 << 43] {
            let ids = (0..1024).map(|number: u64| number * step);
            // The map takes the bucket from the low bits and tells entries apart by the high ones.
            let low: HashSet<u64> = ids.clone().map(|id| keyed.hash_one(id) % 1024).collect();
            assert!(low.len() > 500, "{step}: {} of 1024 buckets", low.len());
            let high: HashSet<u64> = ids.map(|id| keyed.hash_one(id) >> 57).collect();
            assert!(high.len() > 100, "{step}: {} of 128 tags", high.len());
        }
    }

    #[test]
    fn what_is_put_in_is_found_again() {
        let mut map = IdMap::default();
        for id in [0, 1, MAX_ID - 1, MAX_ID] {
            map.insert(id, id + 1);
        }
        assert_eq!(map.get(&MAX_ID), Some(&(MAX_ID + 1)));
        assert_eq!(map.remove(&0), Some(1));
        assert_eq!(map.len(), 3);
    }
}
