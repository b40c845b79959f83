//! One request to the bucket: which file, which part of it, and whether it has to be sent at all. Must not know
//! connections.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// First segment of every path: the bucket's name.
const PREFIX: &str = "/re-agent/";
/// Bytes that are read and sent at once.
const BLOCK: u64 = 64 * 1024;

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers a request for `path`.
pub(super) async fn answer(root: &Path, method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allowed);
        return response;
    }
    let Some(file) = locate(root, path) else {
        return plain(StatusCode::NOT_FOUND);
    };
    match send(&file, method == Method::HEAD, headers).await {
        Ok(response) => response,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => plain(StatusCode::NOT_FOUND),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => plain(StatusCode::NOT_FOUND),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the bucket cannot read a file");
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// The file that a path stands for. Names are those that are published: nothing hidden, nothing encoded, no way out.
fn locate(root: &Path, path: &str) -> Option<PathBuf> {
    let mut file = root.to_owned();
    for segment in path.strip_prefix(PREFIX)?.split('/') {
        let plain = segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+'));
        if segment.is_empty() || segment.starts_with('.') || !plain {
            return None;
        }
        file.push(segment);
    }
    Some(file)
}

async fn send(path: &Path, head: bool, headers: &HeaderMap) -> std::io::Result<Response<Body>> {
    let mut file = File::open(path).await?;
    // Of the open file: it may be replaced meanwhile, and is then sent as it was.
    let found = file.metadata().await?;
    if !found.is_file() {
        return Ok(plain(StatusCode::NOT_FOUND));
    }
    let size = found.len();
    let tag = format!(
        "\"{:x}-{:x}-{size:x}\"",
        found.ino(),
        found.mtime() * 1_000_000_000 + found.mtime_nsec()
    );
    let range = match wanted(headers, &tag, size) {
        Wanted::Nothing => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            describe(&mut response, path, &tag);
            return Ok(response);
        }
        Wanted::Outside => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
        Wanted::All => None,
        Wanted::Part(first, last) => Some((first, last)),
    };
    let (first, length) = range.map_or((0, size), |(first, last)| (first, last - first + 1));
    let body = if head || length == 0 {
        empty()
    } else {
        file.seek(SeekFrom::Start(first)).await?;
        blocks(file, length)
    };
    let mut response = Response::new(body);
    if let Some((first, last)) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes {first}-{last}/{size}"),
        );
    }
    describe(&mut response, path, &tag);
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    Ok(response)
}

/// What of a file is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// First and last byte.
    Part(u64, u64),
    /// The client has it.
    Nothing,
    /// A part that does not exist.
    Outside,
}

fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if let Some(known) = text(header::IF_NONE_MATCH)
        && known
            .split(',')
            .any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag)
    {
        return Wanted::Nothing;
    }
    let Some(range) = text(header::RANGE) else {
        return Wanted::All;
    };
    // A part of another file would be worse than all of this one.
    if text(header::IF_RANGE).is_some_and(|known| known.trim() != tag) {
        return Wanted::All;
    }
    // Several ranges, other units and nonsense: all of it, as the standard allows.
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Wanted::All;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size => Wanted::Outside,
        (Ok(first), Ok(last)) if first <= last => Wanted::Part(first, last.min(size - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Wanted::Part(first, size - 1),
        (Err(_), Ok(0)) if first.is_empty() => Wanted::Outside,
        (Err(_), Ok(count)) if first.is_empty() && size > 0 => {
            Wanted::Part(size.saturating_sub(count), size - 1)
        }
        _ => Wanted::All,
    }
}

