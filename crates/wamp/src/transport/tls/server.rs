//! What a server presents.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{TlsError, identity, provider};

/// A server's certificate and key. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for ServerTls {
    /// Without the key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ServerTls")
    }
}

impl ServerTls {
    /// From a PEM chain, the server's own certificate first, and its PEM key. Asks clients for no certificate: they
    /// authenticate by WAMP.
    pub fn from_pem(chain: &str, key: &str) -> Result<ServerTls, TlsError> {
        let (chain, key) = identity(chain, key)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsError::Config)?;
        Ok(ServerTls::from(config))
    }

    /// The handshake on a fresh connection.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await
    }
}

/// For those who want more: client certificates, several names, keys that change.
impl From<ServerConfig> for ServerTls {
    fn from(config: ServerConfig) -> ServerTls {
        ServerTls {
            config: Arc::new(config),
        }
    }
}
