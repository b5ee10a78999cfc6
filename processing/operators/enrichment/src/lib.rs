//! Judges what was measured in one window by what the state store remembers, and lets it remember more.
//!
//! Behaviour: AIO.md §3, "enrichment".

mod map;
mod memory;
