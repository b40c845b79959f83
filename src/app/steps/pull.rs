//! Fetching an image from the registry (`app-lifecycle.md` 3.5 "pull", 4.9).

use std::time::Duration;

use protocol::request::RegistryLogin;
use protocol::{AppRequest, AppState, Stage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::unless_canceled;
use crate::app::worker::{ActionError, Worker};
use crate::engine::EngineError;
use crate::journal::Chain;
use crate::logs::Channel;

/// Longest wait for the registry user name.
const TOKEN: Duration = Duration::from_secs(10);

/// Records between the daemon and the log. Full: the daemon is read slower, and progress left out.
pub(super) const PROGRESS: usize = 256;

/// What an image is fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Installation,
    Update,
}

impl Worker {
    /// Fetches exactly the version that will be run (W14).
    pub(super) async fn pull(
        &mut self,
        request: &AppRequest,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let logs = self.shared.context.logs.clone();
        logs.clear_viewers(self.app, &self.app_name);
        self.line(&format!(
            "Initialising download for the app: {}...",
            self.app_name
        ));
        self.clear_history();
        let image = self.image();
        self.fetch(&image, request, Purpose::Installation, cancel).await?;
        self.line(&format!(
            "Succesfully installed the app: {} (Version: {})",
            self.app_name, self.version
        ));
        self.set(AppState::Present).await
    }

    /// Fetches an image, with its progress in the app's log.
    pub(super) async fn fetch(
        &mut self,
        image: &str,
        request: &AppRequest,
        purpose: Purpose,
        cancel: &CancellationToken,
    ) -> Result<(), ActionError> {
        let logs = self.shared.context.logs.clone();
        let login = match unless_canceled(cancel, self.registry_login(request)).await {
            Err(ActionError::Canceled) => return self.download_canceled(purpose),
            Err(error) => {
                self.line(&Chain(&error).to_string());
                return Err(error);
            }
            Ok(login) => login,
        };
        let engine = self.shared.context.engine.clone();
        let mut output = logs.operation(Channel::App, self.app, &self.app_name);
        let (progress, mut records) = mpsc::channel(PROGRESS);
        let mut pull = std::pin::pin!(engine.pull(image, Some(&login), progress, cancel));
        let mut accepted = false;
        let mut result = None;
        // DOWNLOADING is shown only once the daemon has accepted the pull: with its first record.
        while result.is_none() {
            tokio::select! {
                biased;
                Some(record) = records.recv() => {
                    if !accepted {
                        accepted = true;
                        self.show_download(purpose).await?;
                    }
                    output.line(record).await;
                }
                done = &mut pull => result = Some(done),
            }
        }
        while let Ok(record) = records.try_recv() {
            output.line(record).await;
        }
        match result {
            None | Some(Ok(())) => {}
            Some(Err(EngineError::Canceled)) => return self.download_canceled(purpose),
            Some(Err(error)) => {
                if !accepted {
                    self.line(&format!("Error occured while trying to pull the image: {error}"));
                }
                return Err(ActionError::Download(error));
            }
        }
        if !accepted {
            self.show_download(purpose).await?;
        }
        Ok(())
    }

    /// During an update the app goes on running and shows UPDATING.
    async fn show_download(&mut self, purpose: Purpose) -> Result<(), ActionError> {
        match purpose {
            Purpose::Installation => self.set(AppState::Downloading).await,
            Purpose::Update => Ok(()),
        }
    }

    fn download_canceled(&self, purpose: Purpose) -> Result<(), ActionError> {
        // An update says so itself.
        if purpose == Purpose::Installation {
            self.line("The app download was canceled");
        }
        Err(ActionError::Canceled)
    }

    /// Asked for only when a registry is really contacted (W7).
    pub(super) async fn registry_login(&self, request: &AppRequest) -> Result<RegistryLogin, ActionError> {
        let account = match self.app.stage {
            Stage::Prod if request.device_owner_account_key != 0 => request.device_owner_account_key,
            Stage::Prod | Stage::Dev => request.requestor_account_key,
        };
        let context = &self.shared.context;
        let username = tokio::time::timeout(TOKEN, context.backend.registry_token(account))
            .await
            .map_err(|_| ActionError::TokenTimeout)?
            .map_err(ActionError::Token)?;
        Ok(RegistryLogin {
            username,
            password: context.device.current().secret.clone(),
        })
    }
}
