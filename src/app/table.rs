//! The transition matrix (`app-lifecycle.md` 3.1), pure: which action leads from one state toward another.
//!
//! Asked only while no action runs. Where the reference's cell is a weakness the cell says which one. Must not know:
//! how an action is done, whether it may run now (back-off, Docker up), what is running.

use protocol::{AppState, Stage};

/// What to do next about one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The target is reached: report the state once more if somebody asked.
    Report,
    /// Not defined: nothing happens, nothing is said.
    Undefined,
    /// The target can never be reached by an app of this stage (W62).
    Impossible,
    Pull,
    Run,
    Stop,
    Remove,
    Uninstall,
    RecoverPresent,
    RecoverRunning,
    Build,
    Publish,
    /// RUNNING to PUBLISHED: the container goes first.
    RemoveThenPublish,
    Update,
    /// What a canceled download leaves behind goes; then on to REMOVED or UNINSTALLED.
    CancelPull,
    CancelBuild,
    CancelPush,
    CancelTransfer,
    /// An abandoned update; then on to the target.
    CancelUpdate,
}

/// Everything the choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    pub(crate) stage: Stage,
    pub(crate) current: AppState,
    /// As requested, not normalised.
    pub(crate) target: AppState,
    /// A newer version is wanted (3.3).
    pub(crate) update: bool,
}

/// The action for a situation.
pub(crate) fn next(situation: Situation) -> Action {
    use AppState::{Built, Present, Published, Removed, Running, Uninstalled};
    let Situation {
        stage,
        current,
        target,
        update,
    } = situation;
    // The update gate, only where an update makes sense (W56) and only for what is installed: an update of something
    // that is not there is an installation.
    if update
        && stage == Stage::Prod
        && matches!(target, Present | Running)
        && !matches!(current, Removed | Uninstalled)
    {
        return Action::Update;
    }
    if stage == Stage::Prod && matches!(target, Built | Published) {
        return Action::Impossible;
    }
    match target {
        Present => to_present(stage, current),
        Running => to_running(current),
        Built => to_built(current),
        Published => to_published(current),
        Removed => to_removed(current),
        Uninstalled => to_uninstalled(current),
        AppState::Stopped if current == AppState::Stopped => Action::Report,
        AppState::Failed
        | AppState::Building
        | AppState::Transfered
        | AppState::Transfering
        | AppState::Publishing
        | AppState::Downloading
        | AppState::Starting
        | AppState::Stopping
        | AppState::Updating
        | AppState::Deleting
        | AppState::Stopped => Action::Undefined,
    }
}

fn to_present(stage: Stage, current: AppState) -> Action {
    match current {
        // A DEV app has no registry image: there is nothing to pull (W62).
        AppState::Removed | AppState::Uninstalled => match stage {
            Stage::Prod => Action::Pull,
            Stage::Dev => Action::Report,
        },
        AppState::Transfered | AppState::Downloading => Action::Pull,
        AppState::Present | AppState::Built | AppState::Published => Action::Report,
        AppState::Running | AppState::Starting | AppState::Stopping => Action::Stop,
        AppState::Failed => Action::RecoverPresent,
        AppState::Transfering => Action::CancelTransfer,
        AppState::Updating => Action::CancelUpdate,
        AppState::Building | AppState::Publishing | AppState::Deleting | AppState::Stopped => {
            Action::Undefined
        }
    }
}

fn to_running(current: AppState) -> Action {
    match current {
        AppState::Running => Action::Report,
        AppState::Failed => Action::RecoverRunning,
        AppState::Removed
        | AppState::Uninstalled
        | AppState::Present
        | AppState::Built
        | AppState::Published
        | AppState::Stopped
        | AppState::Starting
        | AppState::Stopping
        // A download that nobody works on any more must not be a dead end (W16).
        | AppState::Downloading => Action::Run,
        AppState::Transfered
        | AppState::Transfering
        | AppState::Building
        | AppState::Publishing
        | AppState::Updating
        | AppState::Deleting => Action::Undefined,
    }
}

fn to_built(current: AppState) -> Action {
    match current {
        AppState::Running => Action::Stop,
        AppState::Removed
        | AppState::Uninstalled
        | AppState::Present
        | AppState::Failed
        | AppState::Built
        | AppState::Published
        | AppState::Stopped => Action::Build,
        AppState::Transfered
        | AppState::Transfering
        | AppState::Downloading
        | AppState::Building
        | AppState::Publishing
        | AppState::Starting
        | AppState::Stopping
        | AppState::Updating
        | AppState::Deleting => Action::Undefined,
    }
}

fn to_published(current: AppState) -> Action {
    match current {
        AppState::Running => Action::RemoveThenPublish,
        AppState::Removed
        | AppState::Uninstalled
        | AppState::Present
        | AppState::Failed
        | AppState::Built
        | AppState::Published
        | AppState::Stopped => Action::Publish,
        AppState::Transfered
        | AppState::Transfering
        | AppState::Downloading
        | AppState::Building
        | AppState::Publishing
        | AppState::Starting
        | AppState::Stopping
        | AppState::Updating
        | AppState::Deleting => Action::Undefined,
    }
}

fn to_removed(current: AppState) -> Action {
    match current {
        AppState::Removed => Action::Report,
        AppState::Present
        | AppState::Running
        | AppState::Failed
        | AppState::Built
        | AppState::Published
        | AppState::Stopped
        | AppState::Transfered
        | AppState::Starting
        | AppState::Stopping
        | AppState::Deleting => Action::Remove,
        AppState::Transfering => Action::CancelTransfer,
        AppState::Downloading => Action::CancelPull,
        AppState::Building => Action::CancelBuild,
        AppState::Publishing => Action::CancelPush,
        AppState::Updating => Action::CancelUpdate,
        AppState::Uninstalled => Action::Undefined,
    }
}

fn to_uninstalled(current: AppState) -> Action {
    match current {
        AppState::Uninstalled => Action::Report,
        AppState::Removed
        | AppState::Present
        | AppState::Running
        | AppState::Failed
        | AppState::Built
        | AppState::Published
        | AppState::Stopped
        | AppState::Transfered
        | AppState::Starting
        | AppState::Stopping
        | AppState::Deleting => Action::Uninstall,
        AppState::Transfering => Action::CancelTransfer,
        AppState::Downloading => Action::CancelPull,
        AppState::Updating => Action::CancelUpdate,
        AppState::Building | AppState::Publishing => Action::Undefined,
    }
}

#[cfg(test)]
mod tests;
