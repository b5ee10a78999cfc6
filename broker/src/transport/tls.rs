//! The server's side of TLS, between bytes and bytes: rustls, which does no I/O of its own.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, ServerConnection, SignatureScheme,
};
use tokio::net::TcpStream;

/// One TLS connection.
#[derive(Debug)]
pub struct Tls(ServerConnection);

impl Tls {
    /// Before its first byte.
    pub fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        // What is taken is bounded by who gives it: a chunk, then the socket must have it.
        connection.set_buffer_limit(None);
        Ok(Self(connection))
    }

    /// Whether the two sides are still agreeing.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Takes in what came and appends what it means to `plain`. True when the peer says that nothing follows.
    pub fn feed(&mut self, mut input: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
        while !input.is_empty() {
            let taken = self.0.read_tls(&mut input)?;
            let state = self.0.process_new_packets().map_err(|error| {
                let kind = io::ErrorKind::InvalidData;
                io::Error::new(kind, error)
            })?;
            let arrived = state.plaintext_bytes_to_read();
            if arrived > 0 {
                let from = plain.len();
                plain.resize(from + arrived, 0);
                self.0.reader().read_exact(&mut plain[from..])?;
            }
            if state.peer_has_closed() {
                return Ok(true);
            }
            if taken == 0 {
                break;
            }
        }
        Ok(false)
    }

    /// Encrypts bytes; they wait for [`flush`](Self::flush).
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(bytes)
    }

    /// Whether something waits for the socket.
    pub fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Writes what waits: all records with one system call, as far as the socket takes them.
    pub fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Sink(socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that nothing follows.
    pub fn close(&mut self) {
        self.0.send_close_notify();
    }

    /// The certificates that the peer has shown, its own first.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
    }
}

/// A socket that takes what it takes at once.
struct Sink<'a>(&'a TcpStream);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Asks clients for a certificate and has them prove that they hold its key. Who may vouch for it is decided later, by the
/// authentication methods in their order: a client may have other credentials as well (AIO.md §5.8).
#[derive(Debug)]
pub struct ClientCertificates {
    algorithms: WebPkiSupportedAlgorithms,
    /// Subjects of the certificates that sign clients': a hint which one to send.
    hints: Vec<DistinguishedName>,
}

impl ClientCertificates {
    /// With these hints.
    pub fn new(algorithms: WebPkiSupportedAlgorithms, hints: Vec<DistinguishedName>) -> Self {
        Self { algorithms, hints }
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
