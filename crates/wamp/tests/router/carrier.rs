//! What carries the frames of a bare peer: a WebSocket, or a RawSocket made of a length in front of everything.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::*;

pub(crate) enum Carrier {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    /// With the kind of frame that its messages are shown as.
    Raw(Framed<TcpStream, LengthDelimitedCodec>, Codec),
}

/// The second octet of a RawSocket handshake for messages of up to 16 MiB.
pub(crate) fn greeting(codec: Codec) -> u8 {
    0xF0 | match codec {
        Codec::Json => 1,
        Codec::MessagePack => 2,
        Codec::Cbor => 3,
    }
}

impl Carrier {
    pub(crate) async fn upgrade(address: SocketAddr, protocols: &str) -> tungstenite::Result<Carrier> {
        let mut request = format!("ws://{address}/ws").into_client_request()?;
        if !protocols.is_empty() {
            let protocols = HeaderValue::from_str(protocols).unwrap();
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocols);
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Carrier::WebSocket(Box::new(socket)))
    }

    pub(crate) async fn raw(address: SocketAddr, codec: Codec) -> Carrier {
        Carrier::raw_with(address, codec, greeting(codec)).await
    }

    /// With a limit of its own in the handshake.
    pub(crate) async fn raw_with(address: SocketAddr, codec: Codec, greeting: u8) -> Carrier {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&[0x7F, greeting, 0, 0]).await.unwrap();
        let mut answer = [0; 4];
        soon("the handshake", stream.read_exact(&mut answer))
            .await
            .unwrap();
        // 16 MiB is what the router takes unless told otherwise.
        assert_eq!(
            (answer[0], answer[1] & 0x0F, answer[2], answer[3]),
            (0x7F, greeting & 0x0F, 0, 0)
        );
        // The kind of a message is 0 and its length has 24 bits: together a length of 32 bits.
        let framing = LengthDelimitedCodec::builder()
            .max_frame_length((1 << 24) - 1)
            .new_codec();
        Carrier::Raw(Framed::new(stream, framing), codec)
    }

    pub(crate) fn is_raw(&self) -> bool {
        matches!(self, Carrier::Raw(..))
    }

    pub(crate) async fn feed(&mut self, frame: Frame) -> tungstenite::Result<()> {
        match self {
            Carrier::WebSocket(socket) => socket.feed(frame).await,
            Carrier::Raw(framed, _) => Ok(framed.feed(frame.into_data()).await?),
        }
    }

    pub(crate) async fn flush(&mut self) -> tungstenite::Result<()> {
        match self {
            Carrier::WebSocket(socket) => socket.flush().await,
            Carrier::Raw(framed, _) => Ok(futures_util::SinkExt::<Bytes>::flush(framed).await?),
        }
    }

    pub(crate) async fn send(&mut self, frame: Frame) -> tungstenite::Result<()> {
        self.feed(frame).await?;
        self.flush().await
    }

    pub(crate) async fn next(&mut self) -> Option<tungstenite::Result<Frame>> {
        match self {
            Carrier::WebSocket(socket) => socket.next().await,
            Carrier::Raw(framed, codec) => Some(match (framed.next().await?, codec) {
                (Ok(bytes), Codec::Json) => Ok(Frame::text(String::from_utf8(bytes.to_vec()).unwrap())),
                (Ok(bytes), Codec::MessagePack | Codec::Cbor) => Ok(Frame::Binary(bytes.freeze())),
                (Err(error), _) => Err(error.into()),
            }),
        }
    }

    /// Hangs up in good order.
    pub(crate) async fn close(&mut self) {
        match self {
            Carrier::WebSocket(socket) => WebSocketStream::close(socket, None).await.unwrap(),
            Carrier::Raw(framed, _) => framed.get_mut().shutdown().await.unwrap(),
        }
    }
}
