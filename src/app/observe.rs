//! What a look at the host makes of an app's state (`app-lifecycle.md` 1.9, 8.2, 8.4), pure.

use protocol::AppState;

use super::container::derived;
use crate::engine::ContainerStatus;

/// Why we look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    #[default]
    No,
    /// Something happened to the container, or it is time to check: what is found happened by itself.
    Change,
    /// The first look after a start of the agent or of Docker: what is found was interrupted, it did not crash.
    Fresh,
}

/// The state of an idle app. `status` is that of its container, `None` without one; `image` tells whether any image
/// of the app is on the device.
pub(crate) fn corrected(
    current: AppState,
    status: Option<ContainerStatus>,
    image: bool,
    look: Look,
) -> AppState {
    let found = match status {
        // Derived from the container whatever was going on before (W19).
        Some(status) => derived(status).unwrap_or(current),
        // What it has come to, not something that happened to it.
        None if image && current == AppState::Published && look != Look::Fresh => AppState::Published,
        None if image => AppState::Present,
        None if current == AppState::Uninstalled => AppState::Uninstalled,
        None => AppState::Removed,
    };
    // A failure stays visible until it is acted on; only the first look may clear it, or the app running again.
    if current == AppState::Failed && look != Look::Fresh && found != AppState::Running {
        return AppState::Failed;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_container_the_image_decides() {
        use AppState::*;
        for (current, image, expected) in [
            (Downloading, true, Present),
            (Downloading, false, Removed),
            (Updating, true, Present),
            (Uninstalled, false, Uninstalled),
            (Uninstalled, true, Present),
            (Running, true, Present),
            (Starting, true, Present),
            (Deleting, true, Present),
            (Deleting, false, Removed),
            (Failed, true, Present),
            (Failed, false, Removed),
        ] {
            assert_eq!(
                corrected(current, None, image, Look::Fresh),
                expected,
                "{current} {image}"
            );
        }
    }

    #[test]
    fn a_container_tells_the_state_whatever_was_going_on() {
        use ContainerStatus::*;
        for current in AppState::ALL {
            for (status, expected) in [
                (Running, AppState::Running),
                (Paused, AppState::Running),
                (Created, AppState::Present),
                (Exited, AppState::Failed),
                (Dead, AppState::Failed),
                (Restarting, AppState::Failed),
                (Removing, *current),
                (Unknown, *current),
            ] {
                assert_eq!(
                    corrected(*current, Some(status), true, Look::Fresh),
                    expected,
                    "{current} {status:?}"
                );
            }
        }
    }

    #[test]
    fn a_published_app_stays_published_until_the_next_start() {
        for (look, expected) in [
            (Look::Change, AppState::Published),
            (Look::Fresh, AppState::Present),
        ] {
            assert_eq!(corrected(AppState::Published, None, true, look), expected);
        }
        assert_eq!(
            corrected(AppState::Published, None, false, Look::Change),
            AppState::Removed
        );
    }

    #[test]
    fn a_failure_stays_until_it_is_acted_on() {
        assert_eq!(
            corrected(AppState::Failed, None, true, Look::Change),
            AppState::Failed
        );
        let created = Some(ContainerStatus::Created);
        assert_eq!(
            corrected(AppState::Failed, created, true, Look::Change),
            AppState::Failed
        );
        let running = Some(ContainerStatus::Running);
        assert_eq!(
            corrected(AppState::Failed, running, true, Look::Change),
            AppState::Running
        );
    }
}
