//! From the first byte of a connection to its CONNACK.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::packet::{
    self, ConnAck, Connect, Decoded, DecodedConnect, Packet, PropertiesBuilder, Property, ReasonCode, Version,
};
use broker_core::session::{Link, Will};
use bytes::Bytes;

use crate::auth::access::Access;
use crate::auth::policy::Principal;
use crate::auth::{Challenge, Credentials, Identity, Refusal, Step, category};
use crate::broker::{Broker, Opened, Opening};
use crate::client::Arrival;
use crate::connection::publish_left;
use crate::limits::Limits;
use crate::listener::Port;
use crate::reauthentication::{self, Login};
use crate::transport::Transport;
use crate::{clock, metrics};

/// Seconds a 3.1 or 3.1.1 session without clean session outlives its connection, where nothing is
/// configured: for ever, as the standard has it.
const V3_EXPIRY: u32 = u32::MAX;

/// How long it may take to find out who a client is.
const AUTHENTICATION_LIMIT: Duration = Duration::from_secs(20);

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
    /// What it may do; nothing when it may do everything.
    pub access: Option<Arc<Access>>,
    /// How it may prove anew who it is, if it has a method for that.
    pub login: Option<Box<Login>>,
}

/// Who a client is, and what follows from it.
struct Admitted {
    identity: Identity,
    access: Option<Arc<Access>>,
    login: Option<Box<Login>>,
    /// What its authentication method has to say at last.
    last_word: Option<Vec<u8>>,
}

/// Where a CONNECT came in.
struct Entrance<'a> {
    broker: &'a Broker,
    port: &'a Arc<Port>,
    socket: &'a Arc<Transport>,
    peer: SocketAddr,
}

/// Reads CONNECT, in bounded time and space, and answers it once [MQTT-3.2.0-2]. `None` when the connection is over
/// [MQTT-3.1.4-1] [MQTT-3.1.4-2] [MQTT-3.2.2-7], and what follows is not looked at [MQTT-3.1.4-6]; the peer has been told
/// why where the standard wants it told.
pub async fn establish(
    broker: &Broker,
    port: &Arc<Port>,
    socket: &Arc<Transport>,
    peer: SocketAddr,
) -> Option<Established> {
    let mut bytes = Vec::new();
    let limit = Duration::from_millis(broker.limits.connect_ms_max);
    match tokio::time::timeout(limit, read_connect(broker, socket, &mut bytes)).await {
        Err(_) => {
            metrics::packet_refused("connect-timeout");
            socket.finish(&[]);
            None
        }
        Ok(Err(_)) => {
            socket.finish(&[]);
            None
        }
        Ok(Ok(())) => Entrance { broker, port, socket, peer }.answer(bytes).await,
    }
}

/// Reads until `bytes` hold a CONNECT, or what can never become one.
async fn read_connect(broker: &Broker, socket: &Transport, bytes: &mut Vec<u8>) -> io::Result<()> {
    let limits = connect_limits(&broker.limits);
    let is_whole = |bytes: &[u8]| {
        !matches!(packet::decode_connect(bytes, &limits), Ok(DecodedConnect::Incomplete { .. }))
    };
    read_until(broker, socket, bytes, is_whole).await
}

/// Reads until `bytes` hold what is waited for.
async fn read_until(
    broker: &Broker,
    socket: &Transport,
    bytes: &mut Vec<u8>,
    is_whole: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    while !is_whole(bytes) {
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
    }
    Ok(())
}

fn connect_limits(limits: &Limits) -> packet::Limits {
    let mut of = packet::Limits::server(limits.connect_size_max.min(limits.packet_size_max));
    of.topic_levels_max = limits.topic_levels_max;
    of
}

