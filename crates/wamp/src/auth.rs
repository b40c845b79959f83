//! WAMP-CRA (`session-and-api.md` 4.5, `wamp-interop.md` rule 14): pure functions, no I/O.

/// Parameters of a salted secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salting {
    /// The salt's text; its UTF-8 bytes are the PBKDF2 salt.
    pub salt: String,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// Length of the derived key in bytes.
    pub keylen: u32,
}
