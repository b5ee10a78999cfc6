//! Listening sockets: each accepted connection becomes a task of its own, which agrees on TLS and WebSocket first where the
//! port has them. Nobody's handshake holds up another's.

pub mod admission;
mod authority;
mod certificates;
pub mod listeners;
mod methods;
mod plan;
mod port;
mod rules;
mod secrets;
pub mod seen;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

pub use port::{Port, Protocol, Settings};

use crate::broker::Broker;
use crate::listener::admission::{Admission, Admitted};
use crate::transport::{Layered, Transport, upgrade};
use crate::{clock, connection};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What keeps the ports of these resources from being what they should, beyond what reading them has found.
pub fn check(loaded: &config::Loaded) -> Vec<String> {
    let surroundings = plan::Surroundings { data_dir: None, allow_anonymous: true, dry: true };
    let told: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    let faults = plan::plan(loaded, &surroundings).0.err().unwrap_or_default();
    faults.into_iter().filter(|fault| !told.contains(fault)).collect()
}

/// Binds `address`; port 0 takes any free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until told to stop: by the broker, or because the port is no longer wanted.
pub async fn run(
    listener: TcpListener,
    port: Arc<Port>,
    broker: Arc<Broker>,
    admission: Arc<Admission>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = port.closed() => return,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                broker.metrics.connections.increment(1);
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let admitted = match admission.admit(peer.ip(), clock::monotonic()) {
                    Ok(admitted) => admitted,
                    Err(limit) => {
                        tracing::debug!(%peer, limit, "a connection is refused");
                        continue;
                    }
                };
                // Whole batches are written at once; what remains is never worth waiting for.
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "the connection was gone at once");
                    continue;
                }
                serve(&broker, &port, socket, peer, admitted, stop.clone());
            }
            Err(error) => {
                // Out of file descriptors, most likely: others may close theirs meanwhile.
                tracing::warn!(%error, "cannot accept a connection; trying again in a moment");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Has a task of its own serve the connection.
fn serve(
    broker: &Arc<Broker>,
    port: &Arc<Port>,
    socket: TcpStream,
    peer: SocketAddr,
    admitted: Admitted,
    stop: watch::Receiver<bool>,
) {
    let (broker, port) = (Arc::clone(broker), Arc::clone(port));
    let settings = port.settings();
    if settings.is_plain() {
        let transport = Transport::Plain(socket);
        tokio::spawn(connection::run(broker, port, transport, peer, Some(admitted), stop));
        return;
    }
    tokio::spawn(async move {
        // Boxed, so that a connection that is served takes no room for what is over.
        if let Some(transport) = Box::pin(agree(socket, peer, &settings, &admitted, stop.clone())).await {
            drop(settings);
            connection::run(broker, port, transport, peer, Some(admitted), stop).await;
        }
    });
}

/// Agrees on TLS and WebSocket, in bounded time and space.
async fn agree(
    socket: TcpStream,
    peer: SocketAddr,
    settings: &Settings,
    admitted: &Admitted,
    mut stop: watch::Receiver<bool>,
) -> Option<Transport> {
    let limits = &admitted.admission().limits;
    let transport = Transport::Layered(Box::new(Layered::new(socket)));
    let agreed = tokio::select! {
        agreed = tokio::time::timeout(limits.handshake, layer(&transport, settings, limits.handshake_bytes)) => agreed,
        _ = stop.wait_for(|stop| *stop) => return None,
    };
    let failed = match agreed {
        Ok(Ok(())) => return Some(transport),
        Ok(Err(failed)) => failed,
        Err(_) => Failed {
            layer: if settings.tls.is_some() { "tls" } else { "websocket" },
            reason: "timeout",
            what: "it takes too long".to_owned(),
        },
    };
    let Failed { layer, reason, what } = failed;
    counter!("forebay_handshakes_failed_total", "layer" => layer, "reason" => reason).increment(1);
    tracing::debug!(%peer, layer, "a handshake came to nothing: {what}");
    None
}

/// Why a handshake came to nothing.
struct Failed {
    layer: &'static str,
    reason: &'static str,
    what: String,
}

async fn layer(transport: &Transport, settings: &Settings, bytes_max: usize) -> Result<(), Failed> {
    use crate::transport::HandshakeError;
    use upgrade::UpgradeError;
    let Transport::Layered(layered) = transport else { return Ok(()) };
    if let Some(tls) = &settings.tls {
        layered.handshake(Arc::clone(tls), bytes_max).await.map_err(|error| {
            let reason = match &error {
                HandshakeError::TooLong(_) => "too-long",
                HandshakeError::Gone => "gone",
                HandshakeError::Io(error) if error.kind() == io::ErrorKind::InvalidData => "protocol",
                HandshakeError::Io(_) => "io",
            };
            Failed { layer: "tls", reason, what: error.to_string() }
        })?;
    }
    if settings.protocol == Protocol::WebSockets {
        upgrade::upgrade(layered, &settings.origins).await.map_err(|error| {
            let reason = match &error {
                UpgradeError::Refused { .. } => "refused",
                UpgradeError::Gone => "gone",
                UpgradeError::Io(_) => "io",
            };
            Failed { layer: "websocket", reason, what: error.to_string() }
        })?;
    }
    Ok(())
}
