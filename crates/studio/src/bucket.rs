//! The update bucket over HTTP (`update-and-system.md` 1.3, 1.6, 2.3): a directory as `scripts/publish` fills it, read by
//! agents below `/re-agent/`. Ranges for downloads that go on, ETags for what has not changed, a length always, because
//! agents in the field fail without. Reads only. Must not know what the files mean: devices check signatures.

mod answer;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
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
                let directory = Arc::clone(&directory);
                connections.spawn(async move {
                    let _place = place;
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
