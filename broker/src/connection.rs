//! One client's connection: reads what there is, runs it to completion, waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use broker_core::memory::Weight;
use broker_core::message::Publication;
use broker_core::packet::{
    self, DecodeError, Decoded, ErrorKind, PropertiesBuilder, Property, ReasonCode, Version,
};
use tokio::sync::watch;

use crate::broker::{Broker, Left};
use crate::client::Client;
use crate::handshake::{self, Established};
use crate::inbound::Inbound;
use crate::listener::Port;
use crate::listener::admission::Admitted;
use crate::transport::Transport;
use crate::turn::{Congested, Turn};
use crate::{clock, metrics};

/// Bytes read at once, into a buffer that all connections of a thread share: an idle one holds none.
const READ_BYTES: usize = 128 * 1024;
/// How much more room a packet larger than that gets at a time: it is paid for as it arrives.
const GROW_BYTES: usize = 1 << 20;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client said DISCONNECT; whether its will is published all the same.
    Disconnected {
        /// "Disconnect with Will Message".
        with_will: bool,
    },
    /// The client sent what it may not.
    Refused {
        /// What a v5 client is told.
        reason: ReasonCode,
        /// The same as a sentence.
        what: &'static str,
    },
    /// Somebody else asked the connection to end.
    Kicked(ReasonCode),
    /// Another connection has the session.
    TakenOver,
    /// The network is gone.
    Lost,
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        metrics::packet_refused(match error.kind {
            ErrorKind::PacketTooLarge => "too-large",
            ErrorKind::Malformed => "malformed",
            ErrorKind::TopicNameInvalid | ErrorKind::TopicFilterInvalid => "levels",
            _ => "protocol",
        });
        Self::Refused { reason: error.reason(), what: error.what }
    }
}