impl Entrance<'_> {
    async fn answer(&self, bytes: Vec<u8>) -> Option<Established> {
        let (connect, taken) = match packet::decode_connect(&bytes, &connect_limits(&self.broker.limits)) {
            Ok(DecodedConnect::Connect(connect, taken)) => (connect, taken),
            Ok(DecodedConnect::Incomplete { .. }) => return None,
            Err(error) => {
                metrics::packet_refused("connect");
                tracing::debug!(%error, "a CONNECT is refused");
                if let (Some(answer), Some(version)) = (error.answer(), error.version) {
                    send(self.socket, version, &answer, usize::MAX);
                }
                return None;
            }
        };
        let version = connect.version;
        let mut rest = bytes[taken..].to_vec();
        match self.accept(&connect, &mut rest).await {
            Ok(established) => Some(Established { rest, ..established }),
            Err(reason) => {
                metrics::packet_refused("connect");
                send(
                    self.socket,
                    version,
                    &ConnAck { session_present: false, reason, properties: packet::Properties::EMPTY },
                    packet_size_max(&connect),
                );
                None
            }
        }
    }

    /// Finds out who the client is, and whether it may connect. What the client sends meanwhile is taken from `rest`.
    async fn admit(
        &self,
        connect: &Connect<'_>,
        client_id: &str,
        rest: &mut Vec<u8>,
    ) -> Result<Admitted, ReasonCode> {
        let settings = self.port.settings();
        let method = connect.properties.authentication_method();
        let Some(authentication) = &settings.authentication else {
            return match method {
                Some(_) => Err(ReasonCode::BadAuthenticationMethod), // none is configured [MQTT-4.12.0-1] [MQTT-4.12.0-4]
                None => {
                    Ok(Admitted { identity: Identity::default(), access: None, login: None, last_word: None })
                }
            };
        };
        let category = category::asked(connect.properties.user_properties());
        let certificates = self.socket.peer_certificates();
        let credentials = Credentials {
            method,
            data: connect.properties.authentication_data(),
            username: connect.username,
            password: connect.password,
            certificates: &certificates,
        };
        let peer = self.peer;
        let refuse = |reason, why: &str| {
            tracing::info!(%peer, client = client_id, "a client is not let in: {why}");
            Err(reason)
        };
        let authenticated = async {
            match authentication.authenticate(&credentials, category).await? {
                Step::Known(identity) => Ok((identity, None)),
                Step::Challenge(challenge) => self.challenge(connect, challenge, rest).await,
            }
        };
        let (identity, last_word) = match tokio::time::timeout(AUTHENTICATION_LIMIT, authenticated).await {
            Ok(Ok(known)) => known,
            Ok(Err(refusal)) => return refuse(refusal.reason, &refusal.why),
            Err(_) => {
                return refuse(ReasonCode::ServerUnavailable, "it takes too long to find out who it is");
            }
        };
        if identity.expires.is_some_and(|expires| expires <= clock::wall()) {
            return refuse(ReasonCode::NotAuthorized, "its credential has ended");
        }
        let principal = || Principal {
            username: identity.username.clone(),
            client_id: client_id.to_owned(),
            attributes: identity.attributes.clone(),
        };
        let access = settings.guard.as_ref().map(|guard| Access::new(guard, principal(), category));
        if let Some(access) = &access {
            if !access.may_connect() {
                return refuse(ReasonCode::NotAuthorized, "no rule allows it to connect");
            }
            let will = connect.will.as_ref();
            if will.is_some_and(|will| !access.may_publish(will.topic)) {
                return refuse(ReasonCode::NotAuthorized, "no rule allows it to publish its will");
            }
        }
        tracing::debug!(%peer, client = client_id, user = identity.username, "a client is who it says");
        let login = method.map(|method| Box::new(Login::new(method, self.port, category, client_id)));
        Ok(Admitted { identity, access, login, last_word })
    }

    /// Tells the client what its authentication method has to say, and takes its answer [MQTT-4.12.0-2].
    async fn challenge(
        &self,
        connect: &Connect<'_>,
        challenge: Challenge,
        rest: &mut Vec<u8>,
    ) -> Result<(Identity, Option<Vec<u8>>), Refusal> {
        let refused = |reason, why: &str| Refusal { reason, why: why.to_owned() };
        let method = connect.properties.authentication_method();
        let mut out = Vec::new();
        reauthentication::auth(ReasonCode::ContinueAuthentication, method, Some(challenge.data()), &mut out);
        if out.len() > packet_size_max(connect) {
            return Err(refused(
                ReasonCode::PacketTooLarge,
                "it takes no packet large enough for its method",
            ));
        }
        self.broker.metrics.packets_sent.increment(1);
        let gone = |_| refused(ReasonCode::UnspecifiedError, "it left before it was known");
        self.socket.write_all(&out).await.map_err(gone)?;
        let limits = connect_limits(&self.broker.limits);
        let answered = read_until(self.broker, self.socket, rest, |bytes| {
            !matches!(packet::decode(bytes, connect.version, &limits), Ok(Decoded::Incomplete { .. }))
        });
        // It has as long as it had for CONNECT.
        let limit = Duration::from_millis(self.broker.limits.connect_ms_max);
        let late = |_| refused(ReasonCode::NotAuthorized, "it did not go on with its authentication in time");
        tokio::time::timeout(limit, answered).await.map_err(late)?.map_err(gone)?;
        let (answer, taken) = match packet::decode(rest, connect.version, &limits) {
            Ok(Decoded::Packet(Packet::Auth(auth), taken)) => {
                let goes_on = auth.reason == ReasonCode::ContinueAuthentication
                    && auth.properties.authentication_method() == method;
                (goes_on.then(|| auth.properties.authentication_data().unwrap_or_default().to_vec()), taken)
            }
            _ => (None, 0),
        };
        rest.drain(..taken);
        self.broker.metrics.packets_received.increment(1);
        let answer = answer
            .ok_or_else(|| refused(ReasonCode::ProtocolError, "it did not go on with its authentication"))?;
        challenge.answer(&answer).map(|(identity, last)| (identity, Some(last)))
    }

    /// Whether nothing has changed since the client was admitted that would have sent it away.
    fn is_still_admitted(&self, identity: &Identity, access: Option<&Access>) -> bool {
        let settings = self.port.settings();
        let asked = identity.is_proven || settings.authentication.is_none();
        asked
            && match (&settings.guard, access) {
                (None, None) => true,
                (Some(guard), Some(access)) => access.is_under(guard) && access.connects(),
                _ => false,
            }
    }

    async fn accept(&self, connect: &Connect<'_>, rest: &mut Vec<u8>) -> Result<Established, ReasonCode> {
        let broker = self.broker;
        broker.metrics.packets_received.increment(1);
        let properties = &connect.properties;
        let v5 = connect.version.is_v5();
        let of_will = connect.will.as_ref().map_or(0, |will| will.properties.user_properties().count());
        if properties.user_properties().count() + of_will > broker.limits.user_properties_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        let assigned = connect.client_id.is_empty();
        let client_id: Box<str> = if assigned { broker.assign_client_id() } else { connect.client_id.into() };
        let Admitted { identity, access, login, last_word } = self.admit(connect, &client_id, rest).await?;
        let now = clock::monotonic();
        let asked = match (v5, connect.clean_start) {
            (true, _) => properties.session_expiry().unwrap_or(0),
            (false, true) => 0,
            (false, false) => V3_EXPIRY,
        };
        let expiry = asked.min(broker.limits.session_expiry_max);
        let (keep_alive, keep_alive_set) = keep_alive(connect, &broker.limits);
        let opened = broker.open(
            Opening {
                client_id,
                clean_start: connect.clean_start,
                expiry,
                will: connect.will.as_ref().map(|w| Box::new(will(w, &broker.limits, now))),
                arrival: Arrival {
                    socket: Arc::clone(self.socket),
                    port: Arc::clone(self.port),
                    expires: identity.expires,
                    access: access.clone(),
                },
                // [MQTT-3.1.2-22]
                silence_ms_max: u64::from(keep_alive) * 1500,
                persist: v5 && broker.asking().asked(properties.user_properties()),
            },
            now,
        );
        if !self.is_still_admitted(&identity, access.as_deref()) {
            opened.client.lock().kick(ReasonCode::AdministrativeAction);
        }
        if let Err(reason) = written(broker, &opened).await {
            let left = broker.give_up(&opened, clock::monotonic());
            [&opened.left, &left].into_iter().for_each(|left| publish_left(broker, left));
            return Err(reason);
        }
        let told = Told {
            expiry: (expiry != asked).then_some(expiry),
            keep_alive: keep_alive_set,
            authentication: last_word.as_deref(),
        };
        let connack = connack(connect, &opened, broker, told);
        self.begin(connect, &opened, &connack, access.as_deref(), now)?;
        if let Some(persistence) = broker.persistence() {
            persistence.fill(&opened.client);
        }
        Ok(Established {
            opened,
            version: connect.version,
            problem_information: properties.request_problem_information().unwrap_or(true),
            packet_size_max: packet_size_max(connect),
            rest: Vec::new(),
            access,
            login,
        })
    }

    /// Answers, and sends what has waited in the session.
    fn begin(
        &self,
        connect: &Connect<'_>,
        opened: &Opened,
        connack: &[u8],
        access: Option<&Access>,
        now: Millis,
    ) -> Result<(), ReasonCode> {
        let (broker, properties) = (self.broker, &connect.properties);
        let link = Link {
            version: connect.version,
            receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX),
            packet_size_max: packet_size_max(connect),
            topic_alias_maximum: properties
                .topic_alias_maximum()
                .unwrap_or(0)
                .min(broker.limits.topic_alias_maximum),
        };
        let category = properties.user_properties().find(|(key, _)| *key == metrics::CATEGORY);
        let mut guard = opened.client.lock();
        let state = &mut *guard;
        if state.own(opened.number).is_none() {
            return Ok(());
        }
        state.category = category.and_then(|(_, name)| broker.metrics.category(name));
        if connack.len() > link.packet_size_max {
            // Not even that may be said [MQTT-3.1.2-24].
            drop(guard);
            let left = broker.close(&opened.client, opened.number, now, false);
            [&opened.left, &left].into_iter().for_each(|left| publish_left(broker, left));
            return Err(ReasonCode::PacketTooLarge);
        }
        state.outbox.buffer().extend_from_slice(connack);
        broker.metrics.packets_sent.increment(1);
        // What waited may have been allowed when it came only.
        let may = |message: &Message| access.is_none_or(|access| access.may_receive(message.topic()));
        if access.is_some() {
            state.session.retain_queued(may);
        }
        let pumped = state.session.open(link, now, &broker.limits.session, &mut state.outbox);
        broker.metrics.shed(&pumped.shed);
        broker.metrics.uncategorized.sent.increment(pumped.sent);
        state.session.pump_durable(now, &broker.limits.session, &mut state.outbox, may);
        Ok(())
    }
}

