//! What is fuzzed: each target takes any bytes, and panics where something does not hold what it promises.
//!
//! `cargo fuzz run NAME` in `fuzz/` (nightly Rust) runs them without end; `cargo test -p fuzz-targets` a little each
//! time, over the corpora that are kept and over changes to them.

mod packets;
pub mod random;
mod sessions;
mod texts;
mod topics;

/// A target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("packets", packets::packets),
    ("properties", packets::properties),
    ("topics", topics::topics),
    ("sessions", sessions::sessions),
    ("resources", texts::resources),
    ("definitions", texts::definitions),
    ("state_store", texts::state_store),
    ("passwords", forebay::fuzzing::passwords),
    ("web_frames", forebay::fuzzing::web_frames),
];

/// Runs the target of this name.
///
/// # Panics
/// Where there is none, or something does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a target of this name").1(data);
}
