//! The bytes between us and a remote broker: TCP, TLS, WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use super::settings::Settings;

/// How long it may take to be connected, TLS and WebSocket included.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// The largest WebSocket message that is taken.
const MESSAGE_MAX: usize = 1 << 20;

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to the broker.
///
/// # Errors
/// What did not work, with the address.
pub async fn connect(settings: &Settings) -> Result<Box<dyn Duplex>, String> {
    let address = format!("{}:{}", settings.host, settings.port);
    match tokio::time::timeout(CONNECT_MAX, try_connect(settings)).await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(why)) => Err(format!("{address}: {why}")),
        Err(_) => Err(format!("{address}: no connection within {} s", CONNECT_MAX.as_secs())),
    }
}

async fn try_connect(settings: &Settings) -> Result<Box<dyn Duplex>, String> {
    let socket = TcpStream::connect((settings.host.as_str(), settings.port))
        .await
        .map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let link: Box<dyn Duplex> = match &settings.tls {
        None => Box::new(socket),
        Some((config, name)) => {
            let connector = TlsConnector::from(config.clone());
            let stream = connector.connect(name.clone(), socket).await;
            Box::new(stream.map_err(|error| format!("TLS: {error}"))?)
        }
    };
    match &settings.web_socket {
        None => Ok(link),
        Some(path) => upgrade(link, settings, path).await,
    }
}

async fn upgrade(link: Box<dyn Duplex>, settings: &Settings, path: &str) -> Result<Box<dyn Duplex>, String> {
    let scheme = if settings.tls.is_some() { "wss" } else { "ws" };
    let host =
        if settings.host.contains(':') { format!("[{}]", settings.host) } else { settings.host.clone() };
    let address = format!("{scheme}://{host}:{}{path}", settings.port);
    let mut request = address.into_client_request().map_err(|error| error.to_string())?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    let upgraded = tokio_tungstenite::client_async_with_config(request, link, Some(config)).await;
    let (web, _) = upgraded.map_err(|error| format!("WebSocket: {error}"))?;
    Ok(Box::new(Web { web, left: Bytes::new() }))
}

/// MQTT over WebSocket: binary messages, whose limits mean nothing [MQTT-6.0.0-1] [MQTT-6.0.0-2].
struct Web {
    web: WebSocketStream<Box<dyn Duplex>>,
    /// Of a message that is being read.
    left: Bytes,
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("WebSocket: {error}"))
}

impl AsyncRead for Web {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.left.is_empty() {
                let count = self.left.len().min(out.remaining());
                out.put_slice(&self.left[..count]);
                self.left.advance(count);
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.web).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => self.left = bytes,
                Poll::Ready(Some(Ok(Message::Text(_)))) => return Poll::Ready(Err(broken("text came"))),
                Poll::Ready(Some(Ok(_))) => {} // pings and the like are answered by the library
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
            }
        }
    }
}

impl AsyncWrite for Web {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.web).poll_ready(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(error))),
            Poll::Ready(Ok(())) => {
                let message = Message::Binary(Bytes::copy_from_slice(bytes));
                Pin::new(&mut self.web).start_send(message).map_err(broken)?;
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.web).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.web).poll_close(cx).map_err(broken)
    }
}
