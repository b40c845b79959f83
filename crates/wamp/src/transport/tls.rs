//! TLS by rustls with the ring provider: what went wrong in plain words, and what both ends share.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "router")]
mod server;
#[cfg(all(feature = "client", not(any(windows, target_os = "macos"))))]
mod system;
#[cfg(all(feature = "client", any(windows, target_os = "macos")))]
#[path = "tls/system_store.rs"]
mod system;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[cfg(feature = "client")]
pub use client::TlsOptions;
#[cfg(feature = "client")]
pub(super) use client::connect;
#[cfg(feature = "router")]
pub use server::ServerTls;

/// Why there is no secure connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No trusted authority stands behind the certificate.
    #[error("the server's certificate is signed by an unknown authority")]
    UnknownAuthority,
    /// The certificate is for other names.
    #[error("the server's certificate is not valid for this host name")]
    WrongName,
    /// The certificate's time is over, or has not come. Often the local clock is wrong.
    #[error("the server's certificate is expired or not yet valid (is the clock right?)")]
    OutOfDate,
    /// The host is neither a DNS name nor an address.
    #[error("not a valid host name")]
    HostName,
    /// PEM text of the options cannot be used.
    #[error("unusable {0}")]
    Pem(&'static str),
    /// Any other failure of the handshake.
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// rustls refuses the configuration.
    #[error("unusable TLS configuration")]
    Config(#[source] rustls::Error),
}

/// Named explicitly: the process-wide default depends on which crates are linked in.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Pem(what))?;
    if certificates.is_empty() {
        return Err(TlsError::Pem(what));
    }
    Ok(certificates)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(chain: &str, key: &str) -> Result<Identity, TlsError> {
    let chain = certificates(chain, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Pem("private key"))?;
    Ok((chain, key))
}
