//! Keys that outlive the process: whoever embeds the store may have changes written down before they take effect.

use std::sync::Arc;
use std::time::Duration;

use processing_core::time::Hlc;

use super::StoreError;

/// Writes changes down. Called with the store locked, so that changes of one key are written in their order: it must not
/// wait.
pub trait Journal: Send + Sync {
    /// Whether this key is kept; `asked` says that the request wants it.
    fn keeps(&self, key: &[u8], asked: bool) -> bool;
    /// Has a pair written. The number of the record to wait for.
    ///
    /// # Errors
    /// It cannot be written, and is not set then.
    fn set(&self, key: &[u8], pair: &Pair<'_>) -> Result<u64, StoreError>;
    /// Has a key removed. The number of the record to wait for.
    fn delete(&self, key: &[u8]) -> u64;
}

/// What is kept of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Its value.
    pub value: &'a [u8],
    /// The version of that.
    pub version: &'a Hlc,
    /// The fencing token that protects it.
    pub fence: Option<&'a Hlc>,
    /// When it expires, since the Unix epoch.
    pub expires: Option<Duration>,
}

/// The first byte of a pair as it is written down.
const FORM: u8 = 1;

impl Pair<'_> {
    /// As it is written down.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.value.len() + 64);
        out.push(FORM);
        put_time(self.version, &mut out);
        out.push(u8::from(self.fence.is_some()));
        if let Some(fence) = self.fence {
            put_time(fence, &mut out);
        }
        out.push(u8::from(self.expires.is_some()));
        if let Some(expires) = self.expires {
            put_moment(expires, &mut out);
        }
        out.extend_from_slice(self.value);
        out
    }
}

/// A pair that was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPair {
    /// Its value.
    pub value: Vec<u8>,
    /// The version of that.
    pub version: Hlc,
    /// The fencing token that protects it.
    pub fence: Option<Hlc>,
    /// When it expires, since the Unix epoch.
    pub expires: Option<Duration>,
}

impl OwnedPair {
    /// Reads what [`Pair::to_bytes`] made; nothing when it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[FORM])?;
        let version = take_time(&mut rest)?;
        let fence = match take_flag(&mut rest)? {
            true => Some(take_time(&mut rest)?),
            false => None,
        };
        let expires = match take_flag(&mut rest)? {
            true => Some(take_moment(&mut rest)?),
            false => None,
        };
        Some(Self { value: rest.to_vec(), version, fence, expires })
    }
}

fn put_moment(moment: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(&moment.as_secs().to_le_bytes());
    out.extend_from_slice(&moment.subsec_nanos().to_le_bytes());
}

fn put_time(time: &Hlc, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.secs.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
    out.extend_from_slice(&time.counter.to_le_bytes());
    let node = time.node.as_bytes();
    out.extend_from_slice(&u32::try_from(node.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(node);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn take_flag(rest: &mut &[u8]) -> Option<bool> {
    match take::<1>(rest)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

fn take_moment(rest: &mut &[u8]) -> Option<Duration> {
    let (secs, nanos) = (u64::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?));
    (nanos < 1_000_000_000).then(|| Duration::new(secs, nanos))
}

fn take_time(rest: &mut &[u8]) -> Option<Hlc> {
    let secs = u64::from_le_bytes(take(rest)?);
    let nanos = u32::from_le_bytes(take(rest)?);
    let counter = u64::from_le_bytes(take(rest)?);
    let length = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
    let (node, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(Hlc { secs, nanos, counter, node: Arc::from(std::str::from_utf8(node).ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_read_as_it_was_written_and_nothing_else_is() {
        let version = Hlc { secs: 5, nanos: 7, counter: u64::MAX, node: "StateStore".into() };
        let fence = Hlc { secs: 4, nanos: 0, counter: 0, node: "".into() };
        for fence in [None, Some(&fence)] {
            for expires in [None, Some(Duration::new(9, 999_999_999))] {
                let pair = Pair { value: b"v\0", version: &version, fence, expires };
                let bytes = pair.to_bytes();
                let read = OwnedPair::from_bytes(&bytes).unwrap();
                assert_eq!((&read.value[..], &read.version), (pair.value, &version));
                assert_eq!((read.fence.as_ref(), read.expires), (fence, expires));
                for cut in 0..bytes.len() - 2 {
                    assert_eq!(OwnedPair::from_bytes(&bytes[..cut]), None, "{cut}");
                }
            }
        }
        assert_eq!(OwnedPair::from_bytes(&[2, 0, 0]), None);
    }
}
