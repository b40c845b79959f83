//! The session with the router: connect loop, testament, heartbeat, (re)registration, report outbox
//! (`session-and-api.md` 4 and 5).
//!
//! One task owns the link. It dials for ever with jittered back-off, takes the device's place
//! (`wamp_connection_established`), and hands the joined session to everybody through a [`SessionWatch`]. While a
//! session is up some tasks belong to it and end with it: its place and its testament are kept, the heartbeat, the
//! configuration run of this connect, and the outbox. Nothing in here waits for Docker. Must not know what the exposed procedures do.

mod backoff;
mod configure;
mod heartbeat;
mod outbox;
mod pacing;
mod place;
mod registrations;
mod testament;
mod timing;

use std::time::Duration;

use protocol::report::DeviceStatus;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wamp::Codec;
use wamp::client::{ClientConfig, CloseReason, ConnectError, Credentials, RequestError, Session, TlsOptions};
use wamp::uri::error;

use crate::app::Apps;
use crate::backend::{Backend, DeviceMetadata};
use crate::flock::DeviceFile;
use crate::journal::{self, START_UP};
use crate::logs::Logs;
use crate::rpc;
use crate::settings::Settings;
use crate::store::Store;
use crate::system::HostSampler;

use pacing::Pacing;

pub use backoff::Backoff;
pub use timing::{Pauses, Timing};

/// The current session, `None` while disconnected. Everybody who talks to the router holds one of these.
pub type SessionWatch = watch::Receiver<Option<Session>>;

/// The realm of the platform.
const REALM: &str = "realm1";
/// Answers "somebody already has this serial" that are tolerated in a row (`session-and-api.md` 4.9).
const DUPLICATE_LIMIT: u32 = 8;
/// Attempts on a link that was never slow use the flag's bound; it grows up to this (R24).
const CONNECT_TIMEOUT_CAP: Duration = Duration::from_secs(15);
/// Bound for GOODBYE when the process ends (R15).
const LEAVE_BOUND: Duration = Duration::from_secs(2);

/// What the link needs from the rest of the agent.
#[derive(Clone, Debug)]
pub struct LinkContext {
    pub settings: Settings,
    pub device: DeviceFile,
    pub store: Store,
    pub backend: Backend,
    pub apps: Apps,
    pub logs: Logs,
    pub host: HostSampler,
    pub procedures: rpc::Context,
    pub timing: Timing,
}

/// Why the link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The agent stops.
    Stopped,
    /// The very first session was refused because of the credentials and no app depends on this process.
    AuthenticationFailed,
    /// Another device holds the serial number for good.
    DuplicateSerial,
}

/// How one session went.
enum Outcome {
    Stopped,
    Duplicate,
    /// Joined and ended.
    Ended {
        reason: CloseReason,
        lasted: Duration,
    },
    /// The backend moved the device to another project: dial again with the new identity.
    Moved(DeviceMetadata),
    Failed,
}

