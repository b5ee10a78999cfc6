//! A checkpoint: the state as of one place in the log. It holds where messages stand, not the messages.

use bytes::Bytes;

use crate::codec::{put_entry, put_will, read_entry, read_will};
use crate::event::{LSN_MAX, Lsn};
use crate::index::{Index, Location};
use crate::queue::Queue;
use crate::segment::End;
use crate::state::{SessionState, State};
use crate::wire::{Malformed, Reader, put_bytes, put_varint, u32_at, u64_at};

/// A checkpoint is written under this name, and renamed when it is whole.
pub(crate) const TEMPORARY: &str = "checkpoint.tmp";

const PREFIX: &str = "checkpoint-";
const MAGIC: &[u8; 8] = b"forebayC";
const VERSION: u32 = 1;
/// Bytes of a checkpoint's header.
pub(crate) const HEADER: usize = 64;

pub(crate) const HEADER_DAMAGED: Malformed = Malformed("header is damaged");

/// What a checkpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    pub mark: u32,
    /// The last event that it contains.
    pub last: Lsn,
    /// The number that the next event gets.
    pub next: u64,
    /// Where in the log it stands: what follows is not in it.
    pub place: End,
}

/// The file of the checkpoint with this last event.
pub(crate) fn path(last: Lsn) -> String {
    format!("{PREFIX}{:020}", last.0)
}

/// The last event of the checkpoint whose file has this name.
pub(crate) fn last_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_prefix(PREFIX)?;
    let ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    ours.then(|| digits.parse().ok()).flatten().filter(|&last| last <= LSN_MAX).map(Lsn)
}

pub(crate) fn encode(about: &About, state: &State) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out.reserve(state.entries * 12 + state.index.live() * 12 + state.weight + 1024);
    put_index(&mut out, &state.index);
    put_sessions(&mut out, state);
    put_varint(&mut out, state.retained.len() as u64);
    for (topic, message) in &state.retained {
        put_bytes(&mut out, topic.as_bytes());
        put_varint(&mut out, message.0);
    }
    put_varint(&mut out, state.keys.len() as u64);
    for (key, value) in &state.keys {
        put_bytes(&mut out, key);
        put_bytes(&mut out, value);
    }
    let header = about.encode(&out[HEADER..]);
    out[..HEADER].copy_from_slice(&header);
    out
}

pub(crate) fn decode(bytes: &Bytes) -> Result<(About, State), Malformed> {
    let (about, length, sum) = About::decode(bytes).ok_or(HEADER_DAMAGED)?;
    let body = bytes.slice(HEADER..);
    if body.len() as u64 != length {
        return Err(Malformed("length is not as written"));
    }
    if crc32fast::hash(&body) != sum {
        return Err(Malformed("checksum does not hold"));
    }
    let mut reader = Reader::new(&body);
    let mut state = State { last: about.last, ..State::default() };
    read_index(&mut reader, &mut state.index)?;
    read_sessions(&mut reader, &mut state)?;
    for _ in 0..reader.varint()? {
        let topic = reader.text()?;
        state.retained.insert(topic, Lsn(reader.varint()?));
    }
    for _ in 0..reader.varint()? {
        let key = Bytes::copy_from_slice(&reader.bytes()?);
        state.keys.insert(key, Bytes::copy_from_slice(&reader.bytes()?));
    }
    state.weigh();
    if reader.is_empty() { Ok((about, state)) } else { Err(Malformed("more bytes than state")) }
}

impl About {
    fn encode(&self, body: &[u8]) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.mark.to_le_bytes());
        let numbers = [self.last.0, self.next, self.place.segment, self.place.offset, body.len() as u64];
        for (field, number) in out[16..56].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        out[56..60].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let sum = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The header, with length and checksum of the body.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, u64, u32)> {
        let bytes = bytes.get(..HEADER)?;
        let whole = bytes.starts_with(MAGIC)
            && u32_at(bytes, 8) == Some(VERSION)
            && u32_at(bytes, 60) == Some(crc32fast::hash(&bytes[..60]));
        if !whole {
            return None;
        }
        let place = End { segment: u64_at(bytes, 32)?, offset: u64_at(bytes, 40)? };
        let about =
            Self { mark: u32_at(bytes, 12)?, last: Lsn(u64_at(bytes, 16)?), next: u64_at(bytes, 24)?, place };
        Some((about, u64_at(bytes, 48)?, u32_at(bytes, 56)?))
    }
}

