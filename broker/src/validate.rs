//! `forebay validate`: what is wrong with resource files, without running anything.

use std::process::ExitCode;

use crate::cli;

/// Prints a line for each finding. Fails when one of them is an error.
pub fn run(options: &cli::Validate) -> ExitCode {
    let loaded = config::load(&options.files);
    for finding in &loaded.findings {
        println!("{finding}");
    }
    let errors = loaded.findings.iter().filter(|finding| finding.is_error()).count();
    if errors > 0 {
        eprintln!("forebay: {errors} {}", if errors == 1 { "error" } else { "errors" });
        return ExitCode::FAILURE;
    }
    let graphs = loaded.plans().len();
    eprintln!(
        "forebay: nothing is wrong; {graphs} {} would run",
        if graphs == 1 { "graph" } else { "graphs" }
    );
    ExitCode::SUCCESS
}
