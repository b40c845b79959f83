//! HTTP GET for updates: the session's way to a host (proxies, trust, addresses), redirects, ranges, and a bound on
//! every wait. Only 200 and 206 count as success (weakness U2). Must not know what is fetched.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_RANGE, HOST, LOCATION, RANGE, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use wamp::transport::dial::{self, DialError};
use wamp::transport::{Proxies, TlsOptions};

use crate::cli::VERSION;

/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// Bounds of the waits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Name, proxy, TCP, TLS.
    pub connect: Duration,
    /// Response headers.
    pub headers: Duration,
    /// Between two parts of the body.
    pub idle: Duration,
    /// For all of a small object (1.3): one byte now and then is no progress.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            whole: Duration::from_secs(10),
        }
    }
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{0:?} is no http or https URL")]
    Url(String),
    #[error("{host} cannot be reached")]
    Dial {
        host: String,
        #[source]
        source: Box<DialError>,
    },
    #[error("{host} {what} within {limit:?}")]
    Late {
        host: String,
        what: &'static str,
        limit: Duration,
    },
    #[error("{host} broke the connection")]
    Broken {
        host: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{host} answered with status {status}")]
    Status { host: String, status: u16 },
    #[error("{0} redirects for ever or to an insecure place")]
    Redirect(String),
    #[error("{host} sent more than the {limit} bytes that were expected")]
    TooLarge { host: String, limit: u64 },
}

impl HttpError {
    /// The server has no such thing. A store of objects whose list is not public says that it is forbidden.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(
            self,
            HttpError::Status {
                status: 403 | 404 | 410,
                ..
            }
        )
    }

    /// Whether asking again soon may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            HttpError::Dial { .. } | HttpError::Late { .. } | HttpError::Broken { .. } => true,
            HttpError::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            HttpError::Url(_) | HttpError::Redirect(_) | HttpError::TooLarge { .. } => false,
        }
    }
}

/// A client. Cheap to make; every request has a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    limits: Limits,
    proxies: Proxies,
}

/// The body of a successful answer.
#[derive(Debug)]
pub(crate) struct Download {
    host: String,
    body: Incoming,
    idle: Duration,
    /// Where in the object the body begins: 0 unless the server honoured the range.
    pub starts_at: u64,
    /// Held, because the socket is read only as long as it lives.
    _connection: Connection,
}

/// The task that drives the socket; it ends with this value.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// A client that finds its proxies in the environment.
    pub(crate) fn new(limits: Limits) -> Client {
        Client {
            limits,
            proxies: Proxies::from_environment(),
        }
    }

    /// The whole object, which must not be larger than `limit` bytes and has to come within [`Limits::whole`].
    pub(crate) async fn get(&self, url: &str, limit: usize) -> Result<Bytes, HttpError> {
        let whole = tokio::time::timeout(self.limits.whole, self.collect(url, limit)).await;
        whole.unwrap_or_else(|_| {
            Err(HttpError::Late {
                host: url.parse().as_ref().map(host_of).unwrap_or_default(),
                what: "did not send everything",
                limit: self.limits.whole,
            })
        })
    }

    async fn collect(&self, url: &str, limit: usize) -> Result<Bytes, HttpError> {
        let mut download = self.open(url, 0).await?;
        let mut content = Vec::new();
        while let Some(part) = download.next().await? {
            if content.len() + part.len() > limit {
                return Err(HttpError::TooLarge {
                    host: download.host,
                    limit: limit as u64,
                });
            }
            content.extend_from_slice(&part);
        }
        Ok(content.into())
    }

    /// Begins to fetch the object from byte `offset` on; servers may start at 0 all the same.
    pub(crate) async fn open(&self, url: &str, offset: u64) -> Result<Download, HttpError> {
        let mut uri: Uri = url.parse().map_err(|_| HttpError::Url(url.to_owned()))?;
        for _ in 0..=REDIRECTS {
            let (response, connection, host) = self.request(&uri, offset).await?;
            let status = response.status();
            if status.is_redirection()
                && let Some(place) = response
                    .headers()
                    .get(LOCATION)
                    .and_then(|place| place.to_str().ok())
            {
                uri = follow(&uri, place).ok_or(HttpError::Redirect(host))?;
                continue;
            }
            let starts_at = match status {
                StatusCode::OK => 0,
                StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(offset) => offset,
                _ => {
                    return Err(HttpError::Status {
                        host,
                        status: status.as_u16(),
                    });
                }
            };
            return Ok(Download {
                host,
                body: response.into_body(),
                idle: self.limits.idle,
                starts_at,
                _connection: connection,
            });
        }
        Err(HttpError::Redirect(host_of(&uri)))
    }

    async fn request(
        &self,
        uri: &Uri,
        offset: u64,
    ) -> Result<(Response<Incoming>, Connection, String), HttpError> {
        let unusable = || HttpError::Url(uri.to_string());
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(unusable()),
        };
        let authority = uri.authority().ok_or_else(unusable)?;
        let host = host_of(uri);
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let late = |what, limit| HttpError::Late {
            host: host.clone(),
            what,
            limit,
        };
        let broken = |source| HttpError::Broken {
            host: host.clone(),
            source,
        };
        let trust = TlsOptions::default();
        let stream = tokio::time::timeout(
            self.limits.connect,
            dial::open(&host, port, secure, &trust, &self.proxies),
        )
        .await
        .map_err(|_| late("was not reached", self.limits.connect))?
        .map_err(|source| HttpError::Dial {
            host: host.clone(),
            source: Box::new(source),
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the download that owns it, or with the connection.
        let connection = Connection(tokio::spawn(async move {
            // The reader of the body hears of it, too.
            let _ = connection.await;
        }));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let plain_authority = authority.as_str().rsplit('@').next().unwrap_or_default();
        let mut request = Request::get(path)
            .header(HOST, plain_authority)
            .header(USER_AGENT, format!("reagent/{VERSION}"))
            .header(ACCEPT_ENCODING, "identity");
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| unusable())?;
        let response = tokio::time::timeout(self.limits.headers, sender.send_request(request))
            .await
            .map_err(|_| late("did not answer", self.limits.headers))?
            .map_err(broken)?;
        Ok((response, connection, host))
    }
}

