//! From packets to words, in the way that [`super::write`] takes them.

use super::write::{Kind, PROPERTIES};
use crate::mqtt::Packet;

/// What a packet says that came on a connection of this level.
pub fn packet(packet: &Packet, level: u8) -> String {
    let v5 = level == 5;
    let mut body = Body { bytes: &packet.body };
    let mut words = Vec::new();
    match packet.kind() {
        2 => {
            words.push("CONNACK".to_owned());
            words.extend((body.number(1) == 1).then(|| "present".to_owned()));
            words.push(body.hex());
            words.extend(body.properties(v5));
        }
        3 => publish(packet.first, &mut body, v5, &mut words),
        kind @ 4..=7 => {
            words.push(["PUBACK", "PUBREC", "PUBREL", "PUBCOMP"][usize::from(kind - 4)].to_owned());
            words.push(body.number(2).to_string());
            if !body.is_empty() {
                words.push(body.hex());
            }
            words.extend(body.properties(v5 && !body.is_empty()));
        }
        kind @ (9 | 11) => {
            words.push(if kind == 9 { "SUBACK" } else { "UNSUBACK" }.to_owned());
            words.push(body.number(2).to_string());
            let properties = body.properties(v5);
            while !body.is_empty() {
                words.push(body.hex());
            }
            words.extend(properties);
        }
        13 => words.push("PINGRESP".to_owned()),
        kind @ (14 | 15) => {
            words.push(if kind == 14 { "DISCONNECT" } else { "AUTH" }.to_owned());
            if !body.is_empty() {
                words.push(body.hex());
            }
            words.extend(body.properties(v5 && !body.is_empty()));
        }
        kind => words.push(format!("type-{kind}")),
    }
    assert!(body.is_empty(), "bytes follow {words:?}: {:02x?}", body.bytes);
    words.join(" ")
}

fn publish(first: u8, body: &mut Body<'_>, v5: bool, words: &mut Vec<String>) {
    let topic = body.text();
    let qos = first >> 1 & 3;
    let id = (qos > 0).then(|| body.number(2));
    let properties = body.properties(v5);
    let payload = String::from_utf8_lossy(std::mem::take(&mut body.bytes)).into_owned();
    words.extend(["PUBLISH".to_owned(), plain(&topic), plain(&payload)]);
    if let Some(id) = id {
        words.push(format!("qos={qos}"));
        words.push(format!("id={id}"));
    }
    words.extend((first & 8 != 0).then(|| "dup".to_owned()));
    words.extend((first & 1 != 0).then(|| "retain".to_owned()));
    words.extend(properties);
}

fn plain(text: &str) -> String {
    if text.is_empty() { "''".to_owned() } else { text.replace(' ', "_").replace('\0', "\\0") }
}

struct Body<'a> {
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        head
    }

    fn number(&mut self, width: usize) -> u32 {
        self.take(width).iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    fn hex(&mut self) -> String {
        format!("{:02x}", self.number(1))
    }

    fn varint(&mut self) -> u32 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.number(1);
            value |= (byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn text(&mut self) -> String {
        let len = self.number(2) as usize;
        String::from_utf8_lossy(self.take(len)).into_owned()
    }

    fn properties(&mut self, there: bool) -> Vec<String> {
        if !there {
            return Vec::new();
        }
        let len = self.varint() as usize;
        let mut list = Body { bytes: self.take(len) };
        let mut words = Vec::new();
        while !list.is_empty() {
            let id = list.number(1) as u8;
            let (name, _, kind) = PROPERTIES
                .iter()
                .find(|(_, known, _)| *known == id)
                .unwrap_or_else(|| panic!("property {id:#04x}"));
            let value = match kind {
                Kind::Number(width) => list.number(*width).to_string(),
                Kind::Varint => list.varint().to_string(),
                Kind::Text => plain(&list.text()),
                Kind::Pair => format!("{}:{}", list.text(), list.text()),
            };
            words.push(format!("{name}={value}"));
        }
        words
    }
}
