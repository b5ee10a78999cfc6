//! Bytes on their way to one client, in order: small packets in one buffer, large payloads by reference.

use bytes::Bytes;

/// Payloads from this size on are sent from where they lie instead of being copied.
pub const SHARE_BYTES_MIN: usize = 8 * 1024;

/// What waits to be written to one client.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Payloads that stand behind `bytes[..position]`.
    shared: Vec<(usize, Bytes)>,
    shared_len: usize,
}

impl Outbox {
    /// The buffer that packets are encoded into.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Adds a payload that is not copied.
    pub fn push_shared(&mut self, payload: Bytes) {
        self.shared_len += payload.len();
        self.shared.push((self.bytes.len(), payload));
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_len
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_empty()
    }

    /// Takes what waits, to be written without holding any lock; `recycled` becomes the next buffer.
    pub fn take(&mut self, mut recycled: Vec<u8>) -> Outgoing {
        recycled.clear();
        let bytes = std::mem::replace(&mut self.bytes, recycled);
        let left = bytes.len() + self.shared_len;
        self.shared_len = 0;
        Outgoing { bytes, shared: std::mem::take(&mut self.shared), written: 0, left }
    }

    /// Forgets everything, as when the connection is gone.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What is being written: survives partial writes.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    shared: Vec<(usize, Bytes)>,
    /// Logical bytes written so far.
    written: usize,
    left: usize,
}

impl Outgoing {
    /// Bytes still to write.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Notes that `n` more bytes went out.
    pub fn advance(&mut self, n: usize) {
        self.written += n;
        self.left -= n.min(self.left);
    }

    /// The slices still to write, at most `max` of them, handed to `each` in order.
    pub fn slices<'a>(&'a self, max: usize, mut each: impl FnMut(&'a [u8])) {
        let mut skip = self.written;
        let mut from = 0;
        let mut count = 0;
        let mut give = |slice: &'a [u8]| {
            if count == max || slice.is_empty() {
                return;
            }
            let cut = skip.min(slice.len());
            skip -= cut;
            if cut < slice.len() {
                each(&slice[cut..]);
                count += 1;
            }
        };
        for (at, payload) in &self.shared {
            give(&self.bytes[from..*at]);
            give(payload);
            from = *at;
        }
        give(&self.bytes[from..]);
    }

    /// Nothing lies between the encoded bytes: the usual case, one plain write.
    pub fn contiguous(&self) -> Option<&[u8]> {
        self.shared.is_empty().then(|| &self.bytes[self.written.min(self.bytes.len())..])
    }

    /// The buffer, for the next round.
    pub fn recycle(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(outgoing: &Outgoing, max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        outgoing.slices(max, |slice| all.extend_from_slice(slice));
        all
    }

    #[test]
    fn shared_payloads_keep_their_place_through_partial_writes() {
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(b"ab");
        outbox.push_shared(Bytes::from_static(b"CDE"));
        outbox.push_shared(Bytes::from_static(b"F"));
        outbox.buffer().extend_from_slice(b"gh");
        assert_eq!(outbox.len(), 8);
        let mut outgoing = outbox.take(Vec::new());
        assert!(outbox.is_empty());
        let whole = b"abCDEFgh";
        for n in 0..8 {
            assert_eq!(written(&outgoing, 64), &whole[n..]);
            assert_eq!(outgoing.left(), 8 - n);
            outgoing.advance(1);
        }
        assert_eq!(outgoing.left(), 0);
    }

    #[test]
    fn at_most_so_many_slices_are_given_and_none_is_skipped() {
        let mut outbox = Outbox::default();
        for _ in 0..4 {
            outbox.buffer().push(b'x');
            outbox.push_shared(Bytes::from_static(b"yz"));
        }
        let mut outgoing = outbox.take(Vec::new());
        let mut all = Vec::new();
        while outgoing.left() > 0 {
            let part = written(&outgoing, 3);
            outgoing.advance(part.len());
            all.extend(part);
        }
        assert_eq!(all, b"xyzxyzxyzxyz");
    }
}