fn put_index(out: &mut Vec<u8>, index: &Index) {
    put_varint(out, index.segments().count() as u64);
    for (first, segment) in index.segments() {
        put_varint(out, first);
        put_varint(out, segment.size);
        put_varint(out, index.native_count(first) as u64);
        let (mut lsn_before, mut end_before) = (first, 0);
        for (lsn, at, refs) in index.native(first) {
            put_varint(out, lsn.0 - lsn_before);
            // Messages stand in the order of their numbers.
            put_varint(out, u64::from(at.offset - end_before));
            put_varint(out, u64::from(at.len));
            put_varint(out, u64::from(refs));
            (lsn_before, end_before) = (lsn.0, at.offset + at.len);
        }
    }
    let moved = index.moved();
    put_varint(out, moved.len() as u64);
    for (lsn, at, refs) in moved {
        put_varint(out, lsn.0);
        put_varint(out, at.segment);
        put_varint(out, u64::from(at.offset));
        put_varint(out, u64::from(at.len));
        put_varint(out, u64::from(refs));
    }
}

fn read_index(reader: &mut Reader<'_>, index: &mut Index) -> Result<(), Malformed> {
    const LARGE: Malformed = Malformed("number too large");
    for _ in 0..reader.varint()? {
        let segment = reader.varint()?;
        index.set_size(segment, reader.varint()?);
        let count = reader.varint()?;
        index.reserve(segment, reader.room_for(count, 4));
        let (mut lsn, mut offset) = (segment, 0u32);
        for _ in 0..count {
            lsn = lsn.checked_add(reader.varint()?).ok_or(LARGE)?;
            offset = offset.checked_add(reader.varint_u32()?).ok_or(LARGE)?;
            let at = Location { segment, offset, len: reader.varint_u32()? };
            index.insert(Lsn(lsn), at, reader.varint_u32()?);
            offset = offset.checked_add(at.len).ok_or(LARGE)?;
        }
    }
    for _ in 0..reader.varint()? {
        let lsn = Lsn(reader.varint()?);
        let segment = reader.varint()?;
        let at = Location { segment, offset: reader.varint_u32()?, len: reader.varint_u32()? };
        index.insert_moved(lsn, at, reader.varint_u32()?);
    }
    Ok(())
}

fn put_sessions(out: &mut Vec<u8>, state: &State) {
    put_varint(out, state.sessions.len() as u64);
    for (&key, session) in &state.sessions {
        put_varint(out, key);
        put_session(out, session);
    }
}

fn put_session(out: &mut Vec<u8>, session: &SessionState) {
    put_bytes(out, session.client_id.as_bytes());
    put_varint(out, u64::from(session.expiry));
    out.push(u8::from(session.closed.is_some()));
    session.closed.iter().for_each(|&at| put_varint(out, at));
    put_will(out, session.will.as_deref());
    put_varint(out, session.subscriptions.len() as u64);
    for (filter, (options, persisted)) in &session.subscriptions {
        put_bytes(out, filter.as_bytes());
        put_bytes(out, options);
        out.push(u8::from(*persisted));
    }
    put_varint(out, session.incoming.len() as u64);
    session.incoming.iter().for_each(|&packet_id| put_varint(out, u64::from(packet_id)));
    put_varint(out, session.queue.len() as u64);
    let mut before = 0;
    for entry in session.queue.iter() {
        put_varint(out, entry.message.0 - before);
        put_entry(out, Queue::flags(&entry), entry.packet_id, entry.identifiers);
        before = entry.message.0;
    }
}

fn read_sessions(reader: &mut Reader<'_>, state: &mut State) -> Result<(), Malformed> {
    for _ in 0..reader.varint()? {
        let key = reader.varint()?;
        let session = read_session(reader)?;
        state.sessions.insert(key, session);
    }
    Ok(())
}

fn read_session(reader: &mut Reader<'_>) -> Result<SessionState, Malformed> {
    let mut session = SessionState {
        client_id: reader.text()?,
        expiry: reader.varint_u32()?,
        closed: if reader.u8()? == 0 { None } else { Some(reader.varint()?) },
        will: read_will(reader)?.map(|will| Box::new(will.detached())),
        ..SessionState::default()
    };
    for _ in 0..reader.varint()? {
        let filter = reader.text()?;
        let options = Bytes::copy_from_slice(&reader.bytes()?);
        session.subscriptions.insert(filter, (options, reader.u8()? != 0));
    }
    for _ in 0..reader.varint()? {
        session.incoming.insert(reader.varint_u16()?);
    }
    let count = reader.varint()?;
    session.queue.reserve(reader.room_for(count, 2));
    let mut message = 0u64;
    for _ in 0..count {
        message = message.checked_add(reader.varint()?).ok_or(Malformed("number too large"))?;
        let (flags, packet_id, identifiers) = read_entry(reader)?;
        session.queue.restore(Lsn(message), flags, packet_id, &identifiers);
    }
    Ok(session)
}
