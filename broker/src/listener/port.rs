//! One port: where it listens, and what holds for its connections. The latter can be replaced while it listens.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::sync::Notify;

use crate::auth::Authentication;
use crate::auth::access::Guard;

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT.
    Mqtt,
    /// MQTT over WebSocket.
    WebSockets,
}

/// What holds for connections of a port.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is spoken.
    pub protocol: Protocol,
    /// Web pages that may connect; empty is all of them.
    pub origins: Vec<String>,
    /// TLS, if there is.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may connect; everybody when absent.
    pub authentication: Option<Arc<Authentication>>,
    /// Who may do what; everybody everything when absent.
    pub guard: Option<Arc<Guard>>,
}

impl Settings {
    /// MQTT over TCP for everybody.
    pub fn open() -> Self {
        Self { protocol: Protocol::Mqtt, origins: Vec::new(), tls: None, authentication: None, guard: None }
    }

    /// Nothing stands between TCP and MQTT.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.protocol == Protocol::Mqtt
    }
}

/// One port.
#[derive(Debug)]
pub struct Port {
    /// Where it listens.
    pub address: SocketAddr,
    settings: RwLock<Arc<Settings>>,
    closed: Notify,
}

impl Port {
    /// A port that listens at `address`.
    pub fn new(address: SocketAddr, settings: Settings) -> Arc<Self> {
        Arc::new(Self { address, settings: RwLock::new(Arc::new(settings)), closed: Notify::new() })
    }

    /// What holds for a connection that comes now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Something else holds for connections from now on.
    pub fn replace(&self, settings: Settings) {
        *self.settings.write() = Arc::new(settings);
    }

    /// It is not listened on any more; connections that there are stay.
    pub fn close(&self) {
        self.closed.notify_one();
    }

    /// Waits until it is closed.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }
}
