//! An MQTT client made of bytes: says exactly what a test wants said, right or wrong, and shows exactly what came back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::PATIENCE;

/// CONNACK, as in the high nibble of a packet's first byte.
pub const CONNACK: u8 = 2;
/// PUBLISH.
pub const PUBLISH: u8 = 3;
/// PUBACK.
pub const PUBACK: u8 = 4;
/// PUBREC.
pub const PUBREC: u8 = 5;
/// PUBREL.
pub const PUBREL: u8 = 6;
/// PUBCOMP.
pub const PUBCOMP: u8 = 7;
/// SUBACK.
pub const SUBACK: u8 = 9;
/// UNSUBACK.
pub const UNSUBACK: u8 = 11;
/// PINGRESP.
pub const PINGRESP: u8 = 13;
/// DISCONNECT.
pub const DISCONNECT: u8 = 14;
/// AUTH.
pub const AUTH: u8 = 15;

/// A packet: its first byte, and all that follows the remaining length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Type and flags.
    pub first: u8,
    /// Variable header and payload.
    pub body: Vec<u8>,
}

impl Packet {
    /// The packet type.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Takes a whole packet from the front of what has been read, if there is one.
    pub fn take(read: &mut Vec<u8>) -> Option<Self> {
        let (length, width) = read.get(1..).and_then(varint)?;
        if read.len() <= width + length {
            return None;
        }
        let rest = read.split_off(1 + width + length);
        let whole = std::mem::replace(read, rest);
        Some(Self { first: whole[0], body: whole[1 + width..].to_vec() })
    }

    /// The packet identifier of a packet that starts with it.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
}

/// A PUBLISH, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Topic name.
    pub topic: String,
    /// QoS.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Packet identifier; 0 with QoS 0.
    pub id: u16,
    /// Property bytes, without their length.
    pub properties: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Publish {
    /// What a PUBLISH of this protocol level says.
    pub fn of(packet: &Packet, level: u8) -> Self {
        let body = &packet.body;
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let qos = (packet.first >> 1) & 3;
        let (id, mut at) = match qos {
            0 => (0, topic_end),
            _ => (u16::from_be_bytes([body[topic_end], body[topic_end + 1]]), topic_end + 2),
        };
        let mut properties = Vec::new();
        if level == 5 {
            let (length, width) = varint(&body[at..]).expect("a property length");
            properties = body[at + width..at + width + length].to_vec();
            at += width + length;
        }
        Self {
            topic: String::from_utf8(body[2..topic_end].to_vec()).expect("a topic is UTF-8"),
            qos,
            retain: packet.first & 1 == 1,
            dup: packet.first & 8 == 8,
            id,
            properties,
            payload: body[at..].to_vec(),
        }
    }

    /// Payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The user properties, in order.
    pub fn user_properties(&self) -> Vec<(String, String)> {
        user_properties(&self.properties)
    }
}

/// What CONNECT says.
#[derive(Clone)]
pub struct Connect {
    level: u8,
    id: String,
    clean: bool,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Option<Will>,
    will_properties: Vec<u8>,
    login: Option<(String, String)>,
}

/// A will message.
#[derive(Clone)]
pub struct Will {
    /// Topic.
    pub topic: &'static str,
    /// Payload.
    pub payload: &'static [u8],
    /// QoS.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
}

impl Connect {
    /// MQTT 5, clean start.
    pub fn v5(id: &str) -> Self {
        Self {
            level: 5,
            id: id.to_owned(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            will_properties: Vec::new(),
            login: None,
        }
    }

    /// MQTT 3.1.1, clean session.
    pub fn v4(id: &str) -> Self {
        Self { level: 4, ..Self::v5(id) }
    }

    /// MQTT 3.1, clean session.
    pub fn v3(id: &str) -> Self {
        Self { level: 3, ..Self::v5(id) }
    }

    /// Clean start off: take up the session where it was.
    pub fn resume(mut self) -> Self {
        self.clean = false;
        self
    }

    /// Keep alive in seconds.
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Session expiry interval in seconds (MQTT 5).
    pub fn session_expiry(mut self, seconds: u32) -> Self {
        self.properties.push(0x11);
        self.properties.extend_from_slice(&seconds.to_be_bytes());
        self
    }

    /// More property bytes (MQTT 5).
    pub fn property(mut self, bytes: &[u8]) -> Self {
        self.properties.extend_from_slice(bytes);
        self
    }

    /// With a will.
    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    /// With property bytes of the will.
    pub fn will_properties(mut self, bytes: &[u8]) -> Self {
        self.will_properties.extend_from_slice(bytes);
        self
    }

    /// With a user name and a password.
    pub fn login(mut self, username: &str, password: &str) -> Self {
        self.login = Some((username.to_owned(), password.to_owned()));
        self
    }

    /// With an authentication method and its data (MQTT 5).
    pub fn authentication(self, method: &str, data: &str) -> Self {
        self.property(&authentication(method, data))
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = text(if self.level == 3 { "MQIsdp" } else { "MQTT" });
        let mut flags = if self.clean { 0x02 } else { 0 };
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos << 3) | if will.retain { 0x20 } else { 0 };
        }
        if self.login.is_some() {
            flags |= 0xC0;
        }
        body.extend_from_slice(&[self.level, flags]);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.level == 5 {
            body.extend(span(&self.properties));
        }
        body.extend(text(&self.id));
        if let Some(will) = &self.will {
            if self.level == 5 {
                body.extend(span(&self.will_properties));
            }
            body.extend(text(will.topic));
            body.extend_from_slice(&(will.payload.len() as u16).to_be_bytes());
            body.extend_from_slice(will.payload);
        }
        if let Some((username, password)) = &self.login {
            body.extend(text(username));
            body.extend(text(password));
        }
        packet(0x10, &body)
    }
}