/// Serves one connection until it ends; `_place` is given back then.
pub async fn run(
    broker: Arc<Broker>,
    port: Arc<Port>,
    transport: Transport,
    peer: SocketAddr,
    _place: Option<Admitted>,
    mut stop: watch::Receiver<bool>,
) {
    let socket = Arc::new(transport);
    let established = tokio::select! {
        // Boxed, so that a connection that is served takes no room for what is over.
        established = Box::pin(handshake::establish(&broker, &port, &socket, peer)) => established,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    drop((stop, port));
    let Some(established) = established else { return };
    let mut connection = Connection::new(broker, socket, established);
    let end = connection.serve().await;
    tracing::debug!(%peer, ?end, "a connection ended");
    connection.end(end);
}

struct Connection {
    broker: Arc<Broker>,
    client: Arc<Client>,
    number: u64,
    socket: Arc<Transport>,
    version: Version,
    problem_information: bool,
    /// The largest packet that the client takes.
    packet_size_max: usize,
    inbound: Inbound,
    /// The beginning of a packet that has not arrived in full.
    carry: Vec<u8>,
    /// What of it is worth counting.
    carried: Weight,
    /// Length of that packet, as far as known.
    needed: usize,
    /// Clients that must take more before we read more.
    congested: Congested,
}

enum Event {
    Readable,
    /// There is room for what waits to be sent.
    Room,
}

impl Connection {
    /// A connection whose client is known. Not part of [`run`]: what is used up here would take room there for as long as
    /// the connection lasts.
    fn new(broker: Arc<Broker>, socket: Arc<Transport>, established: Established) -> Self {
        let Established { opened, version, problem_information, packet_size_max, rest, access, login } =
            established;
        publish_left(&broker, &opened.left);
        let inbound = Inbound::new(Arc::clone(&opened.client), opened.number, version, problem_information)
            .bound_by(access, login);
        Self {
            broker,
            client: opened.client,
            number: opened.number,
            socket,
            version,
            problem_information,
            packet_size_max,
            inbound,
            carry: rest,
            carried: Weight::default(),
            needed: 0,
            congested: Vec::new(),
        }
    }

    async fn serve(&mut self) -> End {
        if let Err(end) = self.take(None) {
            return end;
        }
        loop {
            let event = match poll_fn(|cx| self.poll_event(cx)).await {
                Ok(event) => event,
                Err(end) => return end,
            };
            let full = match event {
                Event::Room => {
                    self.send_more();
                    false
                }
                Event::Readable => match self.read() {
                    Ok(full) => full,
                    Err(end) => return end,
                },
            };
            if full {
                // There is more where this came from; others first.
                tokio::task::yield_now().await;
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, End>> {
        let mut state = self.client.lock();
        let Some(connection) = state.own(self.number) else { return Poll::Ready(Err(End::TakenOver)) };
        if let Some(close) = connection.close {
            return Poll::Ready(Err(End::Kicked(close.reason)));
        }
        connection.register(cx.waker());
        let blocked = connection.blocked();
        let more = state.has_more(&self.broker.limits.session);
        drop(state);
        if more || (blocked && self.socket.poll_write_ready(cx).is_ready()) {
            return Poll::Ready(Ok(Event::Room));
        }
        if !self.congested.is_empty() {
            let now = clock::monotonic();
            self.congested.retain(|client| {
                let mut state = client.lock();
                let congested = state.congested(now);
                if congested {
                    state.wait(cx.waker());
                }
                congested
            });
            if !self.congested.is_empty() {
                return Poll::Pending;
            }
        }
        match self.socket.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(Event::Readable)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(End::Lost)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes out what this client's socket did not take before, and what waited for that.
    fn send_more(&mut self) {
        let mut turn = Turn::begin(&self.broker, clock::monotonic());
        {
            let mut state = self.client.lock();
            match state.has_more(&self.broker.limits.session) {
                true => turn.pump(&self.client, &mut state),
                false => turn.touch(&self.client, &mut state),
            }
        }
        turn.replay(&self.client);
        turn.finish();
    }

    /// One read and everything that follows from it. True when the read filled its buffer.
    fn read(&mut self) -> Result<bool, End> {
        if self.carry.len().max(self.needed) >= READ_BYTES / 2 {
            return self.read_large();
        }
        READ.with_borrow_mut(|buffer| {
            let kept = self.carry.len();
            buffer[..kept].copy_from_slice(&self.carry);
            let n = match self.socket.try_read(&mut buffer[kept..]) {
                Ok(0) => return Err(End::Lost),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(End::Lost),
            };
            self.broker.metrics.bytes_received.increment(n as u64);
            self.carry.clear();
            let taken = self.take(Some(&buffer[..kept + n]))?;
            self.keep(&buffer[taken..kept + n]);
            Ok(kept + n == buffer.len())
        })
    }

    /// Reads on where a large packet is put together, in the connection's own buffer.
    fn read_large(&mut self) -> Result<bool, End> {
        if self.broker.is_pressed() {
            metrics::packet_refused("pressed");
            return Err(End::Refused {
                reason: ReasonCode::QuotaExceeded,
                what: "the memory for messages is used up, and a large packet is on its way",
            });
        }
        let kept = self.carry.len();
        let more = self.needed.saturating_sub(kept).clamp(READ_BYTES, GROW_BYTES);
        self.carry.resize(kept + more, 0);
        let result = self.socket.try_read(&mut self.carry[kept..]);
        self.carry.truncate(kept + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => return Err(End::Lost),
            Ok(n) => self.broker.metrics.bytes_received.increment(n as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => return Err(End::Lost),
        }
        self.carried.set(self.carry.len());
        if self.carry.len() < self.needed {
            self.heard();
            return Ok(false);
        }
        self.take(None)?;
        self.carried.set(0);
        Ok(true)
    }

    /// Keeps the beginning of a packet until the rest arrives.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.carry = Vec::new();
        } else {
            self.carry.extend_from_slice(rest);
        }
    }

    fn heard(&self) {
        if let Some(connection) = self.client.lock().own(self.number) {
            connection.heard = clock::monotonic();
        }
    }

    /// Takes every complete packet of `bytes` (or of what was carried over) and says how far it came.
    fn take(&mut self, bytes: Option<&[u8]>) -> Result<usize, End> {
        let carried = if bytes.is_none() { std::mem::take(&mut self.carry) } else { Vec::new() };
        let bytes = bytes.unwrap_or(&carried);
        self.heard();
        let broker = Arc::clone(&self.broker);
        let mut turn = Turn::begin(&broker, clock::monotonic());
        turn.touch(&self.client, &mut self.client.lock());
        let result = self.packets(bytes, &mut turn);
        self.congested = turn.finish();
        // Waiting for oneself would be waiting for ever.
        self.congested.retain(|client| !Arc::ptr_eq(client, &self.client));
        let taken = result?;
        if !carried.is_empty() {
            self.keep(&carried[taken..]);
        }
        Ok(taken)
    }

    fn packets(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, End> {
        let mut limits = packet::Limits::server(self.broker.limits.packet_size_max);
        limits.topic_levels_max = self.broker.limits.topic_levels_max;
        let mut taken = 0;
        loop {
            match packet::decode(&bytes[taken..], self.version, &limits)? {
                Decoded::Packet(packet, len) => {
                    self.inbound.packet(packet, turn)?;
                    taken += len;
                }
                Decoded::Incomplete { needed } => {
                    self.needed = needed;
                    return Ok(taken);
                }
            }
        }
    }

    /// Says goodbye, leaves the session, and publishes the will if it is due.
    fn end(self, end: End) {
        let now = clock::monotonic();
        let goodbye = match end {
            End::Disconnected { .. } | End::Lost => None,
            End::Refused { reason, what } => Some((reason, Some(what))),
            End::Kicked(reason) => Some((reason, None)),
            End::TakenOver => Some((ReasonCode::SessionTakenOver, None)),
        };
        // Half a packet must not be followed by another.
        let whole = end == End::TakenOver || self.client.lock().is_between_packets();
        match goodbye.filter(|_| whole && self.version.is_v5()) {
            Some((reason, what)) => self.say_goodbye(reason, what.filter(|_| self.problem_information)),
            None => self.socket.finish(&[]),
        }
        let with_will = !matches!(end, End::Disconnected { with_will: false });
        let left = self.broker.close(&self.client, self.number, now, with_will);
        publish_left(&self.broker, &left);
    }

    /// The last packet of the connection [MQTT-3.14.4-1], which is closed then [MQTT-3.14.4-2] [MQTT-4.13.1-1]
    /// [MQTT-4.13.2-1].
    fn say_goodbye(&self, reason: ReasonCode, what: Option<&str>) {
        let mut properties = PropertiesBuilder::new();
        if let Some(what) = what {
            // A sentence of ours always fits.
            let _ = properties.put(Property::ReasonString(what));
        }
        let mut out = Vec::new();
        let full = packet::Disconnect { reason, properties: properties.properties() };
        let bare = packet::Disconnect { reason, properties: packet::Properties::EMPTY };
        // The connection is over either way; a socket that takes nothing more is not waited for.
        for disconnect in [full, bare] {
            out.clear();
            let size = disconnect.encode(self.version, &mut out).map(|()| out.len());
            if size.is_ok_and(|size| size <= self.packet_size_max) {
                return self.socket.finish(&out);
            }
            // Without its reason string it may fit [MQTT-3.14.2-3]; it never has user properties [MQTT-3.14.2-4].
        }
    }
}

/// Publishes what a connection or session that has ended leaves behind.
pub fn publish_left(broker: &Broker, left: &Left) {
    if left.will.is_none() && left.orphans.is_empty() {
        return;
    }
    let mut turn = Turn::begin(broker, clock::monotonic());
    // As any other message: retained or not [MQTT-3.1.2-14] [MQTT-3.1.2-15].
    if let Some(will) = &left.will {
        turn.publish(&mut Publication::of(will));
    }
    turn.pass_on(&left.orphans);
    turn.finish();
}
