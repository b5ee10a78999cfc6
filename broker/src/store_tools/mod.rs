//! `forebay store`: looking into a store that no broker has open.

mod check;
mod export;
mod stats;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use broker_store::{Inspection, OpenError, RealDisk};

use crate::cli;
use crate::persistence;

/// What keeps a tool from its work.
#[derive(Debug, thiserror::Error)]
enum ToolError {
    /// The store cannot be looked into.
    #[error("{error}{}", hint(error))]
    Open {
        /// Why.
        error: OpenError,
    },
    /// It cannot be read, or the result not be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<OpenError> for ToolError {
    fn from(error: OpenError) -> Self {
        Self::Open { error }
    }
}

fn hint(error: &OpenError) -> &'static str {
    match error {
        OpenError::Locked(_) => {
            "; stop the broker first, look into a copy of the directory, or see its metrics"
        }
        OpenError::Missing(_) => "; --data-dir takes the directory that `serve` was given",
        _ => "",
    }
}

/// Carries out a command. 0: all is well; 1: something is damaged; 2: it cannot look.
pub fn run(command: &cli::Store) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = match command {
        cli::Store::Check(options) => {
            open(&options.data_dir).and_then(|store| Ok(check::print(&store, &options.data_dir, &mut out)?))
        }
        cli::Store::Stats(options) => open(&options.data_dir)
            .and_then(|store| Ok(stats::print(&store, options.output, &mut out).map(|()| true)?)),
        cli::Store::Export(options) => {
            open(&options.data_dir).and_then(|store| Ok(export::print(&store, &mut out)?))
        }
    };
    match done.and_then(|whole| Ok(out.flush().map(|()| whole)?)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read has seen enough.
        Err(ToolError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay: {error}");
            ExitCode::from(2)
        }
    }
}

fn open(data_dir: &Path) -> Result<Inspection, ToolError> {
    let directory = data_dir.join(persistence::DIRECTORY);
    let disk = RealDisk::existing(&directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(directory.display().to_string()),
        _ => OpenError::Io { directory: directory.display().to_string(), doing: "look", error },
    })?;
    Ok(Inspection::open(Arc::new(disk))?)
}

/// A number of bytes for people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 100.0);
    format!("{value:.decimals$} {}", UNITS.get(unit).unwrap_or(&""))
}

/// "1 message", "2 messages".
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_can_be_read() {
        let shown = [0, 1023, 1024, 1536, 150 << 20, 5 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "150 MiB", "5.0 TiB"]);
    }
}
