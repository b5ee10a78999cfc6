//! WebSocket frames (RFC 6455 §5) around MQTT's bytes, in the role of the server.
//!
//! MQTT packets may be spread over frames in any way [MQTT-6.0.0-2], so payloads are passed on as they come, and no frame
//! is ever put together in memory: its length costs nothing but a number.

use std::io;

/// Opcode of a frame that goes on with the message before.
const CONTINUATION: u8 = 0x0;
/// Opcode of a text frame, which MQTT may not come in [MQTT-6.0.0-1].
const TEXT: u8 = 0x1;
/// Opcode of a binary frame.
pub const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The longest payload of a control frame (§5.5).
const CONTROL_BYTES_MAX: usize = 125;

// Status codes (§7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;

/// One connection's framing, both ways.
#[derive(Debug, Default)]
pub struct WebSocket {
    frame: Option<Frame>,
    /// A message of several frames is under way.
    in_message: bool,
    /// Payload of a control frame that is under way.
    control: Vec<u8>,
    /// What the last ping said, until it is answered.
    pong: Option<Vec<u8>>,
    /// The peer began to close; or what it did wrong.
    status: Option<u16>,
    closed: bool,
    /// The input at hand is not enough to go on.
    starved: bool,
}

/// A frame whose header is read.
#[derive(Debug)]
struct Frame {
    opcode: u8,
    fin: bool,
    left: u64,
    mask: [u8; 4],
    /// Which byte of the mask is next.
    at: usize,
}

/// What reading came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Bytes of the input that were used up.
    pub consumed: usize,
    /// Bytes of payload that were put out.
    pub taken: usize,
    /// The peer closes.
    pub ended: bool,
}

/// The header of a frame of ours: never masked, never fragmented (§5.1, §5.2).
pub fn header(opcode: u8, len: usize) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match len {
        0..=125 => out.push(len as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out
}

fn control_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(opcode, payload.len());
    out.extend_from_slice(payload);
    out
}

impl WebSocket {
    /// Takes frames out of `input` and puts their payload into `out`, as far as there is room.
    pub fn read(&mut self, input: &[u8], out: &mut [u8]) -> io::Result<Read> {
        let mut read = Read::default();
        self.starved = false;
        while !read.ended {
            let rest = &input[read.consumed..];
            let Some(frame) = &mut self.frame else {
                match self.begin(rest)? {
                    Some(len) => read.consumed += len,
                    None => {
                        self.starved = true;
                        break;
                    }
                }
                continue;
            };
            let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
            let n = if frame.opcode < CLOSE {
                let n = left.min(rest.len()).min(out.len() - read.taken);
                unmask(frame, &rest[..n], &mut out[read.taken..read.taken + n]);
                read.taken += n;
                n
            } else {
                let n = left.min(rest.len());
                let from = self.control.len();
                self.control.resize(from + n, 0);
                unmask(frame, &rest[..n], &mut self.control[from..]);
                n
            };
            read.consumed += n;
            frame.left -= n as u64;
            if frame.left == 0 {
                read.ended = self.end_frame();
            } else if n == 0 || read.consumed == input.len() {
                self.starved = read.consumed == input.len();
                break;
            }
        }
        Ok(read)
    }

    /// Whether reading `input` again may give something.
    pub fn readable(&self, input: &[u8]) -> bool {
        !self.starved && !input.is_empty()
    }

    /// Whether the peer is owed an answer.
    pub fn owes(&self) -> bool {
        self.pong.is_some()
    }

    /// The answer to the last ping: earlier ones need none (§5.5.3).
    pub fn answer(&mut self) -> Option<Vec<u8>> {
        self.pong.take().map(|payload| control_frame(PONG, &payload))
    }

    /// The frame that closes, once.
    pub fn close(&mut self) -> Option<Vec<u8>> {
        if std::mem::replace(&mut self.closed, true) {
            return None;
        }
        Some(control_frame(CLOSE, &self.status.unwrap_or(NORMAL).to_be_bytes()))
    }

