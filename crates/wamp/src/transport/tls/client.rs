//! What a client trusts and presents.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{TlsError, certificates, identity, provider};

/// What the TLS layer trusts and presents.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// PEM certificates trusted in addition to the system's and the built-in roots.
    pub extra_roots_pem: Option<String>,
    /// PEM certificate chain and key presented to the server (legacy endpoints, `session-and-api.md` 4.3).
    pub client_identity_pem: Option<(String, String)>,
    /// Do not verify the server. Only for the legacy endpoint mode; logged as a warning on every connect.
    pub insecure: bool,
}

impl std::fmt::Debug for TlsOptions {
    /// Without the key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TlsOptions")
            .field("extra_roots", &self.extra_roots_pem.is_some())
            .field("client_identity", &self.client_identity_pem.is_some())
            .field("insecure", &self.insecure)
            .finish()
    }
}

/// The handshake on a fresh connection to `host`.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    options: &TlsOptions,
) -> Result<TlsStream<S>, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::HostName)?;
    let config = if options.insecure {
        tracing::warn!(host, "the server's certificate is not verified");
        insecure_config(options)?
    } else {
        verifying_config(options).await?
    };
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(explain)
}

async fn verifying_config(options: &TlsOptions) -> Result<ClientConfig, TlsError> {
    // Reads and parses a file of some 200 KiB.
    let mut roots = tokio::task::spawn_blocking(trusted)
        .await
        .map_err(|error| TlsError::Handshake(std::io::Error::other(error)))?;
    if let Some(pem) = &options.extra_roots_pem {
        for certificate in certificates(pem, "extra root certificates")? {
            roots
                .add(certificate)
                .map_err(|_| TlsError::Pem("extra root certificates"))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .with_root_certificates(roots);
    match &options.client_identity_pem {
        None => Ok(builder.with_no_client_auth()),
        Some(pem) => {
            let (chain, key) = identity(&pem.0, &pem.1)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(TlsError::Config)
        }
    }
}

/// What is built in and what the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` are respected.
fn trusted() -> RootCertStore {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    super::system::each(|certificate| trust(&mut roots, certificate));
    roots
}

/// Most are built in: those are held once, in the binary instead of in memory.
fn trust(roots: &mut RootCertStore, certificate: CertificateDer<'_>) {
    // One that cannot be read is no reason to trust none of the others.
    if roots.add(certificate).is_ok()
        && let Some((last, others)) = roots.roots.split_last()
        && others.contains(last)
    {
        roots.roots.pop();
    }
}

fn insecure_config(options: &TlsOptions) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())));
    match &options.client_identity_pem {
        None => Ok(builder.with_no_client_auth()),
        Some(pem) => {
            let (chain, key) = identity(&pem.0, &pem.1)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(TlsError::Config)
        }
    }
}

fn explain(error: std::io::Error) -> TlsError {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            CertificateError::UnknownIssuer => TlsError::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsError::WrongName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsError::OutOfDate,
            _ => TlsError::Handshake(error),
        },
        _ => TlsError::Handshake(error),
    }
}

/// Accepts every certificate, but still insists that the server holds its key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_the_system_that_is_built_in_is_held_once() {
        let certificate = |name: &str| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            made.cert.der().clone()
        };
        let (one, other) = (certificate("one.example"), certificate("other.example"));
        let mut roots = RootCertStore::empty();
        trust(&mut roots, one.clone());
        let built_in = roots.roots.clone();
        let damaged = CertificateDer::from(vec![0x30, 0x03, 0x01]);
        for certificate in [one, damaged, other.clone(), other] {
            trust(&mut roots, certificate);
        }
        assert_eq!(roots.roots[..1], built_in);
        assert_eq!(roots.len(), 2);
    }
}
