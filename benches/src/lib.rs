//! Benchmarks: forebay beside its peers, in one run, on the same load.
//!
//! `compare` starts each broker as a process of its own, pinned to one core, drives it over TCP from another core and
//! prints rates, broker CPU and ratios. The parts here are the load generator ([`wire`], [`load`], [`latency`],
//! [`idle`]), the processes it is aimed at ([`peer`]) and the arithmetic of the table ([`report`]).
//!
//! Does not know: any broker's code. Everything is bytes on a socket and files under `/proc`, so that what is measured is
//! what a client would see, and no broker gains from sharing code with the load. Only `bin/micro` calls into forebay.

pub mod disk;
pub mod idle;
pub mod latency;
pub mod load;
pub mod peer;
pub mod report;
pub mod scenario;
pub mod wire;

/// Why a run could not be measured. Benchmarks have one reader, a person: a sentence is enough.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What every fallible step of a benchmark returns.
pub type Result<T> = std::result::Result<T, Error>;
