//! Apps: model, transition table (pure), one actor per app, reconcile with the backend (`app-lifecycle.md`).
//!
//! `engine` is the truth about containers, `store` about intent; every nudge (request, event, timer, boot) only makes
//! the app's actor look again. Must not know: WAMP messages, SQL text.

mod actor;
mod compose;
mod container;
mod environment;
mod listing;
mod mailbox;
mod observe;
mod port_reports;
mod ports;
mod retry;
mod steps;
mod supervisor;
mod table;
mod worker;

use protocol::{AppId, AppRequest, AppState, Stage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::engine::Engine;
use crate::flock::DeviceFile;
use crate::logs::Logs;
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::transfer::Transfers;
use supervisor::{Command, Supervisor};

/// Commands waiting for the supervisor; a full queue makes callers wait, nothing is dropped.
const QUEUE: usize = 64;

/// Handle of all apps. Cloneable.
#[derive(Clone, Debug)]
pub struct Apps {
    commands: mpsc::Sender<Command>,
    confirmation: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
}

/// What the apps need from the rest of the agent.
#[derive(Clone, Debug)]
pub struct AppContext {
    pub settings: Settings,
    pub device: DeviceFile,
    pub store: Store,
    pub engine: Engine,
    pub logs: Logs,
    pub backend: Backend,
    pub transfers: Transfers,
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This version cannot do what is asked; nothing was stored and the app stays as it is.
    #[error("{0}")]
    Unsupported(&'static str),
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
    pub async fn start(context: AppContext, stop: CancellationToken) -> Result<Apps, StoreError> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (confirm, confirmation) = watch::channel(None);
        let stop = stop.child_token();
        let supervisor = Supervisor::load(context, inbox, confirm, stop.clone()).await?;
        // Owned through `close`, which waits until the supervisor has let its inbox go.
        tokio::spawn(supervisor.run());
        Ok(Apps {
            commands,
            confirmation,
            stop,
        })
    }

    /// `request_app_state`: commits the request, nudges the actor, returns. The transition runs on its own.
    pub async fn request(&self, request: AppRequest) -> Result<(), RequestError> {
        if let Some(reason) = unsupported(&request) {
            return Err(RequestError::Unsupported(reason));
        }
        let request = Box::new(request);
        self.ask(|reply| Command::Request(request, reply))
            .await
            .unwrap_or(Err(RequestError::Closing))
    }

    /// `get_requested_app_states` answered: stores PROD rows, removes what is proven to be gone.
    pub async fn sync(&self, answer: Sync) -> Result<(), RequestError> {
        self.ask(|reply| Command::Sync(answer, reply))
            .await
            .unwrap_or(Err(RequestError::Closing))
    }

    /// When the backend should be asked for its list again, because the last answer would have removed most apps and
    /// counts only when a later one says the same.
    pub fn confirmation_due(&self) -> watch::Receiver<Option<Instant>> {
        self.confirmation.clone()
    }

    /// Queues a report of every known app (once per connect).
    pub async fn report_all(&self) -> Result<(), StoreError> {
        self.ask(Command::ReportAll).await.ok_or(StoreError::Closed)
    }

    /// The credential key of the platform arrived or changed (`app-lifecycle.md` 6).
    pub async fn set_credential_key(&self, key: String) {
        self.tell(Command::CredentialKey(key)).await;
    }

    /// The platform's base URL arrived or changed (`RESWARM_URL`).
    pub async fn set_base_url(&self, url: String) {
        self.tell(Command::BaseUrl(url)).await;
    }

    /// Known apps, for log revival and pruning: id and name in original case.
    pub async fn known(&self) -> Vec<(AppId, String)> {
        self.ask(Command::Known).await.unwrap_or_default()
    }

    /// The images of the services of known compose apps: a prune leaves them alone.
    pub async fn service_images(&self) -> Vec<String> {
        self.ask(Command::ServiceImages).await.unwrap_or_default()
    }

    /// Cancelled work parked, actors ended, within a bound.
    pub async fn close(&self) {
        self.stop.cancel();
        self.commands.closed().await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// At shutdown nobody needs to know any more.
    async fn tell(&self, command: Command) {
        drop(self.commands.send(command).await);
    }
}

/// What this version refuses whatever the app's state is.
fn unsupported(request: &AppRequest) -> Option<&'static str> {
    match (request.target.normalised(), request.app.stage) {
        (AppState::Built, Stage::Prod) => Some("can only build dev apps"),
        (AppState::Published, Stage::Prod) => Some("can only publish dev apps"),
        (AppState::Published, Stage::Dev) if request.version.is_empty() => {
            Some("cannot publish: the request names no version")
        }
        _ => None,
    }
}
