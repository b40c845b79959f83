//! A static HTTP server for update buckets, with faults on demand: what it cuts, slows and corrupts is decided per
//! object. Ranges are honoured. One connection, one answer.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What goes wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks after so many bytes of each answer.
    Cut(usize),
    /// Nothing more comes after so many bytes of the object, until the fault is taken away or the server ends.
    Stall(usize),
    /// One byte of the object is another one.
    Corrupt(usize),
    /// 200 with another object's content: an error page, an older file.
    Instead(Vec<u8>),
    /// Another status, with a page.
    Status(u16),
    /// The announced length is larger than what comes.
    WrongLength,
    /// Ranges are ignored.
    NoRanges,
    /// No length is announced: chunks.
    Chunked,
}

#[derive(Debug, Default)]
struct Shared {
    faults: HashMap<String, Fault>,
    /// Path and first byte of every request, in order.
    asked: Vec<(String, u64)>,
    /// Body bytes sent per path.
    sent: HashMap<String, u64>,
    ended: bool,
}

/// A running server. Ends with this value.
#[derive(Debug)]
pub struct StaticServer {
    address: SocketAddr,
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

impl StaticServer {
    /// Serves the files below `root` on loopback.
    pub fn start(root: impl Into<PathBuf>) -> StaticServer {
        let root = root.into();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared: Arc<(Mutex<Shared>, Condvar)> = Arc::default();
        let server = StaticServer {
            address,
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if lock(&shared.0).ended {
                    return;
                }
                let (root, shared) = (root.clone(), Arc::clone(&shared));
                std::thread::spawn(move || {
                    // A client that goes away is its own business.
                    let _ = answer(stream, &root, &shared);
                });
            }
        });
        server
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on something is wrong with every object whose path ends in `suffix`.
    pub fn fault(&self, suffix: &str, fault: Fault) {
        lock(&self.shared.0).faults.insert(suffix.to_owned(), fault);
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        lock(&self.shared.0).faults.clear();
        self.shared.1.notify_all();
    }

    /// First bytes of all requests so far for paths that end in `suffix`.
    pub fn asked(&self, suffix: &str) -> Vec<u64> {
        let shared = lock(&self.shared.0);
        let of_object = shared.asked.iter().filter(|(path, _)| path.ends_with(suffix));
        of_object.map(|(_, start)| *start).collect()
    }

    /// Bytes sent so far of objects whose paths end in `suffix`, without errors: nobody may have waited for their text.
    pub fn sent(&self, suffix: &str) -> u64 {
        let shared = lock(&self.shared.0);
        let of_object = shared.sent.iter().filter(|(path, _)| path.ends_with(suffix));
        of_object.map(|(_, bytes)| *bytes).sum()
    }
}

impl Drop for StaticServer {
    fn drop(&mut self) {
        lock(&self.shared.0).ended = true;
        self.shared.1.notify_all();
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(
    mut stream: TcpStream,
    root: &std::path::Path,
    shared: &(Mutex<Shared>, Condvar),
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?).take(64 * 1024);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut start = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
            start = range
                .split('-')
                .next()
                .and_then(|first| first.trim().parse().ok())
                .unwrap_or(0);
        }
    }
    let fault = {
        let mut shared = lock(&shared.0);
        shared.asked.push((path.clone(), start));
        let fault = shared
            .faults
            .iter()
            .find(|(suffix, _)| path.ends_with(suffix.as_str()));
        fault.map(|(_, fault)| fault.clone())
    };
    let found = std::fs::read(root.join(path.trim_start_matches('/')));
    let (status, mut content) = match (&fault, found) {
        (Some(Fault::Status(status)), _) => (*status, b"<html>it went wrong</html>".to_vec()),
        (Some(Fault::Instead(other)), _) => (200, other.clone()),
        (_, Ok(content)) => (200, content),
        (_, Err(_)) => (404, b"<html>not found</html>".to_vec()),
    };
    if let Some(Fault::Corrupt(place)) = fault {
        content[place] ^= 0xff;
    }
    let ranged = start > 0 && status == 200 && fault != Some(Fault::NoRanges);
    let size = content.len();
    let body = match ranged {
        true if start as usize >= size => return refuse(&mut stream),
        true => &content[start as usize..],
        false => &content[..],
    };
    let mut head = match ranged {
        true => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{size}\r\n",
            size - 1
        ),
        false => format!("HTTP/1.1 {status} Whatever\r\n"),
    };
    match fault {
        Some(Fault::Chunked) => head.push_str("Transfer-Encoding: chunked\r\n"),
        Some(Fault::WrongLength) => head.push_str(&format!("Content-Length: {}\r\n", body.len() + 10)),
        _ => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
    }
    head.push_str("Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let limit = match fault {
        Some(Fault::Cut(limit)) => limit.min(body.len()),
        Some(Fault::Stall(limit)) => limit.saturating_sub(start as usize).min(body.len()),
        _ => body.len(),
    };
    for part in body[..limit].chunks(64 * 1024) {
        // Before it is: whoever has got it all looks at once.
        if status == 200 {
            *lock(&shared.0).sent.entry(path.clone()).or_default() += part.len() as u64;
        }
        if fault == Some(Fault::Chunked) {
            write!(stream, "{:x}\r\n", part.len())?;
            stream.write_all(part)?;
            stream.write_all(b"\r\n")?;
        } else {
            stream.write_all(part)?;
        }
    }
    match fault {
        Some(Fault::Chunked) => stream.write_all(b"0\r\n\r\n")?,
        Some(Fault::Stall(_)) => {
            let stalled = lock(&shared.0);
            let gone = |shared: &mut Shared| !shared.ended && !shared.faults.is_empty();
            drop(shared.1.wait_while(stalled, gone));
        }
        _ => {}
    }
    stream.flush()
}

fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