/// A packet from its first byte and what follows the remaining length.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(span(body));
    bytes
}

/// A variable byte integer of the length, and the bytes.
pub fn span(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes.len();
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        out.push(low | if rest > 0 { 0x80 } else { 0 });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(bytes);
    out
}

/// A UTF-8 string with its two length bytes.
pub fn text(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

/// Authentication method and data, as property bytes.
pub fn authentication(method: &str, data: &str) -> Vec<u8> {
    [vec![0x15], text(method), vec![0x16], text(data)].concat()
}

/// A user property.
pub fn user_property(key: &str, value: &str) -> Vec<u8> {
    [vec![0x26], text(key), text(value)].concat()
}

/// The user properties among the properties of a PUBLISH or SUBACK, read by hand.
pub fn user_properties(bytes: &[u8]) -> Vec<(String, String)> {
    let (mut found, mut at) = (Vec::new(), 0);
    let text = |at: &mut usize| {
        let length = usize::from(u16::from_be_bytes([bytes[*at], bytes[*at + 1]]));
        let text = String::from_utf8(bytes[*at + 2..*at + 2 + length].to_vec()).expect("UTF-8");
        *at += 2 + length;
        text
    };
    while at < bytes.len() {
        at += 1;
        match bytes[at - 1] {
            0x26 => found.push((text(&mut at), text(&mut at))),
            0x01 => at += 1,
            0x02 => at += 4,
            0x03 | 0x08 | 0x09 | 0x1F => drop(text(&mut at)),
            other => panic!("property {other}"),
        }
    }
    found
}

/// A connected client; nothing is answered that the test does not answer.
pub struct Client {
    stream: TcpStream,
    level: u8,
    read: Vec<u8>,
    /// The CONNACK.
    pub connack: Packet,
}

impl Client {
    /// Connects and expects to be accepted.
    pub fn connect(addr: SocketAddr, connect: &Connect) -> Self {
        let mut client = Self::open(addr, connect.level);
        client.send(&connect.bytes());
        client.connack = client.expect(CONNACK);
        assert_eq!(client.connack.body[1], 0, "CONNACK {:02x?}", client.connack.body);
        client
    }

    /// A TCP connection on which nothing was said yet; `level` decides how packets are read.
    pub fn open(addr: SocketAddr, level: u8) -> Self {
        let stream = TcpStream::connect(addr).expect("the broker accepts a connection");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Self { stream, level, read: Vec::new(), connack: Packet { first: 0, body: Vec::new() } }
    }

    /// Connects and expects to be refused, and the connection to end; the reason code.
    pub fn refused(addr: SocketAddr, connect: &Connect) -> u8 {
        let mut client = Self::open(addr, connect.level);
        client.send(&connect.bytes());
        let connack = client.expect(CONNACK);
        assert_ne!(connack.body[1], 0, "it was let in");
        assert_eq!(client.closed(), []);
        connack.body[1]
    }

    /// Connects to a broker that may be killed meanwhile; nothing when it was.
    pub fn try_connect(addr: SocketAddr, connect: &Connect) -> Option<Self> {
        let stream = TcpStream::connect(addr).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let connack = Packet { first: 0, body: Vec::new() };
        let mut client = Self { stream, level: connect.level, read: Vec::new(), connack };
        client.send_to_the_unwilling(&connect.bytes());
        client.connack = client.next()?;
        assert_eq!((client.connack.kind(), client.connack.body[1]), (CONNACK, 0), "{:02x?}", client.connack);
        Some(client)
    }

    /// The next packet, or nothing at the end of the connection.
    pub fn try_packet(&mut self) -> Option<Packet> {
        self.next()
    }

    /// The protocol level it speaks.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Whether the broker had a session for this client.
    pub fn session_present(&self) -> bool {
        self.connack.body[0] & 1 == 1
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Sends bytes to a broker that may hang up while they are sent.
    pub fn send_to_the_unwilling(&mut self, bytes: &[u8]) {
        // A reset is an answer too; what was said before it is read later.
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet.
    pub fn packet(&mut self) -> Packet {
        self.next().expect("the broker keeps the connection")
    }

    /// The next packet, of this type.
    pub fn expect(&mut self, kind: u8) -> Packet {
        let packet = self.packet();
        assert_eq!(packet.kind(), kind, "{packet:02x?}");
        packet
    }

    /// Waits until the broker ends the connection; what it said before.
    pub fn closed(mut self) -> Vec<Packet> {
        let mut said = Vec::new();
        while let Some(packet) = self.next() {
            said.push(packet);
        }
        said
    }

    /// Ends the connection without a word, and waits until the broker has seen it: as when the network is gone.
    pub fn is_gone(self) {
        // One that is gone already is.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.closed();
    }

    /// The next packet, or nothing at the end of the connection; an error when neither comes in this time.
    pub fn packet_within(&mut self, time: std::time::Duration) -> std::io::Result<Option<Packet>> {
        self.stream.set_read_timeout(Some(time))?;
        let packet = self.read_packet();
        self.stream.set_read_timeout(Some(PATIENCE))?;
        packet
    }

    /// Subscribes, and expects to be granted `qos`.
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let options = if self.level == 5 { vec![0] } else { Vec::new() };
        self.send(&packet(0x82, &[vec![0, 7], options, text(filter), vec![qos]].concat()));
        let suback = self.expect(SUBACK);
        assert_eq!(suback.body.last(), Some(&qos), "{suback:02x?}");
    }

    /// Unsubscribes.
    pub fn unsubscribe(&mut self, filter: &str) {
        let options = if self.level == 5 { vec![0] } else { Vec::new() };
        self.send(&packet(0xA2, &[vec![0, 8], options, text(filter)].concat()));
        self.expect(UNSUBACK);
    }

    /// Publishes, and goes through all the answers of its QoS.
    pub fn publish(&mut self, topic: &str, qos: u8, payload: &[u8]) {
        self.publish_with(topic, qos, false, &[], payload);
    }

    /// Publishes at QoS 1, unless the broker is gone; whether it was acknowledged.
    pub fn try_publish(&mut self, topic: &str, payload: &[u8]) -> bool {
        let bytes = self.publish_bytes(topic, 1, false, &[], payload);
        self.send_to_the_unwilling(&bytes);
        self.try_packet().is_some_and(|packet| packet.kind() == PUBACK)
    }

    /// Publishes a retained message.
    pub fn retain(&mut self, topic: &str, qos: u8, payload: &[u8]) {
        self.publish_with(topic, qos, true, &[], payload);
    }

    /// Publishes with property bytes.
    pub fn publish_with(&mut self, topic: &str, qos: u8, retain: bool, properties: &[u8], payload: &[u8]) {
        self.send(&self.publish_bytes(topic, qos, retain, properties, payload));
        match qos {
            0 => {}
            1 => {
                self.expect(PUBACK);
            }
            _ => {
                let id = self.expect(PUBREC).id();
                self.acknowledge(PUBREL, id);
                self.expect(PUBCOMP);
            }
        }
    }

    /// A PUBLISH with packet identifier 9, not sent.
    pub fn publish_bytes(
        &self,
        topic: &str,
        qos: u8,
        retain: bool,
        properties: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let mut body = text(topic);
        if qos > 0 {
            body.extend_from_slice(&[0, 9]);
        }
        if self.level == 5 {
            body.extend(span(properties));
        }
        body.extend_from_slice(payload);
        packet(0x30 | (qos << 1) | u8::from(retain), &body)
    }

    /// The next packet, a PUBLISH; nothing is answered.
    pub fn message(&mut self) -> Publish {
        let packet = self.expect(PUBLISH);
        self.read_publish(&packet)
    }

    /// What a PUBLISH says.
    pub fn read_publish(&self, packet: &Packet) -> Publish {
        Publish::of(packet, self.level)
    }

    /// The next message, acknowledged as its QoS asks.
    pub fn receive(&mut self) -> Publish {
        let message = self.message();
        match message.qos {
            0 => {}
            1 => self.acknowledge(PUBACK, message.id),
            _ => {
                self.acknowledge(PUBREC, message.id);
                assert_eq!(self.expect(PUBREL).id(), message.id);
                self.acknowledge(PUBCOMP, message.id);
            }
        }
        message
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub fn acknowledge(&mut self, kind: u8, id: u16) {
        let flags = if kind == PUBREL { 2 } else { 0 };
        self.send(&packet((kind << 4) | flags, &id.to_be_bytes()));
    }

    /// Waits until the broker has worked through everything sent so far, and expects nothing to have come meanwhile.
    pub fn settle(&mut self) {
        self.send(&[0xC0, 0]);
        self.expect(PINGRESP);
    }

    /// Leaves in good order.
    pub fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        assert_eq!(self.closed(), []);
    }

    /// The next packet, or `None` at the end of the connection.
    fn next(&mut self) -> Option<Packet> {
        match self.read_packet() {
            Ok(packet) => packet,
            Err(error) => panic!("nothing came for {PATIENCE:?}: {error}; unread: {:02x?}", self.read),
        }
    }

    fn read_packet(&mut self) -> std::io::Result<Option<Packet>> {
        loop {
            if let Some(packet) = Packet::take(&mut self.read) {
                return Ok(Some(packet));
            }
            let mut some = [0u8; 16 * 1024];
            match self.stream.read(&mut some) {
                Ok(0) => return Ok(None),
                Ok(n) => self.read.extend_from_slice(&some[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A variable byte integer, and how many bytes it took.
pub fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}
