//! Tools for people who write operators: `forebay test`, `forebay run` and `forebay new`.
//!
//! A graph runs here in this process and under a clock that is moved by hand: no broker, no sockets, nobody
//! else's messages, and a window of ten seconds takes as long as its operators do. What goes in and what comes
//! out are files and lines of JSON ([`envelope`]).
//!
//! Not known here: the broker, its clients and its resources. That is why this is a room of its own; it stays in
//! the binary's crate because nobody else has a use for it.

mod envelope;
mod expected;
mod fixture;
mod input;
mod new;
mod operators;
mod prepared;
mod report;
mod run;
mod test;
mod trial;

pub use new::new;
pub use run::run;
pub use test::test;
