//! The server's side: takes any byte stream, tells WebSocket and RawSocket apart, picks the codec.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode};

use super::rawsocket::{self, RawSocketError};
use super::socket::Socket;
use super::{Connection, websocket};
use crate::codec::Codec;

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It offered no subprotocol that we know; it has been told so with HTTP 400.
    #[error("the client offers no known subprotocol")]
    NoSubprotocol,
    /// Not a WebSocket upgrade, or the connection broke during it.
    #[error("the upgrade failed")]
    Upgrade(#[source] Box<WsError>),
    /// The client begins like one that speaks RawSocket, and the two did not come to terms. It has been told why.
    #[error("the RawSocket handshake failed")]
    RawSocket(#[source] RawSocketError),
    /// The client hung up before it said anything.
    #[error("the client hung up at once")]
    Silent(#[source] std::io::Error),
}

/// Answers a WebSocket upgrade or a RawSocket handshake on `stream`, whichever begins there. The codec is the first of the
/// client's subprotocols that is in `known`, or the one that it asks for, if it is. Messages above `max_message_size`
/// bytes will be refused; a RawSocket client is told the next lower power of two. Has no deadline of its own. On a TCP
/// stream the caller sets TCP_NODELAY.
pub async fn accept<S>(stream: S, known: &[Codec], max_message_size: usize) -> Result<Connection, AcceptError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut socket = Socket::new(stream);
    let first = socket.read_u8().await.map_err(AcceptError::Silent)?;
    socket.unread(first);
    if first == rawsocket::MAGIC {
        return rawsocket::accept(socket, known, max_message_size)
            .await
            .map_err(AcceptError::RawSocket);
    }
    let mut picked = None;
    let upgrade = accept_hdr_async_with_config(
        socket,
        Pick {
            known,
            picked: &mut picked,
        },
        Some(websocket::config(max_message_size)),
    )
    .await;
    match (upgrade, picked) {
        (Ok(socket), Some(codec)) => Ok(websocket::connection(socket, codec)),
        (Err(WsError::Http(_)), None) | (Ok(_), None) => Err(AcceptError::NoSubprotocol),
        (Err(error), _) => Err(AcceptError::Upgrade(Box::new(error))),
    }
}

struct Pick<'a> {
    known: &'a [Codec],
    picked: &'a mut Option<Codec>,
}

impl Callback for Pick<'_> {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let Some(codec) = first_known(request.headers(), self.known) else {
            let text = "no known WAMP subprotocol offered\n".to_owned();
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            let length = HeaderValue::from(text.len());
            refusal.headers_mut().insert("content-length", length);
            refusal
                .headers_mut()
                .insert("connection", HeaderValue::from_static("close"));
            *refusal.body_mut() = Some(text);
            return Err(refusal);
        };
        *self.picked = Some(codec);
        response.headers_mut().insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(codec.subprotocol()),
        );
        Ok(response)
    }
}

/// The offers may be spread over several header lines.
fn first_known(headers: &HeaderMap, known: &[Codec]) -> Option<Codec> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| Codec::from_subprotocol(name.trim()))
        .find(|codec| known.contains(codec))
}
