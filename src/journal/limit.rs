//! A lid on lines that a caller or a dead network could repeat without end (weaknesses R68, R69): the first few of a
//! period are said, the rest is counted, and the count is said with the next line.

use std::time::Duration;

use tokio::time::Instant;

/// Lets `most` lines through per `period`. One per kind of line.
#[derive(Clone, Debug)]
pub struct Limiter {
    most: u32,
    period: Duration,
    begun: Option<Instant>,
    said: u32,
    held_back: u64,
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Say it, with the number of lines held back since the last one that was said.
    Say { held_back: u64 },
    /// Say nothing; it is counted.
    HoldBack,
}

impl Limiter {
    /// A lid of `most` lines per `period`.
    pub fn new(most: u32, period: Duration) -> Limiter {
        Limiter {
            most,
            period,
            begun: None,
            said: 0,
            held_back: 0,
        }
    }

    /// Asks for one line.
    pub fn ask(&mut self) -> Verdict {
        let now = Instant::now();
        if self
            .begun
            .is_none_or(|begun| now.duration_since(begun) >= self.period)
        {
            self.begun = Some(now);
            self.said = 0;
        }
        if self.said >= self.most {
            self.held_back += 1;
            return Verdict::HoldBack;
        }
        self.said += 1;
        Verdict::Say {
            held_back: std::mem::take(&mut self.held_back),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_lines_of_a_period_pass_and_the_rest_is_counted() {
        let mut limiter = Limiter::new(2, Duration::from_secs(60));
        assert_eq!(limiter.ask(), Verdict::Say { held_back: 0 });
        assert_eq!(limiter.ask(), Verdict::Say { held_back: 0 });
        for _ in 0..7 {
            assert_eq!(limiter.ask(), Verdict::HoldBack);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(limiter.ask(), Verdict::Say { held_back: 7 });
        assert_eq!(limiter.ask(), Verdict::Say { held_back: 0 });
        assert_eq!(limiter.ask(), Verdict::HoldBack);
    }
}
