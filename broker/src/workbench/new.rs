//! `forebay new operator`: a project that builds and passes its own first test.

use std::process::ExitCode;

use crate::cli;

/// Makes the project.
pub fn new(options: &cli::NewOperator) -> ExitCode {
    let _ = options;
    ExitCode::FAILURE
}
