//! Where connections come from: TCP, TLS over TCP, Unix sockets. Each carries WebSocket and RawSocket alike.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
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
    /// A host that does not answer is gone after two of `ping_interval`, unless that is zero. Has no deadline of its own.
    pub(super) async fn open(self, wire: &Wire, ping_interval: Duration) -> io::Result<Box<dyn Io>> {
        Ok(match self {
            Accepted::Tcp(stream) => {
                tune(&stream, ping_interval);
                Box::new(wire.watch(stream))
            }
            Accepted::Tls(stream, tls) => {
                tune(&stream, ping_interval);
                Box::new(tls.accept(wire.watch(stream)).await?)
            }
            #[cfg(unix)]
            Accepted::Unix(stream) => Box::new(wire.watch(stream)),
        })
    }
}

/// Where the system refuses an option, the connection goes on without it.
fn tune(stream: &TcpStream, ping_interval: Duration) {
    // Without it a message that follows an unacknowledged one waits 40 ms.
    let _ = stream.set_nodelay(true);
    if ping_interval.is_zero() {
        return;
    }
    // For peers that cannot be pinged. Systems count in seconds.
    let second = Duration::from_secs(1);
    let probes = TcpKeepalive::new()
        .with_time(ping_interval.max(second))
        .with_interval((ping_interval / 2).max(second))
        .with_retries(2);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&probes);
    // No probe goes out while something is unacknowledged.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = socket.set_tcp_user_timeout(Some(2 * ping_interval.max(second)));
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn r_s20_a_host_that_is_gone_is_noticed_without_pings() {
        const INTERVAL: Duration = Duration::from_secs(10);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        tune(&stream, INTERVAL);
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        let silence = socket.tcp_keepalive_time().unwrap();
        let asking = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(silence + asking, 2 * INTERVAL);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(2 * INTERVAL));
    }
}
