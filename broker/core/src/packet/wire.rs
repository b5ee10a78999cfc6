//! The standard's data representations (v5 §1.5): integers, strings, binary data, read and written.

use super::error::{DecodeError, EncodeError};

/// Largest value of a variable byte integer (v5 §1.5.5).
pub const VARINT_MAX: u32 = 268_435_455;

/// Reads fields off the front of a packet's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

const TRUNCATED: DecodeError = DecodeError::malformed("a field runs past the end of its packet");

impl<'a> Reader<'a> {
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read yet.
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&head, tail) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = tail;
        Ok(u16::from_be_bytes(*head))
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// A variable byte integer in its shortest form.
    #[inline]
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        match read_varint(self.rest)? {
            None => Err(TRUNCATED),
            Some((_, len)) if len > 1 && self.rest.get(len - 1) == Some(&0) => Err(OVERLONG),
            Some((value, len)) => {
                self.take(len)?;
                Ok(value)
            }
        }
    }

    /// Binary data: two bytes of length, then that many bytes (v5 §1.5.6).
    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// A UTF-8 encoded string (v5 §1.5.4).
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        text(self.binary()?)
    }

    /// As [`text`](Self::text), for a string that is only checked.
    #[inline]
    pub fn skip_text(&mut self) -> Result<(), DecodeError> {
        let bytes = self.binary()?;
        if is_plain(bytes) { Ok(()) } else { text(bytes).map(|_| ()) }
    }

    /// The property section: its length as a variable byte integer, then the properties.
    #[inline]
    pub fn property_span(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.varint()?;
        self.take(len as usize)
    }

    /// Nothing may be left.
    #[inline]
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("bytes follow the last field of the packet"))
        }
    }
}

/// Bytes as a string: well-formed UTF-8 without surrogates `[MQTT-1.5.4-1]` and without U+0000
/// `[MQTT-1.5.4-2]`. A byte order mark stays what it is `[MQTT-1.5.4-3]`.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::malformed("a string is not well-formed UTF-8"))?;
    if has_nul(bytes) {
        return Err(DecodeError::malformed("a string holds the character U+0000"));
    }
    Ok(text)
}

pub(crate) const OVERLONG: DecodeError =
    DecodeError::malformed("a variable byte integer has more bytes than its value needs"); // [MQTT-1.5.5-1]

/// Value and length of the variable byte integer at the front; `None` where its end has not arrived.
/// Over-long forms pass: 3.1.1 does not forbid them, so callers that must, look at the length.
#[inline]
pub(crate) fn read_varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        return Ok(None);
    }
    Err(DecodeError::malformed("a variable byte integer has more than four bytes"))
}

/// Bytes that `value` takes as a variable byte integer.
#[inline]
pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

#[inline]
pub(crate) fn put_varint(value: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if value > VARINT_MAX as usize {
        return Err(EncodeError::new("a length is above what a variable byte integer can say"));
    }
    let mut value = value;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    Ok(())
}

#[inline]
pub(crate) fn put_u16(value: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn put_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let len = u16::try_from(bytes.len())
        .map_err(|_| EncodeError::new("a string or binary field is longer than 65,535 bytes"))?;
    put_u16(len, out);
    out.extend_from_slice(bytes);
    Ok(())
}

pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if has_nul(text.as_bytes()) {
        return Err(EncodeError::new("a string holds the character U+0000")); // [MQTT-1.5.4-2]
    }
    put_binary(text.as_bytes(), out)
}

