//! What is fuzzed of this package: each function takes any bytes, and panics where something does not hold what it promises.

use crate::auth::{PasswordFile, PasswordHash};
use crate::transport::frames;

/// Password files: read or refused with a line that is there, and a hash that was read is written as it was.
pub fn passwords(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err((line, fault)) = PasswordFile::parse(text) {
        assert!((1..=text.lines().count()).contains(&line) && !fault.contains('\n'), "{line}: {fault}");
    }
    for line in text.lines() {
        let Some((_, hash)) = line.split_once(':') else { continue };
        if let Some(written) = PasswordHash::again(hash) {
            assert_eq!(PasswordHash::again(&written).as_deref(), Some(&*written), "{hash}");
        }
    }
}

/// WebSocket frames: the same payload and the same end, in whatever pieces they come.
pub fn web_frames(data: &[u8]) {
    let whole = frames(data, data.len().max(1), 4096);
    for (piece, room) in [(1, 1), (3, 64), (64, 5)] {
        let pieces = frames(data, piece, room);
        assert_eq!(whole, pieces, "in pieces of {piece} into {room}");
    }
}
