//! From the first byte of a connection to its CONNACK.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::packet::{
    self, ConnAck, Connect, DecodedConnect, PropertiesBuilder, Property, ReasonCode, Version,
};
use broker_core::session::{Link, Will};
use bytes::Bytes;
use tokio::net::TcpStream;

use crate::broker::{Broker, Opened, Opening};
use crate::limits::Limits;
use crate::{clock, metrics, persistence};

/// Seconds a 3.1 or 3.1.1 session without clean session outlives its connection, where nothing is
/// configured: for ever, as the standard has it.
const V3_EXPIRY: u32 = u32::MAX;

/// A connection whose CONNECT was accepted.
pub struct Established {
    /// The session and the number of this connection.
    pub opened: Opened,
    /// Protocol version spoken.
    pub version: Version,
    /// The client wants reasons in words.
    pub problem_information: bool,
    /// The largest packet that the client takes.
    pub packet_size_max: usize,
    /// Bytes that came behind the CONNECT.
    pub rest: Vec<u8>,
}

/// Reads CONNECT, in bounded time and space, and answers it once [MQTT-3.2.0-2]. `None` when the connection is over
/// [MQTT-3.1.4-1] [MQTT-3.1.4-2] [MQTT-3.2.2-7], and what follows is not looked at [MQTT-3.1.4-6]; the peer has been told
/// why where the standard wants it told.
pub async fn establish(broker: &Broker, socket: &Arc<TcpStream>) -> Option<Established> {
    let mut bytes = Vec::new();
    let limit = Duration::from_millis(broker.limits.connect_ms_max);
    match tokio::time::timeout(limit, read_connect(broker, socket, &mut bytes)).await {
        Err(_) => {
            metrics::packet_refused("connect-timeout");
            None
        }
        Ok(Err(_)) => None,
        Ok(Ok(())) => answer(broker, socket, bytes).await,
    }
}

