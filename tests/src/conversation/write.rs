//! From words to packets.
//!
//! ```text
//! CONNECT v5 a clean keep=10 will=t/w:gone,1,retain will.delay=5 user=u pass=p expiry=10
//! PUBLISH t/a hello qos=1 id=2 dup retain alias=1 up=key:value
//! SUBSCRIBE 1 t/#=1,nl,rap,rh2 t/b=0 sid=5
//! UNSUBSCRIBE 2 t/# t/b
//! PUBACK 2 10 · PUBREC · PUBREL · PUBCOMP · PINGREQ · DISCONNECT 04 expiry=3 · AUTH 19 method=x
//! raw c0 00
//! ```
//!
//! In a topic, a payload and other text, `\0` is U+0000, `_` is a space and `''` is nothing; a user property is as it stands.

use crate::mqtt::{packet as frame, span, text};

/// A packet to be sent.
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The protocol level, of a CONNECT.
    pub level: Option<u8>,
}

/// What `words` say, on a connection of this level.
pub fn packet(words: &str, level: Option<u8>) -> Result<Packet, String> {
    let mut words = words.split(' ').filter(|word| !word.is_empty());
    let name = words.next().ok_or("nothing is said")?;
    let words: Vec<&str> = words.collect();
    let v5 = level.unwrap_or(5) == 5;
    let bytes = match name {
        "raw" => raw(&words)?,
        "CONNECT" => return connect(&words),
        "PUBLISH" => publish(&words, v5)?,
        "SUBSCRIBE" => subscribe(&words, v5)?,
        "UNSUBSCRIBE" => unsubscribe(&words, v5)?,
        "PUBACK" => acknowledgement(0x40, &words)?,
        "PUBREC" => acknowledgement(0x50, &words)?,
        "PUBREL" => acknowledgement(0x62, &words)?,
        "PUBCOMP" => acknowledgement(0x70, &words)?,
        "PINGREQ" => vec![0xC0, 0],
        "DISCONNECT" => reason(0xE0, &words)?,
        "AUTH" => reason(0xF0, &words)?,
        _ => return Err(format!("{name} is no packet that clients send")),
    };
    Ok(Packet { bytes, level: (name == "raw").then_some(5) })
}

fn plain(word: &str) -> String {
    match word {
        "''" => String::new(),
        _ => word.replace('_', " ").replace("\\0", "\0"),
    }
}

fn hex(word: &str) -> Result<u8, String> {
    u8::from_str_radix(word, 16).map_err(|_| format!("{word} is no byte"))
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn raw(words: &[&str]) -> Result<Vec<u8>, String> {
    words.iter().map(|word| hex(word)).collect()
}

/// Properties by the names they have here, with the identifier and how wide the value is.
pub const PROPERTIES: &[(&str, u8, Kind)] = &[
    ("pfi", 0x01, Kind::Number(1)),
    ("mei", 0x02, Kind::Number(4)),
    ("ct", 0x03, Kind::Text),
    ("rt", 0x08, Kind::Text),
    ("cd", 0x09, Kind::Text),
    ("sid", 0x0B, Kind::Varint),
    ("expiry", 0x11, Kind::Number(4)),
    ("assigned", 0x12, Kind::Text),
    ("ska", 0x13, Kind::Number(2)),
    ("method", 0x15, Kind::Text),
    ("data", 0x16, Kind::Text),
    ("rpi", 0x17, Kind::Number(1)),
    ("delay", 0x18, Kind::Number(4)),
    ("rri", 0x19, Kind::Number(1)),
    ("ri", 0x1A, Kind::Text),
    ("reason", 0x1F, Kind::Text),
    ("rm", 0x21, Kind::Number(2)),
    ("tam", 0x22, Kind::Number(2)),
    ("alias", 0x23, Kind::Number(2)),
    ("up", 0x26, Kind::Pair),
    ("mps", 0x27, Kind::Number(4)),
];

/// How a property's value is written.
#[derive(Clone, Copy)]
pub enum Kind {
    /// In so many bytes.
    Number(usize),
    /// As a variable byte integer.
    Varint,
    /// As a string, or binary data.
    Text,
    /// As two strings.
    Pair,
}

/// The property that `word` says, if it is one.
fn property(word: &str) -> Result<Option<Vec<u8>>, String> {
    let Some((name, value)) = word.split_once('=') else { return Ok(None) };
    let Some((_, id, kind)) = PROPERTIES.iter().find(|(known, ..)| *known == name) else { return Ok(None) };
    let value = match kind {
        Kind::Number(width) => number::<u32>(value)?.to_be_bytes()[4 - width..].to_vec(),
        Kind::Varint => varint(number(value)?),
        Kind::Text => text(&plain(value)),
        Kind::Pair => {
            let (key, value) = value.split_once(':').ok_or("up=key:value")?;
            [text(key), text(value)].concat()
        }
    };
    Ok(Some([vec![*id], value].concat()))
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The properties among `words`, with their length; the other words.
fn properties<'w>(words: &[&'w str], v5: bool) -> Result<(Vec<u8>, Vec<&'w str>), String> {
    let (mut bytes, mut rest) = (Vec::new(), Vec::new());
    for word in words {
        match property(word)? {
            Some(property) => bytes.extend(property),
            None => rest.push(*word),
        }
    }
    Ok((if v5 { span(&bytes) } else { Vec::new() }, rest))
}

