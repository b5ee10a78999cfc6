//! `forebay validate`: what is wrong with resource files, without running anything.

use std::process::ExitCode;

use crate::{cli, listener};

/// Prints a line for each finding. Fails when one of them is an error.
pub fn run(options: &cli::Validate) -> ExitCode {
    let loaded = config::load(&options.files);
    for finding in &loaded.findings {
        println!("{finding}");
    }
    let faults = listener::check(&loaded);
    for fault in &faults {
        println!("error: {fault}");
    }
    if loaded.has_errors() || !faults.is_empty() {
        return ExitCode::FAILURE;
    }
    let graphs = loaded.plans().len();
    eprintln!(
        "forebay: nothing is wrong; {graphs} {} would run",
        if graphs == 1 { "graph" } else { "graphs" }
    );
    ExitCode::SUCCESS
}
