//! A connection to a remote broker: the handshake, and packets in and out.

use std::io;
use std::time::{Duration, Instant};

use broker_core::packet::{
    self, Connect, Decoded, Disconnect, Limits, Packet, PacketId, Properties, PropertiesBuilder, Property,
    ReasonCode, Version,
};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::link::{self, Duplex};
use super::settings::{Login, Settings};

/// The largest packet that is taken.
const PACKET_MAX: usize = 64 << 20;
/// How long the broker may take to answer CONNECT, SUBSCRIBE or PINGREQ.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How much is read at a time.
const READ: usize = 64 << 10;
/// While more than this waits to be written, no more is made.
const OUT_MAX: usize = 256 << 10;
/// The authentication method of service accounts.
const TOKEN_METHOD: &str = "K8S-SAT";

/// How a session is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The version to speak.
    pub version: Version,
    /// No session is to be taken up.
    pub clean: bool,
    /// Seconds that the session is to outlive the connection.
    pub expiry: u32,
    /// Unacknowledged messages that we take.
    pub receive_maximum: u16,
    /// With the client id that every 3.1.1 broker takes.
    pub short_id: bool,
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The network.
    #[error("{0}")]
    Link(String),
    /// The broker does not speak this version.
    #[error("the broker does not speak {0:?}")]
    Version(Version),
    /// The broker refused.
    #[error("the broker refuses the connection: {0}{1}")]
    Refused(ReasonCode, String),
    /// The broker ended the connection.
    #[error("the broker ended the connection: {0}{1}")]
    Ended(ReasonCode, String),
    /// Something came that is no MQTT, or not what should come.
    #[error("the broker sent {0}")]
    Garbage(String),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Link(format!("the connection is lost: {error}"))
    }
}

/// A connection to a remote broker.
pub struct Session {
    link: Box<dyn Duplex>,
    input: BytesMut,
    output: Vec<u8>,
    written: usize,
    flushed: bool,
    /// What is spoken.
    pub version: Version,
    /// The broker had a session for us.
    pub present: bool,
    /// Unacknowledged messages that the broker takes.
    pub receive_maximum: u16,
    /// The largest packet that the broker takes.
    pub packet_max: usize,
    /// The broker keeps retained messages.
    pub retains: bool,
    /// The highest QoS that the broker takes.
    pub qos_max: u8,
    keep_alive: Duration,
    sent: Instant,
    pinged: Option<Instant>,
}

impl Session {
    /// Connects and says who we are.
    ///
    /// # Errors
    /// There is no connection, or the broker does not want one.
    pub async fn open(settings: &Settings, wish: Wish) -> Result<Self, Lost> {
        let link = link::connect(settings).await.map_err(Lost::Link)?;
        let mut session = Self {
            link,
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            flushed: false,
            version: wish.version,
            present: false,
            receive_maximum: u16::MAX,
            packet_max: usize::MAX,
            retains: true,
            qos_max: 2,
            keep_alive: Duration::from_secs(settings.mqtt.keep_alive_seconds.into()),
            sent: Instant::now(),
            pinged: None,
        };
        session.output = connect_bytes(settings, wish)?;
        let answered = tokio::time::timeout(ANSWER_MAX, session.handshake()).await;
        answered
            .map_err(|_| Lost::Link(format!("no answer to CONNECT within {} s", ANSWER_MAX.as_secs())))??;
        Ok(session)
    }

