//! Where connections come from: TCP, TLS over TCP, Unix sockets. Each carries WebSocket and RawSocket alike.

use std::io;

use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use super::wire::Wire;
use crate::transport::{Io, ServerTls};

/// A listening socket. The caller binds it, and removes the file of a Unix socket afterwards.
#[derive(Debug)]
pub enum Listener {
    /// `ws://` and `rs://`.
    Tcp(TcpListener),
    /// `wss://` and `rss://`.
    Tls(TcpListener, ServerTls),
    /// `ws+unix://` and `rs+unix://`. Whoever may open the file may connect.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

#[cfg(unix)]
impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

/// A connection that has been accepted and has said nothing yet.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream),
    Tls(TcpStream, ServerTls),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Listener {
    /// The next connection, and how the peer is called in logs. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<(Accepted, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Accepted::Tcp(stream), peer.to_string()))
            }
            Listener::Tls(listener, tls) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Accepted::Tls(stream, tls.clone()), peer.to_string()))
            }
            #[cfg(unix)]
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                let peer = process.map_or_else(|| "unix".to_owned(), |pid| format!("unix:{pid}"));
                Ok((Accepted::Unix(stream), peer))
            }
        }
    }
}

impl Accepted {
    /// The byte stream that carries frames, after the TLS handshake where there is one; `wire` watches the socket below.
    /// Has no deadline of its own.
    pub(super) async fn open(self, wire: &Wire) -> io::Result<Box<dyn Io>> {
        // Without TCP_NODELAY a message that follows an unacknowledged one waits 40 ms; a failure costs only that.
        Ok(match self {
            Accepted::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
                Box::new(wire.watch(stream))
            }
            Accepted::Tls(stream, tls) => {
                let _ = stream.set_nodelay(true);
                Box::new(tls.accept(wire.watch(stream)).await?)
            }
            #[cfg(unix)]
            Accepted::Unix(stream) => Box::new(wire.watch(stream)),
        })
    }
}
