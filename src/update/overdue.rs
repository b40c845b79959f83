//! When the time of a version under test is up (`update-and-system.md` 9.3 R2): time counts only while the router can be
//! reached and somebody behind it answers, so that an outage is not blamed on the update. Must not know what happens then.

use std::time::Duration;

use hyper::Uri;
use wamp::transport::tls::TlsError;
use wamp::transport::{DialError, Proxies, TlsOptions, dial};

use super::setup::Setup;

/// What one attempt to reach the router may take.
const REACH: Duration = Duration::from_secs(5);
/// The router is asked at most this often.
const PROBE: Duration = Duration::from_secs(30);

/// Returns when `setup.proof` has passed while `endpoint` could be reached and was not without a backend. Never, when the
/// version before was not connected either: then nothing can be expected of this one.
pub(super) async fn passed(
    setup: &Setup,
    was_connected: bool,
    endpoint: Option<&str>,
    backend_away: impl Fn() -> bool,
) {
    let Some(endpoint) = endpoint.filter(|_| was_connected) else {
        return std::future::pending().await;
    };
    let step = PROBE.min(setup.proof / 4).max(Duration::from_millis(1));
    let mut spent = Duration::ZERO;
    while spent < setup.proof {
        tokio::time::sleep(step).await;
        if !backend_away() && is_reachable(endpoint).await {
            spent += step;
        }
    }
}

/// Returns when `endpoint` has not been reachable for `setup.outage` on end.
pub(super) async fn cut_off(setup: &Setup, endpoint: Option<&str>) {
    let Some(endpoint) = endpoint else {
        return std::future::pending().await;
    };
    let step = (setup.outage / 4).max(Duration::from_millis(1));
    let mut spent = Duration::ZERO;
    while spent < setup.outage {
        tokio::time::sleep(step).await;
        match is_reachable(endpoint).await {
            true => spent = Duration::ZERO,
            false => spent += step,
        }
    }
}

/// Whether a router may be there: somebody accepts connections, and speaks TLS where the session would.
async fn is_reachable(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else {
        // A socket of this machine, or nothing that could be judged from here.
        return true;
    };
    let Some(host) = uri.host() else { return true };
    // Secure ones may lead through another proxy.
    let secure = matches!(uri.scheme_str(), Some("wss" | "https" | "rss"));
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    // Nothing is said there, so whose certificate it is does not matter.
    let trust = TlsOptions {
        insecure: true,
        ..TlsOptions::default()
    };
    let proxies = Proxies::from_environment();
    let host = host.trim_matches(['[', ']']);
    let reach = dial::open(host, port, secure, &trust, &proxies);
    match tokio::time::timeout(REACH, reach).await {
        Ok(Ok(_)) => true,
        // What answers, and dislikes the certificate or the handshake of a version, is there.
        Ok(Err(DialError::Tls { source, .. })) => !matches!(source, TlsError::Handshake(_)),
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn quick() -> Setup {
        Setup {
            proof: Duration::from_millis(80),
            outage: Duration::from_millis(80),
            ..Setup::default()
        }
    }

    async fn is_up_within(milliseconds: u64, was_connected: bool, endpoint: &str) -> bool {
        let setup = quick();
        let passed = passed(&setup, was_connected, Some(endpoint), || false);
        tokio::time::timeout(Duration::from_millis(milliseconds), passed)
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn time_is_up_when_the_router_could_be_reached_all_along() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        assert!(is_up_within(10_000, true, &url).await);
        assert!(!is_up_within(300, false, &url).await);
    }

    #[tokio::test]
    async fn an_outage_is_not_blamed_on_the_new_version() {
        let port = testkit::wait::free_port();
        let url = format!("ws://127.0.0.1:{port}/ws");
        assert!(!is_up_within(300, true, &url).await);
        cut_off(&quick(), Some(&url)).await;
    }

    #[tokio::test]
    async fn whoever_accepts_every_connection_and_speaks_no_tls_is_no_router() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://{}/ws", listener.local_addr().unwrap());
        let portal = async {
            loop {
                drop(listener.accept().await.unwrap());
            }
        };
        let is_up = async {
            assert!(!is_up_within(300, true, &url).await);
            cut_off(&quick(), Some(&url)).await;
        };
        tokio::select! {
            () = portal => unreachable!("it accepts for ever"),
            () = is_up => {}
        }
    }

    #[tokio::test]
    async fn a_backend_that_is_away_is_not_blamed_on_the_new_version() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let setup = quick();
        let passed = passed(&setup, true, Some(&url), || true);
        let bound = Duration::from_millis(300);
        tokio::time::timeout(bound, passed).await.unwrap_err();
        let within = tokio::time::timeout(bound, cut_off(&setup, Some(&url)));
        within.await.unwrap_err();
    }
}
