//! The update bucket over HTTP (`update-and-system.md` 1.3, 1.6, 2.3): a directory as `scripts/publish` fills it, read by
//! agents below `/re-agent/`. Ranges for downloads that go on, ETags for what has not changed, a length always, because
//! agents in the field fail without. Reads only. Must not know what the files mean: devices check signatures.

mod answer;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at a time; more wait until one ends.
const CONNECTIONS: usize = 512;
/// Of these by one address, behind which may be many devices; more are closed, and devices come again. So no single one
/// keeps the others out. Not of this machine: it is a reverse proxy, with all devices behind it.
const CONNECTIONS_OF_ONE: usize = CONNECTIONS / 4;
/// A client says within this what it wants, or leaves.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// No connection is longer than this: a client that stops reading frees its place. Downloads go on with a range.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Pause after a failed accept, for example when the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the directory until `stop`. Connections that are open then are dropped: agents go on later.
pub(crate) async fn serve(listener: TcpListener, directory: PathBuf, stop: CancellationToken) {
    let directory = Arc::new(directory);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let guests = Guests::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            // Keeps the set small.
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let Some(guest) = guests.welcome(peer.ip()) else {
                    tracing::debug!(%peer, "too many connections of this address to the bucket");
                    continue;
                };
                let directory = Arc::clone(&directory);
                connections.spawn(async move {
                    let _held = (place, guest);
                    connection(stream, peer, directory).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the bucket cannot take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

/// Connections by address.
#[derive(Clone, Debug, Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Guests {
    /// A place for one more connection of `address`, if it has not too many.
    fn welcome(&self, address: IpAddr) -> Option<Guest> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= CONNECTIONS_OF_ONE && !is_here(address) {
            return None;
        }
        *count += 1;
        Some(Guest {
            guests: self.clone(),
            address,
        })
    }
}

/// The address from which programs of this machine come.
fn is_here(address: IpAddr) -> bool {
    [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&address.to_canonical())
}

/// Held as long as the connection.
struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn connection(stream: TcpStream, peer: SocketAddr, directory: Arc<PathBuf>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let directory = Arc::clone(&directory);
        async move {
            let response = answer::answer(
                &directory,
                request.method(),
                request.uri().path(),
                request.headers(),
            )
            .await;
            tracing::debug!(%peer, path = request.uri().path(), status = response.status().as_u16(), "bucket");
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LONGEST, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection to the bucket ended badly"),
        Err(_) => tracing::debug!(%peer, "a connection to the bucket took too long"),
    }
}

/// Platforms (`linux/amd64`) for which `version` is published in the directory: its manifests are what comes last.
pub(crate) fn platforms_of(directory: &Path, version: &str) -> std::io::Result<Vec<String>> {
    let names = |directory: &Path| -> std::io::Result<Vec<String>> {
        match std::fs::read_dir(directory) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect(),
            Err(error) if is_absence(error.kind()) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    let mut platforms = Vec::new();
    for os in names(directory)? {
        for architecture in names(&directory.join(&os))? {
            let place = directory.join(&os).join(&architecture).join(version);
            let published = names(&place)?.iter().any(|name| name.ends_with(".manifest.json"));
            if published {
                platforms.push(format!("{os}/{architecture}"));
            }
        }
    }
    platforms.sort();
    Ok(platforms)
}

fn is_absence(kind: std::io::ErrorKind) -> bool {
    matches!(
        kind,
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    async fn from(address: &str, server: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        socket.connect(server).await.unwrap()
    }

    /// The status line of an answer; empty: closed without one.
    async fn ask(stream: &mut TcpStream) -> String {
        // A connection that was refused may be gone before this is written.
        let _ = stream
            .write_all(b"GET /re-agent/version.txt HTTP/1.1\r\nHost: bucket\r\n\r\n")
            .await;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&answer[..length]);
        text.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn one_address_cannot_hold_all_connections() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("version.txt"), "1.0.0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, folder.path().to_owned(), stop.clone()));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_OF_ONE {
            held.push(from("127.0.0.2", server).await);
        }
        assert_eq!(ask(held.last_mut().unwrap()).await, "HTTP/1.1 200 OK");
        assert_eq!(
            ask(&mut from("127.0.0.2", server).await).await,
            "",
            "one too many"
        );
        assert_eq!(ask(&mut from("127.0.0.3", server).await).await, "HTTP/1.1 200 OK");
        held.clear();
        testkit::wait::until_async("the places are free again", Duration::from_secs(10), || async {
            let answer = ask(&mut from("127.0.0.2", server).await).await;
            (answer == "HTTP/1.1 200 OK").then_some(())
        })
        .await;
        for _ in 0..=CONNECTIONS_OF_ONE {
            held.push(from("127.0.0.1", server).await);
        }
        let last = ask(held.last_mut().unwrap()).await;
        assert_eq!(last, "HTTP/1.1 200 OK", "a reverse proxy is not held back");
        stop.cancel();
        serving.await.unwrap();
    }

    #[test]
    fn a_version_is_published_where_it_has_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let missing = folder.path().join("missing");
        assert_eq!(platforms_of(&missing, "1.0.0").unwrap(), [""; 0]);
        put("availableVersions.json");
        put("linux/amd64/1.0.0/reagent.manifest.json");
        put("linux/arm64/1.0.0/reagent");
        put("linux/arm64/1.0.1/reagent.manifest.json");
        put("windows/amd64/1.0.0/reagent.exe.manifest.json");
        let platforms = platforms_of(folder.path(), "1.0.0").unwrap();
        assert_eq!(platforms, ["linux/amd64", "windows/amd64"]);
    }
}
