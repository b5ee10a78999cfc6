//! Listening sockets: each accepted connection becomes a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::broker::Broker;
use crate::connection;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Binds `address`; port 0 takes any free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until told to stop.
pub async fn run(listener: TcpListener, broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                broker.metrics.connections.increment(1);
                // Whole batches are written at once; what remains is never worth waiting for.
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "the connection was gone at once");
                    continue;
                }
                tokio::spawn(connection::run(Arc::clone(&broker), socket, peer, stop.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others may close theirs meanwhile.
                tracing::warn!(%error, "cannot accept a connection; trying again in a moment");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