fn connect(words: &[&str]) -> Result<Packet, String> {
    let level = match words.first() {
        Some(&"v5") => 5,
        Some(&"v4") => 4,
        Some(&"v3") => 3,
        _ => return Err("CONNECT v5, v4 or v3".to_owned()),
    };
    let v5 = level == 5;
    let of_will: Vec<&str> = words.iter().filter_map(|word| word.strip_prefix("will.")).collect();
    let (will_properties, _) = properties(&of_will, v5)?;
    let own: Vec<&str> = words[1..].iter().copied().filter(|word| !word.starts_with("will.")).collect();
    let (properties, rest) = properties(&own, v5)?;
    let mut rest = rest.into_iter();
    let id = plain(rest.next().ok_or("CONNECT v5 ID")?);
    let (mut flags, mut keep, mut payload) = (0, 0u16, text(&id));
    let (mut name, mut password) = (None, None);
    for word in rest {
        match word.split_once('=') {
            None if word == "clean" => flags |= 0x02,
            Some(("keep", seconds)) => keep = number(seconds)?,
            Some(("user", value)) => name = Some(plain(value)),
            Some(("pass", value)) => password = Some(plain(value)),
            Some(("will", will)) => {
                let mut parts = will.split(',');
                let (topic, message) =
                    parts.next().and_then(|it| it.split_once(':')).ok_or("will=TOPIC:PAYLOAD")?;
                flags |= 0x04;
                for part in parts {
                    flags |= if part == "retain" { 0x20 } else { number::<u8>(part)? << 3 };
                }
                payload
                    .extend([will_properties.clone(), text(&plain(topic)), text(&plain(message))].concat());
            }
            _ => return Err(format!("{word} is nothing that CONNECT says")),
        }
    }
    for (field, flag) in [(name, 0x80), (password, 0x40)] {
        if let Some(field) = field {
            flags |= flag;
            payload.extend(text(&field));
        }
    }
    let protocol = text(if level == 3 { "MQIsdp" } else { "MQTT" });
    let head = [protocol, vec![level, flags], keep.to_be_bytes().to_vec(), properties];
    Ok(Packet { bytes: frame(0x10, &[head.concat(), payload].concat()), level: Some(level) })
}

fn publish(words: &[&str], v5: bool) -> Result<Vec<u8>, String> {
    let (properties, rest) = properties(words, v5)?;
    let [topic, payload, more @ ..] = rest.as_slice() else { return Err("PUBLISH TOPIC PAYLOAD".to_owned()) };
    let (mut first, mut id) = (0x30, None);
    for word in more {
        match word.split_once('=') {
            None if *word == "dup" => first |= 0x08,
            None if *word == "retain" => first |= 0x01,
            Some(("qos", qos)) => first |= number::<u8>(qos)? << 1,
            Some(("id", value)) => id = Some(number::<u16>(value)?),
            _ => return Err(format!("{word} is nothing that PUBLISH says")),
        }
    }
    let id = id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
    Ok(frame(first, &[text(&plain(topic)), id, properties, plain(payload).into_bytes()].concat()))
}

fn id(words: &[&str]) -> Result<Vec<u8>, String> {
    let word = words.first().ok_or("a packet identifier is missing")?;
    Ok(number::<u16>(word)?.to_be_bytes().to_vec())
}

fn subscribe(words: &[&str], v5: bool) -> Result<Vec<u8>, String> {
    let mut body = id(words)?;
    let (properties, rest) = properties(&words[1..], v5)?;
    body.extend(properties);
    for word in rest {
        let (filter, options) = word.rsplit_once('=').ok_or("FILTER=QOS")?;
        let mut bits = 0;
        for option in options.split(',') {
            bits |= match option {
                "nl" => 0x04,
                "rap" => 0x08,
                "rh1" => 0x10,
                "rh2" => 0x20,
                qos => number::<u8>(qos)?,
            };
        }
        body.extend(text(&plain(filter)));
        body.push(bits);
    }
    Ok(frame(0x82, &body))
}

fn unsubscribe(words: &[&str], v5: bool) -> Result<Vec<u8>, String> {
    let mut body = id(words)?;
    let (properties, rest) = properties(&words[1..], v5)?;
    body.extend(properties);
    rest.iter().for_each(|filter| body.extend(text(&plain(filter))));
    Ok(frame(0xA2, &body))
}

fn acknowledgement(first: u8, words: &[&str]) -> Result<Vec<u8>, String> {
    let mut body = id(words)?;
    if let Some(code) = words.get(1) {
        body.push(hex(code)?);
    }
    Ok(frame(first, &body))
}

fn reason(first: u8, words: &[&str]) -> Result<Vec<u8>, String> {
    let (properties, rest) = properties(words, true)?;
    let mut body = Vec::new();
    if let Some(code) = rest.first() {
        body.push(hex(code)?);
        if properties.len() > 1 {
            body.extend(properties);
        }
    }
    Ok(frame(first, &body))
}
