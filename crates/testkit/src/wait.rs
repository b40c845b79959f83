//! Waiting on a condition with a deadline and a message: the only way a test may let time pass.

use std::future::Future;
use std::time::{Duration, Instant};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Looks until `condition` gives a value. Panics with `what` after `deadline`.
pub fn until<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    poll(deadline, condition).unwrap_or_else(|| panic!("waited {deadline:?} in vain until {what}"))
}

/// Looks until `condition` gives a value; `None` after `deadline`. For clean-up, which must not panic.
pub fn poll<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// The same for asynchronous conditions.
pub async fn until_async<T, F, Fut>(what: &str, deadline: Duration, mut condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A TCP port on loopback that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}
