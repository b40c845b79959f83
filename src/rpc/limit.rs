//! Keeps a flood of failing calls from rotating the log away (R68): five lines a minute per procedure, then a count.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(60);
const LINES: u32 = 5;

/// Decides which failures of one procedure are logged.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Complaints {
    /// `Some(n)`: log this one, `n` were left out before it. `None`: leave it out.
    pub(super) fn admit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut slot = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_mut() {
            Some(window) if now.duration_since(window.since) < WINDOW => {
                if window.lines < LINES {
                    window.lines += 1;
                    return Some(0);
                }
                window.suppressed += 1;
                None
            }
            expired => {
                let suppressed = expired.map_or(0, |window| window.suppressed);
                *slot = Some(Window {
                    since: now,
                    lines: 1,
                    suppressed: 0,
                });
                Some(suppressed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_a_minute_are_admitted_and_the_rest_is_counted() {
        let complaints = Complaints::default();
        let admitted: Vec<_> = (0..8).map(|_| complaints.admit()).collect();
        assert_eq!(
            admitted,
            [Some(0), Some(0), Some(0), Some(0), Some(0), None, None, None]
        );
        tokio::time::advance(WINDOW).await;
        assert_eq!(complaints.admit(), Some(3));
        assert_eq!(complaints.admit(), Some(0));
    }
}
