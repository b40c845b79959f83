//! The machine's Docker daemon behind a socket of our own, which can vanish, come back and freeze: what a restarted or
//! hanging daemon looks like, without touching the one that everybody else uses.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// How often the logs of the moment were forgotten.
    forgotten: watch::Sender<u64>,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// The socket is not there yet.
    pub fn absent() -> Proxy {
        Proxy {
            directory: tempfile::tempdir().expect("a directory for the socket"),
            frozen: watch::Sender::new(false),
            forgotten: watch::Sender::new(0),
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
        let state = State {
            frozen: self.frozen.subscribe(),
            forgotten: self.forgotten.subscribe(),
        };
        let server = tokio::spawn(async move {
            // Its connections end with the server.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, state.clone()));
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

    /// The daemon forgets the logs that are being followed: nothing more comes of them, not even their end. Those that
    /// are asked for later are as ever.
    pub fn forget_followed_logs(&self) {
        self.forgotten.send_modify(|times| *times += 1);
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }
}

#[derive(Clone)]
struct State {
    frozen: watch::Receiver<bool>,
    forgotten: watch::Receiver<u64>,
}

/// Since which of the forgettings a log has been followed over a connection, if it is one that is.
type Followed = Arc<Mutex<Option<u64>>>;

async fn connect(client: UnixStream, mut state: State) {
    if state.frozen.wait_for(|frozen| !frozen).await.is_err() {
        return;
    }
    let Ok(daemon) = UnixStream::connect(DAEMON).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_daemon, to_daemon) = daemon.into_split();
    let followed = Followed::default();
    let request = Arc::clone(&followed);
    let forgotten = state.forgotten.clone();
    let look = move |bytes: &[u8]| {
        let follows = bytes.windows(FOLLOW.len()).any(|window| window == FOLLOW);
        let since = follows.then(|| *forgotten.borrow());
        *request.lock().unwrap_or_else(PoisonError::into_inner) = since;
    };
    tokio::join!(
        forward(from_client, to_daemon, state.clone(), look, Followed::default()),
        forward(from_daemon, to_client, state, |_| {}, followed)
    );
}

/// In the request of a log that is followed.
const FOLLOW: &[u8] = b"/logs?stdout=1&stderr=1&follow=1";

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: State,
    look: impl Fn(&[u8]),
    followed: Followed,
) {
    let mut buffer = [0; 8192];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        look(&buffer[..read]);
        if state.frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        let since = *followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = since
            && state.forgotten.wait_for(|times| *times <= since).await.is_err()
        {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            // The other side may still have something to say.
            let _ = to.shutdown().await;
            return;
        }
    }
}
