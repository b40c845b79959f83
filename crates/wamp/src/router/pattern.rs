//! URI patterns: which registered keys match a concrete URI.
//!
//! An exact key is one hash lookup. Prefix and wildcard keys live in a trie over URI components, so that matching
//! costs as many steps as the URI has components, however many keys there are. Knows nothing of sessions; both the
//! dealer and the broker hold one index. Matching rules: `wamp-interop.md` 3.3 and case R-R8.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::uri::UriRule;

/// Most components of a prefix or wildcard pattern; bounds the depth of the trie and of every recursion over it.
pub(super) const MAX_COMPONENTS: usize = 128;

/// How a key is compared with a URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum MatchPolicy {
    /// The URI itself.
    #[default]
    Exact,
    /// A string prefix, without regard to component boundaries.
    Prefix,
    /// Same number of components; an empty component matches any.
    Wildcard,
}

impl MatchPolicy {
    /// The policy named `name` on the wire.
    pub(super) fn from_name(name: &str) -> Option<MatchPolicy> {
        match name {
            "exact" => Some(MatchPolicy::Exact),
            "prefix" => Some(MatchPolicy::Prefix),
            "wildcard" => Some(MatchPolicy::Wildcard),
            _ => None,
        }
    }

    /// The name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            MatchPolicy::Exact => "exact",
            MatchPolicy::Prefix => "prefix",
            MatchPolicy::Wildcard => "wildcard",
        }
    }

    /// Whether `key` is a well-formed key of this policy.
    pub(super) fn accepts(self, key: &str, rule: UriRule) -> bool {
        match self {
            MatchPolicy::Exact => rule.accepts(key),
            MatchPolicy::Prefix => {
                let head = key.strip_suffix('.').unwrap_or(key);
                (key.is_empty() || rule.accepts(head)) && key.split('.').count() <= MAX_COMPONENTS
            }
            MatchPolicy::Wildcard => rule.accepts_pattern(key) && key.split('.').count() <= MAX_COMPONENTS,
        }
    }
}

/// Keys with their values. A key exists once per policy.
#[derive(Debug)]
pub(super) struct PatternIndex<T> {
    exact: HashMap<String, T>,
    patterns: Node<T>,
}

impl<T: Copy> PatternIndex<T> {
    pub(super) fn new() -> PatternIndex<T> {
        PatternIndex {
            exact: HashMap::new(),
            patterns: Node::default(),
        }
    }

    /// The value of exactly this key and policy.
    pub(super) fn get(&self, policy: MatchPolicy, key: &str) -> Option<T> {
        match policy {
            MatchPolicy::Exact => self.exact.get(key).copied(),
            MatchPolicy::Prefix => self.patterns.get_prefix(key),
            MatchPolicy::Wildcard => self.patterns.get_wildcard(key),
        }
    }

    /// Adds or replaces a key that [`MatchPolicy::accepts`] has accepted.
    pub(super) fn insert(&mut self, policy: MatchPolicy, key: &str, value: T) {
        match policy {
            MatchPolicy::Exact => {
                self.exact.insert(key.to_owned(), value);
            }
            MatchPolicy::Prefix => self.patterns.insert_prefix(key, value),
            MatchPolicy::Wildcard => self.patterns.insert_wildcard(key, value),
        }
    }

    /// Removes a key; nothing happens when it is not there.
    pub(super) fn remove(&mut self, policy: MatchPolicy, key: &str) {
        match policy {
            MatchPolicy::Exact => {
                self.exact.remove(key);
            }
            MatchPolicy::Prefix => self.patterns.remove_prefix(key),
            MatchPolicy::Wildcard => self.patterns.remove_wildcard(key),
        }
    }

    /// The one value that wins for `uri`: exact, else longest prefix, else the wildcard with the longest leading part.
    pub(super) fn best(&self, uri: &str) -> Option<T> {
        if let Some(value) = self.exact.get(uri) {
            return Some(*value);
        }
        if self.patterns.is_empty() {
            return None;
        }
        self.patterns
            .longest_prefix(uri)
            .or_else(|| self.patterns.best_wildcard(uri.split('.')))
    }

    /// Appends every value whose key matches `uri`, the exact one first.
    pub(super) fn all(&self, uri: &str, found: &mut Vec<T>) {
        found.extend(self.exact.get(uri));
        if self.patterns.is_empty() {
            return;
        }
        self.patterns.all_prefixes(uri, found);
        self.patterns.all_wildcards(uri.split('.'), found);
    }
}

/// One component's place in the trie.
#[derive(Debug)]
struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    /// The child for the empty component of wildcard keys.
    any: Option<Box<Node<T>>>,
    /// A wildcard key ends here.
    wildcard: Option<T>,
    /// Prefix keys whose last, possibly cut, component is compared with the component that follows this node.
    prefixes: BTreeMap<Box<[u8]>, T>,
}

impl<T> Default for Node<T> {
    fn default() -> Node<T> {
        Node {
            children: HashMap::new(),
            any: None,
            wildcard: None,
            prefixes: BTreeMap::new(),
        }
    }
}