/// Reads until `bytes` hold a CONNECT, or what can never become one.
async fn read_connect(broker: &Broker, socket: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let limits = connect_limits(&broker.limits);
    loop {
        socket.readable().await?;
        let mut chunk = [0; 2048];
        match socket.try_read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                broker.metrics.bytes_received.increment(n as u64);
                bytes.extend_from_slice(&chunk[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if !matches!(packet::decode_connect(bytes, &limits), Ok(DecodedConnect::Incomplete { .. })) {
            return Ok(());
        }
    }
}

fn connect_limits(limits: &Limits) -> packet::Limits {
    let mut of = packet::Limits::server(limits.connect_size_max.min(limits.packet_size_max));
    of.topic_levels_max = limits.topic_levels_max;
    of
}

async fn answer(broker: &Broker, socket: &Arc<TcpStream>, bytes: Vec<u8>) -> Option<Established> {
    let (connect, taken) = match packet::decode_connect(&bytes, &connect_limits(&broker.limits)) {
        Ok(DecodedConnect::Connect(connect, taken)) => (connect, taken),
        Ok(DecodedConnect::Incomplete { .. }) => return None,
        Err(error) => {
            metrics::packet_refused("connect");
            tracing::debug!(%error, "a CONNECT is refused");
            if let (Some(answer), Some(version)) = (error.answer(), error.version) {
                send(socket, version, &answer, usize::MAX);
            }
            return None;
        }
    };
    let version = connect.version;
    match accept(broker, socket, &connect).await {
        Ok(opened) => Some(Established {
            opened,
            version,
            problem_information: connect.properties.request_problem_information().unwrap_or(true),
            packet_size_max: packet_size_max(&connect),
            rest: bytes[taken..].to_vec(),
        }),
        Err(reason) => {
            metrics::packet_refused("connect");
            send(
                socket,
                version,
                &ConnAck { session_present: false, reason, properties: packet::Properties::EMPTY },
                packet_size_max(&connect),
            );
            None
        }
    }
}

/// The socket is new and its buffer empty: what it does not take at once is not worth waiting for.
fn send(socket: &TcpStream, version: Version, connack: &ConnAck<'_>, size_max: usize) {
    let mut out = Vec::new();
    if connack.encode(version, &mut out).is_ok() && out.len() <= size_max {
        let _ = socket.try_write(&out);
    }
}

async fn accept(
    broker: &Broker,
    socket: &Arc<TcpStream>,
    connect: &Connect<'_>,
) -> Result<Opened, ReasonCode> {
    broker.metrics.packets_received.increment(1);
    let now = clock::monotonic();
    let properties = &connect.properties;
    let v5 = connect.version.is_v5();
    if properties.authentication_method().is_some() {
        return Err(ReasonCode::BadAuthenticationMethod); // none is configured [MQTT-4.12.0-1] [MQTT-4.12.0-4]
    }
    let will_properties = connect.will.as_ref().map_or(0, |will| will.properties.user_properties().count());
    if properties.user_properties().count() + will_properties > broker.limits.user_properties_max {
        return Err(ReasonCode::QuotaExceeded);
    }
    let asked = match (v5, connect.clean_start) {
        (true, _) => properties.session_expiry().unwrap_or(0),
        (false, true) => 0,
        (false, false) => V3_EXPIRY,
    };
    let expiry = asked.min(broker.limits.session_expiry_max);
    let asked_persistence = v5 && persistence::asked(properties.user_properties());
    let link = Link {
        version: connect.version,
        receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX),
        packet_size_max: packet_size_max(connect),
        topic_alias_maximum: properties
            .topic_alias_maximum()
            .unwrap_or(0)
            .min(broker.limits.topic_alias_maximum),
    };
    let (keep_alive, set) = keep_alive(connect, &broker.limits);
    let opened = broker.open(
        Opening {
            client_id: connect.client_id.into(),
            clean_start: connect.clean_start,
            expiry,
            will: connect.will.as_ref().map(|w| Box::new(will(w, &broker.limits, now))),
            socket: Arc::clone(socket),
            // [MQTT-3.1.2-22]
            silence_ms_max: u64::from(keep_alive) * 1500,
            persist: asked_persistence,
        },
        now,
    );
    if let Err(reason) = written(broker, &opened).await {
        opened.client.lock().session.expiry = 0;
        broker.close(&opened.client, opened.number, now, false);
        return Err(reason);
    }
    let category = properties.user_properties().find(|(key, _)| *key == metrics::CATEGORY);
    let mut guard = opened.client.lock();
    let state = &mut *guard;
    if state.own(opened.number).is_some() {
        state.category = category.and_then(|(_, name)| broker.metrics.category(name));
        let connack = connack(connect, &opened, &broker.limits, (expiry != asked).then_some(expiry), set);
        if connack.len() > link.packet_size_max {
            // Not even that may be said [MQTT-3.1.2-24].
            drop(guard);
            let left = broker.close(&opened.client, opened.number, now, false);
            debug_assert!(left.will.is_none());
            return Err(ReasonCode::PacketTooLarge);
        }
        state.outbox.buffer().extend_from_slice(&connack);
        broker.metrics.packets_sent.increment(1);
        let pumped = state.session.open(link, now, &broker.limits.session, &mut state.outbox);
        broker.metrics.shed(&pumped.shed);
        broker.metrics.uncategorized.sent.increment(pumped.sent);
        state.session.pump_durable(now, &broker.limits.session, &mut state.outbox);
    }
    drop(guard);
    if let Some(persistence) = broker.persistence() {
        persistence.fill(&opened.client);
    }
    Ok(opened)
}

/// The largest packet that the client takes; without a limit of its own, any.
fn packet_size_max(connect: &Connect<'_>) -> usize {
    connect.properties.maximum_packet_size().map_or(usize::MAX, |size| size as usize)
}

/// The keep alive that holds, and the one to tell the client if it is not its own [MQTT-3.2.2-21] [MQTT-3.2.2-22].
/// Clients before v5 cannot be told: they keep what they asked for.
fn keep_alive(connect: &Connect<'_>, limits: &Limits) -> (u16, Option<u16>) {
    let (asked, max) = (connect.keep_alive, limits.keep_alive_max);
    match connect.version.is_v5() && max > 0 && (asked == 0 || asked > max) {
        true => (max, Some(max)),
        false => (asked, None),
    }
}

/// The CONNACK of a connection that is accepted; with less in it where the client takes no more [MQTT-3.2.2-19]
/// [MQTT-3.2.2-20]. Without a method in CONNECT there is none in it [MQTT-4.12.0-6].
fn connack(
    connect: &Connect<'_>,
    opened: &Opened,
    limits: &Limits,
    expiry: Option<u32>,
    keep_alive: Option<u16>,
) -> Vec<u8> {
    let client = opened.client.id_text();
    let mut said = PropertiesBuilder::new();
    let mut more = PropertiesBuilder::new();
    if connect.version.is_v5() {
        let assigned = connect.client_id.is_empty().then_some(client);
        describe(
            limits,
            [
                expiry.map(Property::SessionExpiryInterval),
                assigned.map(Property::AssignedClientIdentifier), // [MQTT-3.1.3-7] [MQTT-3.2.2-16]
                keep_alive.map(Property::ServerKeepAlive),
            ],
            &mut said,
        );
        more.put_all(said.properties());
        if connect.properties.request_response_information() == Some(true) {
            respond_below(client, &mut more); // only where it was asked for [MQTT-3.1.2-28]
        }
        if persistence::asked(connect.properties.user_properties()) {
            persistence::granted(opened.persisted, &mut more);
        }
    }
    let mut bytes = Vec::new();
    for properties in [more.properties(), said.properties()] {
        let connack = ConnAck {
            session_present: opened.present, // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
            reason: ReasonCode::Success,     // [MQTT-3.1.4-5]
            properties,
        };
        bytes.clear();
        let size = connack.encode(connect.version, &mut bytes).map(|()| bytes.len());
        if size.is_ok_and(|size| size <= packet_size_max(connect)) {
            break;
        }
    }
    bytes
}

/// Where the client is to have answers sent: below a topic of its own (AIO.md §8), if its identifier can be part of one.
fn respond_below(client_id: &str, out: &mut PropertiesBuilder) {
    if !client_id.contains(['+', '#', '/']) {
        // A text that does not fit is left out.
        let _ = out.put(Property::ResponseInformation(&format!("clients/{client_id}")));
    }
}

/// Waits until it is written down that the session is open: a client that was told so must find it again.
async fn written(broker: &Broker, opened: &Opened) -> Result<(), ReasonCode> {
    let number = opened.wait?;
    match broker.persistence() {
        Some(persistence) if number > 0 => persistence.written(number).await,
        _ => Ok(()),
    }
}

/// What a v5 client is told of the broker's limits, and of what it gets instead of what it asked for.
fn describe(limits: &Limits, own: [Option<Property<'_>>; 3], out: &mut PropertiesBuilder) {
    let size = u32::try_from(limits.packet_size_max).unwrap_or(u32::MAX);
    let limits = [
        Some(Property::ReceiveMaximum(limits.receive_maximum)),
        Some(Property::MaximumPacketSize(size)),
        Some(Property::TopicAliasMaximum(limits.topic_alias_maximum)),
    ];
    for property in own.into_iter().chain(limits).flatten() {
        // Only a text over 65,535 bytes could fail, and there is none here.
        let _ = out.put(property);
    }
}

fn will(will: &packet::Will<'_>, limits: &Limits, now: Millis) -> Will {
    let kept = will.forwardable();
    let bytes = Bytes::copy_from_slice;
    let mut message =
        Message::new(bytes(will.topic.as_bytes()), bytes(&kept.bytes), bytes(will.payload), now);
    message.expiry_offset = kept.expiry_offset;
    message.expiry = limits.message_expiry(will.properties.message_expiry());
    message.qos = will.qos;
    message.retain = will.retain;
    Will { message, delay: will.properties.will_delay().unwrap_or(0) }
}