/// Runs the link until `stop`. `publish` is the sending end of everybody's [`SessionWatch`].
pub async fn run(
    context: LinkContext,
    publish: watch::Sender<Option<Session>>,
    stop: CancellationToken,
) -> LinkEnd {
    tracing::info!(target: START_UP, "Attempting to establish a socket connection...");
    let mut pacing = Pacing::new(&context.timing);
    let mut attempt: u32 = 0;
    let mut duplicates: u32 = 0;
    let mut joined_before = false;
    loop {
        let config = client_config(&context, attempt);
        let session = tokio::select! {
            () = stop.cancelled() => return LinkEnd::Stopped,
            session = Session::connect(&config) => session,
        };
        let pause = match session {
            Err(failure) => {
                attempt = attempt.saturating_add(1);
                if is_rejected_signature(&failure) {
                    journal::say("The IronFlock device connect authentication failed");
                    if !joined_before && context.apps.known().await.is_empty() {
                        return LinkEnd::AuthenticationFailed;
                    }
                }
                let pause = pacing.after_failure(&failure);
                complain(attempt, &failure, pause);
                pause
            }
            Ok(session) => {
                pacing.admitted();
                let outcome = hold(&context, &session, &publish, &stop, joined_before).await;
                publish.send_replace(None);
                match outcome {
                    Outcome::Stopped => {
                        // The router publishes the testament, so that the studio sees the device leave.
                        leave(&session).await;
                        return LinkEnd::Stopped;
                    }
                    Outcome::Duplicate => {
                        leave(&session).await;
                        duplicates += 1;
                        tracing::warn!(attempt = duplicates, "another session holds this serial number");
                        if duplicates >= DUPLICATE_LIMIT {
                            let serial = &context.device.current().serial_number;
                            journal::say(&format!("a WAMP connection for {serial} already exists"));
                            return LinkEnd::DuplicateSerial;
                        }
                        context.timing.duplicate
                    }
                    Outcome::Moved(metadata) => {
                        leave(&session).await;
                        // Only now: the backend rejects the new key on a session of the old one (4.14).
                        configure::take_over(&context, metadata).await;
                        joined_before = true;
                        duplicates = 0;
                        attempt = 0;
                        pacing.after_move()
                    }
                    Outcome::Failed => {
                        session.abort();
                        attempt = attempt.saturating_add(1);
                        pacing.after_unusable()
                    }
                    Outcome::Ended { reason, lasted } => {
                        // A connection declared dead must not linger: its registrations would block the next (R25).
                        session.abort();
                        joined_before = true;
                        duplicates = 0;
                        attempt = 0;
                        let pause = pacing.after_session(&reason, lasted);
                        tracing::warn!(?reason, ?pause, ?lasted, "session ended");
                        pause
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return LinkEnd::Stopped,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// GOODBYE, and no longer than [`LEAVE_BOUND`] for the router's.
async fn leave(session: &Session) {
    if tokio::time::timeout(LEAVE_BOUND, session.leave()).await.is_err() {
        session.abort();
    }
}

/// First failures at once, then fewer and fewer (R69); wrong credentials always, they come minutes apart (R21).
fn complain(attempt: u32, failure: &ConnectError, pause: Duration) {
    if failure.is_credential_failure() || attempt <= 3 || attempt.is_power_of_two() {
        tracing::warn!(attempt, ?pause, error = %failure, "could not join the router");
    } else {
        tracing::debug!(attempt, ?pause, error = %failure, "could not join the router");
    }
}

/// The one text on which the reference gives up (`session-and-api.md` 4.8).
fn is_rejected_signature(failure: &ConnectError) -> bool {
    matches!(failure, ConnectError::Aborted { message, .. } if message.contains("WAMP-CRA client signature is invalid"))
}

fn client_config(context: &LinkContext, attempt: u32) -> ClientConfig {
    let device = context.device.current();
    let settings = &context.settings;
    let mut config = ClientConfig::new(device.device_endpoint_url.clone(), REALM);
    config.credentials = Credentials::Cra {
        authid: format!("{}-{}", device.swarm_key, device.device_key),
        secret: device.secret.clone(),
    };
    // JSON first, as the reference: peers see what they always saw.
    config.codecs = vec![Codec::Json, Codec::Cbor, Codec::MessagePack];
    config.connect_timeout = grown(settings.connect_timeout, attempt);
    config.reply_timeout = settings.response_timeout;
    config.ping_interval = settings.ping_interval;
    if is_legacy_endpoint(&device.device_endpoint_url) {
        tracing::warn!(
            url = device.device_endpoint_url,
            "legacy endpoint: the server's certificate is not verified"
        );
        config.tls = TlsOptions {
            client_identity_pem: Some((device.certificate.clone(), device.certificate_key.clone())),
            insecure: true,
            ..TlsOptions::default()
        };
    }
    config
}

/// The bound of attempt `attempt`, starting at the flag's value; zero stays "none".
fn grown(first: Duration, attempt: u32) -> Duration {
    if first.is_zero() {
        return first;
    }
    first
        .saturating_mul(1 << attempt.min(4))
        .min(CONNECT_TIMEOUT_CAP.max(first))
}

/// `devices.*\.(com|io):8080`, unanchored (`session-and-api.md` 4.3).
fn is_legacy_endpoint(url: &str) -> bool {
    url.split_once("devices")
        .is_some_and(|(_, rest)| rest.contains(".com:8080") || rest.contains(".io:8080"))
}

/// One joined session, from taking the device's place to its end.
async fn hold(
    context: &LinkContext,
    session: &Session,
    publish: &watch::Sender<Option<Session>>,
    stop: &CancellationToken,
    joined_before: bool,
) -> Outcome {
    let since = tokio::time::Instant::now();
    let serial = context.device.current().serial_number.clone();
    let placed = tokio::select! {
        () = stop.cancelled() => return Outcome::Stopped,
        placed = place::take(session, &serial) => placed,
    };
    let place = match placed {
        Ok(registration) => Some(registration),
        Err(RequestError::Peer(refused)) if refused.uri == error::PROCEDURE_ALREADY_EXISTS => {
            return Outcome::Duplicate;
        }
        Err(RequestError::Peer(refused)) => {
            tracing::warn!(error = %refused, "the router refused the place of this device; asking again later");
            None
        }
        Err(failure) => {
            tracing::warn!(error = %failure, "the router did not answer the first registration");
            return Outcome::Failed;
        }
    };
    if !joined_before {
        tracing::info!(target: START_UP, "Connected!");
    }
    tracing::info!(session = session.id(), "session established");
    publish.send_replace(Some(session.clone()));

    let (status, status_watch) = watch::channel(DeviceStatus::Configuring);
    let witnessed = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(place::keep(context.clone(), session.clone(), serial, place));
    tasks.spawn(testament::keep(
        context.clone(),
        session.clone(),
        witnessed.clone().drop_guard(),
    ));
    tasks.spawn(heartbeat::run(context.clone(), session.clone(), status_watch));
    tasks.spawn(outbox::run(context.clone()));
    tasks.spawn(configure::run(
        context.clone(),
        session.clone(),
        status,
        witnessed,
    ));
    let end = loop {
        tokio::select! {
            () = stop.cancelled() => break Outcome::Stopped,
            reason = session.closed() => break Outcome::Ended { reason, lasted: since.elapsed() },
            Some(done) = tasks.join_next() => match done {
                Ok(Verdict::Done) => {}
                Ok(Verdict::Moved(metadata)) => break Outcome::Moved(metadata),
                Ok(Verdict::Dead(why)) => {
                    break Outcome::Ended { reason: CloseReason::Lost(why.to_owned()), lasted: since.elapsed() };
                }
                Err(crash) => {
                    tracing::error!(error = %crash, "a task of the session crashed; reconnecting");
                    break Outcome::Ended { reason: CloseReason::Lost("internal error".to_owned()), lasted: since.elapsed() };
                }
            },
        }
    };
    tasks.shutdown().await;
    end
}

/// What a task of the session found out.
#[derive(Debug)]
enum Verdict {
    Done,
    /// The project changed (4.14): to these names and this key, which nothing knows yet.
    Moved(DeviceMetadata),
    /// The session is not usable although the transport has not noticed.
    Dead(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_endpoints_are_those_of_the_contract() {
        for legacy in [
            "wss://devices.reswarm.io:8080",
            "devices.x.com:8080/ws",
            "ws://a.devices.b.com:8080",
        ] {
            assert!(is_legacy_endpoint(legacy), "{legacy}");
        }
        for normal in [
            "wss://cbw.ironflock.com/ws-re-dev",
            "wss://devices.reswarm.io:8081",
            "wss://devices.reswarm.io",
        ] {
            assert!(!is_legacy_endpoint(normal), "{normal}");
        }
    }

    #[test]
    fn the_connect_bound_grows_with_the_attempts_up_to_fifteen_seconds() {
        let first = Duration::from_millis(1250);
        assert_eq!(grown(first, 0), first);
        assert_eq!(grown(first, 1), Duration::from_millis(2500));
        assert_eq!(grown(first, 30), CONNECT_TIMEOUT_CAP);
        assert_eq!(grown(Duration::ZERO, 9), Duration::ZERO);
        assert_eq!(grown(Duration::from_secs(60), 9), Duration::from_secs(60));
    }
}