    async fn handshake(&mut self) -> Result<(), Lost> {
        while !self.is_written() {
            self.write_some().await?;
        }
        while self.input.len() < 4 {
            self.read_some().await?;
        }
        // A broker that does not know MQTT 5 answers in its own words.
        if self.version.is_v5() && self.input[..4] == [0x20, 2, 0, 1] {
            return Err(Lost::Version(self.version));
        }
        loop {
            let took = match packet::decode(&self.input, self.version, &Limits::client(PACKET_MAX)) {
                Ok(Decoded::Incomplete { .. }) => None,
                Ok(Decoded::Packet(Packet::ConnAck(connack), took)) => {
                    let said = connack.properties;
                    match connack.reason {
                        ReasonCode::Success => {}
                        ReasonCode::UnsupportedProtocolVersion => return Err(Lost::Version(self.version)),
                        reason => return Err(Lost::Refused(reason, explained(said))),
                    }
                    self.present = connack.session_present;
                    self.receive_maximum = said.receive_maximum().unwrap_or(u16::MAX);
                    self.packet_max = said.maximum_packet_size().map_or(usize::MAX, |size| size as usize);
                    self.retains = said.retain_available().unwrap_or(true);
                    self.qos_max = said.maximum_qos().map_or(2, |qos| qos as u8);
                    if let Some(seconds) = said.server_keep_alive() {
                        self.keep_alive = Duration::from_secs(seconds.into());
                    }
                    Some(took)
                }
                Ok(Decoded::Packet(..)) => return Err(Lost::Garbage("no CONNACK first".to_owned())),
                Err(error) => return Err(Lost::Garbage(format!("no MQTT: {error}"))),
            };
            match took {
                Some(took) => {
                    self.input.advance(took);
                    return Ok(());
                }
                None => self.read_some().await?,
            }
        }
    }

    /// Waits until something came, or something waiting was written; nothing is lost when this is dropped. Sends pings in time.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn turn(&mut self) -> Result<(), Lost> {
        let deadline = self.next_ping();
        let Self { link, input, output, written, flushed, .. } = self;
        input.reserve(READ);
        let (mut read, mut write) = tokio::io::split(&mut *link);
        let busy = *written < output.len() || !*flushed;
        let put = async {
            if *written < output.len() {
                *written += write.write(&output[*written..]).await?;
            } else {
                write.flush().await?;
                *flushed = true;
            }
            Ok::<(), Lost>(())
        };
        let turned = async {
            tokio::select! {
                read = read.read_buf(input) => match read? {
                    0 => Err(Lost::Link("the broker closed the connection".to_owned())),
                    _ => Ok(()),
                },
                put = put, if busy => put,
            }
        };
        match deadline {
            None => turned.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), turned).await {
                Ok(turned) => turned,
                Err(_) => self.ping(),
            },
        }
    }

    /// When the next ping is due, or its answer overdue.
    fn next_ping(&self) -> Option<Instant> {
        match self.pinged {
            Some(pinged) => Some(pinged + ANSWER_MAX),
            None => (!self.keep_alive.is_zero()).then(|| self.sent + self.keep_alive * 3 / 4),
        }
    }

    fn ping(&mut self) -> Result<(), Lost> {
        if self.pinged.is_some() {
            return Err(Lost::Link(format!("the broker does not answer within {} s", ANSWER_MAX.as_secs())));
        }
        self.pinged = Some(Instant::now());
        self.push(|out| {
            out.extend_from_slice(&[0xC0, 0]);
            Ok(())
        });
        Ok(())
    }

    /// Hands each packet that has come to `take`, until it says that it is enough.
    ///
    /// # Errors
    /// What came is no MQTT, or `take` says so, or the broker ends the connection.
    pub fn packets(&mut self, mut take: impl FnMut(&Packet<'_>) -> Result<bool, Lost>) -> Result<(), Lost> {
        let mut used = 0;
        let mut answered = false;
        let result = loop {
            match packet::decode(&self.input[used..], self.version, &Limits::client(PACKET_MAX)) {
                Ok(Decoded::Incomplete { .. }) => break Ok(()),
                Err(error) => break Err(Lost::Garbage(format!("no MQTT: {error}"))),
                Ok(Decoded::Packet(packet, took)) => {
                    answered = true;
                    used += took;
                    match packet {
                        Packet::PingResp => {}
                        Packet::Disconnect(said) => {
                            break Err(Lost::Ended(said.reason, explained(said.properties)));
                        }
                        packet => match take(&packet) {
                            Ok(true) => {}
                            Ok(false) => break Ok(()),
                            Err(lost) => break Err(lost),
                        },
                    }
                }
            }
        };
        self.input.advance(used);
        if answered {
            self.pinged = None;
        }
        result
    }

    /// Puts a packet in line to be written; not when it cannot be encoded.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), packet::EncodeError>) -> bool {
        if self.is_written() {
            self.output.clear();
            self.written = 0;
        }
        self.sent = Instant::now();
        self.flushed = false;
        encode(&mut self.output).is_ok()
    }

    /// Whether more may be put in line.
    pub fn has_room(&self) -> bool {
        self.output.len() - self.written < OUT_MAX
    }

    /// Whether everything is written.
    pub fn is_written(&self) -> bool {
        self.written == self.output.len()
    }

    /// Says goodbye, if that is soon done.
    pub async fn close(mut self) {
        let version = self.version;
        self.push(|out| {
            Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY }.encode(version, out)
        });
        let last = async {
            self.link.write_all(&self.output[self.written..]).await?;
            self.link.flush().await?;
            self.link.shutdown().await
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), last).await;
    }

    async fn read_some(&mut self) -> Result<(), Lost> {
        match self.link.read_buf(&mut self.input).await? {
            0 => Err(Lost::Link("the broker closed the connection".to_owned())),
            _ => Ok(()),
        }
    }

    async fn write_some(&mut self) -> Result<(), Lost> {
        self.written += self.link.write(&self.output[self.written..]).await?;
        if self.is_written() {
            self.link.flush().await?;
        }
        Ok(())
    }
}

