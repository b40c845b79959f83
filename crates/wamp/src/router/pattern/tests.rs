//! What matches, and in how many steps.

use std::cell::Cell;

use super::*;
use proptest::prelude::*;

thread_local! {
    /// Steps of all searches of this thread.
    pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
}

fn index(keys: &[(MatchPolicy, &str)]) -> PatternIndex<usize> {
    let mut index = PatternIndex::new();
    for (value, (policy, key)) in keys.iter().enumerate() {
        assert!(policy.accepts(key, UriRule::Loose), "{key:?}");
        index.insert(*policy, key, value);
    }
    index
}

fn naive(policy: MatchPolicy, key: &str, uri: &str) -> bool {
    match policy {
        MatchPolicy::Exact => key == uri,
        MatchPolicy::Prefix => uri.starts_with(key),
        MatchPolicy::Wildcard => {
            key.split('.').count() == uri.split('.').count()
                && key
                    .split('.')
                    .zip(uri.split('.'))
                    .all(|(part, component)| part.is_empty() || part == component)
        }
    }
}

#[test]
fn r_r8_exact_wins_over_longest_prefix_over_wildcard() {
    use MatchPolicy::{Exact, Prefix, Wildcard};
    let index = index(&[
        (Exact, "a.b.c"),
        (Prefix, "a.b"),
        (Prefix, "a."),
        (Wildcard, "x..z"),
        (Wildcard, "x.y."),
        (Wildcard, ".y.z"),
    ]);
    assert_eq!(index.best("a.b.c"), Some(0));
    assert_eq!(index.best("a.b.d"), Some(1));
    assert_eq!(
        index.best("a.bb"),
        Some(1),
        "string prefix, no component boundary"
    );
    assert_eq!(index.best("a.c"), Some(2));
    assert_eq!(index.best("x.y.z"), Some(4), "longest leading part");
    assert_eq!(index.best("x.q.z"), Some(3));
    assert_eq!(index.best("q.y.z"), Some(5));
    assert_eq!(index.best("q.y.q"), None);
}

#[test]
fn the_empty_prefix_matches_everything() {
    let index = index(&[(MatchPolicy::Prefix, "")]);
    assert_eq!(index.best("any.thing"), Some(0));
}

#[test]
fn a_prefix_ending_in_a_dot_needs_a_further_component() {
    let index = index(&[(MatchPolicy::Prefix, "re.mgmt.")]);
    assert_eq!(index.best("re.mgmt"), None);
    assert_eq!(index.best("re.mgmt.x"), Some(0));
}

#[test]
fn malformed_and_overlong_patterns_are_not_accepted() {
    assert!(!MatchPolicy::Prefix.accepts("a..b", UriRule::Loose));
    assert!(!MatchPolicy::Prefix.accepts(".", UriRule::Loose));
    assert!(!MatchPolicy::Wildcard.accepts("a. b", UriRule::Loose));
    assert!(!MatchPolicy::Wildcard.accepts(&".".repeat(MAX_COMPONENTS), UriRule::Loose));
    assert!(MatchPolicy::Wildcard.accepts(&".".repeat(MAX_COMPONENTS - 1), UriRule::Loose));
    assert!(!MatchPolicy::Exact.accepts("a.", UriRule::Loose));
}

fn key() -> impl Strategy<Value = (MatchPolicy, String)> {
    let component = prop::sample::select(vec!["", "a", "ab", "abc", "b"]);
    (
        prop::sample::select(vec![
            MatchPolicy::Exact,
            MatchPolicy::Prefix,
            MatchPolicy::Wildcard,
        ]),
        prop::collection::vec(component, 1..4).prop_map(|parts| parts.join(".")),
    )
        .prop_filter("well-formed", |(policy, key)| policy.accepts(key, UriRule::Loose))
}

