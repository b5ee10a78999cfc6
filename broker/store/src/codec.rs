//! Events as bytes, and back.
//!
//! A message stands in its event as a *block*: a checksum of its own and the encoded message. The block is what the
//! index points to, so that one message can be read and verified without the record around it, and what compaction
//! copies as it is.

use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Event, Lsn, Message, Taker, Will};
use crate::wire::{Malformed, Reader, put_bytes, put_varint, u32_at};

/// What stands before the message in a block.
pub(crate) const BLOCK_HEADER: usize = 4;

/// Where the block of an event stands in the body of its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// Which event of the record.
    pub event: u32,
    pub start: u32,
    pub len: u32,
}

/// The events of one record.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub body: Vec<u8>,
    /// In the order of the events that have one.
    pub blocks: Vec<Block>,
    pub count: u32,
}

/// What a record holds: events of callers, and one kind that is the store's own.
#[derive(Debug)]
pub(crate) enum Logged {
    Event(Event),
    /// The message's block stands here now.
    Moved(Lsn),
}

/// What was decoded of a record's body.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub events: Vec<Logged>,
    pub blocks: Vec<Block>,
}

mod tag {
    pub const SESSION_OPENED: u8 = 1;
    pub const SESSION_CLOSED: u8 = 2;
    pub const SESSION_ENDED: u8 = 3;
    pub const SUBSCRIBED: u8 = 4;
    pub const UNSUBSCRIBED: u8 = 5;
    pub const STORED: u8 = 6;
    pub const SENT: u8 = 7;
    pub const RECEIVED: u8 = 8;
    pub const DONE: u8 = 9;
    pub const RELEASED: u8 = 10;
    pub const RETAINED_CLEARED: u8 = 11;
    pub const KEY_SET: u8 = 12;
    pub const KEY_DELETED: u8 = 13;
    pub const MOVED: u8 = 14;
}

/// Flags of a message.
mod flag {
    pub const QOS: u8 = 0b11;
    pub const RETAIN: u8 = 1 << 2;
    pub const EXPIRY: u8 = 1 << 3;
    pub const EXPIRY_OFFSET: u8 = 1 << 4;
    pub const HOPS: u8 = 1 << 5;
    /// All there are.
    pub const KNOWN: u8 = (1 << 6) - 1;
}

/// Flags of a Stored event.
mod stored {
    pub const RETAINED: u8 = 1;
    pub const FROM: u8 = 1 << 1;
    pub const KNOWN: u8 = 0b11;
}

/// Flags of a taker and of a queue's entry.
pub(crate) mod taker {
    pub const QOS: u8 = 0b11;
    pub const RETAIN: u8 = 1 << 2;
    pub const PACKET_ID: u8 = 1 << 3;
    pub const IDENTIFIERS: u8 = 1 << 4;
    pub const RECEIVED: u8 = 1 << 5;
}

pub(crate) fn encode(events: &[Event]) -> Encoded {
    let mut encoded = Encoded::default();
    encoded.body.reserve(events.iter().map(size_hint).sum());
    for event in events {
        put_event(&mut encoded, event);
    }
    encoded
}

/// Adds a message's new place to a record of moves.
pub(crate) fn put_moved(encoded: &mut Encoded, message: Lsn, block: &[u8]) {
    encoded.body.push(tag::MOVED);
    put_varint(&mut encoded.body, message.0);
    put_varint(&mut encoded.body, block.len() as u64);
    note_block(encoded, block.len());
    encoded.body.extend_from_slice(block);
    encoded.count += 1;
}

/// Says that the next `len` bytes of the body are the block of the event that is being written.
fn note_block(encoded: &mut Encoded, len: usize) {
    let start = encoded.body.len() as u32;
    encoded.blocks.push(Block { event: encoded.count, start, len: len as u32 });
}

fn size_hint(event: &Event) -> usize {
    match event {
        Event::Stored { message, takers, .. } => {
            64 + message.topic.len() + message.properties.len() + message.payload.len() + 16 * takers.len()
        }
        Event::SessionOpened { client_id, will, .. } => {
            32 + client_id.len() + will.as_ref().map_or(0, |will| will.message.payload.len() + 64)
        }
        Event::Subscribed { filter, options, .. } => 32 + filter.len() + options.len(),
        Event::KeySet { key, value } => 16 + key.len() + value.len(),
        _ => 32,
    }
}

