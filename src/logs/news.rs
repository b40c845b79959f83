//! Tells followers that something happened to containers: one watch of the daemon's events for all of them.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use crate::engine::{Engine, EngineEvent};

/// News that a follower has not looked at yet. More: it is told that anything may have happened.
const WAITING: usize = 64;

/// Something happened to these containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    One(Arc<str>),
    /// Any of them may have moved: the watch began, anew or for the first time.
    All,
}

/// Where news come from. Cloneable.
#[derive(Clone, Debug)]
pub(super) struct News {
    hearers: broadcast::Sender<Moved>,
    /// A task tells them.
    begun: bool,
}

/// What somebody hears of them.
#[derive(Debug)]
pub(super) struct Hearer {
    news: broadcast::Receiver<Moved>,
    /// Only for waiting for ever when there is no news any more.
    over: bool,
}

impl News {
    pub(super) fn new() -> News {
        News {
            hearers: broadcast::channel(WAITING).0,
            begun: false,
        }
    }

    /// Hears everything that is told from now on.
    pub(super) fn hearer(&self) -> Hearer {
        Hearer {
            news: self.hearers.subscribe(),
            over: false,
        }
    }

    /// Lets a task among `tasks` watch the daemon, from the first time on.
    pub(super) fn begin(&mut self, engine: &Engine, tasks: &mut JoinSet<()>) {
        if !std::mem::replace(&mut self.begun, true) {
            tasks.spawn(self.clone().tell(engine.events()));
        }
    }

    /// Passes events of the daemon on until there are no more. Waits for nobody.
    async fn tell(self, mut events: mpsc::Receiver<EngineEvent>) {
        while let Some(event) = events.recv().await {
            let moved = match event {
                EngineEvent::Container { name, .. } => Moved::One(Arc::from(name)),
                EngineEvent::Resync => Moved::All,
                // Its return is what counts.
                EngineEvent::Down => continue,
            };
            // Nobody may follow anything just now.
            let _ = self.hearers.send(moved);
        }
    }
}

impl Hearer {
    /// The next news; waits for ever when there can be none any more. Cancel-safe.
    pub(super) async fn next(&mut self) -> Moved {
        if !self.over {
            match self.news.recv().await {
                Ok(moved) => return moved,
                Err(RecvError::Lagged(_)) => return Moved::All,
                Err(RecvError::Closed) => self.over = true,
            }
        }
        std::future::pending().await
    }

    /// Waits until something happened to the container of this name. Cancel-safe.
    pub(super) async fn of(&mut self, container: &str) {
        loop {
            match self.next().await {
                Moved::One(name) if *name != *container => {}
                Moved::One(_) | Moved::All => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn everybody_hears_of_their_container_and_who_is_behind_of_all() {
        let news = News::new();
        let (mut a, mut b) = (news.hearer(), news.hearer());
        let (events, receiver) = mpsc::channel(8);
        let told = tokio::spawn(news.clone().tell(receiver));
        let event = |name: &str| EngineEvent::Container {
            name: name.to_owned(),
            project: None,
        };
        for event in [event("b"), EngineEvent::Down, event("a"), event("b")] {
            events.send(event).await.unwrap();
        }
        a.of("a").await;
        assert!(a.of("a").now_or_never().is_none());
        b.of("b").await;
        assert_eq!(b.next().await, Moved::One("a".into()));
        b.of("b").await;
        for _ in 0..=WAITING {
            events.send(event("c")).await.unwrap();
        }
        drop(events);
        told.await.unwrap();
        a.of("a").await;
        drop(news);
        while a.next().now_or_never().is_some() {}
        assert!(a.next().now_or_never().is_none(), "silent for ever, but no loop");
    }
}
