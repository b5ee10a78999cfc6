//! TLS, WebSocket or both between the socket and MQTT, each of them without I/O of its own.
//!
//! A write is taken as a whole or not at all as far as the caller can see: what was encrypted is owed to the socket, and
//! only when the socket has it all are the plain bytes said to be written. So whoever writes needs no more state than with
//! a plain socket. One lock covers the layers; it is held across writes that do not block, so that records leave in the
//! order in which they were made, and never while reading.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;

use super::tls::Tls;
use super::websocket::{self, WebSocket};

/// Bytes read from the socket at once. Twice a TLS record: what arrived is never much more than the caller has room for.
const INPUT_BYTES: usize = 32 * 1024;
/// Reads from the socket in a row that bring nothing for MQTT.
const FILLS_MAX: usize = 16;
/// Plain bytes taken for one write to the socket.
const CHUNK_BYTES: usize = 64 * 1024;

thread_local! {
    static INPUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; INPUT_BYTES].into());
}

/// A socket with layers on top.
#[derive(Debug)]
pub struct Layered {
    socket: TcpStream,
    layers: Mutex<Layers>,
}

#[derive(Debug, Default)]
struct Layers {
    tls: Option<Box<Tls>>,
    web: Option<Box<WebSocket>>,
    /// What came out of TLS or the socket and was not read yet.
    plain: Vec<u8>,
    /// Without TLS: what the socket did not take.
    unsent: Vec<u8>,
    /// Plain bytes that were taken, but of which the socket has not everything.
    owed: usize,
    /// The peer said that nothing follows.
    ended: bool,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer sent more than a handshake takes.
    #[error("the handshake takes more than {0} bytes")]
    TooLong(usize),
    /// The peer went away.
    #[error("the peer went away during the handshake")]
    Gone,
}

impl Layered {
    /// Nothing but the socket, so far.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, layers: Mutex::default() }
    }

    /// Puts TLS on top, as the server; at most `bytes_max` are read for it.
    pub async fn handshake(&self, config: Arc<ServerConfig>, bytes_max: usize) -> Result<(), HandshakeError> {
        self.layers.lock().tls = Some(Box::new(Tls::new(config)?));
        let mut read = 0;
        loop {
            let flushed = self.layers.lock().flush(&self.socket);
            match flushed {
                Ok(()) if !self.layers.lock().is_handshaking() => return Ok(()),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.socket.readable().await?;
            match self.fill() {
                Ok(0) => return Err(HandshakeError::Gone),
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if read > bytes_max {
                return Err(HandshakeError::TooLong(bytes_max));
            }
        }
    }

    /// From here on bytes come and go in WebSocket frames; `rest` is what came behind the request.
    pub fn begin_web(&self, rest: Vec<u8>) {
        let mut layers = self.layers.lock();
        layers.web = Some(Box::default());
        // What was read after the request lies before what was not read yet.
        let unread = std::mem::replace(&mut layers.plain, rest);
        layers.plain.extend_from_slice(&unread);
    }

    /// Reads what there is; `Ok(0)` is the end.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        for _ in 0..FILLS_MAX {
            {
                let mut layers = self.layers.lock();
                let taken = layers.take(buffer)?;
                layers.answer(&self.socket)?;
                if taken > 0 || layers.ended {
                    return Ok(taken);
                }
            }
            if self.fill()? == 0 {
                return Ok(0);
            }
        }
        // A peer that sends nothing but pings has had its turn; the socket is readable still.
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// One read from the socket, passed through TLS. Only the connection's own task reads, so that the bytes keep their
    /// order though no lock is held meanwhile.
    fn fill(&self) -> io::Result<usize> {
        INPUT.with_borrow_mut(|input| {
            let n = self.socket.try_read(input)?;
            let mut layers = self.layers.lock();
            let fed = layers.feed(&input[..n]);
            if fed.is_err() {
                // The alert that says why; it may be lost.
                let _ = layers.flush(&self.socket);
            }
            fed.map(|()| n)
        })
    }

    /// Writes as much as is taken at once; see [`Transport::try_write`](super::Transport::try_write).
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut layers = self.layers.lock();
        layers.flush(&self.socket)?;
        if layers.owed == 0 {
            layers.owed = layers.accept(slices)?;
            layers.flush(&self.socket)?;
        }
        Ok(std::mem::take(&mut layers.owed))
    }

    /// Whether there may be something to read; writes on what the layers themselves have to say.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let mut layers = self.layers.lock();
                if layers.ended || layers.readable() {
                    return Poll::Ready(Ok(()));
                }
                match layers.answer(&self.socket) {
                    Ok(()) if !layers.unflushed() => break,
                    Ok(()) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            match self.socket.poll_write_ready(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
        }
        self.socket.poll_read_ready(cx)
    }

    /// Whether something may be written.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_write_ready(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Says goodbye with `last`, and that nothing follows.
    pub fn finish(&self, last: &[u8]) {
        let mut layers = self.layers.lock();
        // Whoever does not take what came before will not take a goodbye.
        if layers.flush(&self.socket).is_err() || layers.owed > 0 {
            return;
        }
        let _ = layers.accept(&[IoSlice::new(last)]);
        let _ = layers.close();
        let _ = layers.flush(&self.socket);
    }

    /// The certificates that the peer has shown.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.layers.lock().tls.as_ref().map(|tls| tls.peer_certificates()).unwrap_or_default()
    }
}

