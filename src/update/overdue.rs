//! When the time of a version under test is up (`update-and-system.md` 9.3 R2): time counts only while the router can be
//! reached, so that an outage is not blamed on the update. Must not know what happens then.

use std::time::Duration;

use hyper::Uri;
use wamp::transport::{Proxies, TlsOptions, dial};

use super::setup::Setup;

/// What one attempt to reach the router may take.
const REACH: Duration = Duration::from_secs(5);
/// The router is asked at most this often.
const PROBE: Duration = Duration::from_secs(30);

/// Returns when `setup.proof` has passed while `endpoint` could be reached. Never, when the version before was not
/// connected either: then nothing can be expected of this one.
pub(super) async fn passed(setup: &Setup, was_connected: bool, endpoint: Option<&str>) {
    let Some(endpoint) = endpoint.filter(|_| was_connected) else {
        return std::future::pending().await;
    };
    let step = PROBE.min(setup.proof / 4).max(Duration::from_millis(1));
    let mut spent = Duration::ZERO;
    while spent < setup.proof {
        tokio::time::sleep(step).await;
        if is_reachable(endpoint).await {
            spent += step;
        }
    }
}

/// Whether somebody accepts connections there.
async fn is_reachable(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else {
        // A socket of this machine, or nothing that could be judged from here.
        return true;
    };
    let Some(host) = uri.host() else { return true };
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("wss" | "https") => 443,
        _ => 80,
    });
    let (trust, proxies) = (TlsOptions::default(), Proxies::from_environment());
    let host = host.trim_matches(['[', ']']);
    let reach = dial::open(host, port, false, &trust, &proxies);
    tokio::time::timeout(REACH, reach)
        .await
        .is_ok_and(|reached| reached.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn quick() -> Setup {
        Setup {
            proof: Duration::from_millis(80),
            ..Setup::default()
        }
    }

    async fn is_up_within(milliseconds: u64, was_connected: bool, endpoint: &str) -> bool {
        let setup = quick();
        let passed = passed(&setup, was_connected, Some(endpoint));
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
        assert!(!is_up_within(300, true, &format!("ws://127.0.0.1:{port}/ws")).await);
    }
}