/// Writes one packet: `first` byte, remaining length, and the body that `body` appends. Leaves `out` as it was
/// on error.
pub(crate) fn put_packet(
    first: u8,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(first);
    let result = put_prefixed(out, body);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends what `body` appends, with its length as a variable byte integer in front.
pub(crate) fn put_prefixed(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    // Nearly every body is shorter than 128 bytes: leave one byte for its length, make room when it is not.
    let at = out.len();
    out.push(0);
    body(out)?;
    let len = out.len() - at - 1;
    let mut prefix = Vec::new();
    match u8::try_from(len) {
        Ok(short @ 0..=0x7f) => out[at] = short,
        _ => {
            put_varint(len, &mut prefix)?;
            out.splice(at..=at, prefix);
        }
    }
    Ok(())
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Not zero exactly when one of the eight bytes is zero.
#[inline]
const fn zero_byte(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

#[inline]
pub(crate) fn has_nul(bytes: &[u8]) -> bool {
    any_byte(bytes, zero_byte, |byte| byte == 0)
}

/// Whether all is ASCII without U+0000, and thus a string that needs no closer look.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    !any_byte(bytes, |word| zero_byte(word) | (word & HIGH), |byte| byte == 0 || byte >= 0x80)
}

/// Whether there is a U+0000, `+` or `#`: what a topic name may not hold.
#[inline]
pub(crate) fn has_nul_or_wildcard(bytes: &[u8]) -> bool {
    // '+' is 0x2b and '#' is 0x23: setting bit 3 makes them one.
    any_byte(
        bytes,
        |word| zero_byte(word) | zero_byte((word | (LOW * 0x08)) ^ (LOW * 0x2b)),
        |byte| matches!(byte, 0 | b'+' | b'#'),
    )
}

/// Looks at eight bytes at a time, and at the last ones once more rather than one by one.
#[inline(always)]
fn any_byte(bytes: &[u8], in_word: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().fold(false, |found, &byte| found | is(byte));
    };
    let (words, _) = bytes.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| found | in_word(u64::from_ne_bytes(*word)));
    found | in_word(u64::from_ne_bytes(*last)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits of v5 table 1-1.
    #[test]
    fn variable_byte_integers_are_as_long_as_the_standard_says() {
        for (value, len) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (2_097_151, 3),
            (2_097_152, 4),
            (268_435_455, 4),
        ] {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes).unwrap();
            assert_eq!((bytes.len(), varint_len(value)), (len, len));
            assert_eq!(read_varint(&bytes), Ok(Some((value as u32, len))));
            assert_eq!(Reader::new(&bytes).varint(), Ok(value as u32));
            for cut in 0..len {
                assert_eq!(read_varint(&bytes[..cut]), Ok(None));
                assert!(Reader::new(&bytes[..cut]).varint().is_err());
            }
        }
        assert!(put_varint(268_435_456, &mut Vec::new()).is_err());
        assert!(read_varint(&[128, 128, 128, 128]).is_err());
    }

    /// [MQTT-1.5.5-1]
    #[test]
    fn a_variable_byte_integer_with_a_byte_too_many_is_refused() {
        for overlong in [&[0x80, 0][..], &[0xff, 0], &[0x80, 0x80, 0], &[0xff, 0xff, 0xff, 0]] {
            assert_eq!(Reader::new(overlong).varint(), Err(OVERLONG));
        }
        assert_eq!(Reader::new(&[0x80, 0x80, 1]).varint(), Ok(16_384));
    }

    #[test]
    fn every_byte_of_every_length_is_looked_at() {
        for len in 1..40 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(has_nul(&bytes), byte == 0);
                    assert_eq!(has_nul_or_wildcard(&bytes), matches!(byte, 0 | b'+' | b'#'));
                    assert_eq!(is_plain(&bytes), (1..0x80).contains(&byte));
                }
            }
        }
        assert!(!has_nul(b"") && !has_nul_or_wildcard(b"") && is_plain(b""));
    }

    #[test]
    fn bytes_next_to_each_other_do_not_hide_one_another() {
        for pair in 0..=u16::MAX {
            let [first, second] = pair.to_be_bytes();
            let bytes = [b'a', first, second, b'a', b'a', first, second, first, second];
            assert_eq!(has_nul(&bytes), first == 0 || second == 0);
            let forbidden = |byte| matches!(byte, 0 | b'+' | b'#');
            assert_eq!(has_nul_or_wildcard(&bytes), forbidden(first) || forbidden(second));
        }
    }

    #[test]
    fn strings_are_checked_whether_they_are_kept_or_only_passed_over() {
        for (bytes, good) in [
            (&b""[..], true),
            (b"plain", true),
            ("\u{feff}größer".as_bytes(), true),
            (b"a\0", false),
            (b"a long one with \0", false),
            (b"\xed\xa0\x80", false),
            (b"not UTF-8 at the end \xc3", false),
        ] {
            let mut field = Vec::new();
            put_binary(bytes, &mut field).unwrap();
            assert_eq!(Reader::new(&field).text().is_ok(), good);
            assert_eq!(Reader::new(&field).skip_text().is_ok(), good);
        }
    }

    #[test]
    fn a_packet_of_any_length_gets_its_length_in_front_and_a_failed_one_leaves_nothing() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let mut out = b"before".to_vec();
            put_packet(0xd0, &mut out, |out| {
                out.extend(std::iter::repeat_n(7, len));
                Ok(())
            })
            .unwrap();
            assert_eq!(&out[..7], b"before\xd0");
            let (value, digits) = read_varint(&out[7..]).unwrap().unwrap();
            assert_eq!((value as usize, digits), (len, varint_len(len)));
            assert!(out[7 + digits..].iter().all(|byte| *byte == 7) && out.len() == 7 + digits + len);
        }
        let mut out = b"before".to_vec();
        let failed = put_packet(0xd0, &mut out, |out| put_text("a\0", out));
        assert!(failed.is_err() && out == b"before");
    }
}
