//! What a session may do: the longest matching prefix decides, an exact entry comes first, no entry means no.
//!
//! The entries are those of its role, shared by everybody in it, and those of its principal, if the authenticator gave
//! any. Both are looked up together; for one and the same URI the principal's own entry wins. Knows nothing of
//! sessions. Contract: `wamp-interop.md` 3.1 (permission lookup), 3.3 (disclosure).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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

/// Permission entries, indexed.
#[derive(Debug, Default)]
pub(super) struct Lines {
    exact: HashMap<String, Permission>,
    prefixes: BTreeMap<Box<[u8]>, Permission>,
}

impl Lines {
    pub(super) fn new(permissions: &[Permission]) -> Lines {
        let mut lines = Lines::default();
        for permission in permissions {
            if permission.prefix {
                let key = permission.uri.as_bytes().into();
                lines.prefixes.insert(key, permission.clone());
            } else {
                lines.exact.insert(permission.uri.clone(), permission.clone());
            }
        }
        lines
    }

    /// The entry that decides about `uri`.
    fn entry(&self, uri: &str) -> Option<&Permission> {
        // Most roles have no exact entries, and hashing the URI is the dear part.
        let exact = match self.exact.is_empty() {
            true => None,
            false => self.exact.get(uri),
        };
        exact.or_else(|| longest_prefix(&self.prefixes, uri.as_bytes()).map(|(_, permission)| permission))
    }

    fn has(&self, line: &Permission) -> bool {
        match line.prefix {
            true => self.prefixes.contains_key(line.uri.as_bytes()),
            false => self.exact.contains_key(&line.uri),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Permission> {
        self.exact.values().chain(self.prefixes.values())
    }
}

/// A role with the permissions that everybody in it has.
#[derive(Debug)]
pub(super) struct Role {
    name: String,
    lines: Lines,
}

impl Role {
    pub(super) fn new(name: &str, permissions: &[Permission]) -> Role {
        Role {
            name: name.to_owned(),
            lines: Lines::new(permissions),
        }
    }
}

/// What one session may do.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    role: Arc<Role>,
    own: Option<Arc<Lines>>,
}

impl Rights {
    pub(super) fn new(role: Arc<Role>, own: Option<Arc<Lines>>) -> Rights {
        Rights { role, own }
    }

    /// The same role with other entries of its own.
    pub(super) fn replace_own(&mut self, own: Arc<Lines>) {
        self.own = Some(own);
    }

    pub(super) fn role(&self) -> &str {
        &self.role.name
    }

    /// The entry that decides about `uri`.
    fn entry(&self, uri: &str) -> Option<&Permission> {
        let shared = self.role.lines.entry(uri);
        let Some(own) = self.own.as_ref().and_then(|own| own.entry(uri)) else {
            return shared;
        };
        match shared {
            Some(shared) if rank(shared) > rank(own) => Some(shared),
            Some(_) | None => Some(own),
        }
    }

    /// Every entry that decides about some URI.
    fn entries(&self) -> impl Iterator<Item = &Permission> {
        let own = self.own.as_deref();
        let shared = self.role.lines.all();
        let shared = shared.filter(move |line| own.is_none_or(|own| !own.has(line)));
        shared.chain(own.into_iter().flat_map(Lines::all))
    }

    /// Whether `action` on `uri` (or on the pattern `uri`, taken literally) is allowed.
    pub(super) fn allows(&self, action: Action, uri: &str) -> bool {
        self.entry(uri).is_some_and(|entry| permits(entry, action))
    }

    /// The same together with [`Rights::discloses`], for messages by the thousand: `None` when it is not allowed.
    pub(super) fn allows_disclosing(&self, action: Action, uri: &str) -> Option<bool> {
        self.entry(uri)
            .filter(|entry| permits(entry, action))
            .map(|entry| entry.disclose)
    }

    /// Whether a registration that takes every URI matching `pattern` is allowed: the deciding entry allows it and no
    /// narrower entry below the pattern's fixed part forbids it.
    pub(super) fn allows_registration(&self, policy: MatchPolicy, pattern: &str) -> bool {
        if !self.allows(Action::Register, pattern) {
            return false;
        }
        let Some(fixed) = fixed_part(policy, pattern) else {
            return true;
        };
        // A wildcard is allowed by the entry for its own text only if the same entry covers all that it matches.
        self.allows(Action::Register, fixed)
            && self
                .entries()
                .filter(|entry| entry.uri.starts_with(fixed))
                .all(|entry| permits(entry, Action::Register))
    }

    /// Whether registrations and subscriptions of `uri` may be taken from others.
    pub(super) fn allows_eviction(&self, uri: &str) -> bool {
        self.entry(uri).is_some_and(|entry| entry.force_register)
    }

    /// Whether the identity of a caller or publisher with this role is disclosed for `uri`.
    pub(super) fn discloses(&self, uri: &str) -> bool {
        self.entry(uri).is_some_and(|entry| entry.disclose)
    }

