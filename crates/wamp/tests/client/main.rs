//! The client against real routers (the same suite for each) and against a scripted one that misbehaves.
//!
//! Every rule of `wamp-interop.md` section 1 has a test named `rule_NN_…`, every case of 5.6 one named `c_NN_…`. What is
//! not in here:
//!
//! | case | where |
//! |---|---|
//! | rule 20, pauses | `client::reconnect::backoff`, unit tests |
//! | rule 23, C-16 (timing) | `transport::keepalive`, unit tests with paused time |
//! | C-17 (frames) | `tests/transport.rs`, `a_ping_is_answered_while_a_long_message_is_being_sent` |
//! | C-26 | `tests/tls.rs`: `an_unknown_authority_is_named`, `a_wrong_host_name_is_named`, `an_expired_certificate_is_named` |

#![allow(clippy::unwrap_used)]

mod callee;
mod caller;
mod crossbar;
mod ending;
mod joining;
mod options;
mod parts;
mod reconnect;
mod requests;
mod router;
mod scripted;
mod subscriber;
mod suite;