impl<T: Copy> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.wildcard.is_none() && self.prefixes.is_empty()
    }

    fn get_prefix(&self, key: &str) -> Option<T> {
        let (parents, last) = split_prefix(key);
        let mut node = self;
        for component in parents {
            node = node.children.get(component)?;
        }
        node.prefixes.get(last.as_bytes()).copied()
    }

    fn insert_prefix(&mut self, key: &str, value: T) {
        let (parents, last) = split_prefix(key);
        let mut node = self;
        for component in parents {
            node = node.children.entry(component.into()).or_default();
        }
        node.prefixes.insert(last.as_bytes().into(), value);
    }

    fn remove_prefix(&mut self, key: &str) {
        let (parents, last) = split_prefix(key);
        self.prune(parents, &mut |node| {
            node.prefixes.remove(last.as_bytes());
        });
    }

    fn get_wildcard(&self, key: &str) -> Option<T> {
        let mut node = self;
        for component in key.split('.') {
            node = match component {
                "" => node.any.as_deref()?,
                literal => node.children.get(literal)?,
            };
        }
        node.wildcard
    }

    fn insert_wildcard(&mut self, key: &str, value: T) {
        let mut node = self;
        for component in key.split('.') {
            node = match component {
                "" => node.any.get_or_insert_default(),
                literal => node.children.entry(literal.into()).or_default(),
            };
        }
        node.wildcard = Some(value);
    }

    fn remove_wildcard(&mut self, key: &str) {
        self.prune(key.split('.'), &mut |node| node.wildcard = None);
    }

    /// Edits the node at the end of `path` and drops every node on the way that became empty.
    fn prune<'k>(
        &mut self,
        mut path: impl Iterator<Item = &'k str> + Clone,
        edit: &mut dyn FnMut(&mut Node<T>),
    ) {
        match path.next() {
            None => edit(self),
            Some("") => {
                if let Some(child) = self.any.as_deref_mut() {
                    child.prune(path, edit);
                    if child.is_empty() {
                        self.any = None;
                    }
                }
            }
            Some(literal) => {
                if let Some(child) = self.children.get_mut(literal) {
                    child.prune(path, edit);
                    if child.is_empty() {
                        self.children.remove(literal);
                    }
                }
            }
        }
    }

    fn longest_prefix(&self, uri: &str) -> Option<T> {
        let mut node = self;
        let mut best = None;
        for component in uri.split('.') {
            step();
            if let Some((_, value)) = longest_prefix(&node.prefixes, component.as_bytes()) {
                best = Some(*value);
            }
            match node.children.get(component) {
                Some(child) => node = child,
                None => break,
            }
        }
        best
    }

    fn all_prefixes(&self, uri: &str, found: &mut Vec<T>) {
        let mut node = self;
        for component in uri.split('.') {
            step();
            let mut rest = component.as_bytes();
            while let Some((key, value)) = longest_prefix(&node.prefixes, rest) {
                found.push(*value);
                match key.split_last() {
                    Some((_, shorter)) => rest = &rest[..shorter.len()],
                    None => break,
                }
            }
            match node.children.get(component) {
                Some(child) => node = child,
                None => break,
            }
        }
    }

    fn best_wildcard<'u>(&self, mut rest: impl Iterator<Item = &'u str> + Clone) -> Option<T> {
        step();
        let Some(component) = rest.next() else {
            return self.wildcard;
        };
        // The literal child first: its keys have the longer leading part.
        self.children
            .get(component)
            .and_then(|child| child.best_wildcard(rest.clone()))
            .or_else(|| self.any.as_deref().and_then(|child| child.best_wildcard(rest)))
    }

    fn all_wildcards<'u>(&self, mut rest: impl Iterator<Item = &'u str> + Clone, found: &mut Vec<T>) {
        step();
        let Some(component) = rest.next() else {
            found.extend(self.wildcard);
            return;
        };
        if let Some(child) = self.children.get(component) {
            child.all_wildcards(rest.clone(), found);
        }
        if let Some(child) = self.any.as_deref() {
            child.all_wildcards(rest, found);
        }
    }
}

/// Splits a prefix key into its whole components and the last, possibly cut or empty one.
fn split_prefix(key: &str) -> (impl Iterator<Item = &str> + Clone, &str) {
    let (parents, last) = match key.rsplit_once('.') {
        Some((parents, last)) => (Some(parents), last),
        None => (None, key),
    };
    (parents.into_iter().flat_map(|parents| parents.split('.')), last)
}

/// The longest key of `map` that `text` starts with.
pub(super) fn longest_prefix<'m, T>(
    map: &'m BTreeMap<Box<[u8]>, T>,
    text: &[u8],
) -> Option<(&'m [u8], &'m T)> {
    let mut bound = text;
    loop {
        step();
        let (key, value) = map
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(bound)))
            .next_back()?;
        if text.starts_with(key) {
            return Some((key, value));
        }
        // Every prefix of `text` that sorts before `key` is no longer than what both have in common.
        let common = key
            .iter()
            .zip(bound)
            .take_while(|(left, right)| left == right)
            .count();
        bound = &text[..common];
    }
}

/// One step of a search. The tests count them: the promise is about steps, not about time.
#[inline]
fn step() {
    #[cfg(test)]
    tests::STEPS.with(|steps| steps.set(steps.get() + 1));
}

#[cfg(test)]
mod tests;