/// The socket is new and its buffer empty: what it does not take at once is not worth waiting for.
fn send(socket: &Transport, version: Version, connack: &ConnAck<'_>, size_max: usize) {
    let mut out = Vec::new();
    if connack.encode(version, &mut out).is_ok() && out.len() <= size_max {
        socket.finish(&out);
    }
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

/// What a client is told of its connection, where it is not what it asked for.
struct Told<'a> {
    expiry: Option<u32>,
    keep_alive: Option<u16>,
    /// The last word of its authentication method.
    authentication: Option<&'a [u8]>,
}

/// The CONNACK of a connection that is accepted; with less in it where the client takes no more [MQTT-3.2.2-19]
/// [MQTT-3.2.2-20]. Without a method in CONNECT there is none in it [MQTT-4.12.0-6].
fn connack(connect: &Connect<'_>, opened: &Opened, broker: &Broker, told: Told<'_>) -> Vec<u8> {
    let limits = &broker.limits;
    let client = opened.client.id_text();
    let mut said = PropertiesBuilder::new();
    let mut more = PropertiesBuilder::new();
    if connect.version.is_v5() {
        let assigned = connect.client_id.is_empty().then_some(client);
        describe(
            limits,
            [
                told.expiry.map(Property::SessionExpiryInterval),
                assigned.map(Property::AssignedClientIdentifier), // [MQTT-3.1.3-7] [MQTT-3.2.2-16]
                told.keep_alive.map(Property::ServerKeepAlive),
                // [MQTT-4.12.0-5]; it came in a CONNECT, so it fits.
                connect.properties.authentication_method().map(Property::AuthenticationMethod),
                told.authentication.map(Property::AuthenticationData),
            ],
            &mut said,
        );
        more.put_all(said.properties());
        if connect.properties.request_response_information() == Some(true) {
            respond_below(client, &mut more); // only where it was asked for [MQTT-3.1.2-28]
        }
        if broker.asking().asked(connect.properties.user_properties()) {
            broker.asking().granted(opened.persisted, &mut more);
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
fn describe(limits: &Limits, own: [Option<Property<'_>>; 5], out: &mut PropertiesBuilder) {
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
