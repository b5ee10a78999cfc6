//! `forebay validate`: what is wrong with resource files, without running anything.

use std::process::ExitCode;

use crate::cli;

/// Prints a line for each finding. Fails when one of them is an error.
pub fn run(options: &cli::Validate) -> ExitCode {
    let loaded = config::load(&options.files);
    for finding in &loaded.findings {
        println!("{finding}");
    }
    if loaded.has_errors() {
        return ExitCode::FAILURE;
    }
    let graphs = loaded.plans().len();
    eprintln!(
        "forebay: nothing is wrong; {graphs} {} would run",
        if graphs == 1 { "graph" } else { "graphs" }
    );
    ExitCode::SUCCESS
}