impl Download {
    /// The next part; `None` at the end. A body that is shorter than the server announced is an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = tokio::time::timeout(self.idle, self.body.frame())
                .await
                .map_err(|_| HttpError::Late {
                    host: self.host.clone(),
                    what: "sent nothing",
                    limit: self.idle,
                })?;
            match frame {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(HttpError::Broken {
                        host: self.host.clone(),
                        source,
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(part) = frame.into_data() {
                        return Ok(Some(part));
                    }
                }
            }
        }
    }

    /// The host that sends it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

fn host_of(uri: &Uri) -> String {
    uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

/// Where a redirect leads; `None` when it leaves TLS or cannot be read.
fn follow(from: &Uri, place: &str) -> Option<Uri> {
    let to: Uri = if place.contains("://") {
        place.parse().ok()?
    } else if place.starts_with('/') && !place.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(place.parse().ok()?);
        Uri::from_parts(parts).ok()?
    } else {
        return None;
    };
    let leaves_tls = from.scheme_str() == Some("https") && to.scheme_str() != Some("https");
    (!leaves_tls).then_some(to)
}

/// First byte of a `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response<Incoming>) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_leave_tls() {
        let from: Uri = "https://a.example/x/y".parse().unwrap();
        assert_eq!(
            follow(&from, "/z?q=1").unwrap().to_string(),
            "https://a.example/z?q=1"
        );
        assert_eq!(
            follow(&from, "https://b.example/z").unwrap().to_string(),
            "https://b.example/z"
        );
        assert_eq!(follow(&from, "http://b.example/z"), None);
        assert_eq!(follow(&from, "//b.example/z"), None);
        assert_eq!(follow(&from, "z"), None);
    }

    #[tokio::test]
    async fn a_server_that_sends_a_byte_now_and_then_is_left_in_the_end() {
        use tokio::io::AsyncWriteExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/list", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while stream.write_all(b"{").await.is_ok() {
                ticks.tick().await;
            }
        });
        let client = Client::new(Limits {
            whole: Duration::from_millis(300),
            ..Limits::default()
        });
        let got = tokio::time::timeout(Duration::from_secs(5), client.get(&url, 64 * 1024)).await;
        let failure = got.unwrap().unwrap_err();
        assert!(matches!(failure, HttpError::Late { .. }), "{failure}");
        assert!(failure.is_transient());
        // It hears that nobody listens any more.
        tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .unwrap()
            .unwrap();
    }

    #[test]
    fn only_what_time_may_heal_is_tried_again() {
        let status = |status| HttpError::Status {
            host: "h".to_owned(),
            status,
        };
        assert!(status(503).is_transient());
        assert!(status(429).is_transient());
        assert!(!status(404).is_transient());
        assert!(!status(403).is_transient());
    }
}
