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

use crate::broker::{Broker, Limits, Opened, Opening};
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
    /// Bytes that came behind the CONNECT.
    pub rest: Vec<u8>,
}

/// Reads CONNECT, in bounded time and space, and answers it. `None` when the connection is over; the peer has
/// been told why where the standard wants it told.
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
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
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
                send(socket, version, &answer);
            }
            return None;
        }
    };
    let version = connect.version;
    match accept(broker, socket, &connect).await {
        Ok((opened, problem_information)) => {
            Some(Established { opened, version, problem_information, rest: bytes[taken..].to_vec() })
        }
        Err(reason) => {
            metrics::packet_refused("connect");
            send(
                socket,
                version,
                &ConnAck { session_present: false, reason, properties: packet::Properties::EMPTY },
            );
            None
        }
    }
}

/// The socket is new and its buffer empty: what it does not take at once is not worth waiting for.
fn send(socket: &TcpStream, version: Version, connack: &ConnAck<'_>) {
    let mut out = Vec::new();
    if connack.encode(version, &mut out).is_ok() {
        let _ = socket.try_write(&out);
    }
}

async fn accept(
    broker: &Broker,
    socket: &Arc<TcpStream>,
    connect: &Connect<'_>,
) -> Result<(Opened, bool), ReasonCode> {
    let now = clock::monotonic();
    let properties = &connect.properties;
    let v5 = connect.version.is_v5();
    if properties.authentication_method().is_some() {
        return Err(ReasonCode::BadAuthenticationMethod); // none is configured [MQTT-4.12.0-1]
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
        packet_size_max: properties.maximum_packet_size().map_or(usize::MAX, |size| size as usize),
    };
    let opened = broker.open(
        Opening {
            client_id: connect.client_id.into(),
            clean_start: connect.clean_start,
            expiry,
            will: connect.will.as_ref().map(|w| Box::new(will(w, now))),
            socket: Arc::clone(socket),
            // [MQTT-3.1.2-22]
            silence_ms_max: u64::from(connect.keep_alive) * 1500,
            persist: asked_persistence,
        },
        now,
    );
    if let Err(reason) = written(broker, &opened).await {
        opened.client.lock().session.expiry = 0;
        broker.close(&opened.client, opened.number, now, false);
        return Err(reason);
    }
    let assigned = connect.client_id.is_empty();
    let mut guard = opened.client.lock();
    let state = &mut *guard;
    if state.own(opened.number).is_some() {
        let mut said = PropertiesBuilder::new();
        if v5 {
            let expiry = (expiry != asked).then_some(expiry);
            let id = assigned.then(|| state.session.client_id().to_owned());
            describe(&broker.limits, expiry, id.as_deref(), &mut said);
            if asked_persistence {
                persistence::granted(opened.persisted, &mut said);
            }
        }
        let connack = ConnAck {
            session_present: opened.present, // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
            reason: ReasonCode::Success,
            properties: said.properties(),
        };
        if connack.encode(connect.version, state.outbox.buffer()).is_err() {
            return Err(ReasonCode::UnspecifiedError);
        }
        state.session.open(link, now, &broker.limits.session, &mut state.outbox);
        state.session.pump_durable(now, &broker.limits.session, &mut state.outbox);
    }
    drop(guard);
    if let Some(persistence) = broker.persistence() {
        persistence.fill(&opened.client);
    }
    Ok((opened, properties.request_problem_information().unwrap_or(true)))
}

/// Waits until it is written down that the session is open: a client that was told so must find it again.
async fn written(broker: &Broker, opened: &Opened) -> Result<(), ReasonCode> {
    let number = opened.wait?;
    match broker.persistence() {
        Some(persistence) if number > 0 => persistence.written(number).await,
        _ => Ok(()),
    }
}

/// What a v5 client is told of the broker's limits.
fn describe(limits: &Limits, expiry: Option<u32>, assigned: Option<&str>, out: &mut PropertiesBuilder) {
    let size = u32::try_from(limits.packet_size_max).unwrap_or(u32::MAX);
    let said = [
        expiry.map(Property::SessionExpiryInterval),
        assigned.map(Property::AssignedClientIdentifier), // [MQTT-3.2.2-16]
        Some(Property::ReceiveMaximum(limits.receive_maximum)),
        Some(Property::MaximumPacketSize(size)),
        Some(Property::TopicAliasMaximum(limits.topic_alias_maximum)),
    ];
    for property in said.into_iter().flatten() {
        // Only a text over 65,535 bytes could fail, and there is none here.
        let _ = out.put(property);
    }
}

fn will(will: &packet::Will<'_>, now: Millis) -> Will {
    let kept = will.forwardable();
    let bytes = Bytes::copy_from_slice;
    let mut message =
        Message::new(bytes(will.topic.as_bytes()), bytes(&kept.bytes), bytes(will.payload), now);
    message.expiry_offset = kept.expiry_offset;
    message.expiry = will.properties.message_expiry();
    message.qos = will.qos;
    message.retain = will.retain;
    Will { message, delay: will.properties.will_delay().unwrap_or(0) }
}