    /// Whether anything that matches `pattern` may be used in one of the two ways. Decides what the meta API shows: a
    /// session learns of those subscriptions whose topics it may publish or subscribe to, and of those registrations
    /// whose procedures it may call or register. May say yes to a wildcard whose last components never match.
    pub(super) fn concerns(&self, policy: MatchPolicy, pattern: &str, either: [Action; 2]) -> bool {
        let permits = |entry: &Permission| either.iter().any(|action| permits(entry, *action));
        let Some(fixed) = fixed_part(policy, pattern) else {
            return self.entry(pattern).is_some_and(permits);
        };
        self.entry(fixed).is_some_and(permits)
            || self
                .entries()
                .any(|entry| entry.uri.starts_with(fixed) && permits(entry))
    }
}

/// Exact entries before prefixes, longer prefixes before shorter ones.
fn rank(entry: &Permission) -> (bool, usize) {
    (!entry.prefix, entry.uri.len())
}

/// What every match of a pattern begins with; `None` for an exact key.
pub(super) fn fixed_part(policy: MatchPolicy, pattern: &str) -> Option<&str> {
    match policy {
        MatchPolicy::Exact => None,
        MatchPolicy::Prefix => Some(pattern),
        MatchPolicy::Wildcard => {
            let mut end = 0;
            for component in pattern.split_inclusive('.') {
                if component == "." {
                    break;
                }
                end += component.len();
            }
            Some(&pattern[..end])
        }
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

    fn rights(role: &[Permission]) -> Rights {
        Rights::new(Arc::new(Role::new("device", role)), None)
    }

    fn with_own(role: &[Permission], own: &[Permission]) -> Rights {
        Rights::new(
            Arc::new(Role::new("device", role)),
            Some(Arc::new(Lines::new(own))),
        )
    }

    #[test]
    fn the_longest_prefix_decides_alone_and_exact_entries_come_first() {
        let rights = rights(&[
            entry("re.", true, true),
            entry("re.secret.", true, false),
            entry("re.secret.open", false, true),
        ]);
        assert!(rights.allows(Action::Call, "re.x"));
        assert!(!rights.allows(Action::Call, "re.secret.x"));
        assert!(rights.allows(Action::Call, "re.secret.open"));
        assert!(!rights.allows(Action::Call, "other"), "no entry means no");
        assert!(rights.discloses("re.x") && !rights.discloses("re.secret.x"));
        assert!(!rights.allows_eviction("re.x"));
    }

    #[test]
    fn a_pattern_registration_may_not_cover_a_forbidden_part() {
        let rights = rights(&[entry("re.", true, true), entry("re.secret.", true, false)]);
        assert!(!rights.allows_registration(MatchPolicy::Prefix, "re."));
        assert!(!rights.allows_registration(MatchPolicy::Wildcard, "re..x"));
        assert!(!rights.allows_registration(MatchPolicy::Wildcard, ".x"));
        assert!(rights.allows_registration(MatchPolicy::Prefix, "re.open."));
        assert!(rights.allows_registration(MatchPolicy::Wildcard, "re.open..x"));
        assert!(rights.allows_registration(MatchPolicy::Exact, "re.x"));
    }

    #[test]
    fn entries_of_its_own_narrow_and_widen_what_the_role_may() {
        let rights = with_own(
            &[
                entry("re.", true, false),
                entry("api.", true, true),
                entry("api.secret", false, false),
            ],
            &[entry("re.mine.", true, true), entry("api.", true, false)],
        );
        assert!(rights.allows(Action::Register, "re.mine.x"));
        assert!(!rights.allows(Action::Register, "re.other.x"));
        assert!(
            !rights.allows(Action::Call, "api.x"),
            "for one URI the own entry wins"
        );
        let rights = with_own(&[entry("api.secret", false, false)], &[entry("api.", true, true)]);
        assert!(rights.allows(Action::Call, "api.x"));
        assert!(
            !rights.allows(Action::Call, "api.secret"),
            "the longer entry decides, whosever it is"
        );
        assert!(!rights.allows_registration(MatchPolicy::Prefix, "api."));
    }

    #[test]
    fn nobody_is_concerned_by_what_others_have_to_themselves() {
        let rights = with_own(
            &[entry("re.", true, false)],
            &[entry("re.mine.", true, true), entry("logs.mine.", true, true)],
        );
        let either = [Action::Publish, Action::Subscribe];
        for (policy, pattern, expected) in [
            (MatchPolicy::Exact, "re.mine.x", true),
            (MatchPolicy::Exact, "re.other.x", false),
            (MatchPolicy::Prefix, "", true),
            (MatchPolicy::Prefix, "re.", true),
            (MatchPolicy::Prefix, "re.mine.data.", true),
            (MatchPolicy::Prefix, "re.other.", false),
            (MatchPolicy::Wildcard, "logs..x", true),
            (MatchPolicy::Wildcard, "logs.mine..x", true),
            (MatchPolicy::Wildcard, "logs.other..x", false),
        ] {
            assert_eq!(
                rights.concerns(policy, pattern, either),
                expected,
                "{policy:?} {pattern:?}"
            );
        }
    }
}
