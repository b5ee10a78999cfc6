//! The log: to standard error, at a level that a Broker may set, and its last lines for `forebay logs`.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use config::resource::Resource;
use config::resource::broker::Broker;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept.
const LINES_MAX: usize = 2_000;
/// Longer ones are cut.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Libraries that tell of their own steps do so only when something is wrong.
const ALWAYS: &str =
    "delta_kernel=warn,delta_kernel_default_engine=warn,deltalake_core=warn,object_store=warn";

/// What operators say whose graph has a level of its own: all of it may pass here.
const OPERATORS: &str = "operator=trace";

/// Says anew what is logged.
static LEVEL: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Begins to log as a broker does, or at this level only if one is named; or as the environment's `FOREBAY_LOG` says, whatever
/// anybody else says later.
pub fn start(level: Option<&str>) {
    let said = EnvFilter::try_from_env("FOREBAY_LOG").ok();
    let is_said = said.is_some();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(said.unwrap_or_else(|| match level {
            Some(level) => directives(level),
            None => of_broker("info"),
        }))
        .with_target(false)
        .with_ansi(
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty()),
        )
        .with_writer(Kept)
        .with_filter_reloading();
    if !is_said {
        let handle = subscriber.reload_handle();
        let _ = LEVEL.set(Box::new(move |filter| {
            if let Err(error) = handle.reload(filter) {
                tracing::warn!("the level of the log cannot be changed: {error}");
            }
        }));
    }
    subscriber.init();
}

/// Logs at the level that the Broker names, or what there is without one.
pub fn follow(broker: Option<&Resource<Broker>>) {
    let diagnostics = broker.and_then(|broker| broker.spec.diagnostics.as_ref());
    let level = diagnostics.map_or("info", |diagnostics| diagnostics.logs.level.0.as_str());
    if let Some(set) = LEVEL.get() {
        set(of_broker(level));
    }
}

fn of_broker(level: &str) -> EnvFilter {
    directives(&format!("{level},{OPERATORS}"))
}

/// A level, and directives behind it (AIO.md §5.6); those that are none are left out.
fn directives(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{},{ALWAYS}", level.replace(';', ",")))
}

static RING: Mutex<Ring> = Mutex::new(Ring { next: 0, lines: VecDeque::new() });

struct Ring {
    /// The number of the next line.
    next: u64,
    lines: VecDeque<String>,
}

/// Some lines of the log.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lines {
    /// Where to go on.
    pub next: u64,
    /// The lines.
    pub lines: Vec<String>,
}

/// The lines from this number on that are still kept; of one graph only, if one is named.
pub fn since(number: u64, graph: Option<&str>) -> Lines {
    let ring = RING.lock();
    let first = ring.next - ring.lines.len() as u64;
    let skipped = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
    // As `tracing` writes fields: `graph=name`, or in quotes.
    let wanted = graph.map(|graph| [format!("graph={graph}"), format!("graph=\"{graph}\"")]);
    let of_graph = |line: &&String| {
        wanted.as_ref().is_none_or(|wanted| {
            line.split([' ', '}', ':'])
                .any(|word| wanted.iter().any(|wanted| word.trim_end_matches(',') == wanted))
        })
    };
    let lines = ring.lines.iter().skip(skipped).filter(of_graph).cloned().collect();
    Lines { next: ring.next, lines }
}

fn keep(text: &[u8]) {
    let text = without_colours(&String::from_utf8_lossy(text));
    let mut ring = RING.lock();
    for line in text.lines() {
        if ring.lines.len() == LINES_MAX {
            ring.lines.pop_front();
        }
        let end = line.floor_char_boundary(LINE_BYTES_MAX);
        ring.lines.push_back(line[..end].to_owned());
        ring.next += 1;
    }
}

/// A text without the sequences that colour terminals.
fn without_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}

/// Writes to standard error, and keeps what it writes.
pub struct Kept;

impl MakeWriter<'_> for Kept {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::new())
    }
}

/// What is written for one event.
pub struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nobody can be told that nobody can be told.
        let _ = io::stderr().write_all(&self.0);
        keep(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_without_colours_and_found_by_their_graph() {
        keep(b"\x1b[2m10:00\x1b[0m \x1b[33mWARN\x1b[0m slow graph=one\nother graph=\"two\" x=1\n");
        let all = since(0, None);
        assert!(all.lines.iter().any(|line| line == "10:00 WARN slow graph=one"), "{all:?}");
        assert_eq!(since(0, Some("two")).lines, ["other graph=\"two\" x=1"]);
        assert!(since(all.next, None).lines.is_empty() && since(0, Some("on")).lines.is_empty());
    }
}
