//! The machine's Docker daemon behind a socket of our own, which can vanish, come back and freeze: what a restarted or
//! hanging daemon looks like, without touching the one that everybody else uses.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const DAEMON: &str = "/var/run/docker.sock";

/// A forwarder. Lives in the runtime of the test that makes it and ends with it.
#[derive(Debug)]
pub struct Proxy {
    directory: tempfile::TempDir,
    frozen: watch::Sender<bool>,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// The socket is not there yet.
    pub fn absent() -> Proxy {
        Proxy {
            directory: tempfile::tempdir().expect("a directory for the socket"),
            frozen: watch::Sender::new(false),
            server: Mutex::new(None),
        }
    }

    /// As `DOCKER_HOST` wants it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The daemon comes up, or back.
    pub fn appear(&self) {
        let listener = UnixListener::bind(self.socket()).expect("the socket is free");
        let frozen = self.frozen.subscribe();
        let server = tokio::spawn(async move {
            // Its connections end with the server.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, frozen.clone()));
            }
        });
        self.server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(server);
    }

    /// The daemon goes away: socket and connections end.
    pub fn vanish(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.abort();
        }
        std::fs::remove_file(self.socket()).expect("the socket was there");
    }

    /// The daemon hangs: connections are accepted, nothing is answered any more.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// It goes on where it was.
    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }
}

async fn connect(client: UnixStream, mut frozen: watch::Receiver<bool>) {
    if frozen.wait_for(|frozen| !frozen).await.is_err() {
        return;
    }
    let Ok(daemon) = UnixStream::connect(DAEMON).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_daemon, to_daemon) = daemon.into_split();
    tokio::join!(
        forward(from_client, to_daemon, frozen.clone()),
        forward(from_daemon, to_client, frozen)
    );
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = [0; 8192];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            // The other side may still have something to say.
            let _ = to.shutdown().await;
            return;
        }
    }
}
