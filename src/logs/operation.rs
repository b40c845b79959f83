//! The output of one operation of the agent's: a pull, a push, a build. What prints it is read no faster than it can be
//! published, within a bound: a build must not wait for a link that hardly moves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::batch::AHEAD;
use super::pipeline::Command;
use super::{Container, Logs};

/// Longest wait for a turn: nothing but an agent that hangs makes it that long.
const TURN: Duration = Duration::from_secs(1);
/// Longest wait for lines before to leave. After that no other line waits until some have.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where an operation says its lines (the daemon's JSON records): gated, batched, kept in the history.
#[derive(Debug)]
pub struct Operation {
    logs: Logs,
    container: Container,
    /// Bytes that may wait in memory to be published.
    room: Arc<Semaphore>,
    patient: bool,
}

impl Operation {
    pub(super) fn new(logs: Logs, container: Container) -> Operation {
        Operation {
            logs,
            container,
            room: Arc::new(Semaphore::new(AHEAD)),
            patient: true,
        }
    }

    /// The next line. Waits a while when too many are on their way; then, should it find no place, it is counted and its
    /// loss announced. Where nobody listens, or the link is down, it waits for nothing but the agent itself.
    pub async fn line(&mut self, line: String) {
        let room = self.wait_for_room(line.len()).await;
        let turn = self.turn().await;
        self.logs
            .line(self.container.clone(), |container| Command::OutputLine {
                container,
                line,
                room,
                _turn: turn,
            });
    }

    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turns = &self.logs.turns;
        if let Ok(turn) = Arc::clone(turns).try_acquire_owned() {
            return Some(turn);
        }
        let turn = Arc::clone(turns).acquire_owned();
        tokio::time::timeout(TURN, turn).await.ok()?.ok()
    }

    async fn wait_for_room(&mut self, size: usize) -> Option<OwnedSemaphorePermit> {
        let size = u32::try_from(size.min(AHEAD)).ok()?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(size);
        if let Ok(room) = room {
            self.patient = true;
            return Some(room);
        }
        if !self.patient {
            return None;
        }
        let room = Arc::clone(&self.room).acquire_many_owned(size);
        let room = tokio::time::timeout(PATIENCE, room)
            .await
            .ok()
            .and_then(Result::ok);
        self.patient = room.is_some();
        room
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::engine::Engine;
    use crate::logs::Channel;
    use crate::store::Store;

    #[tokio::test]
    async fn an_operation_waits_once_for_a_link_that_does_not_move() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&directory.path().join("reagent.db")).await.unwrap();
        let logs = Logs::start(
            "S-1".to_owned(),
            store,
            Engine::new().unwrap(),
            tokio_util::sync::CancellationToken::new(),
        );
        let app = protocol::AppId {
            key: 1,
            stage: protocol::Stage::Dev,
        };
        let mut operation = logs.operation(Channel::App, app, "x");
        let all = Arc::clone(&operation.room);
        tokio::time::pause();
        for _ in 0..2 {
            let held = all.acquire_many(u32::try_from(AHEAD).unwrap()).await.unwrap();
            for expected in [PATIENCE, Duration::ZERO, Duration::ZERO] {
                let began = Instant::now();
                operation.line("not lost".to_owned()).await;
                assert_eq!(began.elapsed().as_secs(), expected.as_secs());
            }
            drop(held);
            let began = Instant::now();
            operation.line("room again".to_owned()).await;
            assert_eq!(began.elapsed().as_secs(), 0);
            // Nobody listens: what was handed on has left.
            while all.available_permits() < AHEAD {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::resume();
        let history = logs.history(app, "x").await;
        assert_eq!(history.len(), 8, "{history:?}");
        logs.close().await;
    }
}