impl Layers {
    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Takes in what the socket gave.
    fn feed(&mut self, input: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => self.ended |= tls.feed(input, &mut self.plain)?,
            None => self.plain.extend_from_slice(input),
        }
        Ok(())
    }

    /// Whether reading gives something without the socket.
    fn readable(&self) -> bool {
        match &self.web {
            Some(web) => web.readable(&self.plain),
            None => !self.plain.is_empty(),
        }
    }

    /// Moves what was received into `buffer`.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (consumed, taken) = match &mut self.web {
            Some(web) => {
                let read = web.read(&self.plain, buffer)?;
                self.ended |= read.ended;
                (read.consumed, read.taken)
            }
            None => {
                let n = self.plain.len().min(buffer.len());
                buffer[..n].copy_from_slice(&self.plain[..n]);
                (n, n)
            }
        };
        if consumed == self.plain.len() {
            // An idle connection holds no buffer.
            self.plain = Vec::new();
        } else {
            self.plain.drain(..consumed);
        }
        Ok(taken)
    }

    /// Takes plain bytes to be written, at most a chunk. How many.
    fn accept(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let total = all.min(CHUNK_BYTES);
        if total == 0 {
            return Ok(0);
        }
        if self.web.is_some() {
            let header = websocket::header(websocket::BINARY, total);
            self.put(&header)?;
        }
        let mut left = total;
        for slice in slices {
            let n = slice.len().min(left);
            self.put(&slice[..n])?;
            left -= n;
        }
        Ok(total)
    }

    /// Has bytes written below WebSocket.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.put(bytes),
            None => {
                self.unsent.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Has WebSocket say what it owes the peer, as far as the socket takes it.
    fn answer(&mut self, socket: &TcpStream) -> io::Result<()> {
        let result = self.flush(socket);
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn unflushed(&self) -> bool {
        !self.unsent.is_empty()
            || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
            || self.web.as_ref().is_some_and(|web| web.owes())
    }

    /// Writes until nothing is left; `WouldBlock` when the socket takes no more.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        loop {
            match &mut self.tls {
                Some(tls) => tls.flush(socket)?,
                None => flush(&mut self.unsent, socket)?,
            }
            // Only now: a peer that takes nothing is owed one answer, not one for each time it asks.
            match self.web.as_mut().and_then(|web| web.answer()) {
                Some(frame) => self.put(&frame)?,
                None => return Ok(()),
            }
        }
    }

    fn close(&mut self) -> io::Result<()> {
        if let Some(frame) = self.web.as_mut().and_then(|web| web.close()) {
            self.put(&frame)?;
        }
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        Ok(())
    }
}

fn flush(unsent: &mut Vec<u8>, socket: &TcpStream) -> io::Result<()> {
    let mut at = 0;
    let result = loop {
        if at == unsent.len() {
            break Ok(());
        }
        match socket.try_write(&unsent[at..]) {
            Ok(n) => at += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    if at == unsent.len() {
        *unsent = Vec::new();
    } else {
        unsent.drain(..at);
    }
    result
}
