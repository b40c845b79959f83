//! Where connections come from: TCP, TLS over TCP, Unix sockets. Each carries WebSocket and RawSocket alike.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

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
    /// The byte stream that carries frames, after the TLS handshake where there is one. Has no deadline of its own.
    pub(super) async fn open(self, ping_interval: Duration) -> io::Result<Box<dyn Io>> {
        Ok(match self {
            Accepted::Tcp(stream) => {
                prepare(&stream, ping_interval);
                Box::new(stream)
            }
            Accepted::Tls(stream, tls) => {
                prepare(&stream, ping_interval);
                Box::new(tls.accept(stream).await?)
            }
            #[cfg(unix)]
            Accepted::Unix(stream) => Box::new(stream),
        })
    }
}

/// How often Linux asks in vain before it gives a connection up.
const PROBES: u32 = 9;

/// What the system is asked to do for a connection. It goes on without, should the system refuse.
fn prepare(stream: &TcpStream, ping_interval: Duration) {
    // Without it a message that follows an unacknowledged one waits 40 ms.
    let _ = stream.set_nodelay(true);
    // For peers that cannot be pinged: gone after two intervals, as all others are.
    if !ping_interval.is_zero() {
        let second = Duration::from_secs(1);
        let probes = TcpKeepalive::new()
            .with_time(ping_interval.max(second))
            .with_interval((ping_interval / PROBES).max(second));
        let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rule_24_small_messages_do_not_wait_and_the_system_watches_silent_peers() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        let (server, client) = (accepted.unwrap().0, client.unwrap());
        prepare(&server, Duration::from_millis(10));
        assert!(server.nodelay().unwrap());
        assert!(SockRef::from(&server).keepalive().unwrap());
        prepare(&client, Duration::ZERO);
        assert!(client.nodelay().unwrap());
        assert!(!SockRef::from(&client).keepalive().unwrap());
    }
}