/// CONNECT as the settings have it.
fn connect_bytes(settings: &Settings, wish: Wish) -> Result<Vec<u8>, Lost> {
    let v5 = wish.version.is_v5();
    let token = match &settings.login {
        Login::Token(_) if !v5 => {
            return Err(Lost::Link(
                "`ServiceAccountToken` needs MQTT 5, which the broker does not speak".to_owned(),
            ));
        }
        Login::Token(file) => Some(std::fs::read(file).map_err(|error| {
            Lost::Link(format!("the service account token {} cannot be read: {error}", file.display()))
        })?),
        _ => None,
    };
    let mut properties = PropertiesBuilder::new();
    if v5 {
        let login = token.as_deref().map(|token| {
            [Property::AuthenticationMethod(TOKEN_METHOD), Property::AuthenticationData(token.trim_ascii())]
        });
        let own = [
            Property::SessionExpiryInterval(wish.expiry),
            Property::ReceiveMaximum(wish.receive_maximum.max(1)),
        ];
        for property in own.into_iter().chain(login.into_iter().flatten()) {
            properties.put(property).map_err(no_connect)?;
        }
    }
    let (username, password) = match &settings.login {
        Login::Password(name, password) => (Some(name.as_str()), Some(password.reveal().as_bytes())),
        _ => (None, None),
    };
    let connect = Connect {
        version: wish.version,
        clean_start: wish.clean,
        keep_alive: settings.mqtt.keep_alive_seconds,
        client_id: if wish.short_id { &settings.short_client_id } else { &settings.client_id },
        will: None,
        username,
        password,
        properties: properties.properties(),
    };
    let mut bytes = Vec::new();
    connect.encode(&mut bytes).map_err(no_connect)?;
    Ok(bytes)
}

fn no_connect(error: packet::EncodeError) -> Lost {
    Lost::Link(format!("CONNECT cannot be made: {}", error.what))
}

/// What the broker says beside a reason code.
fn explained(said: Properties<'_>) -> String {
    said.reason_string().map(|text| format!(" ({text})")).unwrap_or_default()
}

/// Packet identifiers, one after the other.
#[derive(Debug, Default)]
pub struct Identifiers(u16);

impl Identifiers {
    /// The next one. No more than 65,535 may be in use at once.
    pub fn next(&mut self, in_use: impl Fn(PacketId) -> bool) -> PacketId {
        loop {
            self.0 = self.0.wrapping_add(1);
            if let Some(id) = PacketId::new(self.0)
                && !in_use(id)
            {
                return id;
            }
        }
    }
}