proptest! {
    #[test]
    fn the_trie_agrees_with_a_linear_search(
        keys in prop::collection::btree_map(
            key().prop_map(|(policy, key)| (policy.name(), key)), any::<u16>(), 0..20),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        uri in prop::collection::vec(prop::sample::select(vec!["a", "ab", "abc", "b"]), 1..4),
    ) {
        let uri = uri.join(".");
        let mut index = PatternIndex::new();
        let mut kept: Vec<_> = keys.keys().cloned().collect();
        for (value, (policy, key)) in keys.keys().enumerate() {
            index.insert(MatchPolicy::from_name(policy).unwrap(), key, value);
        }
        for which in removed {
            if !kept.is_empty() {
                let (policy, key) = kept.remove(which.index(kept.len()));
                index.remove(MatchPolicy::from_name(policy).unwrap(), &key);
            }
        }
        let mut expected: Vec<usize> = keys
            .keys()
            .enumerate()
            .filter(|(_, entry)| kept.contains(entry))
            .filter(|(_, (policy, key))| naive(MatchPolicy::from_name(policy).unwrap(), key, &uri))
            .map(|(value, _)| value)
            .collect();
        let mut found = Vec::new();
        index.all(&uri, &mut found);
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(index.best(&uri).is_some(), !expected.is_empty());
        for (policy, key) in kept {
            index.remove(MatchPolicy::from_name(policy).unwrap(), &key);
        }
        prop_assert!(index.patterns.is_empty() && index.exact.is_empty());
    }
}

/// Steps that `search` takes.
fn steps(search: impl FnOnce()) -> usize {
    let before = STEPS.get();
    search();
    STEPS.get() - before
}

/// A fleet: per device an exact key, prefixes of two depths and wildcards that share their beginnings.
fn fleet(exact: usize, patterns: usize) -> PatternIndex<usize> {
    let mut index = PatternIndex::new();
    for device in 0..exact {
        let key = format!("re.mgmt.serial-{device}.app.start");
        index.insert(MatchPolicy::Exact, &key, device);
    }
    for number in 0..patterns {
        let (policy, key) = match number % 5 {
            0 => (MatchPolicy::Prefix, format!("re.mgmt.serial-{number}.")),
            1 => (MatchPolicy::Prefix, format!("re.mgmt.serial-{number}.app.st")),
            2 => (MatchPolicy::Prefix, format!("tenant-{number}.")),
            3 => (MatchPolicy::Wildcard, format!("re.mgmt..app.verb-{number}")),
            _ => (MatchPolicy::Wildcard, format!("..serial-{number}..start")),
        };
        index.insert(policy, &key, exact + number);
    }
    index
}

#[test]
fn the_steps_of_a_search_depend_on_the_uri_and_not_on_the_number_of_keys() {
    const SMALL: (usize, usize) = (100, 100);
    const LARGE: (usize, usize) = (100_000, 10_000);
    let uris = [
        "re.mgmt.serial-5.app.start",
        "re.mgmt.serial-6.app.stop",
        "re.mgmt.serial-9.app.start",
        "re.mgmt.nobody.app.verb-3",
        "re.mgmt.nobody.app.none",
        "tenant-7.data",
        "elsewhere",
    ];
    let cost = |(exact, patterns): (usize, usize)| -> Vec<(usize, usize, usize)> {
        let index = fleet(exact, patterns);
        let mut found = Vec::new();
        uris.iter()
            .map(|uri| {
                found.clear();
                let all = steps(|| index.all(uri, &mut found));
                let best = steps(|| {
                    index.best(uri);
                });
                (all, best, found.len())
            })
            .collect()
    };
    let (small, large) = (cost(SMALL), cost(LARGE));
    for (uri, (small, large)) in uris.iter().zip(small.iter().zip(&large)) {
        assert_eq!(small.2, large.2, "{uri}: the same keys match");
        // Two more when a lookup lands on another neighbour; a search through the keys would be thousands.
        assert!(
            large.0 <= small.0 + 2 && large.0 <= 32,
            "{uri}: {small:?}, {large:?}"
        );
        assert!(
            large.1 <= small.1 + 2 && large.1 <= 32,
            "{uri}: {small:?}, {large:?}"
        );
    }
    let index = fleet(LARGE.0, LARGE.1);
    assert_eq!(
        steps(|| assert_eq!(index.best("re.mgmt.serial-77777.app.start"), Some(77_777))),
        0,
        "exact: one hash lookup, no search"
    );
}