fn describe(response: &mut Response<Body>, path: &Path, tag: &str) {
    let kind = match path.extension().and_then(|end| end.to_str()) {
        Some("json") => "application/json",
        Some("sha256" | "minisig" | "txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    set(response, header::CONTENT_TYPE, kind);
    set(response, header::ETAG, tag);
    set(response, header::ACCEPT_RANGES, "bytes");
    set(response, header::CACHE_CONTROL, "public, max-age=0");
}

fn set(response: &mut Response<Body>, name: header::HeaderName, value: &str) {
    // What is made here is plain text.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A status that says it all.
fn plain(status: StatusCode) -> Response<Body> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    response
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The next `length` bytes of the file, a block at a time.
fn blocks(file: File, length: u64) -> Body {
    let blocks = stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut block = Vec::with_capacity(usize::try_from(left.min(BLOCK)).unwrap_or_default());
        let read = (&mut file).take(left.min(BLOCK)).read_to_end(&mut block).await?;
        if read == 0 {
            // Cut short under us: the connection breaks, and the client sees that it has not all.
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((
            Frame::data(Bytes::from(block)),
            (file, left - read as u64),
        )))
    });
    StreamBody::new(blocks).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    async fn get(
        root: &Path,
        path: &str,
        pairs: &[(&'static str, &str)],
    ) -> (StatusCode, HeaderMap, Vec<u8>) {
        let response = answer(root, &Method::GET, path, &headers(pairs)).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        (parts.status, parts.headers, body)
    }

    fn bucket() -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("linux/amd64/1.0.0");
        std::fs::create_dir_all(&place).unwrap();
        let content: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(place.join("reagent"), &content).unwrap();
        std::fs::write(folder.path().join("availableVersions.json"), "{}").unwrap();
        std::fs::write(folder.path().join(".publish-x"), "half").unwrap();
        (folder, content)
    }

    const BINARY: &str = "/re-agent/linux/amd64/1.0.0/reagent";

    #[tokio::test]
    async fn a_file_comes_whole_with_its_length_and_what_it_is() {
        let (folder, content) = bucket();
        let (status, headers, body) = get(folder.path(), BINARY, &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body == content);
        assert_eq!(headers["content-length"], content.len().to_string().as_str());
        assert_eq!(headers["content-type"], "application/octet-stream");
        assert!(!headers.contains_key("content-encoding"));
        let (_, headers, _) = get(folder.path(), "/re-agent/availableVersions.json", &[]).await;
        assert_eq!(headers["content-type"], "application/json");
        let response = answer(folder.path(), &Method::HEAD, BINARY, &HeaderMap::new()).await;
        assert_eq!(
            response.headers()["content-length"],
            content.len().to_string().as_str()
        );
        assert!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_download_goes_on_where_it_was_and_starts_over_when_the_file_changed() {
        let (folder, content) = bucket();
        let (_, first, _) = get(folder.path(), BINARY, &[]).await;
        let tag = first["etag"].to_str().unwrap();
        let (status, headers, body) = get(
            folder.path(),
            BINARY,
            &[("range", "bytes=100000-"), ("if-range", tag)],
        )
        .await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert!(body == content[100_000..]);
        assert_eq!(headers["content-range"], "bytes 100000-199999/200000");
        let (status, _, body) = get(
            folder.path(),
            BINARY,
            &[("range", "bytes=100000-"), ("if-range", "\"other\"")],
        )
        .await;
        assert_eq!((status, body.len()), (StatusCode::OK, content.len()));
        let (status, headers, _) = get(folder.path(), BINARY, &[("range", "bytes=200000-")]).await;
        assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(headers["content-range"], "bytes */200000");
    }

    #[tokio::test]
    async fn what_has_not_changed_is_not_sent_again() {
        let (folder, _) = bucket();
        let list = "/re-agent/availableVersions.json";
        let (_, first, _) = get(folder.path(), list, &[]).await;
        let tag = first["etag"].to_str().unwrap();
        for known in [tag, "*", &format!("\"x\", W/{tag}")] {
            let (status, headers, body) = get(folder.path(), list, &[("if-none-match", known)]).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
            assert_eq!(headers["etag"], tag);
        }
        std::fs::write(folder.path().join("new"), "{\"all\": \"1.0.0\"}").unwrap();
        std::fs::rename(
            folder.path().join("new"),
            folder.path().join("availableVersions.json"),
        )
        .unwrap();
        let (status, _, _) = get(folder.path(), list, &[("if-none-match", tag)]).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn nothing_but_what_is_published_can_be_had() {
        let (folder, _) = bucket();
        std::fs::write(folder.path().parent().unwrap().join("outside"), "secret").ok();
        for path in [
            "/",
            "/availableVersions.json",
            "/re-agent",
            "/re-agent/",
            "/re-agent/linux",
            "/re-agent/linux/amd64/1.0.0/",
            "/re-agent/linux/amd64/1.0.0/reagent/x",
            "/re-agent/.publish-x",
            "/re-agent/../outside",
            "/re-agent/linux/../../outside",
            "/re-agent/%2e%2e/outside",
            "/re-agent//etc/passwd",
            "/re-agent/linux%2famd64/1.0.0/reagent",
            "/re-agent/missing",
        ] {
            let (status, _, body) = get(folder.path(), path, &[]).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(body, b"Not Found\n", "{path}");
        }
        let response = answer(folder.path(), &Method::PUT, BINARY, &HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0, 0)),
            ("bytes=5-", Wanted::Part(5, 9)),
            ("bytes=5-100", Wanted::Part(5, 9)),
            ("bytes=-3", Wanted::Part(7, 9)),
            ("bytes=-30", Wanted::Part(0, 9)),
            ("bytes=-0", Wanted::Outside),
            ("bytes=10-", Wanted::Outside),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("lines=0-1", Wanted::All),
            ("bytes=-", Wanted::All),
        ] {
            assert_eq!(
                wanted(&headers(&[("range", range)]), "\"t\"", 10),
                expected,
                "{range}"
            );
        }
        assert_eq!(
            wanted(&headers(&[("range", "bytes=0-")]), "\"t\"", 0),
            Wanted::Outside
        );
        assert_eq!(
            wanted(&headers(&[("range", "bytes=-1")]), "\"t\"", 0),
            Wanted::All
        );
    }
}
