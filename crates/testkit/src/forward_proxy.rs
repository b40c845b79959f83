//! A forward proxy like those that guard a factory's network: HTTP CONNECT and SOCKS5 on one port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// What every connection needs.
#[derive(Debug)]
struct Rules {
    /// `user:password` that is asked for.
    credentials: Option<String>,
    /// Where every connection ends, whatever host was asked for.
    leads_to: SocketAddr,
    asked: Mutex<Vec<String>>,
}

/// A running proxy; ends with the runtime.
#[derive(Debug)]
pub struct ForwardProxy {
    /// Where it listens.
    pub address: SocketAddr,
    rules: Arc<Rules>,
}

impl ForwardProxy {
    /// All connections lead to `leads_to`, so that hosts may be asked for that do not exist.
    pub async fn start(leads_to: SocketAddr, credentials: Option<&str>) -> std::io::Result<ForwardProxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let rules = Arc::new(Rules {
            credentials: credentials.map(str::to_owned),
            leads_to,
            asked: Mutex::default(),
        });
        let shared = Arc::clone(&rules);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let rules = Arc::clone(&shared);
                // A client that hangs up is no failure of the proxy.
                tokio::spawn(async move { drop(serve(stream, &rules).await) });
            }
        });
        Ok(ForwardProxy { address, rules })
    }

    /// The `host:port` that connections were opened to so far.
    pub fn asked(&self) -> Vec<String> {
        self.rules
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn serve(mut client: TcpStream, rules: &Rules) -> std::io::Result<()> {
    let wanted = match client.read_u8().await? {
        5 => socks(&mut client, rules).await?,
        first => connect(&mut client, first, rules).await?,
    };
    let Some(wanted) = wanted else { return Ok(()) };
    rules
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(wanted);
    let mut server = TcpStream::connect(rules.leads_to).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// HTTP CONNECT (RFC 9110, 9.3.6). `None`: refused.
async fn connect(client: &mut TcpStream, first: u8, rules: &Rules) -> std::io::Result<Option<String>> {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_whitespace();
    let (method, wanted) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let proof = rules
        .credentials
        .as_ref()
        .map(|credentials| STANDARD.encode(credentials));
    let admitted = proof.is_none_or(|proof| {
        head.lines().any(|line| {
            line.split_once(": ").is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("proxy-authorization") && value == format!("Basic {proof}")
            })
        })
    });
    let answer = match (method, admitted) {
        ("CONNECT", true) => "HTTP/1.1 200 Connection established\r\n\r\n",
        ("CONNECT", false) => "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        _ => "HTTP/1.1 405 Method Not Allowed\r\n\r\n",
    };
    client.write_all(answer.as_bytes()).await?;
    Ok((method == "CONNECT" && admitted).then(|| wanted.to_owned()))
}

/// SOCKS5 (RFC 1928, RFC 1929). `None`: refused.
async fn socks(client: &mut TcpStream, rules: &Rules) -> std::io::Result<Option<String>> {
    let methods = text(client).await?;
    let method = if rules.credentials.is_some() { 2 } else { 0 };
    if !methods.contains(char::from(method)) {
        client.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    client.write_all(&[5, method]).await?;
    if let Some(credentials) = &rules.credentials {
        client.read_u8().await?;
        let said = format!("{}:{}", text(client).await?, text(client).await?);
        client.write_all(&[1, u8::from(said != *credentials)]).await?;
        if said != *credentials {
            return Ok(None);
        }
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => std::net::Ipv4Addr::from(client.read_u32().await?).to_string(),
        4 => std::net::Ipv6Addr::from(client.read_u128().await?).to_string(),
        _ => text(client).await?,
    };
    let port = client.read_u16().await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(Some(format!("{host}:{port}")))
}

/// Bytes behind their length.
async fn text(client: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
