//! What a new request means beside the one before it, pure.

use protocol::AppRequest;

/// What a request does not say stays as it was known (W5, W6). `installed`: the version on the device, empty if none.
pub(super) fn completed(mut request: AppRequest, before: &AppRequest, installed: &str) -> AppRequest {
    request.app_cred_epoch = request.app_cred_epoch.max(before.app_cred_epoch);
    if request.instance_key == 0 {
        request.instance_key = before.instance_key;
    }
    if request.device_owner_account_key == 0 {
        request.device_owner_account_key = before.device_owner_account_key;
    }
    if request.docker_credentials.is_empty() {
        request.docker_credentials.clone_from(&before.docker_credentials);
    }
    request.target = request.target.normalised();
    catch_up(&mut request, before, installed);
    request
}

/// A request for an update may be older than an update that has come about meanwhile. What is installed is known better
/// here, above all its document: the one that the request calls the present one would undo the update.
fn catch_up(request: &mut AppRequest, before: &AppRequest, installed: &str) {
    if !request.request_update || installed.is_empty() || request.present_version == installed {
        return;
    }
    let known = before.present_version == installed;
    let document = match &request.new_docker_compose {
        Some(newest) if request.newest_version == installed => Some(newest),
        _ if known => before.docker_compose.as_ref(),
        _ => None,
    };
    // Without one of its own it is no compose app any more.
    if request.docker_compose.is_some() && document.is_some() {
        request.docker_compose = document.cloned();
    }
    if known {
        request.release_key = before.release_key;
    }
    installed.clone_into(&mut request.present_version);
}

/// Whether a row of the backend asks for what is stored already.
pub(super) fn same_intent(row: &AppRequest, stored: &AppRequest, installed: &str) -> bool {
    let row = AppRequest {
        current: stored.current,
        cancel_transition: stored.cancel_transition,
        version: stored.version.clone(),
        ..completed(row.clone(), stored, installed)
    };
    row == *stored
}

#[cfg(test)]
mod tests {
    use protocol::{AppId, AppState, Stage};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::app::container::bare_request;

    fn document(version: &str) -> Option<Map<String, Value>> {
        json!({"services": {"web": {"image": version}}})
            .as_object()
            .cloned()
    }

    /// What the backend says while it believes that `present` is installed.
    fn update(present: &str, newest: &str) -> AppRequest {
        let app = AppId {
            key: 6,
            stage: Stage::Prod,
        };
        AppRequest {
            present_version: present.to_owned(),
            newest_version: newest.to_owned(),
            request_update: true,
            docker_compose: document(present),
            new_docker_compose: document(newest),
            ..bare_request(app, "x".to_owned(), AppState::Running)
        }
    }

    #[test]
    fn a_request_that_is_older_than_an_update_does_not_bring_its_document_back() {
        let installed = completed(update("1", "2"), &update("1", "2"), "2");
        for (request, document_of) in [
            (update("1", "2"), "2"),
            (update("1", "3"), "2"),
            (update("2", "3"), "2"),
        ] {
            let found = completed(request.clone(), &installed, "2");
            assert_eq!(found.docker_compose, document(document_of), "{request:?}");
            assert_eq!(
                (found.present_version.as_str(), &found.new_docker_compose),
                ("2", &request.new_docker_compose)
            );
        }
        assert!(
            same_intent(&update("1", "2"), &installed, "2"),
            "nothing is to be stored"
        );
    }

    #[test]
    fn a_request_that_is_no_update_is_taken_at_its_word() {
        let back = AppRequest {
            request_update: false,
            ..update("1", "2")
        };
        let found = completed(back.clone(), &update("2", "2"), "2");
        assert_eq!(found, back);
        let single = AppRequest {
            docker_compose: None,
            ..update("1", "2")
        };
        assert_eq!(completed(single, &update("2", "2"), "2").docker_compose, None);
    }
}
