//! The WAMP identity of an app's container (`app-lifecycle.md` 6), derived alike by agent and studio.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::app::AppId;

/// What an app logs in with. The secret never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct AppCredential {
    /// `app-<key>-<stage>-e<epoch>@<serial>`
    pub auth_id: String,
    /// Base64 of an HMAC-SHA256.
    pub secret: String,
}

impl fmt::Debug for AppCredential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AppCredential")
            .field("auth_id", &self.auth_id)
            .finish_non_exhaustive()
    }
}

/// Derives the credential of one generation; epoch 0 means 1. `None` while key, serial or app key are missing: then
/// nothing is injected or written. The key is used as received, its base64 is not decoded.
pub fn derive(key: &str, serial: &str, app: AppId, epoch: u64) -> Option<AppCredential> {
    if key.is_empty() || serial.is_empty() || app.key == 0 {
        return None;
    }
    let epoch = epoch.max(1);
    // HMAC takes keys of every length, so there is always a result.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(format!("ironflock/app-cred/v1|{serial}|{}|{}|{epoch}", app.key, app.stage).as_bytes());
    Some(AppCredential {
        auth_id: format!("app-{}-{}-e{epoch}@{serial}", app.key, app.stage.lower()),
        secret: STANDARD.encode(mac.finalize().into_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Stage;

    #[test]
    fn the_vectors_of_the_contract_are_met() {
        for (key, serial, number, stage, epoch, id, secret) in [
            (
                "dGVzdC1rZXktZm9yLXZlY3Rvcg==",
                "06a0bf96-a539-4d6a-8471-ac7adc67616e",
                33,
                Stage::Prod,
                1,
                "app-33-prod-e1@06a0bf96-a539-4d6a-8471-ac7adc67616e",
                "Pr7pphQvvuN4WW0EKmbTnngTGFpxqFXuH4mYCVrV6+A=",
            ),
            (
                "a2V5LW9mLXRoZS1kZXZpY2U=",
                "11111111-2222-3333-4444-555555555555",
                7,
                Stage::Dev,
                12,
                "app-7-dev-e12@11111111-2222-3333-4444-555555555555",
                "m1jnvr0TdfMlfvj0CWgYC0akDc1tgeZfUli+ffuBpCs=",
            ),
        ] {
            let credential = derive(key, serial, AppId { key: number, stage }, epoch).unwrap();
            assert_eq!(credential.auth_id, id);
            assert_eq!(credential.secret, secret);
            assert!(!format!("{credential:?}").contains(secret));
        }
    }

    #[test]
    fn epoch_zero_is_the_first_generation() {
        let app = AppId {
            key: 5,
            stage: Stage::Prod,
        };
        assert_eq!(derive("k", "s", app, 0), derive("k", "s", app, 1));
    }

    #[test]
    fn nothing_is_derived_from_missing_inputs() {
        let app = |key| AppId {
            key,
            stage: Stage::Prod,
        };
        assert_eq!(derive("", "s", app(5), 1), None);
        assert_eq!(derive("k", "", app(5), 1), None);
        assert_eq!(derive("k", "s", app(0), 1), None);
    }
}
