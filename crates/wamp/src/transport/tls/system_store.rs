//! The certificates that Windows or macOS trusts. The same face as `system.rs`.

use rustls::pki_types::CertificateDer;

/// Those of `SSL_CERT_FILE` and `SSL_CERT_DIR`; without either, of the system's store. What cannot be read is left out.
pub(super) fn each(take: impl FnMut(CertificateDer<'static>)) {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a system certificate could not be loaded");
    }
    found.certs.into_iter().for_each(take);
}
