//! Apps: model, transition table (pure), one actor per app, reconcile with the backend (`app-lifecycle.md`).
//!
//! `engine` is the truth about containers, `store` about intent; every nudge (request, event, timer, boot) only makes
//! the app's actor look again. Must not know: WAMP messages, SQL text.

use protocol::{AppId, AppRequest};
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::engine::Engine;
use crate::flock::DeviceFile;
use crate::logs::Logs;
use crate::settings::Settings;
use crate::store::{Store, StoreError};

/// Handle of all apps. Cloneable.
#[derive(Clone, Debug)]
pub struct Apps {}

/// What the apps need from the rest of the agent.
#[derive(Clone, Debug)]
pub struct AppContext {
    pub settings: Settings,
    pub device: DeviceFile,
    pub store: Store,
    pub engine: Engine,
    pub logs: Logs,
    pub backend: Backend,
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Closing,
}

/// A bulk answer of the backend, decoded row by row (weakness W2).
#[derive(Clone, Debug)]
pub struct Sync {
    pub rows: Vec<AppRequest>,
    /// Rows that could not be read. With any of them nothing is removed.
    pub unreadable: usize,
}

impl Apps {
    /// Loads every stored app, starts its actor and the watch on the engine. Waits neither for network nor Docker.
    pub async fn start(_context: AppContext, _stop: CancellationToken) -> Result<Apps, StoreError> {
        todo!()
    }

    /// `request_app_state`: commits the request, nudges the actor, returns. The transition runs on its own.
    pub async fn request(&self, _request: AppRequest) -> Result<(), RequestError> {
        todo!()
    }

    /// `get_requested_app_states` answered: stores PROD rows, removes what is proven to be gone.
    pub async fn sync(&self, _answer: Sync) -> Result<(), RequestError> {
        todo!()
    }

    /// Queues a report of every known app (once per connect).
    pub async fn report_all(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// The credential key of the platform arrived or changed (`app-lifecycle.md` 6).
    pub async fn set_credential_key(&self, _key: String) {
        todo!()
    }

    /// The platform's base URL arrived or changed (`RESWARM_URL`).
    pub async fn set_base_url(&self, _url: String) {
        todo!()
    }

    /// Known apps, for log revival and pruning: id and name in original case.
    pub async fn known(&self) -> Vec<(AppId, String)> {
        todo!()
    }

    /// Cancelled work parked, actors ended, within a bound.
    pub async fn close(&self) {
        todo!()
    }
}
