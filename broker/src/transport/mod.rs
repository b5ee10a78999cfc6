//! What carries a connection's bytes: TCP as it is, or with TLS, WebSocket or both on top.
//!
//! All have one shape, that of a non-blocking socket: readiness is polled by the connection's own task, and `try_…` does
//! what can be done at once. The plain socket is the common case and pays one branch.
//!
//! This knows bytes. It does not know MQTT, nor who the peer is.

mod layered;
#[cfg(test)]
pub mod memory;
mod tls;
pub mod upgrade;
mod websocket;

use std::io;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;

pub use layered::{HandshakeError, Layered};
pub use tls::ClientCertificates;

/// What WebSocket frames come to that arrive in pieces and are read into buffers of `room`: their payload and whether they end;
/// or nothing, when the peer breaks the rules. For fuzzing.
pub fn frames(bytes: &[u8], piece: usize, room: usize) -> Option<(Vec<u8>, bool)> {
    websocket::read_all(bytes, piece, room).ok().map(|(payload, _, ended)| (payload, ended))
}

/// The bytes of one connection, both ways.
#[derive(Debug)]
pub enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
    /// With TLS, WebSocket or both on top.
    Layered(Box<Layered>),
    /// None: both ends are in one process, for tests.
    #[cfg(test)]
    Memory(memory::BrokerEnd),
}

impl Transport {
    /// Reads what there is; `Ok(0)` is the end.
    #[inline]
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read(buffer),
            Self::Layered(layered) => layered.try_read(buffer),
            #[cfg(test)]
            Self::Memory(end) => end.try_read(buffer),
        }
    }

    /// Writes as much as is taken at once. When that is nothing, the same bytes must be offered first the next time:
    /// they may be encrypted already.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Layered(layered) => layered.try_write(&[io::IoSlice::new(bytes)]),
            #[cfg(test)]
            Self::Memory(end) => end.try_write(&[io::IoSlice::new(bytes)]),
        }
    }

    /// The same for several slices at once.
    #[inline]
    pub fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write_vectored(slices),
            Self::Layered(layered) => layered.try_write(slices),
            #[cfg(test)]
            Self::Memory(end) => end.try_write(slices),
        }
    }

    /// Whether there may be something to read. For the connection's own task only.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            Self::Layered(layered) => layered.poll_read_ready(cx),
            #[cfg(test)]
            Self::Memory(end) => end.poll_read_ready(cx),
        }
    }

    /// Whether something may be written. For the connection's own task only.
    #[inline]
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_write_ready(cx),
            Self::Layered(layered) => layered.poll_write_ready(cx),
            #[cfg(test)]
            Self::Memory(end) => end.poll_write_ready(cx),
        }
    }

    /// Waits until there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Writes all of it, and waits where it must. For the connection's own task only.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            std::future::poll_fn(|cx| self.poll_write_ready(cx)).await?;
            match self.try_write(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says goodbye with `last`, and that nothing follows, in the way of each layer. What is not taken at once is not
    /// waited for.
    pub fn finish(&self, last: &[u8]) {
        match self {
            Self::Plain(socket) => {
                if !last.is_empty() {
                    let _ = socket.try_write(last);
                }
            }
            Self::Layered(layered) => layered.finish(last),
            #[cfg(test)]
            Self::Memory(end) => drop(end.try_write(&[io::IoSlice::new(last)])),
        }
    }

    /// The certificates that the peer has shown, its own first. That it holds the key is proven; who vouches for them is
    /// for others to say.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Layered(layered) => layered.peer_certificates(),
            #[cfg(test)]
            Self::Memory(_) => Vec::new(),
        }
    }
}