    /// Reads the header of a frame; its length, or nothing as long as it is not there in full.
    fn begin(&mut self, input: &[u8]) -> io::Result<Option<usize>> {
        let &[first, second, ..] = input else { return Ok(None) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
        if first & 0x70 != 0 {
            return self.refuse(PROTOCOL_ERROR, "a frame has reserved bits, and no extension was agreed on");
        }
        if second & 0x80 == 0 {
            return self.refuse(PROTOCOL_ERROR, "a frame of a client is not masked");
        }
        match opcode {
            CONTINUATION if !self.in_message => {
                return self.refuse(PROTOCOL_ERROR, "a frame goes on with a message that was not begun");
            }
            TEXT => return self.refuse(UNSUPPORTED_DATA, "MQTT came in a text frame"),
            BINARY if self.in_message => {
                return self.refuse(PROTOCOL_ERROR, "a message begins inside another");
            }
            CLOSE | PING | PONG if !fin => {
                return self.refuse(PROTOCOL_ERROR, "a control frame is fragmented");
            }
            CONTINUATION | BINARY | CLOSE | PING | PONG => {}
            _ => return self.refuse(PROTOCOL_ERROR, "a frame has an unknown opcode"),
        }
        let short = second & 0x7F;
        let (len, at) = match short {
            126 => {
                let Some(bytes) = input.get(2..4).and_then(|bytes| bytes.try_into().ok()) else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(bytes)), 4)
            }
            127 => {
                let Some(bytes) = input.get(2..10).and_then(|bytes| bytes.try_into().ok()) else {
                    return Ok(None);
                };
                (u64::from_be_bytes(bytes), 10)
            }
            _ => (u64::from(short), 2),
        };
        let shortest = match short {
            126 => 126,
            127 => 0x1_0000,
            _ => 0,
        };
        if len < shortest || len >> 63 != 0 {
            return self.refuse(PROTOCOL_ERROR, "the length of a frame is not written as it must be");
        }
        if opcode >= CLOSE && len > CONTROL_BYTES_MAX as u64 {
            return self.refuse(PROTOCOL_ERROR, "a control frame is too long");
        }
        let Some(mask) = input.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()) else {
            return Ok(None);
        };
        self.frame = Some(Frame { opcode, fin, left: len, mask, at: 0 });
        Ok(Some(at + 4))
    }

    /// A frame is complete. True when it closes.
    fn end_frame(&mut self) -> bool {
        let Some(frame) = self.frame.take() else { return false };
        match frame.opcode {
            PING => self.pong = Some(std::mem::take(&mut self.control)),
            PONG => self.control.clear(),
            CLOSE => {
                let payload = std::mem::take(&mut self.control);
                // The peer's own status is echoed (§5.5.1); one that it may not send is not.
                let status = payload.get(..2).map_or(NORMAL, |code| u16::from_be_bytes([code[0], code[1]]));
                let known = matches!(status, 1000..=1003 | 1007..=1011 | 3000..=4999);
                self.status = Some(if known { status } else { PROTOCOL_ERROR });
                return true;
            }
            _ => self.in_message = !frame.fin,
        }
        false
    }

    fn refuse<T>(&mut self, status: u16, what: &'static str) -> io::Result<T> {
        self.status = Some(status);
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

fn unmask(frame: &mut Frame, from: &[u8], to: &mut [u8]) {
    let mut mask = frame.mask;
    mask.rotate_left(frame.at);
    let mut blocks = from.chunks_exact(4).zip(to.chunks_exact_mut(4));
    for (from, to) in &mut blocks {
        let word = [from[0] ^ mask[0], from[1] ^ mask[1], from[2] ^ mask[2], from[3] ^ mask[3]];
        to.copy_from_slice(&word);
    }
    let whole = from.len() / 4 * 4;
    for (at, (from, to)) in from[whole..].iter().zip(&mut to[whole..]).enumerate() {
        *to = from ^ mask[at];
    }
    frame.at = (frame.at + from.len()) % 4;
}

/// Reads everything, in pieces of `input` bytes into buffers of `room`.
pub fn read_all(bytes: &[u8], input: usize, room: usize) -> io::Result<(Vec<u8>, WebSocket, bool)> {
    let (mut web, mut out, mut held) = (WebSocket::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(input) {
        held.extend_from_slice(piece);
        loop {
            let mut buffer = vec![0; room];
            let read = web.read(&held, &mut buffer)?;
            held.drain(..read.consumed);
            out.extend_from_slice(&buffer[..read.taken]);
            if read.ended {
                return Ok((out, web, true));
            }
            if !web.readable(&held) {
                break;
            }
        }
    }
    Ok((out, web, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = header(0, payload.len());
        out[0] = first;
        out[1] |= 0x80;
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        out
    }

    #[test]
    fn payloads_come_out_whatever_the_pieces() {
        let long = vec![7; 70_000];
        let mut bytes = frame(0x82, b"one");
        bytes.extend(frame(0x02, b"two "));
        bytes.extend(frame(0x89, b"are you there"));
        bytes.extend(frame(0x00, b""));
        bytes.extend(frame(0x80, b"three"));
        bytes.extend(frame(0x82, &long));
        bytes.extend(frame(0x82, &[9; 300]));
        let whole = [b"onetwo three".as_slice(), &long, &[9; 300]].concat();
        for (input, room) in [(1, 1), (1, 4096), (3, 5), (100_000, 100_000), (100_000, 7), (13, 4096)] {
            let (out, mut web, ended) = read_all(&bytes, input, room).expect("well formed");
            assert!(out == whole && !ended, "pieces of {input} into {room}");
            assert_eq!(web.answer(), Some(frame_of_server(0x8A, b"are you there")));
            assert_eq!(web.answer(), None);
        }
    }

    fn frame_of_server(first: u8, payload: &[u8]) -> Vec<u8> {
        [vec![first, payload.len() as u8], payload.to_vec()].concat()
    }

    #[test]
    fn only_the_last_ping_is_answered() {
        let bytes = [frame(0x89, b"1"), frame(0x89, b"2"), frame(0x8A, b"unasked")].concat();
        let (out, mut web, _) = read_all(&bytes, 1000, 1000).expect("well formed");
        assert!(out.is_empty());
        assert_eq!(web.answer(), Some(frame_of_server(0x8A, b"2")));
    }

    #[test]
    fn a_close_ends_and_is_answered_once() {
        for (payload, code) in [(&b"\x03\xE9bye"[..], 1001u16), (b"", 1000), (b"\x03\xED", 1002)] {
            let bytes = [frame(0x82, b"last"), frame(0x88, payload), frame(0x82, b"never")].concat();
            for input in [1, 1000] {
                let (out, mut web, ended) = read_all(&bytes, input, 1000).expect("well formed");
                assert!(ended);
                assert_eq!(out, b"last");
                assert_eq!(web.close(), Some(frame_of_server(0x88, &code.to_be_bytes())));
                assert_eq!(web.close(), None);
            }
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let unmasked = vec![0x82, 1, 0];
        let overlong = [vec![0x82, 0x80 | 126, 0, 5], MASK.to_vec()].concat();
        let endless = [vec![0x82, 0x80 | 127], vec![0xFF; 8], MASK.to_vec()].concat();
        let cases = [
            (unmasked, 1002),
            (overlong, 1002),
            (endless, 1002),
            (frame(0x81, b"text"), 1003),
            (frame(0x80, b"goes on"), 1002),
            ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), 1002),
            (frame(0xC2, b"compressed"), 1002),
            (frame(0x09, b"in parts"), 1002),
            (frame(0x89, &[0; 126]), 1002),
            (frame(0x83, b"unknown"), 1002),
            (frame(0x8B, b"unknown"), 1002),
        ];
        for (bytes, code) in cases {
            let mut web = WebSocket::default();
            web.read(&bytes, &mut [0; 64]).expect_err("refused");
            assert_eq!(web.close(), Some(frame_of_server(0x88, &u16::to_be_bytes(code))), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_frame_as_long_as_can_be_takes_no_memory() {
        let mut head = vec![0x82, 0x80 | 127];
        head.extend_from_slice(&(u64::MAX >> 1).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        let mut web = WebSocket::default();
        let read = web.read(&head, &mut [0; 8]).expect("a valid header");
        assert_eq!(read, Read { consumed: head.len(), ..Read::default() });
        let read = web.read(b"abc", &mut [0; 8]).expect("payload");
        assert_eq!((read.consumed, read.taken), (3, 3));
    }
}
