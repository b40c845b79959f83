//! How far a download is: throttled, the first and the last word always said (`update-and-system.md` 1.10, 9.4 F4).
//! Must not know who listens.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// At most four a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Progress that may wait to be published; when full, one in between is left out.
pub(crate) const QUEUE: usize = 8;

/// `agent_update_progress`, bytes. `increment` is what came since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    pub increment: u64,
    pub current_bytes: u64,
    pub file_size: u64,
}

/// Counts and decides what is worth saying.
#[derive(Debug)]
pub(crate) struct Meter {
    listener: Option<mpsc::Sender<Progress>>,
    size: u64,
    unsaid: u64,
    said: Option<Instant>,
    current: u64,
}

impl Meter {
    /// `None`: nobody listens.
    pub(crate) fn new(listener: Option<mpsc::Sender<Progress>>) -> Meter {
        Meter {
            listener,
            size: 0,
            unsaid: 0,
            said: None,
            current: 0,
        }
    }

    /// A file of `size` bytes of which `have` are there.
    pub(crate) fn begin(&mut self, have: u64, size: u64) {
        (self.size, self.current, self.unsaid, self.said) = (size, have, 0, None);
    }

    /// `increment` more bytes came, `current` are there.
    pub(crate) fn advance(&mut self, increment: u64, current: u64) {
        self.unsaid += increment;
        self.current = current;
        let due = self.said.is_none_or(|said| said.elapsed() >= INTERVAL);
        // The last one is said when the file has been found good.
        if due && current < self.size {
            self.say(false);
        }
    }

    /// The file is complete.
    pub(crate) fn end(&mut self, size: u64) {
        self.current = size;
        self.say(true);
    }

    /// A file of `size` bytes is there without having come.
    pub(crate) fn there(&mut self, size: u64) {
        self.begin(size, size);
        self.end(size);
    }

    fn say(&mut self, last: bool) {
        let Some(listener) = &self.listener else { return };
        let progress = Progress {
            increment: self.unsaid,
            current_bytes: self.current,
            file_size: self.size,
        };
        match listener.try_send(progress) {
            Ok(()) => {
                self.unsaid = 0;
                self.said = Some(Instant::now());
            }
            // The listener is slow: the next one says it all. Only the last has nobody after it.
            Err(mpsc::error::TrySendError::Full(progress)) if last => {
                let listener = listener.clone();
                // Ends with the listener.
                tokio::spawn(async move { listener.send(progress).await });
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_is_said_four_times_a_second_and_the_last_word_always() {
        let (sender, mut listener) = mpsc::channel(100);
        let mut meter = Meter::new(Some(sender));
        let size = 32 * 1024 * 100;
        meter.begin(0, size);
        for chunk in 1..=100_u64 {
            tokio::time::advance(Duration::from_millis(10)).await;
            meter.advance(32 * 1024, chunk * 32 * 1024);
        }
        meter.end(size);
        drop(meter);
        let mut all = Vec::new();
        while let Some(progress) = listener.recv().await {
            all.push(progress);
        }
        assert_eq!(
            all.first().map(|first| (first.increment, first.current_bytes)),
            Some((32 * 1024, 32 * 1024))
        );
        assert!((4..=6).contains(&all.len()), "{all:?}");
        assert_eq!(all.last().map(|last| last.current_bytes), Some(size));
        assert_eq!(all.iter().map(|one| one.increment).sum::<u64>(), size);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_listener_misses_some_in_between_and_no_bytes() {
        let (sender, mut listener) = mpsc::channel(1);
        let mut meter = Meter::new(Some(sender));
        meter.begin(0, 1000);
        for current in (100..=1000).step_by(100) {
            tokio::time::advance(INTERVAL).await;
            meter.advance(100, current);
        }
        meter.end(1000);
        drop(meter);
        let mut sum = 0;
        let mut last = 0;
        while let Some(progress) = listener.recv().await {
            sum += progress.increment;
            last = progress.current_bytes;
        }
        assert_eq!((sum, last), (1000, 1000));
    }

    #[tokio::test]
    async fn a_file_that_is_there_already_is_said_to_be_complete() {
        let (sender, mut listener) = mpsc::channel(8);
        let mut meter = Meter::new(Some(sender));
        meter.there(1000);
        drop(meter);
        let said = listener.recv().await.unwrap();
        assert_eq!(
            (said.increment, said.current_bytes, said.file_size),
            (0, 1000, 1000)
        );
        assert_eq!(listener.recv().await, None);
    }

    #[test]
    fn the_members_are_those_of_the_contract() {
        let progress = Progress {
            increment: 1,
            current_bytes: 2,
            file_size: 3,
        };
        let text = serde_json::to_string(&progress).unwrap();
        assert_eq!(text, r#"{"increment":1,"currentBytes":2,"fileSize":3}"#);
    }
}
