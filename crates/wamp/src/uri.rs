//! URI rules (WAMP specification 5.1.1; `wamp-interop.md` rules 6 and 7).

/// Whether `uri` satisfies the loose rule: dot-separated components, none empty, without white space and `#`.
pub fn is_loose(uri: &str) -> bool {
    !uri.is_empty() && uri.split('.').all(is_loose_component)
}

/// The loose rule for a pattern: empty components allowed (wildcard) or a string prefix that may end in a dot.
pub fn is_loose_pattern(uri: &str) -> bool {
    uri.split('.')
        .all(|component| component.is_empty() || is_loose_component(component))
}

/// Whether `uri` satisfies the strict rule: lower-case ASCII letters, digits and underscores, none empty.
pub fn is_strict(uri: &str) -> bool {
    !uri.is_empty()
        && uri.split('.').all(|component| {
            !component.is_empty()
                && component
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        })
}

/// The strict rule for a pattern.
pub fn is_strict_pattern(uri: &str) -> bool {
    uri.split('.')
        .all(|component| component.is_empty() || is_strict(component))
}

/// Which URIs a realm takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UriRule {
    /// [`is_loose`]
    #[default]
    Loose,
    /// [`is_strict`]
    Strict,
}

impl UriRule {
    /// Whether `uri` satisfies the rule.
    pub fn accepts(self, uri: &str) -> bool {
        match self {
            UriRule::Loose => is_loose(uri),
            UriRule::Strict => is_strict(uri),
        }
    }

    /// Whether `uri` is a pattern that satisfies the rule.
    pub fn accepts_pattern(self, uri: &str) -> bool {
        match self {
            UriRule::Loose => is_loose_pattern(uri),
            UriRule::Strict => is_strict_pattern(uri),
        }
    }
}

fn is_loose_component(component: &str) -> bool {
    !component.is_empty()
        && !component
            .chars()
            .any(|character| character.is_whitespace() || character == '#')
}

/// Error URIs of the WAMP specification that this crate produces or recognises.
pub mod error {
    /// Malformed URI in a request.
    pub const INVALID_URI: &str = "wamp.error.invalid_uri";
    /// The callee cannot do what the call asks for.
    pub const FEATURE_NOT_SUPPORTED: &str = "wamp.error.feature_not_supported";
    /// Nobody offers the called procedure.
    pub const NO_SUCH_PROCEDURE: &str = "wamp.error.no_such_procedure";
    /// Somebody else already offers the procedure.
    pub const PROCEDURE_ALREADY_EXISTS: &str = "wamp.error.procedure_already_exists";
    /// The shared registration exists with another policy.
    pub const PROCEDURE_EXISTS_WITH_DIFFERENT_POLICY: &str =
        "wamp.error.procedure_exists_with_different_invocation_policy";
    /// UNREGISTER of an unknown or foreign id.
    pub const NO_SUCH_REGISTRATION: &str = "wamp.error.no_such_registration";
    /// UNSUBSCRIBE of an unknown or foreign id.
    pub const NO_SUCH_SUBSCRIPTION: &str = "wamp.error.no_such_subscription";
    /// Meta API: unknown session.
    pub const NO_SUCH_SESSION: &str = "wamp.error.no_such_session";
    /// Arguments the callee cannot use.
    pub const INVALID_ARGUMENT: &str = "wamp.error.invalid_argument";
    /// The call was cancelled, or the callee went away.
    pub const CANCELED: &str = "wamp.error.canceled";
    /// The call ran into its timeout.
    pub const TIMEOUT: &str = "wamp.error.timeout";
    /// The role may not do this.
    pub const NOT_AUTHORIZED: &str = "wamp.error.not_authorized";
    /// The credentials were refused.
    pub const AUTHENTICATION_FAILED: &str = "wamp.error.authentication_failed";
    /// No authentication method that both sides know.
    pub const NO_MATCHING_AUTH_METHOD: &str = "wamp.error.no_matching_auth_method";
    /// The authid is not known.
    pub const NO_SUCH_PRINCIPAL: &str = "wamp.error.no_such_principal";
    /// The realm is not known.
    pub const NO_SUCH_REALM: &str = "wamp.error.no_such_realm";
    /// The role is not known.
    pub const NO_SUCH_ROLE: &str = "wamp.error.no_such_role";
    /// The peer broke the protocol.
    pub const PROTOCOL_VIOLATION: &str = "wamp.error.protocol_violation";
    /// Larger than the receiver accepts.
    pub const PAYLOAD_SIZE_EXCEEDED: &str = "wamp.error.payload_size_exceeded";
    /// Revocation: somebody took the procedure over.
    pub const UNREGISTERED: &str = "wamp.error.unregistered";
    /// Revocation: somebody took the subscription away.
    pub const UNSUBSCRIBED: &str = "wamp.error.unsubscribed";
    /// Something failed inside the callee or the router.
    pub const RUNTIME_ERROR: &str = "wamp.error.runtime_error";
    /// Meta API: the router keeps no event history.
    pub const HISTORY_UNAVAILABLE: &str = "wamp.error.history_unavailable";
    /// Testament with an unknown scope.
    pub const TESTAMENT_ERROR: &str = "wamp.error.testament_error";
    /// The peer could not be reached; retryable (nexus).
    pub const NETWORK_FAILURE: &str = "wamp.error.network_failure";
}

/// Reasons of GOODBYE.
pub mod close {
    /// The client leaves.
    pub const CLOSE_REALM: &str = "wamp.close.close_realm";
    /// Answer to a GOODBYE.
    pub const GOODBYE_AND_OUT: &str = "wamp.close.goodbye_and_out";
    /// The router stops.
    pub const SYSTEM_SHUTDOWN: &str = "wamp.close.system_shutdown";
    /// Killed through the meta API.
    pub const KILLED: &str = "wamp.close.killed";
    /// Crossbar's answer to a client's GOODBYE; also eviction by a newer session.
    pub const NORMAL: &str = "wamp.close.normal";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_uris_are_lower_case_and_loose_ones_nearly_anything() {
        for (uri, loose, strict) in [
            ("com.example.proc_1", true, true),
            ("A-b/c%.é", true, false),
            ("re.mgmt.7-42.ping", true, false),
            ("a", true, true),
            ("", false, false),
            ("a..b", false, false),
            (".a", false, false),
            ("a.", false, false),
            ("a b", false, false),
            ("a.#", false, false),
        ] {
            assert_eq!(UriRule::Loose.accepts(uri), loose, "{uri}");
            assert_eq!(UriRule::Strict.accepts(uri), strict, "{uri}");
        }
        assert!(UriRule::Strict.accepts_pattern("a..b") && UriRule::Loose.accepts_pattern("A..b"));
        assert!(!UriRule::Strict.accepts_pattern("A..b") && !UriRule::Loose.accepts_pattern("a b.."));
    }
}