fn put_event(encoded: &mut Encoded, event: &Event) {
    let out = &mut encoded.body;
    match event {
        Event::SessionOpened { session, client_id, expiry, will } => {
            out.push(tag::SESSION_OPENED);
            put_varint(out, *session);
            put_bytes(out, client_id.as_bytes());
            put_varint(out, u64::from(*expiry));
            put_will(out, will.as_deref());
        }
        Event::SessionClosed { session, at } => put_numbers(out, tag::SESSION_CLOSED, &[*session, *at]),
        Event::SessionEnded { session } => put_numbers(out, tag::SESSION_ENDED, &[*session]),
        Event::Subscribed { session, filter, options, persisted } => {
            put_numbers(out, tag::SUBSCRIBED, &[*session, u64::from(*persisted)]);
            put_bytes(out, filter.as_bytes());
            put_bytes(out, options);
        }
        Event::Unsubscribed { session, filter } => {
            put_numbers(out, tag::UNSUBSCRIBED, &[*session]);
            put_bytes(out, filter.as_bytes());
        }
        Event::Stored { message, takers, retained, from } => {
            put_stored(encoded, message, takers, *retained, *from)
        }
        Event::Sent { session, message, packet_id } => {
            put_numbers(out, tag::SENT, &[*session, message.0, u64::from(*packet_id)]);
        }
        Event::Received { session, message } => put_numbers(out, tag::RECEIVED, &[*session, message.0]),
        Event::Done { session, message } => put_numbers(out, tag::DONE, &[*session, message.0]),
        Event::Released { session, packet_id } => {
            put_numbers(out, tag::RELEASED, &[*session, u64::from(*packet_id)]);
        }
        Event::RetainedCleared { topic } => {
            out.push(tag::RETAINED_CLEARED);
            put_bytes(out, topic.as_bytes());
        }
        Event::KeySet { key, value } => {
            out.push(tag::KEY_SET);
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Event::KeyDeleted { key } => {
            out.push(tag::KEY_DELETED);
            put_bytes(out, key);
        }
    }
    encoded.count += 1;
}

fn put_numbers(out: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    out.push(tag);
    for &number in numbers {
        put_varint(out, number);
    }
}

fn put_stored(
    encoded: &mut Encoded,
    message: &Message,
    takers: &[Taker],
    retained: bool,
    from: Option<(u64, u16)>,
) {
    let out = &mut encoded.body;
    out.push(tag::STORED);
    let from_flag = if from.is_some() { stored::FROM } else { 0 };
    out.push(from_flag | if retained { stored::RETAINED } else { 0 });
    if let Some((session, packet_id)) = from {
        put_varint(out, session);
        put_varint(out, u64::from(packet_id));
    }
    put_varint(out, takers.len() as u64);
    for taker in takers {
        put_varint(out, taker.session);
        put_entry(out, entry_flags(taker.qos, taker.retain, false), taker.packet_id, &taker.identifiers);
    }
    let len = BLOCK_HEADER + message_len(message);
    put_varint(out, len as u64);
    note_block(encoded, len);
    put_block(&mut encoded.body, message);
}

pub(crate) fn entry_flags(qos: u8, retain: bool, received: bool) -> u8 {
    (qos & taker::QOS) | if retain { taker::RETAIN } else { 0 } | if received { taker::RECEIVED } else { 0 }
}

/// What one session knows about a message that it takes.
pub(crate) fn put_entry(out: &mut Vec<u8>, flags: u8, packet_id: u16, identifiers: &[u32]) {
    let has_id = if packet_id == 0 { 0 } else { taker::PACKET_ID };
    let has_identifiers = if identifiers.is_empty() { 0 } else { taker::IDENTIFIERS };
    out.push(flags | has_id | has_identifiers);
    if packet_id != 0 {
        put_varint(out, u64::from(packet_id));
    }
    if !identifiers.is_empty() {
        put_varint(out, identifiers.len() as u64);
        identifiers.iter().for_each(|&identifier| put_varint(out, u64::from(identifier)));
    }
}

/// Reads back what [`put_entry`] wrote: flags, packet id, identifiers.
pub(crate) fn read_entry(reader: &mut Reader<'_>) -> Result<(u8, u16, Box<[u32]>), Malformed> {
    let flags = reader.u8()?;
    let packet_id = if flags & taker::PACKET_ID == 0 { 0 } else { reader.varint_u16()? };
    let mut identifiers = Vec::new();
    if flags & taker::IDENTIFIERS != 0 {
        for _ in 0..reader.varint()? {
            identifiers.push(reader.varint_u32()?);
        }
    }
    Ok((flags & (taker::QOS | taker::RETAIN | taker::RECEIVED), packet_id, identifiers.into()))
}

pub(crate) fn put_will(out: &mut Vec<u8>, will: Option<&Will>) {
    out.push(u8::from(will.is_some()));
    if let Some(will) = will {
        put_varint(out, u64::from(will.delay));
        put_varint(out, message_len(&will.message) as u64);
        put_message(out, &will.message);
    }
}

pub(crate) fn read_will(reader: &mut Reader<'_>) -> Result<Option<Box<Will>>, Malformed> {
    match reader.u8()? {
        0 => Ok(None),
        1 => {
            let delay = reader.varint_u32()?;
            let message = read_message(&reader.bytes()?)?;
            Ok(Some(Box::new(Will { message, delay })))
        }
        _ => Err(Malformed("neither a will nor none")),
    }
}

fn put_block(out: &mut Vec<u8>, message: &Message) {
    let start = out.len();
    out.extend_from_slice(&[0; BLOCK_HEADER]);
    put_message(out, message);
    let sum = crc32fast::hash(&out[start + BLOCK_HEADER..]);
    out[start..start + BLOCK_HEADER].copy_from_slice(&sum.to_le_bytes());
}

/// The block's checksum holds.
pub(crate) fn block_is_whole(block: &[u8]) -> bool {
    match (u32_at(block, 0), block.get(BLOCK_HEADER..)) {
        (Some(sum), Some(message)) => crc32fast::hash(message) == sum,
        _ => false,
    }
}

/// The message of a block, verified. Its parts are slices of `block`.
pub(crate) fn read_block(block: &Bytes) -> Result<Message, Malformed> {
    if !block_is_whole(block) {
        return Err(Malformed("checksum does not hold"));
    }
    read_message(&block.slice(BLOCK_HEADER..))
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    let set = |on: bool, flag: u8| if on { flag } else { 0 };
    out.push(
        (message.qos & flag::QOS)
            | set(message.retain, flag::RETAIN)
            | set(message.expiry.is_some(), flag::EXPIRY)
            | set(message.expiry_offset.is_some(), flag::EXPIRY_OFFSET)
            | set(message.hops != 0, flag::HOPS),
    );
    put_varint(out, message.received);
    for optional in [message.expiry, message.expiry_offset].into_iter().flatten() {
        put_varint(out, u64::from(optional));
    }
    if message.hops != 0 {
        out.push(message.hops);
    }
    put_bytes(out, &message.topic);
    put_bytes(out, &message.properties);
    out.extend_from_slice(&message.payload);
}

fn message_len(message: &Message) -> usize {
    let optional: usize = [message.expiry, message.expiry_offset]
        .into_iter()
        .flatten()
        .map(|value| varint_len(u64::from(value)))
        .sum();
    let with_length = |bytes: &Bytes| varint_len(bytes.len() as u64) + bytes.len();
    1 + varint_len(message.received)
        + optional
        + usize::from(message.hops != 0)
        + with_length(&message.topic)
        + with_length(&message.properties)
        + message.payload.len()
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn read_message(bytes: &Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader::new(bytes);
    let flags = reader.u8()?;
    if flags & !flag::KNOWN != 0 {
        return Err(Malformed("unknown flags of a message"));
    }
    let received = reader.varint()?;
    let mut optional = |flag: u8| if flags & flag == 0 { Ok(None) } else { reader.varint_u32().map(Some) };
    let expiry = optional(flag::EXPIRY)?;
    let expiry_offset = optional(flag::EXPIRY_OFFSET)?;
    Ok(Message {
        qos: flags & flag::QOS,
        retain: flags & flag::RETAIN != 0,
        received,
        expiry,
        expiry_offset,
        hops: if flags & flag::HOPS == 0 { 0 } else { reader.u8()? },
        topic: reader.bytes()?,
        properties: reader.bytes()?,
        payload: reader.rest(),
    })
}

/// Reads the `count` events of a record. Messages are slices of `body`; their checksums are the record's matter.
pub(crate) fn decode(body: &Bytes, count: u32) -> Result<Decoded, Malformed> {
    let mut reader = Reader::new(body);
    let mut decoded = Decoded::default();
    for number in 0..count {
        let logged = read_logged(&mut reader, &mut decoded.blocks, number)?;
        decoded.events.push(logged);
    }
    if reader.is_empty() { Ok(decoded) } else { Err(Malformed("more bytes than events")) }
}

fn read_logged(reader: &mut Reader<'_>, blocks: &mut Vec<Block>, number: u32) -> Result<Logged, Malformed> {
    let event = match reader.u8()? {
        tag::SESSION_OPENED => Event::SessionOpened {
            session: reader.varint()?,
            client_id: reader.text()?,
            expiry: reader.varint_u32()?,
            will: read_will(reader)?,
        },
        tag::SESSION_CLOSED => Event::SessionClosed { session: reader.varint()?, at: reader.varint()? },
        tag::SESSION_ENDED => Event::SessionEnded { session: reader.varint()? },
        tag::SUBSCRIBED => {
            let (session, persisted) = (reader.varint()?, reader.varint()? != 0);
            Event::Subscribed { session, filter: reader.text()?, options: reader.bytes()?, persisted }
        }
        tag::UNSUBSCRIBED => Event::Unsubscribed { session: reader.varint()?, filter: reader.text()? },
        tag::STORED => read_stored(reader, blocks, number)?,
        tag::SENT => Event::Sent {
            session: reader.varint()?,
            message: Lsn(reader.varint()?),
            packet_id: reader.varint_u16()?,
        },
        tag::RECEIVED => Event::Received { session: reader.varint()?, message: Lsn(reader.varint()?) },
        tag::DONE => Event::Done { session: reader.varint()?, message: Lsn(reader.varint()?) },
        tag::RELEASED => Event::Released { session: reader.varint()?, packet_id: reader.varint_u16()? },
        tag::RETAINED_CLEARED => Event::RetainedCleared { topic: reader.text()? },
        tag::KEY_SET => Event::KeySet { key: reader.bytes()?, value: reader.bytes()? },
        tag::KEY_DELETED => Event::KeyDeleted { key: reader.bytes()? },
        tag::MOVED => {
            let message = Lsn(reader.varint()?);
            take_block(reader, blocks, number)?;
            return Ok(Logged::Moved(message));
        }
        _ => return Err(Malformed("unknown event")),
    };
    Ok(Logged::Event(event))
}

fn read_stored(reader: &mut Reader<'_>, blocks: &mut Vec<Block>, number: u32) -> Result<Event, Malformed> {
    let flags = reader.u8()?;
    if flags & !stored::KNOWN != 0 {
        return Err(Malformed("unknown flags of a stored message"));
    }
    let from = match flags & stored::FROM {
        0 => None,
        _ => Some((reader.varint()?, reader.varint_u16()?)),
    };
    let mut takers = Vec::new();
    for _ in 0..reader.varint()? {
        let session = reader.varint()?;
        let (flags, packet_id, identifiers) = read_entry(reader)?;
        let (qos, retain) = (flags & taker::QOS, flags & taker::RETAIN != 0);
        takers.push(Taker { session, qos, retain, packet_id, identifiers });
    }
    let block = take_block(reader, blocks, number)?;
    let message = Arc::new(read_message(&block.slice(BLOCK_HEADER..))?);
    Ok(Event::Stored { message, takers, retained: flags & stored::RETAINED != 0, from })
}

fn take_block(reader: &mut Reader<'_>, blocks: &mut Vec<Block>, event: u32) -> Result<Bytes, Malformed> {
    let len = reader.varint_u32()?;
    let start = reader.position() as u32;
    let block = reader.take(len as usize)?;
    if block.len() < BLOCK_HEADER {
        return Err(Malformed("block without a checksum"));
    }
    blocks.push(Block { event, start, len });
    Ok(block)
}
