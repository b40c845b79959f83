//! What a role may do: the longest matching prefix decides, an exact entry comes first, no entry means no.
//!
//! Knows nothing of sessions. Contract: `wamp-interop.md` 3.1 (permission lookup), 3.3 (disclosure).

use std::collections::{BTreeMap, HashMap};

use super::Permission;
use super::pattern::{MatchPolicy, longest_prefix};

/// What a session wants to do with a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Call,
    Register,
    Publish,
    Subscribe,
}

impl Action {
    /// The verb for error texts.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Action::Call => "call",
            Action::Register => "register",
            Action::Publish => "publish to",
            Action::Subscribe => "subscribe to",
        }
    }
}

/// A role with its permissions, indexed.
#[derive(Debug)]
pub(super) struct Role {
    name: String,
    exact: HashMap<String, Permission>,
    prefixes: BTreeMap<Box<[u8]>, Permission>,
}

impl Role {
    pub(super) fn new(name: &str, permissions: &[Permission]) -> Role {
        let mut role = Role {
            name: name.to_owned(),
            exact: HashMap::new(),
            prefixes: BTreeMap::new(),
        };
        for permission in permissions {
            if permission.prefix {
                let key = permission.uri.as_bytes().into();
                role.prefixes.insert(key, permission.clone());
            } else {
                role.exact.insert(permission.uri.clone(), permission.clone());
            }
        }
        role
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The entry that decides about `uri`.
    fn entry(&self, uri: &str) -> Option<&Permission> {
        self.exact
            .get(uri)
            .or_else(|| longest_prefix(&self.prefixes, uri.as_bytes()).map(|(_, permission)| permission))
    }

    /// Whether `action` on `uri` (or on the pattern `uri`, taken literally) is allowed.
    pub(super) fn allows(&self, action: Action, uri: &str) -> bool {
        self.entry(uri).is_some_and(|entry| permits(entry, action))
    }

    /// Whether a registration that takes every URI matching `pattern` is allowed: the deciding entry allows it and no
    /// narrower entry below the pattern's fixed part forbids it.
    pub(super) fn allows_registration(&self, policy: MatchPolicy, pattern: &str) -> bool {
        if !self.allows(Action::Register, pattern) {
            return false;
        }
        let fixed = match policy {
            MatchPolicy::Exact => return true,
            MatchPolicy::Prefix => pattern,
            MatchPolicy::Wildcard => pattern
                .split_inclusive('.')
                .position(|component| component == ".")
                .map_or(pattern, |blank| {
                    let length: usize = pattern.split_inclusive('.').take(blank).map(str::len).sum();
                    &pattern[..length]
                }),
        };
        let mut narrower = self
            .exact
            .values()
            .chain(self.prefixes.values())
            .filter(|entry| entry.uri.starts_with(fixed));
        narrower.all(|entry| permits(entry, Action::Register))
    }

    /// Whether `force_reregister` is allowed for `uri`.
    pub(super) fn allows_eviction(&self, uri: &str) -> bool {
        self.entry(uri).is_some_and(|entry| entry.force_register)
    }

    /// Whether the identity of a caller or publisher with this role is disclosed for `uri`.
    pub(super) fn discloses(&self, uri: &str) -> bool {
        self.entry(uri).is_some_and(|entry| entry.disclose)
    }
}

fn permits(entry: &Permission, action: Action) -> bool {
    match action {
        Action::Call => entry.call,
        Action::Register => entry.register,
        Action::Publish => entry.publish,
        Action::Subscribe => entry.subscribe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uri: &str, prefix: bool, allowed: bool) -> Permission {
        Permission {
            uri: uri.to_owned(),
            prefix,
            call: allowed,
            register: allowed,
            publish: allowed,
            subscribe: allowed,
            force_register: false,
            disclose: allowed,
        }
    }

    #[test]
    fn the_longest_prefix_decides_alone_and_exact_entries_come_first() {
        let role = Role::new(
            "device",
            &[
                entry("re.", true, true),
                entry("re.secret.", true, false),
                entry("re.secret.open", false, true),
            ],
        );
        assert!(role.allows(Action::Call, "re.x"));
        assert!(!role.allows(Action::Call, "re.secret.x"));
        assert!(role.allows(Action::Call, "re.secret.open"));
        assert!(!role.allows(Action::Call, "other"), "no entry means no");
        assert!(role.discloses("re.x") && !role.discloses("re.secret.x"));
        assert!(!role.allows_eviction("re.x"));
    }

    #[test]
    fn a_pattern_registration_may_not_cover_a_forbidden_part() {
        let role = Role::new(
            "device",
            &[entry("re.", true, true), entry("re.secret.", true, false)],
        );
        assert!(!role.allows_registration(MatchPolicy::Prefix, "re."));
        assert!(!role.allows_registration(MatchPolicy::Wildcard, "re..x"));
        assert!(!role.allows_registration(MatchPolicy::Wildcard, ".x"));
        assert!(role.allows_registration(MatchPolicy::Prefix, "re.open."));
        assert!(role.allows_registration(MatchPolicy::Wildcard, "re.open..x"));
        assert!(role.allows_registration(MatchPolicy::Exact, "re.x"));
    }
}
