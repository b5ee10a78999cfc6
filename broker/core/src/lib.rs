//! MQTT without I/O: bytes, `now` and limits in; packets, routes and actions out.
//!
//! Nothing here opens a socket or a file, reads a clock, spawns a task or knows that graphs exist.

pub mod packet;
pub mod topic;
